#include "gate/brief.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char more[] = "; and more";

struct brief {
    char *text;
    size_t len;
    bool full;
};

static void __attribute__((format(printf, 2, 3))) say(struct brief *b, const char *fmt, ...)
{
    char one[320];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(one, sizeof(one), fmt, ap);
    va_end(ap);
    size_t room = BRIEF_MAX - sizeof(more) - b->len, len = strlen(one) + 2;
    if (b->full || len > room) {
        if (!b->full) {
            memcpy(b->text + b->len, more, sizeof(more));
        }
        b->full = true;
        return;
    }
    b->len += (size_t)snprintf(b->text + b->len, BRIEF_MAX - b->len, "%s%s", b->len > 0 ? "; " : "", one);
}

static void say_word(struct brief *b, const char *key, const char *from, const char *to)
{
    if (strcmp(from, to) != 0) {
        say(b, "%s: %s to %s", key, from, to);
    }
}

static void say_prefixes(struct brief *b, const char *class_, const char *what, const struct config_prefixes *from,
                         const struct config_prefixes *to)
{
    const char *head = class_ != NULL ? "class " : "", *name = class_ != NULL ? class_ : "",
               *tail = class_ != NULL ? ": " : "";
    if (from->count != to->count) {
        say(b, "%s%s%s%zu %s instead of %zu", head, name, tail, to->count, what, from->count);
    } else if (from->count > 0 && memcmp(from->list, to->list, from->count * sizeof(from->list[0])) != 0) {
        say(b, "%s%s%sother %s, %zu as before", head, name, tail, what, to->count);
    }
}

static void say_interfaces(struct brief *b, const char *key, const struct config_strings *from,
                           const struct config_strings *to)
{
    bool same = from->count == to->count;
    for (size_t i = 0; same && i < from->count; i++) {
        same = strcmp(from->list[i], to->list[i]) == 0;
    }
    if (!same) {
        say(b, "other %s", key);
    }
}

static void rule_of(const struct config_gate_class *c, char text[static 32])
{
    static const char *const words[] = {
        [PORT25_ALLOW] = "allow", [PORT25_DENY] = "deny", [PORT25_MONITOR] = "monitor", [PORT25_RATE] = "rate"};
    if (c->port25 == PORT25_RATE) {
        (void)snprintf(text, 32, "rate %u/%llus", c->rate, (unsigned long long)(c->rate_window_ms / 1000));
    } else {
        (void)snprintf(text, 32, "%s", words[c->port25]);
    }
}

static const struct config_gate_class *class_of(const struct config_gate *g, const char *name)
{
    for (size_t i = 0; i < g->classes_count; i++) {
        if (strcmp(g->classes[i].name, name) == 0) {
            return &g->classes[i];
        }
    }
    return NULL;
}

static void say_class(struct brief *b, const struct config_gate_class *from, const struct config_gate_class *to)
{
    char was[32], is[32];
    rule_of(from, was);
    rule_of(to, is);
    if (strcmp(was, is) != 0) {
        say(b, "class %s: %s to %s", to->name, was, is);
    }
    say_prefixes(b, to->name, "prefixes", &from->prefixes, &to->prefixes);
    say_prefixes(b, to->name, "destinations", &from->to, &to->to);
}

static void say_classes(struct brief *b, const struct config_gate *from, const struct config_gate *to)
{
    char is[32];
    for (size_t i = 0; i < to->classes_count; i++) {
        const struct config_gate_class *old = class_of(from, to->classes[i].name);
        if (old != NULL) {
            say_class(b, old, &to->classes[i]);
        } else {
            rule_of(&to->classes[i], is);
            say(b, "class %s is new: %s, %zu prefixes", to->classes[i].name, is, to->classes[i].prefixes.count);
        }
    }
    for (size_t i = 0; i < from->classes_count; i++) {
        if (class_of(to, from->classes[i].name) == NULL) {
            say(b, "class %s is gone", from->classes[i].name);
        }
    }
}

void brief_changes(const struct config_gate *from, const struct config_gate *to, char ret[static BRIEF_MAX])
{
    static const char *const refusals[] = {
        [GATE_TCP_RESET] = "tcp-reset", [GATE_ICMP_PROHIBITED] = "icmp-prohibited", [GATE_DROP] = "drop"};
    static const char *const defaults[] = {
        [PORT25_ALLOW] = "allow", [PORT25_DENY] = "deny", [PORT25_MONITOR] = "monitor"};
    struct brief b = {.text = ret};
    ret[0] = '\0';
    say_word(&b, "mode", from->monitor ? "monitor" : "enforce", to->monitor ? "monitor" : "enforce");
    say_word(&b, "default", defaults[from->default_], defaults[to->default_]);
    say_word(&b, "refuse_with", refusals[from->refuse_with], refusals[to->refuse_with]);
    say_word(&b, "return_path", from->return_path_allow ? "allow" : "drop", to->return_path_allow ? "allow" : "drop");
    say_word(&b, "inbound", from->inbound_deny ? "deny" : "allow", to->inbound_deny ? "deny" : "allow");
    say_interfaces(&b, "subscriber_interfaces", &from->subscriber_interfaces, &to->subscriber_interfaces);
    say_interfaces(&b, "uplink_interfaces", &from->uplink_interfaces, &to->uplink_interfaces);
    say_prefixes(&b, NULL, "allow_to", &from->allow_to, &to->allow_to);
    say_prefixes(&b, NULL, "dynamic_ranges", &from->dynamic_ranges, &to->dynamic_ranges);
    say_prefixes(&b, NULL, "tunnel_endpoints", &from->tunnel_endpoints, &to->tunnel_endpoints);
    say_classes(&b, from, to);
}

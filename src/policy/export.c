#include "policy/export.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "policy/export_int.h"

#define NAME_LETTERS 16
/* Routers hold a few thousand FlowSpec rules. */
#define FLOWSPEC_MAX 3000
/* And their filters tens of thousands of prefixes and terms. */
#define FILTER_MAX 20000
#define NS_PER_S   UINT64_C(1000000000)

const struct export_target export_targets[] = {
    {"nft", 0, export_nft},
    {"flowspec", FLOWSPEC_MAX, export_flowspec},
    {"junos", FILTER_MAX, export_junos},
    {"iosxr", FILTER_MAX, export_iosxr},
    {"routeros", 0, export_routeros},
    {NULL, 0, NULL},
};

int export_write(const char *target, const struct export_input *in, struct buf *out)
{
    for (const struct export_target *t = export_targets; t->name != NULL; t++) {
        if (strcmp(t->name, target) == 0) {
            return t->write(in, out, in->budget > 0 ? in->budget : t->budget);
        }
    }
    return -ENOENT;
}

__attribute__((format(printf, 2, 0))) static void append(struct export_text *t, const char *fmt, va_list ap)
{
    char line[1024];
    (void)vsnprintf(line, sizeof(line), fmt, ap);
    if (t->error == 0) {
        t->error = buf_append_str(t->out, line);
    }
}

void export_say(struct export_text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    append(t, fmt, ap);
    va_end(ap);
}

void export_note(struct export_text *t, const char *fmt, ...)
{
    va_list ap;
    export_say(t, "%s", t->comment);
    va_start(ap, fmt);
    append(t, fmt, ap);
    va_end(ap);
    export_say(t, "\n");
}

void export_count(struct export_text *t)
{
    t->rules++;
    if (t->budget > 0 && t->rules > t->budget && t->error == 0) {
        t->error = -E2BIG;
    }
}

void export_name(const struct export_text *t, size_t class_, char name[static EXPORT_NAME])
{
    const char *from = t->in->policy->classes[class_].name;
    int len = class_ == 0 ? 0 : snprintf(name, EXPORT_NAME, "c%zu-", class_);
    for (size_t i = 0; i < NAME_LETTERS && from[i] != '\0'; i++) {
        name[len++] = isalnum((unsigned char)from[i]) != 0 && (unsigned char)from[i] < 0x80 ? from[i] : '-';
    }
    name[len] = '\0';
}

void export_head(struct export_text *t, const char *title)
{
    const struct policy *p = t->in->policy;
    char when[24];
    export_time(t->in->now_wall_ms, when);
    export_note(t, "%s", title);
    export_note(t, "Made at %s by kidoban export.", when);
    if ((p->flags & BLOB_MODE_MONITOR) != 0) {
        export_note(t, "mode: monitor: nothing is refused.");
    }
    if ((p->flags & BLOB_TUNNELS) != 0) {
        export_note(t, "not said: tunnel_endpoints: packets are judged where the tunnel has ended, not within it.");
    }
    for (size_t i = 0; i < p->exemptions_count; i++) {
        const struct policy_exemption *e = &p->exemptions[i];
        char prefix[POLICY_PREFIX_TEXT];
        if (e->until_ns == POLICY_NO_END || e->until_ns <= t->in->now_boot_ns) {
            continue;
        }
        policy_prefix_format(&e->prefix, prefix);
        export_time(e->until_wall_ms, when);
        export_note(t, "Exemption %llu of %s ends at %s.", (unsigned long long)e->id, prefix, when);
    }
}

bool export_restricts(const struct export_text *t, size_t class_)
{
    return t->in->policy->classes[class_].rule != BLOB_ALLOW;
}

bool export_has_set(const struct export_text *t, unsigned set)
{
    for (size_t i = 0; i < t->in->policy->destinations_count; i++) {
        if (t->in->policy->destinations[i].set == set) {
            return true;
        }
    }
    return false;
}

/* Lists */

struct wanted {
    const struct export_text *text;
    uint32_t number;
};

static uint32_t map_class(const void *arg, uint32_t leaf)
{
    const struct wanted *w = arg;
    return BLOB_CLASS(leaf) == w->number ? 1 : 0;
}

static uint32_t map_exempt(const void *arg, uint32_t leaf)
{
    const struct wanted *w = arg;
    uint32_t e = BLOB_EXEMPTION(leaf);
    const struct export_input *in = w->text->in;
    return e != 0 && in->policy->exemptions[e - 1].until_ns > in->now_boot_ns ? e : 0;
}

static uint32_t map_set(const void *arg, uint32_t leaf)
{
    const struct wanted *w = arg;
    return leaf >> w->number & 1;
}

static void each_range(struct export_text *t, uint32_t number, bool v6, bool destinations,
                       uint32_t (*map)(const void *arg, uint32_t leaf),
                       void (*each)(void *arg, const struct policy_range *r), void *arg)
{
    struct policy_ranges ranges;
    const struct wanted wanted = {.text = t, .number = number};
    int r = t->error;
    if (r == 0) {
        r = destinations ? policy_ranges_of_destinations(t->in->policy, v6, &ranges)
                         : policy_ranges_of_sources(t->in->policy, v6, &ranges);
        t->error = r;
    }
    if (r < 0) {
        return;
    }
    policy_ranges_map(&ranges, map, &wanted);
    for (size_t i = 0; i < ranges.count && t->error == 0; i++) {
        if (ranges.list[i].leaf != 0) {
            each(arg, &ranges.list[i]);
        }
    }
    policy_ranges_fini(&ranges);
}

void export_class_ranges(struct export_text *t, size_t class_, bool v6,
                         void (*each)(void *arg, const struct policy_range *r), void *arg)
{
    each_range(t, (uint32_t)class_, v6, false, map_class, each, arg);
}

void export_exempt_ranges(struct export_text *t, bool v6, void (*each)(void *arg, const struct policy_range *r),
                          void *arg)
{
    each_range(t, 0, v6, false, map_exempt, each, arg);
}

void export_set_ranges(struct export_text *t, unsigned set, bool v6,
                       void (*each)(void *arg, const struct policy_range *r), void *arg)
{
    each_range(t, set, v6, true, map_set, each, arg);
}

uint64_t export_left_s(const struct export_text *t, const struct policy_exemption *e)
{
    return e->until_ns == POLICY_NO_END ? 0 : (e->until_ns - t->in->now_boot_ns) / NS_PER_S + 1;
}

void export_time(uint64_t wall_ms, char text[static 24])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    if (gmtime_r(&seconds, &tm) == NULL || strftime(text, 24, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        text[0] = '\0';
    }
}

struct policy_address export_address(policy_key k, bool v6)
{
    struct policy_address a = {.v6 = v6};
    for (unsigned i = 0; i < (v6 ? 16U : 4U); i++) {
        a.bytes[i] = (uint8_t)(k >> (POLICY_KEY_BITS - 8 - 8 * i));
    }
    return a;
}

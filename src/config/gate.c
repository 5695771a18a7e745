/*
 * gate: who may use TCP port 25, and where packets are asked.
 */
#include "config/schema.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define INTERFACE_NAME_MAX 15 /* IFNAMSIZ without its NUL */
#define CLASS_NAME_MAX     64
#define RATE_MAX           1000000

static const char *const mode_words[] = {"enforce", "monitor", NULL};
static const char *const refuse_words[] = {"tcp-reset", "icmp-prohibited", "drop", NULL};
static const char *const default_words[] = {"allow", "deny", "monitor", NULL}; /* as enum config_port25 */
static const char *const return_path_words[] = {"drop", "allow", NULL};
static const char *const inbound_words[] = {"allow", "deny", NULL};
static const char *const attach_words[] = {"auto", "native", "generic", "tc", "tcx", NULL};

/* Interfaces */

static bool is_interface(const char *text)
{
    size_t len = strlen(text);
    bool dots = strcmp(text, ".") == 0 || strcmp(text, "..") == 0;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '/' || *p == ':' || !isgraph((unsigned char)*p)) {
            return false;
        }
    }
    return len > 0 && len <= INTERFACE_NAME_MAX && !dots;
}

static void read_interfaces(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                            void *target)
{
    struct config_strings *s = target;
    size_t count = schema_list_count(node);
    s->list = schema_list_room(x, count, sizeof(*s->list));
    for (size_t i = 0; s->list != NULL && i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        const char *text = item->kind == YAML_KIND_VALUE ? item->text : config_yaml_kind_name(item->kind);
        if (item->kind != YAML_KIND_VALUE || !is_interface(text)) {
            schema_complain(x, item->at, "\"%.*s\" is not an interface's name or pattern; write it like %s",
                            schema_shown(text), text, f->example);
            continue;
        }
        s->list[s->count] = strdup(text);
        if (s->list[s->count] == NULL) {
            x->error = -ENOMEM;
            return;
        }
        s->count++;
    }
}

bool config_interface_matches(const char *pattern, const char *name)
{
    const char *star = NULL, *again = NULL;
    while (*name != '\0') {
        if (*pattern == '*') {
            star = ++pattern;
            again = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star != NULL) {
            pattern = star;
            name = ++again;
        } else {
            return false;
        }
    }
    return pattern[strspn(pattern, "*")] == '\0';
}

/* Is there a name that both match? Both are at most INTERFACE_NAME_MAX long. */
static bool patterns_meet(const char *a, const char *b)
{
    if (*a == '\0' && *b == '\0') {
        return true;
    }
    if (*a == '*') {
        return patterns_meet(a + 1, b) || (*b != '\0' && patterns_meet(a, b + 1));
    }
    if (*b == '*') {
        return patterns_meet(b, a);
    }
    return *a != '\0' && *a == *b && patterns_meet(a + 1, b + 1);
}

/* Prefixes */

static void read_prefixes(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                          struct config_prefixes *p, struct config_place **ret_at)
{
    size_t count = schema_list_count(node);
    p->list = schema_list_room(x, count, sizeof(*p->list));
    struct config_place *at = ret_at != NULL ? schema_list_room(x, count, sizeof(*at)) : NULL;
    for (size_t i = 0; x->error == 0 && i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        const char *text = item->kind == YAML_KIND_VALUE ? item->text : config_yaml_kind_name(item->kind);
        const char *wrong =
            item->kind == YAML_KIND_VALUE ? config_gate_prefix_parse(text, &p->list[p->count]) : "is not a prefix";
        if (wrong != NULL) {
            schema_complain(x, item->at, "\"%.*s\" %s; write it like %s", schema_shown(text), text, wrong, f->example);
            continue;
        }
        if (at != NULL) {
            at[p->count] = item->at;
        }
        p->count++;
    }
    if (ret_at != NULL) {
        *ret_at = at;
    }
}

static void read_plain_prefixes(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                                void *target)
{
    read_prefixes(x, f, node, target, NULL);
}

/* Nobody means an empty list, and read as "everywhere" or "nowhere" it would surprise either way. */
static void read_scope(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                       void *target)
{
    struct config_gate_class *c = target;
    read_prefixes(x, f, node, &c->to, NULL);
    if (node != NULL && schema_list_count(node) == 0) {
        schema_complain(x, node->at, "\"to\" is empty; leave it out for every destination, or write it like %s",
                        f->example);
    }
}

/* Classes */

static void read_class_prefixes(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                                void *target)
{
    struct config_gate_class *c = target;
    read_prefixes(x, f, node, &c->prefixes, &c->prefixes_at);
    c->prefixes_inline = c->prefixes.count;
}

static void read_class_file(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                            void *target)
{
    struct config_gate_class *c = target;
    schema_path_at(x, f, node, &c->prefixes_file, &c->prefixes_file_at);
}

/* "rate 10/h" */
static bool parse_rate(const char *text, struct config_gate_class *c)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"s", SECOND}, {"m", MINUTE}, {"h", HOUR}, {"d", DAY}};
    static const char word[] = "rate ";
    const char *slash = strchr(text, '/');
    char number[16];
    uint64_t n;
    if (strncmp(text, word, sizeof(word) - 1) != 0 || slash == NULL) {
        return false;
    }
    const char *digits = text + sizeof(word) - 1;
    size_t len = (size_t)(slash - digits);
    if (slash < digits || len >= sizeof(number)) {
        return false;
    }
    memcpy(number, digits, len);
    number[len] = '\0';
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(slash + 1, units[i].unit) == 0 && schema_number(number, &n) && n >= 1 && n <= RATE_MAX) {
            c->port25 = PORT25_RATE;
            c->rate = (uint32_t)n;
            c->rate_window_ms = units[i].ms;
            return true;
        }
    }
    return false;
}

static void read_port25(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                        void *target)
{
    struct config_gate_class *c = target;
    const char *text = node == NULL ? NULL : node->kind == YAML_KIND_VALUE ? node->text : "";
    for (int i = 0; text != NULL && default_words[i] != NULL; i++) {
        if (strcmp(text, default_words[i]) == 0) {
            c->port25 = (enum config_port25)i;
            return;
        }
    }
    if (text != NULL && !parse_rate(text, c)) {
        schema_complain(x, node->at,
                        "\"%s\" should be allow, deny, monitor or new connections in a time (1 to %u a second, minute, "
                        "hour or day), like \"rate 10/h\"",
                        f->key, RATE_MAX);
    }
}

static void read_class_name(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                            void *target)
{
    struct config_gate_class *c = target;
    schema_string(x, f, node, &c->name);
    if (c->name != NULL && (strlen(c->name) > CLASS_NAME_MAX || strcmp(c->name, "default") == 0)) {
        schema_complain(
            x, node->at,
            "a class cannot be called \"%.*s\"; take at most %d octets, and not \"default\": that is who is in "
            "no class",
            schema_shown(c->name), c->name, CLASS_NAME_MAX);
    }
}

static const struct schema_field class_fields[] = {
    {"name", read_class_name, 0, .required = true, .example = "dynamic"},
    {"port25", read_port25, 0, .required = true, .example = "deny"},
    {"prefixes", read_class_prefixes, 0, .example = "[198.51.100.0/22, \"2001:db8:100::/40\"]"},
    {"prefixes_file", read_class_file, 0, .example = "/etc/kidoban/dynamic.prefixes"},
    {"to", read_scope, 0, .example = "[192.0.2.25, \"2001:db8::25\"]"},
    END_OF_FIELDS,
};

static int compare_names(const void *a, const void *b)
{
    const struct config_gate_class *x = *(const struct config_gate_class *const *)a;
    const struct config_gate_class *y = *(const struct config_gate_class *const *)b;
    int names = strcmp(x->name, y->name);
    return names != 0 ? names : x < y ? -1 : x > y;
}

static void check_names(struct schema_context *x, const struct config_gate *g)
{
    const struct config_gate_class **sorted = calloc(g->classes_count + 1, sizeof(*sorted));
    size_t count = 0;
    if (sorted == NULL) {
        x->error = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < g->classes_count; i++) {
        if (g->classes[i].name != NULL) {
            sorted[count++] = &g->classes[i];
        }
    }
    qsort(sorted, count, sizeof(*sorted), compare_names);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(sorted[i]->name, sorted[i - 1]->name) == 0) {
            schema_complain(x, sorted[i]->at,
                            "two classes are called \"%s\", the other in line %zu; each needs its own name",
                            sorted[i]->name, sorted[i - 1]->at.line);
        }
    }
    free(sorted);
}

static void read_classes(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                         void *target)
{
    struct config_gate *g = &((struct config *)target)->gate;
    size_t count = schema_list_count(node);
    if (count > CONFIG_GATE_CLASSES_MAX) {
        schema_complain(x, node->at, "there are %zu classes; the gate holds %d", count, CONFIG_GATE_CLASSES_MAX);
        return;
    }
    g->classes = schema_list_room(x, count, sizeof(*g->classes));
    for (size_t i = 0; g->classes != NULL && i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        if (schema_want_map(x, f, item)) {
            struct config_gate_class *c = &g->classes[g->classes_count++];
            c->at = item->at;
            schema_read_map(x, item, class_fields, c);
        }
    }
    check_names(x, g);
}

static const struct schema_field history_fields[] = {
    {"retention", schema_duration, AT(gate.history_retention_ms), "92d", .min = DAY, .max = 3660 * DAY,
     .example = "92d"},
    {"lines", schema_uint, AT(gate.history_lines), "10000", .min = 100, .max = 200000, .example = "10000"},
    END_OF_FIELDS,
};

const struct schema_field schema_gate_fields[] = {
    {"subscriber_interfaces", read_interfaces, AT(gate.subscriber_interfaces), .example = "[eth1, \"tap*\"]"},
    {"uplink_interfaces", read_interfaces, AT(gate.uplink_interfaces), .example = "[eth0]"},
    {"mode", schema_choice_bool, AT(gate.monitor), "enforce", .words = mode_words},
    {"refuse_with", schema_choice, AT(gate.refuse_with), "tcp-reset", .words = refuse_words},
    {"default", schema_choice, AT(gate.default_), "allow", .words = default_words},
    {"return_path", schema_choice_bool, AT(gate.return_path_allow), "drop", .words = return_path_words},
    {"inbound", schema_choice_bool, AT(gate.inbound_deny), "allow", .words = inbound_words},
    {"dynamic_ranges", read_plain_prefixes, AT(gate.dynamic_ranges), .example = "[192.0.2.0/24, \"2001:db8::/32\"]"},
    {"allow_to", read_plain_prefixes, AT(gate.allow_to), .example = "[192.0.2.25, \"2001:db8::25\"]"},
    {"tunnel_endpoints", read_plain_prefixes, AT(gate.tunnel_endpoints), .example = "[192.0.2.1, \"2001:db8::1\"]"},
    {"attach", schema_choice, AT(gate.attach), "auto", .words = attach_words},
    {"directory", schema_path, AT(processes.gate_directory), .example = "/var/lib/kidoban/gate"},
    {"pins", schema_path, AT(gate.pins), "/sys/fs/bpf/kidoban", .example = "/sys/fs/bpf/kidoban"},
    {"events_per_second", schema_uint, AT(gate.events_per_second), "1", .min = 1, .max = 1000, .example = "1"},
    {"resets_per_second", schema_uint, AT(gate.resets_per_second), "20", .min = 1, .max = 100000, .example = "20"},
    {"history", schema_map, 0, .members = history_fields},
    {"classes", read_classes, 0, .members = class_fields,
     .example = "{name: dynamic, port25: deny, prefixes: [198.51.100.0/22]}"},
    END_OF_FIELDS,
};

static void check_interfaces(struct schema_context *x, const struct config_gate *g, const struct yaml_node *section)
{
    const struct yaml_node *uplinks = config_yaml_member(section, "uplink_interfaces");
    for (size_t i = 0; i < g->uplink_interfaces.count; i++) {
        for (size_t k = 0; k < g->subscriber_interfaces.count; k++) {
            const char *up = g->uplink_interfaces.list[i], *down = g->subscriber_interfaces.list[k];
            if (patterns_meet(up, down)) {
                schema_complain(
                    x, schema_list_item(uplinks, i)->at,
                    "\"%s\" and \"%s\" of subscriber_interfaces can be the same interface; each stands on one "
                    "side",
                    up, down);
            }
        }
    }
    if (uplinks == NULL && config_yaml_member(section, "subscriber_interfaces") == NULL) {
        schema_complain(x, section->at,
                        "no interface is named, so nothing would be refused; write subscriber_interfaces like [eth1, "
                        "\"tap*\"], or [] where the policy is only exported");
    }
}

static void check_class(struct schema_context *x, const struct config_gate_class *c)
{
    if (c->prefixes.count == 0 && c->prefixes_file == NULL) {
        schema_complain(x, c->at, "class \"%s\" has no prefix; write prefixes: %s", c->name, class_fields[2].example);
    }
    if (c->to.count > 0 && c->port25 == PORT25_ALLOW) {
        schema_complain(x, c->at,
                        "class \"%s\" is allowed everywhere: \"to\" says where a class is restricted; leave it out",
                        c->name);
    }
}

void schema_gate_check(struct schema_context *x, const struct config_gate *g, const struct yaml_node *section)
{
    size_t scoped = 0;
    check_interfaces(x, g, section);
    for (size_t i = 0; i < g->classes_count; i++) {
        check_class(x, &g->classes[i]);
        scoped += g->classes[i].to.count > 0 ? 1 : 0;
        if (g->classes[i].to.count > 0 && scoped == CONFIG_GATE_SCOPED_MAX + 1) {
            schema_complain(x, g->classes[i].at,
                            "more than %d classes have \"to\"; put lines with the same destinations "
                            "into one class",
                            CONFIG_GATE_SCOPED_MAX);
        }
    }
    schema_gate_check_prefixes(x, g);
}

void schema_gate_fini(struct config_gate *g)
{
    struct config_strings *names[] = {&g->subscriber_interfaces, &g->uplink_interfaces};
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < names[i]->count; k++) {
            free(names[i]->list[k]);
        }
        free(names[i]->list);
    }
    for (size_t i = 0; i < g->classes_count; i++) {
        free(g->classes[i].name);
        free(g->classes[i].prefixes.list);
        free(g->classes[i].prefixes_at);
        free(g->classes[i].prefixes_file);
        free(g->classes[i].to.list);
    }
    free(g->classes);
    free(g->pins);
    free(g->dynamic_ranges.list);
    free(g->allow_to.list);
    free(g->tunnel_endpoints.list);
}

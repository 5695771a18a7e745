/*
 * limits: how much one account or network may send in which time.
 */
#include "config/schema.h"

#include <errno.h>
#include <string.h>

static const char *const per_words[] = {"account", "network", NULL};
static const char *const count_words[] = {"messages", "recipients", NULL};
static const char *const action_words[] = {"defer", "reject", "hold", NULL};

static bool parse_window(const char *text, struct config_window *ret)
{
    char number[24];
    const char *slash = strchr(text, '/');
    uint64_t limit;
    if (slash == NULL || (size_t)(slash - text) >= sizeof(number)) {
        return false;
    }
    memcpy(number, text, (size_t)(slash - text));
    number[slash - text] = '\0';
    if (!schema_number(number, &limit) || limit < 1 || limit > 100000000 ||
        !schema_duration_parse(slash + 1, &ret->window_ms) || ret->window_ms < SECOND || ret->window_ms > 31 * DAY) {
        return false;
    }
    ret->limit = (uint32_t)limit;
    return true;
}

static void read_windows(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                         void *target)
{
    struct config_limit *l = target;
    size_t count = schema_list_count(node);
    l->windows = schema_list_room(x, count, sizeof(*l->windows));
    for (size_t i = 0; l->windows != NULL && i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        if (item->kind == YAML_KIND_VALUE && parse_window(item->text, &l->windows[l->windows_count])) {
            l->windows_count++;
        } else {
            schema_complain(x, item->at, "not a number in a time (1 to 100000000 in 1s to 31d); write it like %s",
                            f->example);
        }
    }
    if (node != NULL && count == 0) {
        schema_complain(x, node->at, "\"windows\" is empty; write it like %s", f->example);
    }
}

const struct schema_field schema_limit_fields[] = {
    {"name", schema_string, offsetof(struct config_limit, name), .required = true, .example = "hourly"},
    {"per", schema_choice, offsetof(struct config_limit, per), "account", .words = per_words},
    {"count", schema_choice, offsetof(struct config_limit, count), "recipients", .words = count_words},
    {"windows", read_windows, 0, .required = true, .example = "[200/1h, 1000/1d]"},
    {"action", schema_choice, offsetof(struct config_limit, action), "defer", .words = action_words},
    END_OF_FIELDS,
};

/* What a file without "limits" gets: enough for people and their newsletters, too little for a bot. */
static void standard_limits(struct schema_context *x, struct config *c)
{
    static const struct config_window windows[] = {{500, HOUR}, {2000, DAY}};
    c->limits = schema_list_room(x, 1, sizeof(*c->limits));
    if (c->limits == NULL) {
        return;
    }
    c->limits_count = 1;
    c->limits[0].name = strdup("standard");
    x->error = c->limits[0].name == NULL ? -ENOMEM : x->error;
    c->limits[0].count = LIMIT_COUNT_RECIPIENTS;
    c->limits[0].windows = schema_list_room(x, 2, sizeof(windows[0]));
    if (c->limits[0].windows != NULL) {
        memcpy(c->limits[0].windows, windows, sizeof(windows));
        c->limits[0].windows_count = 2;
    }
}

void schema_limits(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    struct config *c = target;
    size_t count = schema_list_count(node);
    if (node == NULL) {
        standard_limits(x, c);
        return;
    }
    c->limits = schema_list_room(x, count, sizeof(*c->limits));
    for (size_t i = 0; c->limits != NULL && i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        if (!schema_want_map(x, f, item)) {
            continue;
        }
        struct config_limit *l = &c->limits[c->limits_count++];
        schema_read_map(x, item, schema_limit_fields, l);
        for (size_t k = 0; l->name != NULL && k + 1 < c->limits_count; k++) {
            if (c->limits[k].name != NULL && strcmp(c->limits[k].name, l->name) == 0) {
                schema_complain(x, item->at, "two limits are called \"%s\"; each needs its own name", l->name);
            }
        }
    }
}

/*
 * `kidoban audit`: who did what, and why. The guard and the gate's keeper each have a log of their own; here they are
 * one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

#define COUNT 100

static bool take_option(json_t *request, const char *name, const char *value)
{
    char *end = NULL;
    if (strcmp(name, "--account") == 0) {
        return json_object_set_new(request, "account", json_string(value)) == 0;
    }
    long count = strtol(value, &end, 10);
    return strcmp(name, "--count") == 0 && *end == '\0' && count > 0 &&
           json_object_set_new(request, "count", json_integer(count)) == 0;
}

static void keep_line(void *arg, json_t *line)
{
    (void)json_array_append(arg, line);
}

static const char *time_of(const json_t *list, size_t i)
{
    const char *time = json_string_value(json_object_get(json_array_get(list, i), "time"));
    return time != NULL ? time : "";
}

/* Both lists are in order of time already. */
static json_t *merge(const json_t *a, const json_t *b)
{
    json_t *all = json_array();
    for (size_t i = 0, k = 0; i < json_array_size(a) || k < json_array_size(b);) {
        bool first = k == json_array_size(b) || (i < json_array_size(a) && strcmp(time_of(a, i), time_of(b, k)) <= 0);
        (void)json_array_append(all, first ? json_array_get(a, i++) : json_array_get(b, k++));
    }
    return all;
}

static void print(const struct cli *c, const json_t *all, size_t count)
{
    static const struct cli_column columns[] = {
        {"time", "TIME", false},     {"by", "BY", false},           {"on_behalf_of", "FOR", false},
        {"what", "WHAT", false},     {"account", "ACCOUNT", false}, {"subject", "SUBJECT", false},
        {"reason", "REASON", false},
    };
    struct cli_table *t = cli_table_new(c, columns, sizeof(columns) / sizeof(columns[0]));
    size_t size = json_array_size(all);
    for (size_t i = size > count ? size - count : 0; i < size; i++) {
        cli_table_add(t, json_array_get(all, i));
    }
    cli_table_end(&t);
}

/* Accounts are the guard's; of one account the gate knows nothing. */
static int ask_both(struct cli *c, json_t *request)
{
    json_t *guard = json_array(), *gate = json_array();
    size_t count = (size_t)json_integer_value(json_object_get(request, "count"));
    bool whole = json_object_get(request, "account") == NULL;
    int status = cli_ask(c, "guard", json_incref(request), keep_line, guard);
    if (status == 0 && whole && cli_config(c)->gate.present && cli_answers(c, "gate")) {
        status = cli_ask(c, "gate", json_incref(request), keep_line, gate);
    }
    if (status == 0) {
        json_t *all = merge(guard, gate);
        print(c, all, count != 0 ? count : COUNT);
        json_decref(all);
    }
    json_decref(guard);
    json_decref(gate);
    return status;
}

int cli_audit(struct cli *c, int argc, char **argv)
{
    json_t *request = json_pack("{s:s}", "verb", "audit.list");
    bool good = argc % 2 == 0;
    for (int i = 0; good && i < argc; i += 2) {
        good = take_option(request, argv[i], argv[i + 1]);
    }
    int status = good ? ask_both(c, request) : cli_usage("usage: kidoban audit [--account A] [--count N]");
    json_decref(request);
    return status;
}

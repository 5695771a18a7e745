/*
 * kidoban gate status: what the gate's keeper says of itself and of what the kernel counted.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"

static void print_table(const struct cli *c, json_t *status, const char *key, const struct cli_column *columns,
                        size_t count)
{
    struct cli_table *t = cli_table_new(c, columns, count);
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(status, key), i, row)
    {
        cli_table_add(t, row);
    }
    cli_table_end(&t);
    (void)fputc('\n', stdout);
}

static void print_reasons(const json_t *reasons)
{
    const char *name, *comma = "reasons  ";
    const json_t *count;
    json_object_foreach((json_t *)reasons, name, count)
    {
        if (json_integer_value(count) > 0) {
            (void)printf("%s%s %lld", comma, name, (long long)json_integer_value(count));
            comma = ", ";
        }
    }
    (void)fputs(comma[0] == ',' ? "\n" : "", stdout);
}

/* What is not as the configuration says. */
static void print_modes(const json_t *modes)
{
    size_t i;
    json_t *m;
    json_array_foreach(modes, i, m)
    {
        const char *class_ = json_string_value(json_object_get(m, "class"));
        const char *since = json_string_value(json_object_get(m, "since"));
        char *words = json_dumps(json_object_get(m, "reason"), JSON_ENCODE_ANY);
        if (since != NULL && words != NULL) {
            cli_clean(words);
            (void)printf("%s%s: %s at run time, since %s: %s\n", class_ != NULL ? "class " : "the gate",
                         class_ != NULL ? class_ : "", json_string_value(json_object_get(m, "mode")), since, words);
        }
        free(words);
    }
}

static void print_status(void *arg, json_t *status)
{
    static const struct cli_column interfaces[] = {{"interface", "INTERFACE", false},
                                                   {"side", "SIDE", false},
                                                   {"hook", "HOOK", false},
                                                   {"mode", "MODE", false},
                                                   {"program", "PROGRAM", true}};
    static const struct cli_column classes[] = {
        {"class", "CLASS", false},         {"port25", "PORT 25", false}, {"passed", "PASSED", true},
        {"refused", "REFUSED", true},      {"dropped", "DROPPED", true}, {"would_refuse", "WOULD REFUSE", true},
        {"would_drop", "WOULD DROP", true}};
    const struct cli *c = arg;
    if (c->json) {
        cli_print_object(c, status);
        return;
    }
    const json_t *p = json_object_get(status, "policy");
    (void)fputs(json_is_true(json_object_get(status, "open")) ? "The gate is open: nothing sits on any interface.\n"
                                                              : "",
                stdout);
    (void)printf("%s: %lld prefixes in %lld classes, %lld exemptions, %.1f MiB in the kernel\n\n",
                 json_string_value(json_object_get(p, "mode")),
                 (long long)json_integer_value(json_object_get(p, "prefixes")),
                 (long long)json_integer_value(json_object_get(p, "classes")),
                 (long long)json_integer_value(json_object_get(p, "exemptions")),
                 (double)json_integer_value(json_object_get(p, "octets")) / (1024.0 * 1024.0));
    print_modes(json_object_get(status, "modes"));
    print_table(c, status, "interfaces", interfaces, sizeof(interfaces) / sizeof(interfaces[0]));
    print_table(c, status, "classes", classes, sizeof(classes) / sizeof(classes[0]));
    print_reasons(json_object_get(status, "reasons"));
}

int cli_gate_status(struct cli *c, int argc, char **argv)
{
    (void)argv;
    if (argc > 0) {
        return cli_usage("usage: kidoban gate status [--json]");
    }
    return cli_ask(c, "gate", json_pack("{s:s}", "verb", "gate.status"), print_status, c);
}

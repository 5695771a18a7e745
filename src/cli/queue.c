/*
 * What waits, and what the operator does with it.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

/* {"verb":..., "ids":[...], "account":..., "domain":...} from the arguments, or NULL after the usage. */
static json_t *selection(const char *verb, int argc, char **argv, bool everything)
{
    json_t *request = json_pack("{s:s}", "verb", verb);
    json_t *ids = json_array();
    bool good = true;
    for (int i = 0; i < argc && good; i++) {
        bool option = strcmp(argv[i], "--account") == 0 || strcmp(argv[i], "--domain") == 0;
        if (option && i + 1 < argc) {
            good = json_object_set_new(request, argv[i] + 2, json_string(argv[i + 1])) == 0;
            i++;
        } else {
            good = argv[i][0] != '-' && json_array_append_new(ids, json_string(argv[i])) == 0;
        }
    }
    bool any = json_object_size(request) > 1 || json_array_size(ids) > 0;
    if (!good || (!any && !everything)) {
        json_decref(request);
        json_decref(ids);
        return NULL;
    }
    if (json_array_size(ids) > 0) {
        (void)json_object_set_new(request, "ids", ids);
    } else {
        json_decref(ids);
    }
    return request;
}

static void add_row(void *arg, json_t *line)
{
    if (json_object_get(line, "id") != NULL) { /* the last line has the count */
        cli_table_add(arg, line);
    }
}

int cli_queue_list(struct cli *c, int argc, char **argv)
{
    static const struct cli_column columns[] = {
        {"id", "ID", false},         {"state", "STATE", false},           {"age", "AGE", true},
        {"size", "SIZE", true},      {"attempts", "TRIES", true},         {"next", "NEXT", false},
        {"sender", "SENDER", false}, {"recipients", "RECIPIENTS", false},
    };
    json_t *request = selection("queue.list", argc, argv, true);
    if (request == NULL) {
        return cli_usage("usage: kidoban queue list [--account A] [--domain D] [ID...]");
    }
    struct cli_table *t = cli_table_new(c, columns, sizeof(columns) / sizeof(columns[0]));
    int status = cli_ask(c, "spool", request, add_row, t);
    cli_table_end(&t);
    return status;
}

static void print_seen(void *arg, json_t *line)
{
    cli_print_object(arg, line);
}

int cli_queue_show(struct cli *c, int argc, char **argv)
{
    if (argc != 1) {
        return cli_usage("usage: kidoban queue show ID");
    }
    return cli_ask(c, "spool", json_pack("{s:s,s:s}", "verb", "queue.show", "id", argv[0]), print_seen, c);
}

struct act {
    struct cli *cli;
    const char *done; /* "held" */
    bool partly;
};

static void print_count(void *arg, json_t *line)
{
    struct act *a = arg;
    json_int_t count = json_integer_value(json_object_get(line, "count"));
    json_int_t delivering = json_integer_value(json_object_get(line, "delivering"));
    json_int_t missing = json_integer_value(json_object_get(line, "missing"));
    a->partly = missing > 0;
    if (a->cli->json) {
        cli_print_object(a->cli, line);
        return;
    }
    (void)printf("%lld messages %s", (long long)count, a->done);
    if (delivering > 0) {
        (void)printf(", %lld of them when the attempt under way ends (called off unless its data is sent)",
                     (long long)delivering);
    }
    if (missing > 0) {
        (void)printf(", %lld not in the queue", (long long)missing);
    }
    (void)fputc('\n', stdout);
}

/* 1 when a part of what was named could not be done. */
static int act(struct cli *c, int argc, char **argv, const char *verb, const char *done)
{
    struct act a = {.cli = c, .done = done};
    json_t *request = selection(verb, argc, argv, false);
    if (request == NULL) {
        return cli_usage("usage: kidoban queue %s [--account A] [--domain D] [ID...]", strchr(verb, '.') + 1);
    }
    int status = cli_ask(c, "spool", request, print_count, &a);
    return status == 0 && a.partly ? 1 : status;
}

int cli_queue_hold(struct cli *c, int argc, char **argv)
{
    return act(c, argc, argv, "queue.hold", "held");
}

int cli_queue_release(struct cli *c, int argc, char **argv)
{
    return act(c, argc, argv, "queue.release", "released");
}

int cli_queue_retry(struct cli *c, int argc, char **argv)
{
    return act(c, argc, argv, "queue.retry", "to be tried now");
}

int cli_queue_remove(struct cli *c, int argc, char **argv)
{
    return act(c, argc, argv, "queue.remove", "removed");
}

/*
 * `kidoban gate exempt` and `kidoban gate mode`: what is changed of the gate while it runs. The keeper judges what is
 * asked; here words only become a question.
 */
#include <stdio.h>
#include <string.h>

#include "cli/gate.h"

static const char exempt_usage[] = "usage: kidoban gate exempt add PREFIX [--until TIME] --reason WORDS [--by WHO] | "
                                   "list | remove PREFIX --reason WORDS [--by WHO]";
static const char mode_usage[] = "usage: kidoban gate mode [enforce|monitor [--class NAME] --reason WORDS [--by WHO]]";

/* Pairs of option and value into the request; `known` ends with NULL, and --reason must be among them. */
static bool take_options(json_t *request, int argc, char **argv, const char *const *known)
{
    for (int i = 0; i < argc; i += 2) {
        const char *const *k = known;
        while (*k != NULL && (strncmp(argv[i], "--", 2) != 0 || strcmp(argv[i] + 2, *k) != 0)) {
            k++;
        }
        if (*k == NULL || i + 1 == argc || json_object_get(request, *k) != NULL) {
            return false;
        }
        if (json_object_set_new(request, *k, json_string(argv[i + 1])) != 0) {
            cli_error("--%s takes UTF-8", *k);
            return false;
        }
    }
    return json_object_get(request, "reason") != NULL;
}

static void print_added(void *arg, json_t *line)
{
    const struct cli *c = arg;
    if (c->json) {
        cli_print_object(c, line);
        return;
    }
    char *prefix = (char *)json_string_value(json_object_get(line, "prefix"));
    char *until = (char *)json_string_value(json_object_get(line, "until"));
    if (prefix != NULL) {
        cli_clean(prefix);
    }
    if (until != NULL) {
        cli_clean(until);
    }
    (void)printf("%s is exempted %s%s%s\n", prefix != NULL ? prefix : "it", until != NULL ? "until " : "without end",
                 until != NULL ? until : "",
                 json_is_true(json_object_get(line, "replaced")) ? ", in place of what stood before" : "");
}

static int exempt_list(struct cli *c)
{
    static const struct cli_column columns[] = {{"prefix", "PREFIX", false},
                                                {"until", "UNTIL", false},
                                                {"added", "ADDED", false},
                                                {"by", "BY", false},
                                                {"reason", "REASON", false}};
    return cli_ask_table(c, "gate", json_pack("{s:s}", "verb", "gate.exempt.list"), columns,
                         sizeof(columns) / sizeof(columns[0]));
}

int cli_gate_exempt(struct cli *c, int argc, char **argv)
{
    static const char *const adding[] = {"until", "reason", "by", NULL}, *const removing[] = {"reason", "by", NULL};
    if (argc == 1 && strcmp(argv[0], "list") == 0) {
        return exempt_list(c);
    }
    bool add = argc > 1 && strcmp(argv[0], "add") == 0;
    if (!add && (argc < 2 || strcmp(argv[0], "remove") != 0)) {
        return cli_usage("%s", exempt_usage);
    }
    json_t *request = json_pack("{s:s,s:s}", "verb", add ? "gate.exempt.add" : "gate.exempt.remove", "prefix", argv[1]);
    if (request == NULL || !take_options(request, argc - 2, argv + 2, add ? adding : removing)) {
        json_decref(request);
        return cli_usage("%s", exempt_usage);
    }
    return cli_ask(c, "gate", request, add ? print_added : NULL, c);
}

static int open_or_shut(struct cli *c, const char *verb, const char *usage, int argc, char **argv)
{
    static const char *const known[] = {"reason", NULL};
    json_t *request = json_pack("{s:s}", "verb", verb);
    if (request == NULL || !take_options(request, argc, argv, known)) {
        json_decref(request);
        return cli_usage("%s", usage);
    }
    return cli_ask(c, "gate", request, NULL, NULL);
}

int cli_gate_detach(struct cli *c, int argc, char **argv)
{
    return open_or_shut(c, "gate.detach", "usage: kidoban gate detach --reason WORDS", argc, argv);
}

int cli_gate_attach(struct cli *c, int argc, char **argv)
{
    return open_or_shut(c, "gate.attach", "usage: kidoban gate attach --reason WORDS", argc, argv);
}

int cli_gate_mode(struct cli *c, int argc, char **argv)
{
    static const char *const known[] = {"class", "reason", "by", NULL};
    static const struct cli_column columns[] = {{"class", "CLASS", false}, {"mode", "MODE", false},
                                                {"from", "FROM", false},   {"since", "SINCE", false},
                                                {"by", "BY", false},       {"reason", "REASON", false}};
    if (argc == 0) {
        return cli_ask_table(c, "gate", json_pack("{s:s}", "verb", "gate.mode"), columns,
                             sizeof(columns) / sizeof(columns[0]));
    }
    json_t *request = json_pack("{s:s,s:s}", "verb", "gate.mode", "mode", argv[0]);
    if (request == NULL || argv[0][0] == '-' || !take_options(request, argc - 1, argv + 1, known)) {
        json_decref(request);
        return cli_usage("%s", mode_usage);
    }
    return cli_ask(c, "gate", request, NULL, NULL);
}

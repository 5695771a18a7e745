/*
 * The house as a whole: its configuration, its processes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

int cli_check(struct cli *c, int argc, char **argv)
{
    if (argc > 1 || (argc == 1 && argv[0][0] == '-')) {
        return cli_usage("usage: kidoban check [FILE]");
    }
    c->config_path = argc == 1 ? argv[0] : c->config_path;
    c->checking = true;
    const struct config *config = cli_config(c);
    if (config == NULL) {
        return c->unreadable ? EX_NOINPUT : 1;
    }
    struct config_complaints complaints = {0};
    int r = config_check_files(config, c->config_path, &complaints);
    if (r < 0 || c->json) {
        cli_print_complaints(c, &complaints, true);
    } else {
        (void)printf("%s: good\n", c->config_path);
    }
    config_complaints_fini(&complaints);
    return r == 0 ? 0 : 1;
}

static void print_figures(json_t *figures)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    json_object_foreach(figures, key, value)
    {
        if (json_is_integer(value) || json_is_real(value)) {
            (void)printf("%s%s %lld", n++ > 0 ? ", " : "    ", key, (long long)json_number_value(value));
        } else if (json_is_string(value)) {
            (void)printf("%s%s %s", n++ > 0 ? ", " : "    ", key, json_string_value(value));
        }
    }
    if (n > 0) {
        (void)fputc('\n', stdout);
    }
}

static void print_status(void *arg, json_t *status)
{
    const struct cli *c = arg;
    if (c->json) {
        cli_print_object(c, status);
        return;
    }
    size_t i;
    json_t *one;
    (void)printf("kidoband %s, pid %lld, up %lld s, %s\n", json_string_value(json_object_get(status, "version")),
                 (long long)json_integer_value(json_object_get(status, "pid")),
                 (long long)json_integer_value(json_object_get(status, "uptime_s")),
                 json_string_value(json_object_get(status, "config")));
    json_array_foreach(json_object_get(status, "listen"), i, one)
    {
        (void)printf("%s%s", i == 0 ? "listens on " : ", ", json_string_value(one));
    }
    (void)fputs("\n\n", stdout);
    json_array_foreach(json_object_get(status, "processes"), i, one)
    {
        (void)printf("%-8s %lld  %-9s pid %lld, up %lld s, restarts %lld\n",
                     json_string_value(json_object_get(one, "role")),
                     (long long)json_integer_value(json_object_get(one, "instance")),
                     json_string_value(json_object_get(one, "state")),
                     (long long)json_integer_value(json_object_get(one, "pid")),
                     (long long)json_integer_value(json_object_get(one, "uptime_s")),
                     (long long)json_integer_value(json_object_get(one, "restarts")));
        print_figures(json_object_get(one, "figures"));
    }
}

static int plain_verb(struct cli *c, int argc, const char *verb)
{
    if (argc != 0) {
        return cli_usage("usage: kidoban %s", verb);
    }
    return cli_ask(c, "master", json_pack("{s:s}", "verb", verb), strcmp(verb, "status") == 0 ? print_status : NULL, c);
}

int cli_status(struct cli *c, int argc, char **argv)
{
    (void)argv;
    return plain_verb(c, argc, "status");
}

int cli_reload(struct cli *c, int argc, char **argv)
{
    (void)argv;
    return plain_verb(c, argc, "reload");
}

int cli_upgrade(struct cli *c, int argc, char **argv)
{
    (void)argv;
    return plain_verb(c, argc, "upgrade");
}

int cli_version(struct cli *c, int argc, char **argv)
{
    (void)c;
    (void)argc;
    (void)argv;
    (void)puts("kidoban " KIDOBAN_VERSION);
    return 0;
}

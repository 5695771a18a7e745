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

static int plain_verb(struct cli *c, int argc, const char *verb)
{
    if (argc != 0) {
        return cli_usage("usage: kidoban %s", verb);
    }
    return cli_ask(c, "master", json_pack("{s:s}", "verb", verb), strcmp(verb, "status") == 0 ? cli_print_status : NULL,
                   c);
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

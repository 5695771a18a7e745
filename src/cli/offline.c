/*
 * `kidoban spool verify|export`: the queue on disk, read without the daemon.
 */
#include "spool/offline.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/id.h"

struct offline_reader {
    struct cli *cli;
    struct cli_table *findings;
    uint64_t shown;
};

static void on_finding(void *arg, const struct offline_finding *f)
{
    struct offline_reader *r = arg;
    char id[ID_TEXT_LEN + 1] = "";
    if (f->id != 0) {
        id_format(f->id, id);
    }
    json_t *row = json_pack("{s:s,s:s,s:I,s:I,s:I}", "what", f->words, "id", id, "segment", (json_int_t)f->segment,
                            "offset", (json_int_t)f->offset, "length", (json_int_t)f->length);
    cli_table_add(r->findings, row);
    json_decref(row);
}

static void on_progress(void *arg, uint64_t done, uint64_t of)
{
    struct offline_reader *r = arg;
    uint64_t percent = of > 0 ? done * 100 / of : 100;
    if (isatty(STDERR_FILENO) == 1 && percent != r->shown) {
        (void)fprintf(stderr, "\r%3" PRIu64 " %%%s", percent, percent == 100 ? "\n" : "");
        r->shown = percent;
    }
}

static const struct cli_column columns[] = {{"what", "WHAT", false},
                                            {"id", "ID", false},
                                            {"segment", "SEGMENT", true},
                                            {"offset", "OFFSET", true},
                                            {"length", "LENGTH", true}};

/* directory NULL: the configured one. to NULL: verify. */
static int read_spool(struct cli *c, const char *directory, const char *to)
{
    const struct offline_ops ops = {.finding = on_finding, .progress = on_progress};
    struct offline_result result = {0};
    if (directory == NULL) {
        const struct config *config = cli_config(c);
        if (config == NULL) {
            return EX_CONFIG;
        }
        directory = config->processes.spool_directory;
    }
    struct offline_reader r = {
        .cli = c, .findings = cli_table_new(c, columns, sizeof(columns) / sizeof(columns[0])), .shown = 101};
    int err =
        to == NULL ? offline_verify(directory, &ops, &r, &result) : offline_export(directory, to, &ops, &r, &result);
    cli_table_end(&r.findings);
    if (err < 0) {
        cli_error("%s: %s", to != NULL ? to : directory, strerror(-err));
        return EX_IOERR;
    }
    (void)fprintf(c->json ? stderr : stdout,
                  "%" PRIu64 " messages (%" PRIu64 " held, %" PRIu64 " octets) in %" PRIu64 " segments, %" PRIu64
                  " records; %" PRIu64 " findings\n",
                  result.messages, result.held, result.octets, result.segments, result.records, result.findings);
    if (to != NULL) {
        (void)fprintf(c->json ? stderr : stdout, "%" PRIu64 " written to %s\n", result.written, to);
    }
    return result.findings == 0 ? 0 : 1;
}

int cli_spool_verify(struct cli *c, int argc, char **argv)
{
    if (argc > 1 || (argc == 1 && argv[0][0] == '-')) {
        return cli_usage("usage: kidoban spool verify [DIRECTORY]");
    }
    return read_spool(c, argc == 1 ? argv[0] : NULL, NULL);
}

int cli_spool_export(struct cli *c, int argc, char **argv)
{
    const char *directory = NULL, *to = NULL;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--to") == 0 && i + 1 < argc) {
            to = argv[++i];
        } else if (argv[i][0] != '-' && directory == NULL) {
            directory = argv[i];
        } else {
            to = NULL;
            break;
        }
    }
    return to == NULL ? cli_usage("usage: kidoban spool export [DIRECTORY] --to DIRECTORY")
                      : read_spool(c, directory, to);
}

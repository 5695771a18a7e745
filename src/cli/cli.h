/*
 * cli.h: the inside of kidoban(1). main.c has the table of verbs; each verb reads its own options, asks the owner of
 * the fact over its unix socket, and prints a table for people or JSON for programs.
 */
#ifndef KIDOBAN_CLI_CLI_H
#define KIDOBAN_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <sysexits.h>

#include "config/config.h"

/* What every verb may be given, taken out of its arguments before it runs. */
struct cli {
    const char *program;
    const char *config_path;
    struct config *config; /* loaded on first need, see cli_config() */
    bool unreadable;       /* cli_config() failed because the file could not be read */
    bool json;
    bool checking; /* complaints are the answer, and obey --json */
};

struct cli_verb {
    const char *name; /* "account add" */
    const char *arguments;
    const char *help;
    int (*run)(struct cli *c, int argc, char **argv); /* argv[0] is the first argument behind the verb */
    const char *options; /* long options: "--identity --password-stdin"; the manual and the completions have the same */
};

/* The configuration, or NULL after saying why on standard error. */
const struct config *cli_config(struct cli *c);
/* Complaints on standard error, one a line; as a JSON array on standard output when asked for. */
void cli_print_complaints(const struct cli *c, struct config_complaints *complaints, bool as_json);
/* "kidoban: words"; what the daemon says in several lines (complaints) stands as it is. */
void cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* says it, returns EX_USAGE */

/* client.c: asks `owner` ("vault") and gives each line to seen; the last one too, without "done", unless it is empty.
 * The request is taken. 0, or an exit status after saying why. seen may be NULL. */
int cli_ask(struct cli *c, const char *owner, json_t *take_request, void (*seen)(void *arg, json_t *line), void *arg);
bool cli_answers(struct cli *c, const char *owner); /* does anybody listen there? */
int cli_connect(struct cli *c, const char *owner);  /* a descriptor, or -errno without a word */

/* table.c */
/* Text from the daemon or its files is in part a stranger's: controls, and marks that turn the direction of writing,
 * never reach a terminal. In place, of the same length. */
void cli_clean(char *text);
bool cli_has_colour(void); /* of standard output */
struct cli_column {
    const char *key; /* of the JSON object */
    const char *title;
    bool right;
};
struct cli_table;
/* With --json the rows are printed as one JSON array instead. */
struct cli_table *cli_table_new(const struct cli *c, const struct cli_column *columns, size_t count);
void cli_table_add(struct cli_table *t, json_t *row); /* borrowed */
size_t cli_table_rows(const struct cli_table *t);
void cli_table_end(struct cli_table **t); /* prints and frees */
/* cli_ask() whose lines are rows. */
int cli_ask_table(struct cli *c, const char *owner, json_t *take_request, const struct cli_column *columns,
                  size_t count);
void cli_print_object(const struct cli *c, json_t *object); /* key and value a line, or JSON */

/* account.c, audit.c, queue.c, trace.c, offline.c, house.c, status.c, gate.c, gate_replay.c, gate_status.c,
 * gate_change.c, export.c */
int cli_account_add(struct cli *c, int argc, char **argv);
int cli_account_passwd(struct cli *c, int argc, char **argv);
int cli_account_show(struct cli *c, int argc, char **argv);
int cli_account_list(struct cli *c, int argc, char **argv);
int cli_account_suspend(struct cli *c, int argc, char **argv);
int cli_account_resume(struct cli *c, int argc, char **argv);
int cli_account_remove(struct cli *c, int argc, char **argv);
int cli_account_import(struct cli *c, int argc, char **argv);
int cli_account_identity(struct cli *c, int argc, char **argv);
int cli_account_certificate(struct cli *c, int argc, char **argv);
int cli_app_password_add(struct cli *c, int argc, char **argv);
int cli_app_password_list(struct cli *c, int argc, char **argv);
int cli_app_password_revoke(struct cli *c, int argc, char **argv);
int cli_audit(struct cli *c, int argc, char **argv);
int cli_limits(struct cli *c, int argc, char **argv);
int cli_queue_list(struct cli *c, int argc, char **argv);
int cli_queue_show(struct cli *c, int argc, char **argv);
int cli_queue_hold(struct cli *c, int argc, char **argv);
int cli_queue_release(struct cli *c, int argc, char **argv);
int cli_queue_retry(struct cli *c, int argc, char **argv);
int cli_queue_remove(struct cli *c, int argc, char **argv);
int cli_trace(struct cli *c, int argc, char **argv);
int cli_spool_verify(struct cli *c, int argc, char **argv);
int cli_spool_export(struct cli *c, int argc, char **argv);
int cli_check(struct cli *c, int argc, char **argv);
void cli_print_status(void *arg, json_t *status); /* status.c; arg: struct cli */
int cli_status(struct cli *c, int argc, char **argv);
int cli_reload(struct cli *c, int argc, char **argv);
int cli_upgrade(struct cli *c, int argc, char **argv);
int cli_gate_status(struct cli *c, int argc, char **argv);
int cli_gate_top(struct cli *c, int argc, char **argv);
int cli_gate_impact(struct cli *c, int argc, char **argv);
int cli_gate_test(struct cli *c, int argc, char **argv);
int cli_gate_replay(struct cli *c, int argc, char **argv);
int cli_gate_exempt(struct cli *c, int argc, char **argv);
int cli_gate_detach(struct cli *c, int argc, char **argv);
int cli_gate_attach(struct cli *c, int argc, char **argv);
int cli_gate_mode(struct cli *c, int argc, char **argv);
int cli_gate_diff(struct cli *c, int argc, char **argv);
int cli_export(struct cli *c, int argc, char **argv);
int cli_version(struct cli *c, int argc, char **argv);

#endif

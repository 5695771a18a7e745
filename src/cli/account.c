/*
 * Accounts, app passwords, suspensions. A password is read from the terminal without echo, twice, or from standard
 * input; never from the command line, where everybody on the machine would see it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cli/cli.h"

#define PASSWORD_MAX  1024
#define IMPORT_BATCH  1000
#define IMPORT_OCTETS (256U * 1024U)

/* The terminal as it was, for the handler. */
static struct termios terminal_before;

/* Ctrl-C at the prompt must not leave a terminal without echo. */
static void on_signal(int number)
{
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal_before);
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static const int deadly[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

static bool echo_off(void)
{
    if (isatty(STDIN_FILENO) != 1 || tcgetattr(STDIN_FILENO, &terminal_before) != 0) {
        return false;
    }
    struct termios quiet = terminal_before;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
        (void)signal(deadly[i], on_signal);
    }
    return tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet) == 0;
}

static void echo_on(void)
{
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal_before);
    for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
        (void)signal(deadly[i], SIG_DFL);
    }
}

/* With read(2), an octet a time: stdio would keep a copy that we cannot wipe. 0, or -EINVAL: nothing, too much, or NUL.
 */
static int read_line_quietly(const char *prompt, char line[static PASSWORD_MAX + 2])
{
    bool terminal = echo_off();
    size_t len = 0;
    char c = '\0';
    bool good = true;
    if (terminal) {
        (void)fputs(prompt, stderr);
    }
    while (read(STDIN_FILENO, &c, 1) == 1 && c != '\n') {
        good = good && c != '\0' && len < PASSWORD_MAX;
        line[len] = c;
        len += good ? 1 : 0;
    }
    if (terminal) {
        echo_on();
        (void)fputc('\n', stderr);
    }
    line[len] = '\0';
    return good && len > 0 ? 0 : -EINVAL;
}

/* The password as a JSON string (the caller's), or NULL after saying why. */
static json_t *read_password(bool from_stdin)
{
    char first[PASSWORD_MAX + 2] = "", second[PASSWORD_MAX + 2] = "";
    json_t *password = NULL;
    if (!from_stdin && isatty(STDIN_FILENO) != 1) {
        cli_error("standard input is no terminal; use --password-stdin");
        return NULL;
    }
    if (read_line_quietly("Password: ", first) < 0) {
        cli_error("no password was given (1 to %d octets)", PASSWORD_MAX);
    } else if (!from_stdin && (read_line_quietly("Once more: ", second) < 0 || strcmp(first, second) != 0)) {
        cli_error("the two are not the same; nothing was changed");
    } else {
        password = json_string(first);
        if (password == NULL) {
            cli_error("a password must be UTF-8");
        }
    }
    explicit_bzero(first, sizeof(first));
    explicit_bzero(second, sizeof(second));
    return password;
}

static int one_name(int argc, char **argv, const char *verb)
{
    return argc == 1 && argv[0][0] != '-' ? 0 : cli_usage("usage: kidoban %s NAME", verb);
}

static void print_seen(void *arg, json_t *line)
{
    cli_print_object(arg, line);
}

int cli_account_add(struct cli *c, int argc, char **argv)
{
    json_t *identities = json_array();
    const char *name = NULL;
    bool from_stdin = false, hash = false, good = true;
    for (int i = 0; i < argc && good; i++) {
        if (strcmp(argv[i], "--identity") == 0 && i + 1 < argc) {
            good = json_array_append_new(identities, json_string(argv[++i])) == 0;
        } else if (strcmp(argv[i], "--password-stdin") == 0) {
            from_stdin = true;
        } else if (strcmp(argv[i], "--hash-stdin") == 0) {
            from_stdin = hash = true;
        } else if (argv[i][0] != '-' && name == NULL) {
            name = argv[i];
        } else {
            good = false;
        }
    }
    if (!good || name == NULL || json_array_size(identities) == 0) {
        json_decref(identities);
        return cli_usage("usage: kidoban account add NAME --identity PATTERN... [--password-stdin | --hash-stdin]\n"
                         "  PATTERN: user@example.net, or *@example.net for the whole domain");
    }
    json_t *secret = read_password(from_stdin);
    if (secret == NULL) {
        json_decref(identities);
        return EX_USAGE;
    }
    int status = cli_ask(c, "vault",
                         json_pack("{s:s,s:s,s:o,s:o}", "verb", "account.add", "name", name, "identities", identities,
                                   hash ? "hash" : "password", secret),
                         NULL, NULL);
    if (status == 0) {
        (void)printf("account %s added\n", name);
    }
    return status;
}

int cli_account_passwd(struct cli *c, int argc, char **argv)
{
    bool from_stdin = argc == 2 && strcmp(argv[1], "--password-stdin") == 0;
    if ((argc != 1 && !from_stdin) || argv[0][0] == '-') {
        return cli_usage("usage: kidoban account passwd NAME [--password-stdin]");
    }
    json_t *password = read_password(from_stdin);
    if (password == NULL) {
        return EX_USAGE;
    }
    return cli_ask(c, "vault",
                   json_pack("{s:s,s:s,s:o}", "verb", "account.passwd", "name", argv[0], "password", password), NULL,
                   NULL);
}

int cli_account_show(struct cli *c, int argc, char **argv)
{
    int status = one_name(argc, argv, "account show");
    return status != 0
               ? status
               : cli_ask(c, "vault", json_pack("{s:s,s:s}", "verb", "account.show", "name", argv[0]), print_seen, c);
}

int cli_account_list(struct cli *c, int argc, char **argv)
{
    static const struct cli_column columns[] = {{"name", "NAME", false},
                                                {"state", "STATE", false},
                                                {"app_passwords", "APP PASSWORDS", true},
                                                {"identities", "IDENTITIES", false}};
    (void)argv;
    if (argc != 0) {
        return cli_usage("usage: kidoban account list");
    }
    return cli_ask_table(c, "vault", json_pack("{s:s}", "verb", "account.list"), columns, 4);
}

int cli_account_suspend(struct cli *c, int argc, char **argv)
{
    const char *name = argc == 3 && strcmp(argv[1], "--reason") == 0   ? argv[0]
                       : argc == 3 && strcmp(argv[0], "--reason") == 0 ? argv[2]
                                                                       : NULL;
    const char *reason = name == argv[0] ? argv[2] : argc == 3 ? argv[1] : NULL;
    if (name == NULL || reason[0] == '\0') {
        return cli_usage("usage: kidoban account suspend NAME --reason WORDS");
    }
    /* A mistyped name would suspend nobody, and say so to nobody. With the vault away there is no asking; the
     * suspension must not wait for that. */
    int status = cli_answers(c, "vault")
                     ? cli_ask(c, "vault", json_pack("{s:s,s:s}", "verb", "account.show", "name", name), NULL, NULL)
                     : 0;
    return status != 0 ? status
                       : cli_ask(c, "guard",
                                 json_pack("{s:s,s:s,s:s}", "verb", "account.suspend", "name", name, "reason", reason),
                                 NULL, NULL);
}

int cli_account_resume(struct cli *c, int argc, char **argv)
{
    int status = one_name(argc, argv, "account resume");
    return status != 0
               ? status
               : cli_ask(c, "guard", json_pack("{s:s,s:s}", "verb", "account.resume", "name", argv[0]), NULL, NULL);
}

int cli_account_remove(struct cli *c, int argc, char **argv)
{
    int status = one_name(argc, argv, "account remove");
    return status != 0
               ? status
               : cli_ask(c, "vault", json_pack("{s:s,s:s}", "verb", "account.remove", "name", argv[0]), NULL, NULL);
}

/* Import: {"name": ..., "hash": ..., "identities": [...]} a line; a question holds at most IMPORT_BATCH of them, and
 * not much more than IMPORT_OCTETS (the vault takes a line of 1 MiB). */

struct import {
    struct cli *cli;
    struct cli_table *refused;
    size_t line;   /* of the file */
    size_t octets; /* in the batch */
    size_t *lines; /* of each in the batch */
    json_int_t added;
};

static void import_seen(void *arg, json_t *answer)
{
    struct import *m = arg;
    json_int_t index = json_integer_value(json_object_get(answer, "index"));
    if (json_object_get(answer, "added") != NULL) { /* the last line */
        m->added += json_integer_value(json_object_get(answer, "added"));
    } else if (index >= 0 && index < IMPORT_BATCH) {
        (void)json_object_del(answer, "index");
        (void)json_object_set_new(answer, "line", json_integer((json_int_t)m->lines[index]));
        cli_table_add(m->refused, answer);
    }
}

static void import_refuse(struct import *m, const char *why)
{
    json_t *row = json_pack("{s:s,s:s,s:I}", "name", "", "error", why, "line", (json_int_t)m->line);
    cli_table_add(m->refused, row);
    json_decref(row);
}

static int import_send(struct import *m, json_t *batch)
{
    int status = json_array_size(batch) == 0
                     ? 0
                     : cli_ask(m->cli, "vault", json_pack("{s:s,s:O}", "verb", "account.import", "accounts", batch),
                               import_seen, m);
    (void)json_array_clear(batch);
    m->octets = 0;
    return status;
}

static int import_lines(struct import *m, FILE *f)
{
    json_t *batch = json_array();
    char *text = NULL;
    size_t size = 0;
    int status = 0;
    for (ssize_t n; status == 0 && (n = getline(&text, &size, f)) > 0;) {
        m->line++;
        json_error_t error;
        json_t *one = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &error);
        if ((size_t)n > IMPORT_OCTETS) {
            import_refuse(m, "too long for one account");
        } else if (!json_is_object(one) && strspn(text, " \t\r\n") < (size_t)n) {
            import_refuse(m, one == NULL ? error.text : "not a JSON object");
        } else if (json_is_object(one)) {
            m->lines[json_array_size(batch)] = m->line;
            (void)json_array_append(batch, one);
            m->octets += (size_t)n;
        }
        json_decref(one);
        if (json_array_size(batch) == IMPORT_BATCH || m->octets > IMPORT_OCTETS) {
            status = import_send(m, batch);
        }
    }
    status = status == 0 && ferror(f) != 0 ? EX_IOERR : status;
    status = status == 0 ? import_send(m, batch) : status;
    if (text != NULL) {
        explicit_bzero(text, size);
    }
    free(text);
    json_decref(batch);
    return status;
}

int cli_account_import(struct cli *c, int argc, char **argv)
{
    static const struct cli_column columns[] = {
        {"line", "LINE", true}, {"name", "NAME", false}, {"error", "NOT IMPORTED", false}};
    if (argc > 1 || (argc == 1 && argv[0][0] == '-' && argv[0][1] != '\0')) {
        return cli_usage("usage: kidoban account import [FILE]\n"
                         "  a JSON object a line: {\"name\": \"alice\", \"hash\": \"$y$...\", \"identities\": "
                         "[\"alice@example.net\"]}");
    }
    bool from_stdin = argc == 0 || strcmp(argv[0], "-") == 0;
    FILE *f = from_stdin ? stdin : fopen(argv[0], "re");
    if (f == NULL) {
        cli_error("%s: %s", argv[0], strerror(errno));
        return EX_NOINPUT;
    }
    struct import m = {.cli = c, .lines = calloc(IMPORT_BATCH, sizeof(*m.lines))};
    m.refused = cli_table_new(c, columns, 3);
    int status = m.lines != NULL ? import_lines(&m, f) : EX_OSERR;
    bool all = cli_table_rows(m.refused) == 0;
    cli_table_end(&m.refused);
    (void)fprintf(c->json ? stderr : stdout, "%lld accounts added\n", (long long)m.added);
    if (!from_stdin) {
        (void)fclose(f);
    }
    free(m.lines);
    return status != 0 ? status : all ? 0 : 1;
}

static int add_or_remove(struct cli *c, int argc, char **argv, const char *what, const char *field)
{
    char verb[64];
    bool good = argc == 3 && (strcmp(argv[0], "add") == 0 || strcmp(argv[0], "remove") == 0);
    if (!good) {
        return cli_usage("usage: kidoban account %s add|remove NAME %s", what, field);
    }
    (void)snprintf(verb, sizeof(verb), "account.%s.%s", what, argv[0]);
    return cli_ask(c, "vault", json_pack("{s:s,s:s,s:s}", "verb", verb, "name", argv[1], field, argv[2]), NULL, NULL);
}

int cli_account_identity(struct cli *c, int argc, char **argv)
{
    return add_or_remove(c, argc, argv, "identity", "identity");
}

int cli_account_certificate(struct cli *c, int argc, char **argv)
{
    return add_or_remove(c, argc, argv, "certificate", "sha256");
}

static void print_password(void *arg, json_t *line)
{
    const struct cli *c = arg;
    const char *password = json_string_value(json_object_get(line, "password"));
    if (c->json) {
        cli_print_object(c, line);
    } else if (password != NULL) {
        (void)printf("%s\n", password);
        (void)fputs("This is the only time it is shown.\n", stderr);
    }
}

int cli_app_password_add(struct cli *c, int argc, char **argv)
{
    if (argc != 2) {
        return cli_usage("usage: kidoban app-password add NAME LABEL");
    }
    return cli_ask(c, "vault",
                   json_pack("{s:s,s:s,s:s}", "verb", "app_password.add", "account", argv[0], "label", argv[1]),
                   print_password, c);
}

int cli_app_password_list(struct cli *c, int argc, char **argv)
{
    static const struct cli_column columns[] = {{"label", "LABEL", false},
                                                {"created", "CREATED", false},
                                                {"last_used", "LAST USED", false},
                                                {"revoked", "REVOKED", false}};
    int status = one_name(argc, argv, "app-password list");
    return status != 0
               ? status
               : cli_ask_table(c, "vault", json_pack("{s:s,s:s}", "verb", "app_password.list", "account", argv[0]),
                               columns, 4);
}

int cli_app_password_revoke(struct cli *c, int argc, char **argv)
{
    if (argc != 2) {
        return cli_usage("usage: kidoban app-password revoke NAME LABEL");
    }
    return cli_ask(c, "vault",
                   json_pack("{s:s,s:s,s:s}", "verb", "app_password.revoke", "account", argv[0], "label", argv[1]),
                   NULL, NULL);
}

int cli_limits(struct cli *c, int argc, char **argv)
{
    static const struct cli_column columns[] = {{"limit", "LIMIT", false},    {"per", "PER", false},
                                                {"subject", "OF", false},     {"count", "COUNTS", false},
                                                {"window", "WINDOW", true},   {"used", "USED", true},
                                                {"allowed", "ALLOWED", true}, {"free_at", "FREE AGAIN", false}};
    if (argc != 1) {
        return cli_usage("usage: kidoban limits NAME");
    }
    return cli_ask_table(c, "guard", json_pack("{s:s,s:s}", "verb", "guard.limits", "account", argv[0]), columns, 8);
}

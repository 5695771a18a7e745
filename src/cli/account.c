/*
 * Accounts, app passwords, suspensions. A password is read from the terminal without echo, twice, or from standard
 * input; never from the command line, where everybody on the machine would see it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cli/cli.h"

#define PASSWORD_MAX 1024

static int read_line_quietly(const char *prompt, char line[static PASSWORD_MAX + 2])
{
    struct termios before, quiet;
    bool terminal = isatty(STDIN_FILENO) == 1 && tcgetattr(STDIN_FILENO, &before) == 0;
    if (terminal) {
        quiet = before;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
        (void)fputs(prompt, stderr);
    }
    bool good = fgets(line, PASSWORD_MAX + 2, stdin) != NULL;
    if (terminal) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        (void)fputc('\n', stderr);
    }
    size_t len = good ? strlen(line) : 0;
    if (len > 0 && line[len - 1] == '\n') {
        line[--len] = '\0';
    }
    return good && len > 0 && len <= PASSWORD_MAX ? 0 : -EINVAL;
}

/* The password as a JSON string (the caller's), or NULL after saying why. */
static json_t *read_password(bool from_stdin)
{
    char first[PASSWORD_MAX + 2], second[PASSWORD_MAX + 2];
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

static void add_row(void *arg, json_t *line)
{
    cli_table_add(arg, line);
}

static int ask_table(struct cli *c, const char *owner, json_t *request, const struct cli_column *columns, size_t count)
{
    struct cli_table *t = cli_table_new(c, columns, count);
    int status = cli_ask(c, owner, request, add_row, t);
    cli_table_end(&t);
    return status;
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
    return ask_table(c, "vault", json_pack("{s:s}", "verb", "account.list"), columns, 4);
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
    return cli_ask(c, "guard", json_pack("{s:s,s:s,s:s}", "verb", "account.suspend", "name", name, "reason", reason),
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
    return status != 0 ? status
                       : ask_table(c, "vault", json_pack("{s:s,s:s}", "verb", "app_password.list", "account", argv[0]),
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

int cli_audit(struct cli *c, int argc, char **argv)
{
    static const struct cli_column columns[] = {{"time", "TIME", false},
                                                {"by", "BY", false},
                                                {"what", "WHAT", false},
                                                {"account", "ACCOUNT", false},
                                                {"reason", "REASON", false}};
    (void)argv;
    if (argc != 0) {
        return cli_usage("usage: kidoban audit");
    }
    return ask_table(c, "guard", json_pack("{s:s}", "verb", "audit.list"), columns, 5);
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
    return ask_table(c, "guard", json_pack("{s:s,s:s}", "verb", "guard.limits", "account", argv[0]), columns, 8);
}

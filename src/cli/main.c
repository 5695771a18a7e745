/*
 * kidoban(1): a table of verbs.
 */
#include <locale.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "common/log.h"

#define CONFIG_DEFAULT "/etc/kidoban/kidoban.yaml"

static const struct cli_verb verbs[] = {
    {"check", "[FILE]", "is the configuration good", cli_check, "--json"},
    {"status", "", "processes, sessions, queue at a glance", cli_status, "--json"},
    {"reload", "", "read the configuration again, whole or not at all", cli_reload, ""},
    {"upgrade", "", "let the installed program take over without refusing a connection", cli_upgrade, ""},
    {"account add", "NAME --identity PATTERN... [--password-stdin | --hash-stdin]", "make an account", cli_account_add,
     "--identity --password-stdin --hash-stdin"},
    {"account passwd", "NAME [--password-stdin]", "set its password", cli_account_passwd, "--password-stdin"},
    {"account show", "NAME", "what is known of it", cli_account_show, "--json"},
    {"account list", "", "all accounts", cli_account_list, "--json"},
    {"account identity", "add|remove NAME PATTERN", "addresses it may send as", cli_account_identity, ""},
    {"account certificate", "add|remove NAME SHA256", "client certificates it may log in with", cli_account_certificate,
     ""},
    {"account suspend", "NAME --reason WORDS", "cut its sessions, refuse its login, hold its mail", cli_account_suspend,
     "--reason"},
    {"account resume", "NAME", "undo that", cli_account_resume, ""},
    {"account remove", "NAME", "delete it", cli_account_remove, ""},
    {"account import", "[FILE]", "many accounts with their hashes, a JSON object a line", cli_account_import, "--json"},
    {"app-password add", "NAME LABEL", "a password for one device; printed once", cli_app_password_add, "--json"},
    {"app-password list", "NAME", "its app passwords and when they were last used", cli_app_password_list, "--json"},
    {"app-password revoke", "NAME LABEL", "void one", cli_app_password_revoke, ""},
    {"limits", "NAME", "how much an account has used, and when it is free again", cli_limits, "--json"},
    {"audit", "[--account A] [--count N]", "who suspended whom, what was changed of the gate, and why; the newest last",
     cli_audit, "--account --count --json"},
    {"queue list", "[--account A] [--domain D]", "messages that wait", cli_queue_list, "--account --domain --json"},
    {"queue show", "ID", "one message: recipients, attempts, when next", cli_queue_show, "--json"},
    {"queue hold", "[--account A] [--domain D] [ID...]", "do not deliver", cli_queue_hold, "--account --domain"},
    {"queue release", "[--account A] [--domain D] [ID...]", "deliver after all", cli_queue_release,
     "--account --domain"},
    {"queue retry", "[--account A] [--domain D] [ID...]", "try now", cli_queue_retry, "--account --domain"},
    {"queue remove", "[--account A] [--domain D] [ID...]", "delete without a bounce", cli_queue_remove,
     "--account --domain"},
    {"trace", "ID|MESSAGE-ID|ADDRESS", "everything that happened to it, and what is next", cli_trace, "--json"},
    {"spool verify", "[DIRECTORY]", "check every checksum; the daemon may be down", cli_spool_verify, "--json"},
    {"spool export", "[DIRECTORY] --to DIRECTORY", "write the queue as .eml and .json files", cli_spool_export, "--to"},
    {"gate status", "", "interfaces, policy and counters of the gate", cli_gate_status, "--json"},
    {"gate top", "[--once] [--count N]", "who is refused just now, the fastest first", cli_gate_top,
     "--once --count --json"},
    {"gate impact", "[--days N] [--count N] [--lang ja|en] [--no-names] [--csv]",
     "whom the gate cuts off or would cut off, where they send, what to tell them", cli_gate_impact,
     "--days --count --lang --no-names --csv --json"},
    {"gate test", "--from A --to B [--port N] [--source-port N] [--side subscriber|uplink]",
     "what becomes of a packet, and by which rule", cli_gate_test, "--from --to --port --source-port --side --json"},
    {"gate replay", "--pcap FILE --side subscriber|uplink [--engine reference|kernel|both]",
     "judge every packet of a capture, a JSON line each", cli_gate_replay, "--pcap --side --engine"},
    {"gate diff", "OLD NEW --pcap FILE --side subscriber|uplink",
     "which packets another configuration would judge otherwise", cli_gate_diff, "--pcap --side --json"},
    {"gate exempt",
     "add PREFIX [--until TIME] --reason WORDS [--by WHO] | list | remove PREFIX --reason WORDS [--by WHO]",
     "let an address through, perhaps until a time", cli_gate_exempt, "--until --reason --by --json"},
    {"gate detach", "--reason WORDS", "open the gate: take the programs from all interfaces", cli_gate_detach,
     "--reason"},
    {"gate attach", "--reason WORDS", "shut it again", cli_gate_attach, "--reason"},
    {"gate mode", "[enforce|monitor [--class NAME] --reason WORDS [--by WHO]]", "refuse, or only count", cli_gate_mode,
     "--class --reason --by --json"},
    {"export", "nft|flowspec|junos|iosxr|routeros [--budget N] [--follow]", "the policy of the gate for other routers",
     cli_export, "--budget --follow"},
    {"version", "", "which version this is", cli_version, ""},
};
#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

static void print_help(FILE *to)
{
    (void)fputs("usage: kidoban [-c FILE] [--json] VERB ...\n\n", to);
    for (size_t i = 0; i < VERBS; i++) {
        char head[128];
        (void)snprintf(head, sizeof(head), "%s %s", verbs[i].name, verbs[i].arguments);
        (void)fprintf(to, strlen(head) > 44 ? "  %s\n  %-44s  %s\n" : "  %-44s%s  %s\n", head, "", verbs[i].help);
    }
    (void)fputs("\n  -c, --config FILE  the configuration (default " CONFIG_DEFAULT ", or $KIDOBAN_CONFIG)\n"
                "      --json         JSON instead of tables\n"
                "\nExit: 0 done, 1 the answer is no, 64 and up as sysexits. kidoban(1), kidoban.yaml(5)\n",
                to);
}

static int print_verb_help(const struct cli_verb *v)
{
    bool json = strstr(v->options, "--json") != NULL;
    (void)printf("usage: kidoban %s%s%s%s\n\n  %s\n", v->name, v->arguments[0] != '\0' ? " " : "", v->arguments,
                 json ? " [--json]" : "", v->help);
    return 0;
}

/* How many words of argv are this verb's name, 0: it is another. */
static int matches(const struct cli_verb *v, int argc, char **argv)
{
    const char *space = strchr(v->name, ' ');
    size_t first = space != NULL ? (size_t)(space - v->name) : strlen(v->name);
    if (argc < 1 || strlen(argv[0]) != first || memcmp(argv[0], v->name, first) != 0) {
        return 0;
    }
    if (space == NULL) {
        return 1;
    }
    return argc > 1 && strcmp(argv[1], space + 1) == 0 ? 2 : 0;
}

static int unknown(int argc, char **argv)
{
    bool told = false;
    for (size_t i = 0; i < VERBS; i++) {
        size_t len = strlen(argv[0]);
        if (strncmp(verbs[i].name, argv[0], len) == 0 && verbs[i].name[len] == ' ') {
            if (!told) {
                cli_error("\"%s%s%s\" is no verb; there are:", argv[0], argc > 1 ? " " : "", argc > 1 ? argv[1] : "");
            }
            told = true;
            (void)fprintf(stderr, "  kidoban %s %s\n", verbs[i].name, verbs[i].arguments);
        }
    }
    if (!told) {
        cli_error("\"%s\" is no verb; kidoban --help lists them", argv[0]);
    }
    return EX_USAGE;
}

/* A new vector, in which "--name=value" is two arguments; NULL: no memory. */
static char **split_values(int *argc, char **argv)
{
    char **all = calloc(2 * (size_t)*argc + 1, sizeof(*all));
    int kept = 0;
    for (int i = 0; all != NULL && i < *argc; i++) {
        char *equals = strncmp(argv[i], "--", 2) == 0 ? strchr(argv[i], '=') : NULL;
        all[kept++] = argv[i];
        if (equals != NULL) {
            *equals = '\0';
            all[kept++] = equals + 1;
        }
    }
    *argc = kept;
    return all;
}

/* Takes -c, --config, --json and --help out of the arguments, wherever they stand. */
static bool take_common(struct cli *c, int *argc, char **argv, bool *ret_help)
{
    int kept = 0;
    for (int i = 0; i < *argc; i++) {
        bool config = strcmp(argv[i], "-c") == 0 || strcmp(argv[i], "--config") == 0;
        if (config && i + 1 < *argc) {
            c->config_path = argv[++i];
        } else if (config) {
            cli_error("%s needs a file", argv[i]);
            return false;
        } else if (strcmp(argv[i], "--json") == 0) {
            c->json = true;
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            *ret_help = true;
        } else {
            argv[kept++] = argv[i];
        }
    }
    *argc = kept;
    argv[kept] = NULL;
    return true;
}

static void __attribute__((format(printf, 1, 0))) say(const char *fmt, va_list ap)
{
    char *text;
    if (vasprintf(&text, fmt, ap) < 0) {
        return;
    }
    bool lines = strchr(text, '\n') != NULL;
    for (char *at = text, *line; (line = strsep(&at, "\n")) != NULL;) {
        cli_clean(line);
        if (line[0] != '\0') {
            (void)fprintf(stderr, "%s%s\n", lines ? "" : "kidoban: ", line);
        }
    }
    free(text);
}

void cli_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

int cli_usage(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    return EX_USAGE;
}

/* Requests hold passwords: what jansson frees is wiped. */
static void wiping_free(void *p)
{
    if (p != NULL) {
        explicit_bzero(p, malloc_usable_size(p));
        free(p);
    }
}

static int run(struct cli *c, int argc, char **argv, bool help)
{
    if (argc > 1 && strcmp(argv[0], "help") == 0) {
        help = true;
        argc--;
        argv++;
    }
    if (argc == 0 || strcmp(argv[0], "help") == 0) {
        print_help(help || argc > 0 ? stdout : stderr);
        return help || argc > 0 ? 0 : EX_USAGE;
    }
    for (size_t i = 0; i < VERBS; i++) {
        int words = matches(&verbs[i], argc, argv);
        if (words > 0) {
            return help ? print_verb_help(&verbs[i]) : verbs[i].run(c, argc - words, argv + words);
        }
    }
    return unknown(argc, argv);
}

int main(int argc, char **argv)
{
    const char *env = getenv("KIDOBAN_CONFIG");
    struct cli c = {.program = argv[0], .config_path = env != NULL && env[0] != '\0' ? env : CONFIG_DEFAULT};
    bool help = false;
    (void)setlocale(LC_ALL, "");
    json_set_alloc_funcs(malloc, wiping_free);
    argc--;
    char **arguments = split_values(&argc, argv + 1);
    if (arguments == NULL) {
        return EX_OSERR;
    }
    int status = take_common(&c, &argc, arguments, &help) ? run(&c, argc, arguments, help) : EX_USAGE;
    config_free(&c.config);
    free(arguments);
    return fflush(stdout) == 0 ? status : EX_IOERR;
}

/*
 * `kidoban export flowspec --follow`: the rules in force as announcements for ExaBGP's text API, and from then on each
 * difference, as long as somebody reads. ExaBGP runs it as a process.
 *
 * The keeper says what the rules are, and when they are others. Its answer also has the rules that hold when no
 * exemption with an end holds any more: while it is away, they are announced when the first of these ends, so that
 * routers are never open longer than the gate. What cannot be had leaves what was announced as it is.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/export.h"
#include "cli/gate.h"

#define AGAIN_MS   1000
#define SILENCE_MS 40000 /* the keeper gives a sign of life every ten seconds */
#define NS_PER_MS  UINT64_C(1000000)

static const char announce[] = "announce ", withdraw[] = "withdraw ", action[] = " then {";

struct rules {
    char *text; /* its lines end with NULs */
    const char **lines;
    size_t count;
};

struct follow {
    struct cli *cli;
    size_t budget;
    struct rules announced;
    char *closed;    /* what to announce when end_ns has come and the keeper is away; or NULL */
    uint64_t end_ns; /* boot clock; 0: none */
    int watch_fd;    /* -1: the keeper is away */
    char line[256];
    size_t line_len;
    json_int_t change;
    uint64_t heard_ns;
    bool started, stdin_open, told;
    bool ended; /* nobody reads any more */
};

/* Rules */

static void rules_free(struct rules *r)
{
    free(r->text);
    free(r->lines);
    *r = (struct rules){0};
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int rules_split(const char *text, struct rules *ret)
{
    struct rules r = {.text = strdup(text)};
    size_t room = 1;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++) {
        room++;
    }
    r.lines = calloc(room, sizeof(*r.lines));
    if (r.text == NULL || r.lines == NULL) {
        rules_free(&r);
        return -ENOMEM;
    }
    for (char *rest = r.text, *line; (line = strsep(&rest, "\n")) != NULL;) {
        if (strncmp(line, announce, sizeof(announce) - 1) == 0) {
            r.lines[r.count++] = line;
        }
    }
    qsort(r.lines, r.count, sizeof(*r.lines), compare_lines);
    *ret = r;
    return 0;
}

/* What a rule matches, without what is done. An announcement of the same replaces it. */
static size_t match_len(const char *line)
{
    const char *end = strstr(line, action);
    return end != NULL ? (size_t)(end - line) : strlen(line);
}

static int compare_match(const void *key, const void *element)
{
    const char *line = *(const char *const *)element;
    size_t a = match_len(key), b = match_len(line);
    int r = strncmp(key, line, a < b ? a : b);
    return r != 0 ? r : a < b ? -1 : a > b;
}

static bool has_line(const struct rules *r, const char *line)
{
    return bsearch(&line, r->lines, r->count, sizeof(*r->lines), compare_lines) != NULL;
}

static bool has_match(const struct rules *r, const char *line)
{
    return bsearch(line, r->lines, r->count, sizeof(*r->lines), compare_match) != NULL;
}

/* What is new comes before what goes, so that no rule that stays is missed by a packet in between. */
static int say(struct follow *f, const char *text)
{
    struct rules next;
    int r = rules_split(text, &next);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < next.count; i++) {
        if (!has_line(&f->announced, next.lines[i])) {
            (void)printf("%s\n", next.lines[i]);
        }
    }
    for (size_t i = 0; i < f->announced.count; i++) {
        if (!has_match(&next, f->announced.lines[i])) {
            (void)printf("%s%s\n", withdraw, f->announced.lines[i] + sizeof(announce) - 1);
        }
    }
    f->ended = fflush(stdout) != 0;
    rules_free(&f->announced);
    f->announced = next;
    f->started = true;
    return 0;
}

/* The keeper */

struct answer {
    char *text, *closed;
    uint64_t end_ns;
};

static void take_answer(void *arg, json_t *line)
{
    struct answer *a = arg;
    const char *text = json_string_value(json_object_get(line, "text"));
    const char *closed = json_string_value(json_object_get(line, "closed"));
    json_int_t end = json_integer_value(json_object_get(line, "next_end_ns"));
    if (a->text == NULL && text != NULL && closed != NULL && end >= 0) {
        *a = (struct answer){.text = strdup(text), .closed = strdup(closed), .end_ns = (uint64_t)end};
    }
}

static void ask(struct follow *f)
{
    struct answer a = {0};
    json_t *request =
        json_pack("{s:s,s:s,s:I}", "verb", "gate.export", "target", "flowspec", "budget", (json_int_t)f->budget);
    int status = cli_ask(f->cli, "gate", request, take_answer, &a);
    int r = status == 0 && a.text != NULL && a.closed != NULL ? say(f, a.text) : 0;
    if (status == 0 && a.closed != NULL && r == 0) {
        free(f->closed);
        f->closed = a.closed;
        f->end_ns = a.end_ns;
        a.closed = NULL;
    } else {
        cli_error("what was announced stays as it is");
    }
    free(a.text);
    free(a.closed);
}

static void go_away(struct follow *f, const char *why)
{
    if (f->watch_fd >= 0) {
        (void)close(f->watch_fd);
    }
    f->watch_fd = -1;
    f->line_len = 0;
    f->change = -1;
    if (!f->told) {
        cli_error("the gate's keeper %s; what was announced stays, and exemptions end by themselves", why);
    }
    f->told = true;
}

static void come_back(struct follow *f)
{
    static const char question[] = "{\"verb\":\"gate.watch\"}\n";
    f->watch_fd = cli_connect(f->cli, "gate");
    if (f->watch_fd < 0) {
        go_away(f, "does not answer");
        return;
    }
    f->heard_ns = cli_gate_now().boot_ns;
    if (send(f->watch_fd, question, sizeof(question) - 1, MSG_NOSIGNAL) != (ssize_t)(sizeof(question) - 1)) {
        go_away(f, "does not take a question");
    }
}

static void hear_line(struct follow *f)
{
    json_t *line = json_loadb(f->line, f->line_len, 0, NULL);
    const json_t *number = json_object_get(line, "change");
    f->line_len = 0;
    if (!json_is_integer(number)) {
        go_away(f, "will not tell of changes");
    } else if (json_integer_value(number) != f->change) {
        f->change = json_integer_value(number);
        f->told = false;
        ask(f);
    }
    json_decref(line);
}

static void hear(struct follow *f)
{
    char c;
    ssize_t n;
    f->heard_ns = cli_gate_now().boot_ns;
    while (f->watch_fd >= 0 && (n = recv(f->watch_fd, &c, 1, MSG_DONTWAIT)) != -1) {
        if (n == 0 || f->line_len == sizeof(f->line)) {
            go_away(f, "went away");
        } else if (c == '\n') {
            hear_line(f);
        } else {
            f->line[f->line_len++] = c;
        }
    }
}

/* Without the keeper: the file's rules, without anything that was changed at run time. */
static int start_alone(struct follow *f)
{
    struct buf out;
    struct runtime *none = runtime_new();
    buf_init(&out, EXPORT_TEXT_MAX);
    int status = none != NULL ? cli_export_text(f->cli, none, "flowspec", f->budget, &out) : EX_OSERR;
    if (status == 0 && (buf_append_byte(&out, 0) < 0 || say(f, (const char *)out.data) < 0)) {
        status = EX_OSERR;
    }
    runtime_free(&none);
    buf_fini(&out);
    return status;
}

/* The loop */

/* ExaBGP may acknowledge every line: that is read, and let go. */
static void drain_stdin(struct follow *f)
{
    char text[4096];
    f->stdin_open = read(STDIN_FILENO, text, sizeof(text)) > 0;
}

static int wait_ms(const struct follow *f, uint64_t now_ns)
{
    uint64_t ms = f->watch_fd < 0 ? AGAIN_MS : SILENCE_MS;
    if (f->watch_fd < 0 && f->end_ns > 0) {
        uint64_t left = f->end_ns > now_ns ? (f->end_ns - now_ns) / NS_PER_MS + 1 : 0;
        ms = left < ms ? left : ms;
    }
    return (int)ms;
}

static void turn(struct follow *f)
{
    struct pollfd fds[] = {{.fd = STDOUT_FILENO},
                           {.fd = f->stdin_open ? STDIN_FILENO : -1, .events = POLLIN},
                           {.fd = f->watch_fd, .events = POLLIN}};
    int n = poll(fds, sizeof(fds) / sizeof(fds[0]), wait_ms(f, cli_gate_now().boot_ns));
    uint64_t now = cli_gate_now().boot_ns;
    if (n > 0 && (fds[0].revents & (POLLERR | POLLHUP)) != 0) {
        f->ended = true;
        return;
    }
    if (n > 0 && fds[1].revents != 0) {
        drain_stdin(f);
    }
    if (f->watch_fd < 0) {
        come_back(f);
    } else if (n > 0 && fds[2].revents != 0) {
        hear(f);
    } else if (now - f->heard_ns > SILENCE_MS * NS_PER_MS) {
        go_away(f, "is silent");
    }
    if (f->watch_fd < 0 && f->end_ns > 0 && now >= f->end_ns) {
        f->end_ns = 0;
        (void)say(f, f->closed);
    }
}

int cli_export_follow(struct cli *c, size_t budget)
{
    struct follow f = {.cli = c, .budget = budget, .watch_fd = -1, .change = -1, .stdin_open = true};
    int status = 0;
    if (cli_config(c) == NULL) {
        return c->unreadable ? EX_NOINPUT : EX_CONFIG;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    come_back(&f);
    while (!f.ended && status == 0) {
        if (!f.started && f.watch_fd < 0) {
            status = start_alone(&f);
        } else {
            turn(&f);
        }
    }
    if (f.watch_fd >= 0) {
        (void)close(f.watch_fd);
    }
    rules_free(&f.announced);
    free(f.closed);
    return status;
}

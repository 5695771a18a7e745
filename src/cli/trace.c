/*
 * `kidoban trace`: the event files hold every decision; here they are read again for one id, Message-ID or address, and
 * the ids that they name are followed: a session asked for leads to its messages, a message to its session and its
 * reports. Works with the daemon down; with it up, it also says what is still in the queue and when it is tried next.
 *
 * The files may hold gigabytes: they are mapped once, so that a rotation meanwhile moves nothing, and a line is parsed
 * only when it belongs to the story.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/hash.h"
#include "common/id.h"

#define IDS_MAX       10000U
#define QUESTION_IDS  1000U
#define WORD_MAX      1024U
#define ID_TEXT_SIZE  (ID_TEXT_LEN + 1)
#define ID_COLUMN     ID_TEXT_LEN
#define EVENT_COLUMN  20
#define PROCESS_WIDTH 7

struct known_id {
    char text[ID_TEXT_SIZE];
    UT_hash_handle hh;
};

struct id_set {
    struct known_id *ids;
    bool full; /* more than IDS_MAX: the story is cut */
};

struct event_file {
    void *text;
    size_t size;
};

struct trace {
    struct cli *cli;
    struct event_file *files; /* oldest first */
    size_t files_count;
    const char *word;         /* what was asked for, without <> */
    struct buf escaped;       /* as it stands in the files */
    char asked[ID_TEXT_SIZE]; /* when the word is an id */
    bool any_case;
    struct id_set messages; /* whose story it is */
    struct id_set sessions; /* by which they came, or that were asked for */
    size_t printed;
};

/* The ids that an event names, "" for those that it does not. */
struct event_ids {
    char own[ID_TEXT_SIZE], session[ID_TEXT_SIZE], original[ID_TEXT_SIZE];
};

static void id_set_add(struct id_set *s, const char *text)
{
    struct known_id *known = NULL;
    if (text[0] == '\0') {
        return;
    }
    HASH_FIND_STR(s->ids, text, known);
    s->full = s->full || (known == NULL && HASH_COUNT(s->ids) >= IDS_MAX);
    if (known == NULL && !s->full && (known = calloc(1, sizeof(*known))) != NULL) {
        memcpy(known->text, text, ID_TEXT_SIZE);
        HASH_ADD_STR(s->ids, text, known);
        if (!hash_added(known->hh)) {
            free(known);
        }
    }
}

static bool id_set_has(const struct id_set *s, const char *text)
{
    struct known_id *known = NULL;
    if (text[0] != '\0') {
        HASH_FIND_STR(s->ids, text, known);
    }
    return known != NULL;
}

static void id_set_fini(struct id_set *s)
{
    struct known_id *id, *next;
    HASH_ITER(hh, s->ids, id, next)
    {
        HASH_DEL(s->ids, id);
        free(id);
    }
}

/* The files. */

/* 0, or -errno. An empty file is none. */
static int map_file(struct trace *t, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        int err = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return -err;
    }
    void *text = st.st_size > 0 ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    (void)close(fd);
    if (text != MAP_FAILED) {
        (void)madvise(text, (size_t)st.st_size, MADV_SEQUENTIAL);
        t->files[t->files_count++] = (struct event_file){text, (size_t)st.st_size};
    }
    return 0;
}

/* 0, or an exit status after saying why. Rotated files may be missing; the one that is written must be there. */
static int map_files(struct trace *t, const struct config *c)
{
    char path[4096];
    t->files = calloc((size_t)c->processes.event_files + 1, sizeof(*t->files));
    if (t->files == NULL) {
        return EX_OSERR;
    }
    for (unsigned i = c->processes.event_files; i > 0; i--) {
        (void)snprintf(path, sizeof(path), "%s.%u", c->processes.event_file, i);
        (void)map_file(t, path);
    }
    int r = map_file(t, c->processes.event_file);
    if (r < 0) {
        cli_error("%s: %s", c->processes.event_file, strerror(-r));
    }
    return r == -EACCES ? EX_NOPERM : r < 0 ? EX_NOINPUT : 0;
}

/* Every line, oldest first. A last line without its end is still being written. */
static void each_line(struct trace *t, void (*seen)(struct trace *t, const char *line, size_t len))
{
    for (size_t i = 0; i < t->files_count; i++) {
        const char *text = t->files[i].text, *end = text + t->files[i].size, *newline;
        for (const char *at = text; (newline = memchr(at, '\n', (size_t)(end - at))) != NULL; at = newline + 1) {
            seen(t, at, (size_t)(newline - at));
        }
    }
}

/* name: with quotes and colon, as the log writes it; inside of a text the quotes would be escaped. */
static bool read_id(const char *line, size_t len, const char *name, char ret[static ID_TEXT_SIZE])
{
    size_t name_len = strlen(name);
    const char *at = memmem(line, len, name, name_len);
    uint64_t id;
    ret[0] = '\0';
    if (at == NULL || (size_t)(line + len - at) < name_len + ID_TEXT_LEN + 1 || at[name_len + ID_TEXT_LEN] != '"') {
        return false;
    }
    memcpy(ret, at + name_len, ID_TEXT_LEN);
    ret[ID_TEXT_LEN] = '\0';
    if (id_parse(ret, &id) < 0 || id == 0) {
        ret[0] = '\0';
    }
    return ret[0] != '\0';
}

static struct event_ids read_ids(const char *line, size_t len)
{
    struct event_ids ids = {0};
    (void)read_id(line, len, "\"id\":\"", ids.own);
    (void)read_id(line, len, "\"session\":\"", ids.session);
    (void)read_id(line, len, "\"original\":\"", ids.original);
    return ids;
}

/* Who belongs to the story. */

static bool contains(const struct trace *t, const char *line, size_t len)
{
    size_t word = t->escaped.len;
    if (!t->any_case) {
        return memmem(line, len, t->escaped.data, word) != NULL;
    }
    for (size_t i = 0; i + word <= len; i++) {
        if (strncasecmp(line + i, (const char *)t->escaped.data, word) == 0) {
            return true;
        }
    }
    return false;
}

/* Is it the word, or a list that holds it? */
static bool is_word(const struct trace *t, const json_t *value)
{
    const char *text = json_string_value(value);
    bool hit = text != NULL && (t->any_case ? strcasecmp(text, t->word) : strcmp(text, t->word)) == 0;
    for (size_t i = 0; i < json_array_size(value) && !hit; i++) {
        hit = is_word(t, json_array_get(value, i));
    }
    return hit;
}

/* A line with the word as the whole value of a field. An address leads to its messages, not to all that their sessions
 * did; only what has no message (a login that failed) leads to a session. */
static void gather(struct trace *t, const char *line, size_t len)
{
    if (t->messages.full || t->sessions.full || !contains(t, line, len)) {
        return;
    }
    json_t *event = json_loadb(line, len, 0, NULL), *value;
    const char *key;
    bool hit = false;
    json_object_foreach(event, key, value)
    {
        hit = hit || is_word(t, value);
    }
    json_decref(event);
    if (hit) {
        struct event_ids ids = read_ids(line, len);
        id_set_add(ids.own[0] != '\0' ? &t->messages : &t->sessions, ids.own[0] != '\0' ? ids.own : ids.session);
    }
}

/* The id that was asked for is a session's, or a message's, or in a report about it. */
static void gather_id(struct trace *t, const char *line, size_t len)
{
    struct event_ids ids = read_ids(line, len);
    if (strcmp(ids.session, t->asked) == 0) {
        id_set_add(&t->sessions, ids.session);
        id_set_add(&t->messages, ids.own);
    } else if (strcmp(ids.own, t->asked) == 0 || strcmp(ids.original, t->asked) == 0) {
        id_set_add(&t->messages, t->asked);
    }
}

static void follow_reports(struct trace *t, const char *line, size_t len)
{
    char original[ID_TEXT_SIZE], own[ID_TEXT_SIZE];
    if (read_id(line, len, "\"original\":\"", original)) {
        (void)read_id(line, len, "\"id\":\"", own);
        if (id_set_has(&t->messages, original) || id_set_has(&t->messages, own)) {
            id_set_add(&t->messages, own);
            id_set_add(&t->messages, original);
        }
    }
}

static void add_session(struct trace *t, const char *line, size_t len)
{
    struct event_ids ids = read_ids(line, len);
    if (ids.session[0] != '\0' && id_set_has(&t->messages, ids.own)) {
        id_set_add(&t->sessions, ids.session);
    }
}

static bool is_empty(const struct trace *t)
{
    return t->messages.ids == NULL && t->sessions.ids == NULL;
}

static void find_story(struct trace *t)
{
    if (t->asked[0] != '\0') {
        each_line(t, gather_id);
    }
    if (is_empty(t)) {
        each_line(t, gather);
    }
    if (is_empty(t)) {
        t->any_case = true; /* slower, and what one takes from a letter may be written otherwise */
        each_line(t, gather);
    }
    for (unsigned before = 0; HASH_COUNT(t->messages.ids) != before;) {
        before = HASH_COUNT(t->messages.ids);
        each_line(t, follow_reports);
    }
    each_line(t, add_session);
}

/* A session's login and end belong to the story; its other messages do not. */
static bool belongs(const struct trace *t, const struct event_ids *ids)
{
    return id_set_has(&t->messages, ids->own) || id_set_has(&t->messages, ids->original) ||
           (ids->own[0] == '\0' && id_set_has(&t->sessions, ids->session));
}

/* What people read. */

/* {field} is put in; what stands between [ and ] is left out when a field in it is empty or 0. */
static const struct {
    const char *event, *words;
} phrases[] = {
    {"session.closed", "from {address} at {service}, {messages} messages[, {tls}]: {reason}"},
    {"session.incident", "{what}"},
    {"tls.failed", "with {address}: {reason}"},
    {"auth.succeeded", "{account} from {address} with {mechanism}[, app password {app_password}]"},
    {"auth.failed", "[{account} ]from {address} with {mechanism}: {reason}[, answered after {wait_ms}]"},
    {"auth.slowed", "the answer waits {wait_ms}"},
    {"auth.unavailable", "for {address}: {reason}"},
    {"limit.exceeded", "{limit}: {verdict}: {text}"},
    {"account.suspended.refused", "{account} from {address}"},
    {"sender.reported", "{where} <{address}> is none of {account}'s identities"},
    {"message.refused", "{code} {text}[ <{address}>][, by {rule}]"},
    {"message.stored", "{octets} octets from <{sender}>, {recipients} recipients[: {to}][, Message-ID <{message_id}>]"},
    {"message.recipients", "and {to}"},
    {"message.delivered", "<{recipient}> to {remote}[ {address}][, {tls}]: {code} {words}"},
    {"message.deferred",
     "<{recipient}> try {attempt}[ at {remote}][ {address}][, {tls}]:[ {code}] {words}[; next try {next_in_ms} later]"},
    {"message.failed", "<{recipient}> try {attempt}[ at {remote}][ {address}][, {tls}]:[ {code}] {words}"},
    {"message.expired", "[<{recipient}> ]after {age_ms}[: {words}]"},
    {"message.held", "{words}"},
    {"message.released", ""},
    {"message.retried", ""},
    {"message.removed", "{words}[, while {delivering} attempts were under way]"},
    {"message.cancelled", "called off before the data was sent, {recipients} recipients"},
    {"dsn.sent", "{kind} of {original}, {recipients} recipients, told to <{to}>"},
};

static const char *phrase_of(const char *event)
{
    for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++) {
        if (strcmp(phrases[i].event, event) == 0) {
            return phrases[i].words;
        }
    }
    return NULL;
}

static void append_duration(struct buf *out, uint64_t ms)
{
    static const struct {
        uint64_t ms;
        const char *name;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "min"}, {1000, "s"}};
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (ms >= 2 * units[i].ms || (ms >= units[i].ms && ms % units[i].ms == 0)) {
            (void)buf_printf(out, "%llu %s", (unsigned long long)(ms / units[i].ms), units[i].name);
            return;
        }
    }
    (void)buf_printf(out, "%llu ms", (unsigned long long)ms);
}

/* "<a@b>, <c@d>" */
static void append_addresses(struct buf *out, const json_t *list)
{
    size_t i;
    const json_t *one;
    json_array_foreach(list, i, one)
    {
        const char *text = json_string_value(one);
        (void)buf_printf(out, "%s<%s>", i > 0 ? ", " : "", text != NULL ? text : "");
    }
}

/* false: there is nothing to say. */
static bool append_value(struct buf *out, json_t *value, bool is_time)
{
    json_int_t number = json_integer_value(value);
    const char *text = json_string_value(value);
    if (text != NULL) {
        (void)buf_append_str(out, text);
    } else if (is_time && number >= 0) {
        append_duration(out, (uint64_t)number);
    } else if (json_is_integer(value)) {
        (void)buf_printf(out, "%lld", (long long)number);
    } else if (json_is_array(value)) {
        append_addresses(out, value);
        return json_array_size(value) > 0;
    }
    return text != NULL ? text[0] != '\0' : number != 0;
}

static void append_phrase(struct buf *out, const char *words, json_t *event)
{
    size_t optional = SIZE_MAX; /* where the bracket began */
    bool said = true;
    for (const char *p = words; *p != '\0'; p++) {
        if (*p == '[') {
            optional = out->len;
            said = true;
        } else if (*p == ']') {
            out->len = said || optional == SIZE_MAX ? out->len : optional;
            optional = SIZE_MAX;
        } else if (*p == '{') {
            char key[32];
            size_t len = strcspn(p + 1, "}");
            (void)snprintf(key, sizeof(key), "%.*s", (int)len, p + 1);
            said &= append_value(out, json_object_get(event, key), len > 3 && strcmp(key + len - 3, "_ms") == 0);
            p += len + 1;
        } else {
            (void)buf_append_byte(out, (uint8_t)*p);
        }
    }
}

static void append_fields(struct buf *out, json_t *event)
{
    static const char *const shown[] = {"time", "level", "process", "pid", "event", "id"};
    const char *key;
    json_t *value;
    json_object_foreach(event, key, value)
    {
        bool again = json_is_string(value) && json_string_length(value) == 0;
        for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
            again |= strcmp(shown[i], key) == 0;
        }
        if (!again) {
            (void)buf_printf(out, "%s%s=", out->len > 0 ? " " : "", key);
            (void)append_value(out, value, false);
        }
    }
}

static const char *text_of(json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));
    return text != NULL ? text : "";
}

static void print_words(json_t *event, const char *id)
{
    const char *name = text_of(event, "event"), *level = text_of(event, "level"), *words = phrase_of(name);
    const char *colour = strcmp(level, "error") == 0              ? "\033[31m"
                         : strcmp(level, "warn") == 0             ? "\033[33m"
                         : strcmp(name, "message.delivered") == 0 ? "\033[32m"
                                                                  : "";
    bool coloured = colour[0] != '\0' && cli_has_colour();
    struct buf out;
    buf_init(&out, 65536);
    if (words != NULL) {
        append_phrase(&out, words, event);
    } else {
        append_fields(&out, event);
    }
    char *text = span_dup(buf_span(&out));
    buf_fini(&out);
    if (text != NULL) {
        cli_clean(text);
        (void)printf("%s  %-*s  %-*s  %s%-*s%s  %s\n", text_of(event, "time"), ID_COLUMN, id, PROCESS_WIDTH,
                     text_of(event, "process"), coloured ? colour : "", EVENT_COLUMN, name, coloured ? "\033[0m" : "",
                     text);
    }
    free(text);
}

static void print_event(struct trace *t, const char *line, size_t len)
{
    struct event_ids ids = read_ids(line, len);
    json_t *event = belongs(t, &ids) ? json_loadb(line, len, 0, NULL) : NULL;
    if (event == NULL) {
        return;
    }
    if (t->cli->json) {
        (void)fputs(t->printed > 0 ? ",\n" : "[\n", stdout);
        (void)json_dumpf(event, stdout, JSON_COMPACT);
    } else {
        print_words(event, ids.own[0] != '\0' ? ids.own : ids.session);
    }
    t->printed++;
    json_decref(event);
}

/* What is next. */

static void print_next(void *arg, json_t *line)
{
    size_t *count = arg;
    json_t *recipients = json_object_get(line, "recipients");
    const char *id = text_of(line, "id"), *next = text_of(line, "next");
    if (id[0] == '\0') { /* the last line has the count */
        return;
    }
    char *words = strdup(text_of(line, "words"));
    if (words != NULL) {
        cli_clean(words);
        (void)printf("%s is in the queue, %s%s%s%s%s; %zu recipients left\n", id, text_of(line, "state"),
                     words[0] != '\0' ? ": " : "", words, next[0] != '\0' ? ", next try " : "", next,
                     json_array_size(recipients));
    }
    free(words);
    ++*count;
}

static int ask_queue(struct trace *t, json_t *ids, size_t *count)
{
    int status = cli_ask(t->cli, "spool", json_pack("{s:s,s:O}", "verb", "queue.list", "ids", ids), print_next, count);
    (void)json_array_clear(ids);
    return status;
}

/* Whatever the story's messages wait for now. A message that is gone is no error. */
static void tell_next(struct trace *t)
{
    struct known_id *id, *next;
    size_t count = 0;
    int status = 0;
    if (t->messages.ids == NULL) {
        return;
    }
    if (!cli_answers(t->cli, "spool")) {
        (void)puts("kidoband does not answer: what is still in the queue, and what comes next, is not known");
        return;
    }
    json_t *ids = json_array();
    HASH_ITER(hh, t->messages.ids, id, next)
    {
        (void)json_array_append_new(ids, json_string(id->text));
        if (status == 0 && (json_array_size(ids) == QUESTION_IDS || next == NULL)) {
            status = ask_queue(t, ids, &count);
        }
    }
    json_decref(ids);
    if (status == 0 && count == 0) {
        (void)puts("nothing of it is in the queue any more");
    }
}

static int tell(struct trace *t)
{
    find_story(t);
    each_line(t, print_event);
    if (t->cli->json) {
        (void)fputs(t->printed > 0 ? "\n]\n" : "[]\n", stdout);
    } else if (t->printed > 0) {
        tell_next(t);
    }
    if (t->printed == 0) {
        cli_error("nothing is known of %s (looked in %s and what was rotated from it)", t->word,
                  t->cli->config->processes.event_file);
    }
    if (t->messages.full || t->sessions.full) {
        cli_error("more than %u messages or sessions have to do with it; the story is cut", IDS_MAX);
    }
    return t->printed > 0 ? 0 : 1;
}

/* "<a@b>" is a@b; an id in upper case is the same id. */
static int take_word(struct trace *t, char *argument)
{
    size_t len = strlen(argument);
    uint64_t id;
    bool brackets = len > 2 && argument[0] == '<' && argument[len - 1] == '>';
    argument[len - (brackets ? 1 : 0)] = '\0';
    t->word = argument + (brackets ? 1 : 0);
    if (id_parse(t->word, &id) == 0 && id != 0) {
        id_format(id, t->asked);
    }
    buf_init(&t->escaped, 6 * WORD_MAX);
    return t->word[0] == '\0' || strlen(t->word) > WORD_MAX ? -EINVAL
                                                            : log_escape(&t->escaped, span_str(t->word), WORD_MAX);
}

int cli_trace(struct cli *c, int argc, char **argv)
{
    struct trace t = {.cli = c};
    if (argc != 1 || take_word(&t, argv[0]) < 0) {
        return cli_usage("usage: kidoban trace ID|MESSAGE-ID|ADDRESS");
    }
    const struct config *config = cli_config(c);
    int status = config != NULL ? map_files(&t, config) : EX_CONFIG;
    if (status == 0) {
        status = tell(&t);
    }
    for (size_t i = 0; i < t.files_count; i++) {
        (void)munmap(t.files[i].text, t.files[i].size);
    }
    free(t.files);
    id_set_fini(&t.messages);
    id_set_fini(&t.sessions);
    buf_fini(&t.escaped);
    return status;
}

/*
 * `kidoban trace`: the event files hold every decision; here they are read again for one id, Message-ID or address, and
 * the ids that they name are followed: a session to its messages, a message to its session and its bounces. Works with
 * the daemon down.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>

#include "cli/cli.h"
#include "common/id.h"

#define IDS_MAX 10000

struct traced_id {
    char text[ID_TEXT_LEN + 1];
    UT_hash_handle hh;
};

struct trace {
    struct cli *cli;
    struct traced_id *ids;
    const char *word; /* what was asked for */
    json_t *events;   /* what was found, in the files' order */
};

/* The fields that hold ids. */
static const char *const id_fields[] = {"id", "session", "original"};

static void add_id(struct trace *t, const char *text)
{
    struct traced_id *known = NULL;
    uint64_t id;
    if (text == NULL || id_parse(text, &id) < 0 || id == 0 || HASH_COUNT(t->ids) >= IDS_MAX) {
        return;
    }
    HASH_FIND_STR(t->ids, text, known);
    if (known == NULL && (known = calloc(1, sizeof(*known))) != NULL) {
        memcpy(known->text, text, ID_TEXT_LEN);
        HASH_ADD_STR(t->ids, text, known);
    }
}

static bool knows(const struct trace *t, const char *text)
{
    struct traced_id *known = NULL;
    if (text != NULL) {
        HASH_FIND_STR(t->ids, text, known);
    }
    return known != NULL;
}

/* Every line of a file, oldest first. A line cut by rotation or a crash is no JSON and is passed over. */
static void each_line(const char *path, void (*seen)(struct trace *t, const char *line, size_t len), struct trace *t)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size == 0) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return;
    }
    size_t size = (size_t)st.st_size;
    const char *text = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    (void)close(fd);
    if (text == MAP_FAILED) {
        return;
    }
    for (const char *at = text, *end = text + size; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (newline == NULL) {
            break;
        }
        seen(t, at, (size_t)(newline - at));
        at = newline + 1;
    }
    (void)munmap((void *)text, size);
}

static void each_file(struct trace *t, const struct config *c,
                      void (*seen)(struct trace *t, const char *line, size_t len))
{
    char path[4096];
    for (unsigned i = c->processes.event_files; i > 0; i--) {
        (void)snprintf(path, sizeof(path), "%s.%u", c->processes.event_file, i);
        each_line(path, seen, t);
    }
    each_line(c->processes.event_file, seen, t);
}

/* First pass: lines that name the word as the value of a field give their ids. */
static void gather(struct trace *t, const char *line, size_t len)
{
    size_t word = strlen(t->word);
    if (word == 0 || memmem(line, len, t->word, word) == NULL) {
        return;
    }
    json_t *event = json_loadb(line, len, 0, NULL);
    const char *key;
    json_t *value;
    bool hit = false;
    json_object_foreach(event, key, value)
    {
        const char *text = json_string_value(value);
        hit |= text != NULL && strcmp(text, t->word) == 0;
    }
    if (hit) {
        const char *id = json_string_value(json_object_get(event, "id"));
        const char *session = json_string_value(json_object_get(event, "session"));
        uint64_t none = 0;
        bool message = id != NULL && id_parse(id, &none) == 0 && none != 0;
        add_id(t, message ? id : session); /* an address leads to its messages, not to all that their sessions did */
    }
    json_decref(event);
}

/* Second pass, until nothing new is named: a message leads to its session and bounces. */
static void follow(struct trace *t, const char *line, size_t len)
{
    bool any = false;
    struct traced_id *id, *next;
    if (HASH_COUNT(t->ids) <= 8) { /* cheap first look */
        HASH_ITER(hh, t->ids, id, next)
        {
            any = any || memmem(line, len, id->text, ID_TEXT_LEN) != NULL;
        }
    } else {
        any = true;
    }
    json_t *event = any ? json_loadb(line, len, 0, NULL) : NULL;
    const char *original = json_string_value(json_object_get(event, "original"));
    const char *own = json_string_value(json_object_get(event, "id"));
    if (event != NULL && (knows(t, original) || (knows(t, own) && original != NULL))) {
        add_id(t, own);
        add_id(t, original);
    }
    json_decref(event);
}

static void collect(struct trace *t, const char *line, size_t len)
{
    bool hit = false;
    json_t *event = json_loadb(line, len, 0, NULL);
    for (size_t i = 0; event != NULL && i < sizeof(id_fields) / sizeof(id_fields[0]); i++) {
        hit |= knows(t, json_string_value(json_object_get(event, id_fields[i])));
    }
    if (hit) {
        (void)json_array_append(t->events, event);
    }
    json_decref(event);
}

/* The session of a message: its login and end belong to the story; its other messages do not. */
static void add_sessions(struct trace *t, json_t *events)
{
    size_t i;
    json_t *event;
    json_array_foreach(events, i, event)
    {
        const char *id = json_string_value(json_object_get(event, "id"));
        if (knows(t, id)) {
            add_id(t, json_string_value(json_object_get(event, "session")));
        }
    }
}

static bool another_message(const struct trace *messages, json_t *event)
{
    const char *id = json_string_value(json_object_get(event, "id"));
    uint64_t none = 0;
    return id != NULL && id_parse(id, &none) == 0 && none != 0 && !knows(messages, id);
}

static void print_event(json_t *event)
{
    static const char *const known[] = {"time", "level", "process", "pid", "event"};
    const char *key;
    json_t *value;
    (void)printf("%s  %-8s %-20s", json_string_value(json_object_get(event, "time")),
                 json_string_value(json_object_get(event, "process")),
                 json_string_value(json_object_get(event, "event")));
    json_object_foreach(event, key, value)
    {
        bool shown = false;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
            shown |= strcmp(known[i], key) == 0;
        }
        const char *text = json_string_value(value);
        if (shown || (text != NULL && text[0] == '\0')) {
            continue;
        }
        if (text != NULL) {
            (void)printf(strpbrk(text, " =") != NULL ? " %s=\"%s\"" : " %s=%s", key, text);
        } else {
            (void)printf(" %s=%lld", key, (long long)json_integer_value(value));
        }
    }
    (void)fputc('\n', stdout);
}

static void ids_free(struct trace *t)
{
    struct traced_id *id, *next;
    HASH_ITER(hh, t->ids, id, next)
    {
        HASH_DEL(t->ids, id);
        free(id);
    }
}

static void print_next(void *arg, json_t *line)
{
    const struct cli *c = arg;
    if (!c->json && json_object_get(line, "id") != NULL) {
        const char *state = json_string_value(json_object_get(line, "state"));
        const char *next = json_string_value(json_object_get(line, "next"));
        (void)printf("%s is in the queue: %s%s%s\n", json_string_value(json_object_get(line, "id")),
                     state != NULL ? state : "", next != NULL ? ", next try " : "", next != NULL ? next : "");
    }
}

/* Whatever the story's messages wait for now. A message that is gone is no error. */
static void tell_next(struct trace *t)
{
    struct traced_id *id, *next;
    if (t->cli->json || !cli_answers(t->cli, "spool")) {
        return;
    }
    HASH_ITER(hh, t->ids, id, next)
    {
        (void)cli_ask(t->cli, "spool", json_pack("{s:s,s:[s]}", "verb", "queue.list", "ids", id->text), print_next,
                      t->cli);
    }
}

static void print_story(const struct trace *messages, const struct trace *all)
{
    size_t i, printed = 0;
    json_t *event;
    if (all->cli->json) {
        (void)fputs("[", stdout);
    }
    json_array_foreach(all->events, i, event)
    {
        if (HASH_COUNT(messages->ids) > 0 && another_message(messages, event)) {
            continue;
        }
        if (all->cli->json) {
            (void)fputs(printed > 0 ? ",\n" : "\n", stdout);
            (void)json_dumpf(event, stdout, JSON_COMPACT);
        } else {
            print_event(event);
        }
        printed++;
    }
    if (all->cli->json) {
        (void)fputs("\n]\n", stdout);
    }
}

int cli_trace(struct cli *c, int argc, char **argv)
{
    const struct config *config = cli_config(c);
    if (argc != 1) {
        return cli_usage("usage: kidoban trace ID|MESSAGE-ID|ADDRESS");
    }
    if (config == NULL) {
        return EX_CONFIG;
    }
    char *word = strdup(argv[0][0] == '<' ? argv[0] + 1 : argv[0]);
    if (word == NULL) {
        return EX_OSERR;
    }
    size_t len = strlen(word);
    if (len > 0 && word[len - 1] == '>') {
        word[len - 1] = '\0';
    }
    struct trace t = {.cli = c, .word = word, .events = json_array()};
    uint64_t id;
    if (id_parse(word, &id) == 0) {
        add_id(&t, word);
    } else {
        each_file(&t, config, gather);
    }
    for (size_t before = 0; HASH_COUNT(t.ids) != before;) {
        before = HASH_COUNT(t.ids);
        each_file(&t, config, follow);
    }
    struct trace all = {.cli = c};
    each_file(&t, config, collect);
    struct traced_id *one, *next;
    HASH_ITER(hh, t.ids, one, next)
    {
        add_id(&all, one->text);
    }
    add_sessions(&all, t.events);
    all.events = json_array();
    each_file(&all, config, collect);
    int status = json_array_size(all.events) > 0 ? 0 : 1;
    if (status == 0) {
        print_story(&t, &all);
        tell_next(&t);
    } else {
        cli_error("nothing is known of %s (looked in %s)", argv[0], config->processes.event_file);
    }
    json_decref(t.events);
    json_decref(all.events);
    ids_free(&t);
    ids_free(&all);
    free(word);
    return status;
}

/*
 * The control protocol's client half: one JSON object a line out, JSON lines in until "done".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/cli.h"

#define ANSWER_LIMIT_S 60
#define FILE_MAX       (8U * 1024U * 1024U)

static int read_whole(const char *path, struct buf *text)
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return -errno;
    }
    buf_init(text, FILE_MAX);
    int r = 0;
    for (size_t n = 1; r == 0 && n > 0;) {
        uint8_t *room;
        r = buf_reserve(text, 4096, &room);
        n = r == 0 ? fread(room, 1, 4096, f) : 0;
        if (n > 0) {
            buf_commit(text, n);
        }
    }
    (void)fclose(f);
    return r;
}

const struct config *cli_config(struct cli *c)
{
    struct config_complaints complaints = {0};
    struct buf text, words;
    if (c->config != NULL) {
        return c->config;
    }
    int r = read_whole(c->config_path, &text);
    if (r < 0) {
        cli_error("%s: %s", c->config_path, strerror(-r));
        return NULL;
    }
    buf_init(&words, 65536);
    if (config_load(buf_span(&text), c->config_path, &c->config, &complaints) < 0) {
        (void)config_complaints_format(&complaints, &words);
        (void)fwrite(words.data, 1, words.len, stderr);
    }
    config_complaints_fini(&complaints);
    buf_fini(&words);
    buf_fini(&text);
    return c->config;
}

static int connect_to(struct cli *c, const char *owner)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    const struct config *config = cli_config(c);
    if (config == NULL) {
        return -EX_CONFIG;
    }
    int n = snprintf(un.sun_path, sizeof(un.sun_path), "%s/%s.sock", config->processes.runtime_directory, owner);
    if (n < 0 || (size_t)n >= sizeof(un.sun_path)) {
        return -EX_CONFIG;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -EX_OSERR;
    }
    struct timeval limit = {.tv_sec = ANSWER_LIMIT_S};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&un, sizeof(un)) != 0) {
        int err = errno;
        (void)close(fd);
        cli_error(err == EACCES ? "%s: %s; root and the group kidoban may ask" : "%s: %s; is kidoband running?",
                  un.sun_path, strerror(err));
        return err == EACCES ? -EX_NOPERM : -EX_UNAVAILABLE;
    }
    return fd;
}

bool cli_answers(struct cli *c, const char *owner)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    const struct config *config = cli_config(c);
    int fd = config != NULL ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0) {
        return false;
    }
    (void)snprintf(un.sun_path, sizeof(un.sun_path), "%s/%s.sock", config->processes.runtime_directory, owner);
    bool yes = connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0;
    (void)close(fd);
    return yes;
}

static bool send_line(int fd, json_t *request)
{
    char *text = json_dumps(request, JSON_COMPACT);
    size_t len = text != NULL ? strlen(text) : 0;
    bool good = text != NULL;
    if (good) {
        text[len] = '\n'; /* in place of the NUL: written with its length */
    }
    for (size_t done = 0; good && done < len + 1;) {
        ssize_t n = send(fd, text + done, len + 1 - done, MSG_NOSIGNAL);
        good = n > 0;
        done += n > 0 ? (size_t)n : 0;
    }
    if (text != NULL) {
        explicit_bzero(text, len);
        free(text);
    }
    return good;
}

/* -1: go on; else the exit status. */
static int take_line(const char *line, size_t len, void (*seen)(void *arg, json_t *line), void *arg)
{
    json_error_t error;
    json_t *object = json_loadb(line, len, 0, &error);
    if (!json_is_object(object)) {
        json_decref(object);
        cli_error("the answer is not JSON: %s", error.text);
        return EX_PROTOCOL;
    }
    int status = -1;
    const char *words = json_string_value(json_object_get(object, "error"));
    if (words != NULL) {
        json_t *number = json_object_get(object, "status");
        status = json_is_integer(number) ? (int)json_integer_value(number) : EX_SOFTWARE;
        cli_error("%s", words);
    } else {
        bool done = json_is_true(json_object_get(object, "done"));
        (void)json_object_del(object, "done");
        if (seen != NULL && (!done || json_object_size(object) > 0)) {
            seen(arg, object);
        }
        status = done ? 0 : -1;
    }
    json_decref(object);
    return status;
}

int cli_ask(struct cli *c, const char *owner, json_t *take_request, void (*seen)(void *arg, json_t *line), void *arg)
{
    int fd = take_request != NULL ? connect_to(c, owner) : -EX_SOFTWARE;
    int status = fd < 0 ? -fd : -1;
    if (fd >= 0 && !send_line(fd, take_request)) {
        cli_error("%s does not take the question: %s", owner, strerror(errno));
        status = EX_IOERR;
    }
    json_decref(take_request);
    FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
    char *line = NULL;
    size_t size = 0;
    while (f != NULL && status == -1) {
        errno = 0;
        ssize_t n = getline(&line, &size, f);
        if (n <= 0) {
            cli_error(errno == EAGAIN ? "%s does not answer" : "%s went away before it had answered", owner);
            status = EX_UNAVAILABLE;
        } else {
            status = take_line(line, (size_t)n, seen, arg);
        }
    }
    if (line != NULL) {
        explicit_bzero(line, size);
        free(line);
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return status;
}

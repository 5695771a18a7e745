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
    int r = f == NULL ? -errno : 0;
    buf_init(text, FILE_MAX);
    for (size_t n = 1; r == 0 && n > 0;) {
        uint8_t *room;
        r = buf_reserve(text, 4096, &room);
        errno = 0;
        n = r == 0 ? fread(room, 1, 4096, f) : 0;
        if (n > 0) {
            buf_commit(text, n);
        } else if (r == 0 && ferror(f) != 0) {
            r = errno != 0 ? -errno : -EIO;
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return r == -EMSGSIZE ? -EFBIG : r;
}

static void print_complaints_json(const struct config_complaints *complaints)
{
    json_t *all = json_array();
    for (size_t i = 0; i < complaints->count; i++) {
        const struct config_complaint *one = &complaints->list[i];
        (void)json_array_append_new(all,
                                    json_pack("{s:s,s:I,s:I,s:s}", "file", one->file, "line", (json_int_t)one->line,
                                              "column", (json_int_t)one->column, "text", one->text));
    }
    (void)json_dumpf(all, stdout, JSON_INDENT(2));
    (void)fputc('\n', stdout);
    json_decref(all);
}

void cli_print_complaints(const struct cli *c, struct config_complaints *complaints, bool as_json)
{
    struct buf words;
    buf_init(&words, 1U << 20);
    (void)config_complaints_format(complaints, &words); /* puts them in order, too */
    if (c->json && as_json) {
        print_complaints_json(complaints);
    } else {
        (void)fwrite(words.data, 1, words.len, stderr);
    }
    buf_fini(&words);
}

const struct config *cli_config(struct cli *c)
{
    struct config_complaints complaints = {0};
    struct buf text;
    if (c->config != NULL) {
        return c->config;
    }
    int r = read_whole(c->config_path, &text);
    c->unreadable = r < 0;
    r = r < 0 ? r : config_load(buf_span(&text), c->config_path, &c->config, &complaints);
    if (r < 0 && complaints.count > 0) {
        cli_print_complaints(c, &complaints, c->checking);
    } else if (r < 0) {
        cli_error("%s: %s", c->config_path, strerror(-r));
    }
    config_complaints_fini(&complaints);
    buf_fini(&text);
    return c->config;
}

/* false: the path is too long for a socket. */
static bool socket_path(const struct config *config, const char *owner, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/%s.sock", config->processes.runtime_directory, owner);
    return n > 0 && (size_t)n < sizeof(ret->sun_path);
}

/* A descriptor, or minus an exit status after saying why. */
static int connect_to(struct cli *c, const char *owner)
{
    struct sockaddr_un un;
    const struct config *config = cli_config(c);
    if (config == NULL) {
        return -EX_CONFIG;
    }
    if (!socket_path(config, owner, &un)) {
        cli_error("%s is too long for a socket's path", config->processes.runtime_directory);
        return -EX_CONFIG;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        cli_error("%s", strerror(errno));
        return -EX_OSERR;
    }
    struct timeval limit = {.tv_sec = ANSWER_LIMIT_S};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&un, sizeof(un)) != 0) {
        int err = errno;
        (void)close(fd);
        cli_error(err == EACCES ? "%s: %s; root and the group kidoban may ask" : "%s: %s; is kidoband running?",
                  un.sun_path, strerror(err));
        return err == EACCES ? -EX_NOPERM : -EX_UNAVAILABLE;
    }
    return fd;
}

int cli_connect(struct cli *c, const char *owner)
{
    struct sockaddr_un un;
    const struct config *config = cli_config(c);
    int fd = config != NULL && socket_path(config, owner, &un) ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0) {
        return -EINVAL;
    }
    int err = connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0 ? 0 : errno;
    if (err != 0) {
        (void)close(fd);
        return -err;
    }
    return fd;
}

bool cli_answers(struct cli *c, const char *owner)
{
    int fd = cli_connect(c, owner);
    if (fd >= 0) {
        (void)close(fd);
    }
    return fd >= 0;
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

/* -1: go on; else the exit status. An import's lines name what was refused, and go on. */
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
    bool done = json_is_true(json_object_get(object, "done"));
    if (words != NULL && done) {
        json_t *number = json_object_get(object, "status");
        json_int_t said = json_integer_value(number);
        status = said > 0 && said < 126 ? (int)said : EX_SOFTWARE;
        cli_error("%s", words);
    } else {
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

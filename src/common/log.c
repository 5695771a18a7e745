#include "common/log.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/id.h"
#include "common/utf8.h"

#define LOG_PENDING_MAX (1024U * 1024U)
#define LOG_TEXT_MAX    1024U

static struct {
    const char *process;
    enum log_level stderr_level;
    int event_fd;
    pid_t pid;          /* asked once: getpid is a system call, and an event is written for every message */
    struct buf pending; /* for the event file */
    struct buf console; /* for standard error */
    uint64_t dropped;
} logger = {.process = "kidoban", .stderr_level = LOG_LEVEL_INFO, .event_fd = -1};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_open(const char *process, enum log_level stderr_level, int event_fd)
{
    logger.process = process;
    logger.stderr_level = stderr_level;
    logger.event_fd = event_fd;
    logger.pid = getpid();
    buf_init(&logger.pending, LOG_PENDING_MAX);
    buf_init(&logger.console, LOG_PENDING_MAX);
}

void log_set_event_fd(int event_fd)
{
    log_flush();
    if (logger.event_fd >= 0) {
        (void)close(logger.event_fd);
    }
    logger.event_fd = event_fd;
}

/* Octets of the sequence at the start of in that may be shown as they are, or 0. C1 controls move terminals too. */
static size_t shown_sequence(struct span in)
{
    size_t n = utf8_sequence(in);
    return n == 2 && in.ptr[0] == 0xc2 && in.ptr[1] < 0xa0 ? 0 : n;
}

int log_escape(struct buf *b, struct span text, size_t max)
{
    size_t len = text.len < max ? text.len : max;
    int r = 0;
    for (size_t i = 0; i < len && r == 0;) {
        uint8_t c = text.ptr[i];
        size_t multi = c >= 0x80 ? shown_sequence((struct span){text.ptr + i, len - i}) : 0;
        if (c == '"' || c == '\\') {
            uint8_t two[2] = {'\\', c};
            r = buf_append(b, two, 2);
        } else if (multi > 0) {
            r = buf_append(b, text.ptr + i, multi);
        } else if (c < 0x20 || c >= 0x7f) {
            r = buf_printf(b, "\\u%04x", c);
        } else {
            size_t run = 1;
            while (i + run < len && text.ptr[i + run] >= 0x20 && text.ptr[i + run] < 0x7f && text.ptr[i + run] != '"' &&
                   text.ptr[i + run] != '\\') {
                run++;
            }
            r = buf_append(b, text.ptr + i, run);
            multi = run;
        }
        i += multi > 0 ? multi : 1;
    }
    return r;
}

static void append_text(struct buf *b, struct span text)
{
    (void)buf_append_byte(b, '"');
    (void)log_escape(b, text, LOG_TEXT_MAX);
    (void)buf_append_byte(b, '"');
}

static void append_list(struct buf *b, const struct log_field *f)
{
    (void)buf_append_byte(b, '[');
    for (uint64_t i = 0; i < f->number; i++) {
        if (i > 0) {
            (void)buf_append_byte(b, ',');
        }
        append_text(b, f->list[i]);
    }
    (void)buf_append_byte(b, ']');
}

static void append_field(struct buf *b, const struct log_field *f)
{
    char id[ID_TEXT_LEN + 1];
    (void)buf_printf(b, ",\"%s\":", f->name);
    switch (f->kind) {
    case LOG_KIND_UINT:
        (void)buf_printf(b, "%llu", (unsigned long long)f->number);
        break;
    case LOG_KIND_ID:
        id_format(f->number, id);
        (void)buf_printf(b, "\"%s\"", id);
        break;
    case LOG_KIND_ERRNO:
        (void)buf_printf(b, "\"%s\"", strerror((int)f->number));
        break;
    case LOG_KIND_TEXT:
        append_text(b, f->text);
        break;
    case LOG_KIND_LIST:
        append_list(b, f);
        break;
    }
}

static void append_time(struct buf *b)
{
    static time_t last = -1;
    static char text[32];
    uint64_t ms = clock_wall_ms();
    time_t sec = (time_t)(ms / 1000);
    if (sec != last) {
        struct tm tm;
        (void)gmtime_r(&sec, &tm);
        (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
        last = sec;
    }
    (void)buf_printf(b, "{\"time\":\"%s.%03uZ\"", text, (unsigned)(ms % 1000));
}

void log_event(enum log_level level, const char *event, const struct log_field *fields, size_t count)
{
    struct buf *b = &logger.pending;
    if (b->max == 0) {
        log_open(logger.process, logger.stderr_level, logger.event_fd);
    }
    if (level == LOG_LEVEL_DEBUG && logger.stderr_level != LOG_LEVEL_DEBUG) {
        return;
    }
    if (b->len > LOG_PENDING_MAX / 2) {
        log_flush();
    }
    size_t start = b->len;
    append_time(b);
    (void)buf_printf(b, ",\"level\":\"%s\",\"process\":\"%s\",\"pid\":%ld,\"event\":\"%s\"", level_names[level],
                     logger.process, (long)logger.pid, event);
    for (size_t i = 0; i < count; i++) {
        append_field(b, &fields[i]);
    }
    (void)buf_append_str(b, "}\n");
    if (level >= logger.stderr_level) {
        (void)buf_append(&logger.console, b->data + start, b->len - start);
    }
}

/* A log that cannot be written must not stop the mail: what does not go out at once is dropped and counted. */
static void write_out(int fd, struct buf *b)
{
    while (fd >= 0 && b->len > 0) {
        ssize_t n = write(fd, b->data, b->len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            logger.dropped++;
            break;
        }
        buf_consume(b, (size_t)n);
    }
    buf_clear(b);
}

void log_flush(void)
{
    int saved = errno;
    if (logger.pending.len > 0) {
        write_out(logger.event_fd, &logger.pending);
    }
    if (logger.console.len > 0) {
        write_out(STDERR_FILENO, &logger.console);
    }
    errno = saved;
}

_Noreturn void log_fatal(const char *what, int err)
{
    log_error("process.fatal", LF_STR("what", what), LF_ERR(err));
    log_flush();
    _exit(111);
}

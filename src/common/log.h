/*
 * log.h: programs log, libraries return. One line an event, once: a JSON object with time, level, process, event and
 * named fields. Text from outside goes through one escaper here; credentials have no field and are never passed.
 *
 * Lines gather in memory and go out with one write when log_flush() is called (each turn of the event loop), to the
 * event file that the master opened (what `kidoban trace` reads) and, from `level` up, to standard error or journald.
 * Event names are the operator's interface: every one stands in kidoban-events(7), and the test run compares.
 */
#ifndef KIDOBAN_COMMON_LOG_H
#define KIDOBAN_COMMON_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

enum log_kind { LOG_KIND_TEXT, LOG_KIND_UINT, LOG_KIND_ID, LOG_KIND_ERRNO, LOG_KIND_LIST };

struct log_field {
    const char *name;
    enum log_kind kind;
    struct span text;
    uint64_t number;
    const struct span *list; /* number of them */
};

#define LF_SPAN(n, v) ((struct log_field){.name = (n), .kind = LOG_KIND_TEXT, .text = (v)})
#define LF_STR(n, v)  ((struct log_field){.name = (n), .kind = LOG_KIND_TEXT, .text = span_str(v)})
#define LF_UINT(n, v) ((struct log_field){.name = (n), .kind = LOG_KIND_UINT, .number = (uint64_t)(v)})
#define LF_ID(n, v)   ((struct log_field){.name = (n), .kind = LOG_KIND_ID, .number = (v)})
/* An array of texts. */
#define LF_LIST(n, v, count)                                                                                           \
    ((struct log_field){.name = (n), .kind = LOG_KIND_LIST, .list = (v), .number = (uint64_t)(count)})
/* An errno, positive or negative, written as its text. */
#define LF_ERR(v)                                                                                                      \
    ((struct log_field){.name = "error", .kind = LOG_KIND_ERRNO, .number = (uint64_t)((v) < 0 ? -(v) : (v))})

#define log_debug(event, ...) LOG_EVENT(LOG_LEVEL_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...)  LOG_EVENT(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_warn(event, ...)  LOG_EVENT(LOG_LEVEL_WARN, event, __VA_ARGS__)
#define log_error(event, ...) LOG_EVENT(LOG_LEVEL_ERROR, event, __VA_ARGS__)
#define LOG_EVENT(level, event, ...)                                                                                   \
    log_event((level), (event), (const struct log_field[]){__VA_ARGS__},                                               \
              sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field))

/* process: borrowed for ever (a literal). event_fd: -1 for none. */
void log_open(const char *process, enum log_level stderr_level, int event_fd);
void log_set_event_fd(int event_fd); /* after rotation; the old one is closed */
void log_event(enum log_level level, const char *event, const struct log_field *fields, size_t count);
void log_flush(void);

/* JSON-escapes text into b: control and non-UTF-8 octets as \u00XX, at most max octets of text. 0 or as buf_append. */
int log_escape(struct buf *b, struct span text, size_t max);

/* Our own bug or a peer we started: says why, flushes, aborts the process with status 111. */
_Noreturn void log_fatal(const char *what, int err);

#endif

/*
 * control.h: the server half of the control protocol on a process's own unix socket: one JSON object a line in, JSON
 * lines out, the last with "done":true. One request at a time a connection; connections, line length and output are
 * bounded. Who asks is told by SO_PEERCRED; who may ask is decided by the mode of the socket file.
 */
#ifndef KIDOBAN_PROCESS_CONTROL_H
#define KIDOBAN_PROCESS_CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include <uv.h>

struct audit; /* process/audit.h */
struct control;
struct control_request;

struct control_verb {
    const char *name; /* "queue.list" */
    /* Answers with control_line()... and one control_done() or control_fail(), now or later. request is borrowed JSON.
     */
    void (*run)(void *arg, struct control_request *rq, const json_t *request);
};

/* Takes listen_fd. verbs ends with a NULL name; borrowed. */
struct control *control_new(uv_loop_t *loop, int listen_fd, const struct control_verb *verbs, void *arg);
void control_free(struct control **c);

/* One line of answer; takes the object. 0, or -EPIPE: the asker is gone (still end the request). */
int control_line(struct control_request *rq, json_t *take_object);
void control_done(struct control_request *rq, json_t *take_object); /* NULL: {}; adds "done":true */
/* status: sysexits (EX_USAGE 64, EX_DATAERR 65, EX_UNAVAILABLE 69, EX_CANTCREAT 73, EX_TEMPFAIL 75 ...) or 1: the
 * answer is no. */
void control_fail(struct control_request *rq, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* When more than a screenful waits to be read: stop producing, continue in resume. For long lists. */
bool control_is_full(const struct control_request *rq);
void control_on_drain(struct control_request *rq, void (*resume)(struct control_request *rq, void *arg), void *arg,
                      void (*drop)(void *arg));
/* The asker's user id, and its name for the audit log (valid until done). */
unsigned control_peer_uid(const struct control_request *rq);
const char *control_peer_name(const struct control_request *rq);

/* control_audit.c. Answers "audit.list": the last "count" lines of the log, by default 100, that concern account (NULL:
 * all). */
void control_audit_list(struct control_request *rq, struct audit *a, const json_t *request, const char *account);

#endif

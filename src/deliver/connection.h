/*
 * connection.h: one connection to one address of a next hop: the stream, the client engine (smtp/client.h) and the job
 * it is busy with. It knows nothing of queues or other hosts: destination.c gives it jobs and hears how it ended.
 *
 * All that the next hop says is hostile: it is bounded and judged by the engine. A message's octets leave only after
 * their checksum was verified; if a long one changes while it is sent, the final dot is never sent.
 */
#ifndef KIDOBAN_DELIVER_CONNECTION_H
#define KIDOBAN_DELIVER_CONNECTION_H

#include <uv.h>

#include "deliver/outcome.h"
#include "deliver/route.h"
#include "deliver/sessions.h"

#define CONNECTION_WINDOW (256U * 1024U) /* octets of a message read at once; a message of that size is read once */

/* Shared by the connections of one configuration; borrowed. */
struct connection_env {
    uv_loop_t *loop;
    struct outcome_sink *sink;
    struct sessions *sessions;
    const char *hostname; /* for EHLO */
    /* command: each up to RCPT; data: DATA, each block, the end of data. RFC 5321 section 4.5.3.2 has the longest. */
    uint64_t connect_ms, command_ms, data_ms;
    unsigned messages_max;             /* a connection; 0: no limit but the host's own */
    const struct net_address *sources; /* of both families; may be none */
    size_t sources_count;
};

enum connection_phase {
    CONNECTION_OPENING,  /* connect */
    CONNECTION_TLS,      /* handshake */
    CONNECTION_GREETING, /* 220, EHLO, AUTH */
    CONNECTION_IDLE,     /* waits for a job, or for its end */
    CONNECTION_BUSY,     /* a transaction, the end of data not sent */
    CONNECTION_ANSWER,   /* the end of data was sent: another attempt may be a duplicate */
};

struct connection;

struct connection_end {
    enum connection_phase phase;
    const struct refusal *why;
    bool policy;     /* TLS or AUTH that this route demands was not to be had: says nothing for other routes */
    bool reused;     /* it had served a job before this one: the host itself is well */
    bool resuming;   /* TLS: a session of before was offered, and is forgotten now */
    bool cancelled;  /* cut by us, because its job was cancelled: says nothing about the host */
    struct job *job; /* unfinished: the callee's now; NULL when there was none or all of it is settled */
};

struct connection_ops {
    /* It can take a job: call connection_send() or leave it idle. After each job too. */
    void (*ready)(void *arg, struct connection *c);
    /* It is gone, c may not be used any more. Once, never from connection_open() or connection_send(). */
    void (*ended)(void *arg, struct connection *c, const struct connection_end *end);
};

/* route, name, env, ops: borrowed until ended. name: of the host, for TLS and the outcomes. clear: do not try TLS
 * although it may be (a handshake failed before). NULL: out of memory or descriptors. */
struct connection *connection_open(const struct connection_env *env, const struct routes *routes,
                                   const struct route *route, const char *name, const struct net_address *address,
                                   bool clear, const struct connection_ops *ops, void *arg);
/* Takes the job; only when idle. It is freed when all its recipients have a result. false: that was at once (its
 * addresses cannot be sent, or not to this host), and the connection is still idle. */
bool connection_send(struct connection *c, struct job *take);
/* QUIT when idle, after the job when busy, cut when not yet open. ended follows, from the loop. */
void connection_quit(struct connection *c);
/* Cut, without words; ended follows, from the loop. false: spared, because its end of data was sent and spare_answers
 * is true. */
bool connection_abort(struct connection *c, bool spare_answers);

bool connection_is_idle(const struct connection *c); /* takes a job */

#endif

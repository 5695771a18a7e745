/*
 * channel.h: frames (wire/frame.h) over a unix stream socket pair, under libuv.
 *
 * All that is sent in one turn of the loop leaves in one system call (or a few, when descriptors ride along); all that
 * has arrived is read in one. Sending never blocks: frames wait in memory up to CHANNEL_OUT_MAX, beyond which the peer
 * is taken for dead and the channel closes. Payload views are valid during the callback only. A callback may free the
 * channel.
 */
#ifndef KIDOBAN_PROCESS_CHANNEL_H
#define KIDOBAN_PROCESS_CHANNEL_H

#include <uv.h>

#include "wire/frame.h"

#define CHANNEL_OUT_MAX (64U * 1024U * 1024U)

#define CHANNEL_LOW (512U * 1024U)

struct channel;

struct channel_ops {
    /* fd: -1, or a descriptor the callee now owns. Return 0, or -1: the frame is nonsense, close the channel. */
    int (*frame)(void *arg, const struct frame *f, struct span payload, int fd);
    /* The peer is gone, or spoke nonsense. Called once, from the loop, never from channel_send. */
    void (*closed)(void *arg, const char *why);
    /* Optional: everything read in this turn was handed over (a place to act on a batch). */
    void (*batch_end)(void *arg);
    /* Optional: what waited fell below CHANNEL_LOW; called after every flush that left so little. */
    void (*drained)(void *arg);
};

/* Takes fd (closed with the channel, also on failure). NULL when out of memory. ops is borrowed. */
struct channel *channel_new(uv_loop_t *loop, int fd, const struct channel_ops *ops, void *arg);
void channel_free(struct channel **ch); /* unsent frames are dropped; no callback after it */

/* One frame. fd: -1, or a descriptor to pass: it is duplicated, the caller keeps its own. 0, -EPIPE when closed,
 * -ENOMEM. */
int channel_send(struct channel *ch, uint16_t type, uint64_t id, struct span payload, int fd);

/* The same without a copy: write the payload into the returned writer, then end. Nothing may be sent in between. */
struct wire_writer channel_begin(struct channel *ch, uint16_t type, uint64_t id);
int channel_end(struct channel *ch, struct wire_writer *w); /* 0, or the writer's error: nothing is sent then */

/* From now on octets that were sent are wiped at once: passwords go over this channel. */
void channel_keep_secret(struct channel *ch);

size_t channel_pending(const struct channel *ch); /* octets not yet taken by the kernel */
void channel_flush(struct channel *ch);           /* try to write now */
void channel_read_pause(struct channel *ch, bool paused);

#endif

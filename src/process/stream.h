/*
 * stream.h: one TCP (or unix) connection under libuv, in clear text or TLS, for both submit and deliver.
 *
 * Octets in are handed to the owner as they come; octets out wait in a bounded buffer. TLS can be started at any time
 * in either role; the handshake runs by itself. The end of TLS (close_notify or not) is the end of the stream: no clear
 * octet is ever read after TLS began. Errors arrive once, by closed(); the owner then frees the stream, from any
 * callback it likes.
 */
#ifndef KIDOBAN_PROCESS_STREAM_H
#define KIDOBAN_PROCESS_STREAM_H

#include <openssl/ssl.h>
#include <uv.h>

#include "common/buf.h"
#include "process/turns.h"
#include "wire/address.h"

struct stream;

struct stream_ops {
    /* Octets arrived; returns how many were taken. What is left is offered again with the next ones or after
     * stream_read_resume(). A stream that takes nothing must pause. */
    size_t (*read)(void *arg, struct span octets);
    void (*tls_ready)(void *arg); /* handshake complete */
    void (*connected)(void *arg); /* stream_connect only */
    void (*drained)(void *arg);   /* what had to wait has gone to the kernel; may be NULL */
    /* stream_timeout ran out. NULL: the stream ends with closed(-ETIMEDOUT). */
    void (*timeout)(void *arg);
    /* why: a sentence (static or valid during the call); err: 0 for a plain end, else -errno or 1 for TLS. Exactly
     * once. */
    void (*closed)(void *arg, int err, const char *why);
};

/* Takes fd, non-blocking or not; its options (TCP_NODELAY) are those of its listener. NULL: out of memory, fd closed.
 */
struct stream *stream_new(uv_loop_t *loop, int fd, const struct stream_ops *ops, void *arg);
/* Starts a connection from source (may be NULL) to address; connected() or closed() follows. */
struct stream *stream_connect(uv_loop_t *loop, const struct net_address *address, const struct net_address *source,
                              const struct stream_ops *ops, void *arg);
struct stream *stream_connect_unix(uv_loop_t *loop, const char *path, const struct stream_ops *ops, void *arg);
void stream_free(struct stream **s); /* closes at once; no callback after it */

/* Takes ssl (already configured, SSL_set_accept_state or SSL_set_connect_state done). Octets not yet taken by read()
 * are lost: the owner must have refused them before. first: octets already read that belong to the handshake (behind a
 * PROXY header), usually empty; copied. closed() tells of every failure later. */
int stream_start_tls(struct stream *s, SSL *take_ssl, struct span first);
SSL *stream_ssl(struct stream *s); /* borrowed; NULL in clear text */

int stream_write(struct stream *s, struct span octets); /* 0, -EPIPE, -EMSGSIZE when the owner ignores stream_pending */
size_t stream_pending(const struct stream *s);          /* octets written but not yet with the kernel */
/* From now on the peer's doings wait for their turn, in rank 0 of turns (borrowed); NULL: they are met at once. */
void stream_set_turns(struct stream *s, struct turns *turns);
void stream_read_pause(struct stream *s);
void stream_read_resume(struct stream *s); /* also offers again what was left, from the loop */
/* Writes what waits, sends close_notify, closes; closed(0) follows, within limit_ms. */
void stream_shutdown(struct stream *s, unsigned limit_ms);
/* One timer a stream: timeout() or closed(-ETIMEDOUT) if not set again within ms; 0 stops it. */
void stream_timeout(struct stream *s, uint64_t ms);
void stream_local(const struct stream *s, struct net_address *ret);
/* accept4(2), non-blocking: the connection, which is no stream yet, and who has come; or -1 and errno. */
int stream_accept(int listening, struct net_address *ret_peer);
/* "TLSv1.3 TLS_AES_256_GCM_SHA384", or empty. */
void stream_tls_text(const struct stream *s, char *text, size_t size);
void stream_set_max_out(struct stream *s, size_t max);

#endif

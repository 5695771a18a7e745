/*
 * tls.h: TLS for users' programs after RFC 8314 and RFC 9325: versions 1.2 and 1.3, AEAD with forward secrecy, no
 * renegotiation, no compression, session tickets whose keys change daily and hold for one service only.
 */
#ifndef KIDOBAN_SUBMIT_TLS_H
#define KIDOBAN_SUBMIT_TLS_H

#include <openssl/ssl.h>

#include "common/buf.h"
#include "process/child.h"

struct submit_tls;

struct submit_tls_options {
    bool tls_1_3_only;
    bool tickets;
};

/* From the PEM texts that came with the configuration: certificate and key number 0 are the default, the others answer
 * to the names in them (SNI). The texts are not kept. 0 and *ret, or -EINVAL with *ret_why a sentence. */
int submit_tls_new(const struct child_tls *pem, size_t count, const struct submit_tls_options *options,
                   struct submit_tls **ret, const char **ret_why);
void submit_tls_free(struct submit_tls **tls);

/* A server session, in accept state. service keeps tickets of one listener from holding at another; at most 32 octets.
 * NULL: out of memory. */
SSL *submit_tls_session(const struct submit_tls *tls, struct span service);

/* RFC 9266 tls-exporter (TLS 1.3 only; 32 octets) and RFC 5929 tls-server-end-point. The number of octets, 0: not
 * there. */
size_t submit_tls_exporter(SSL *ssl, uint8_t out[static 64]);
size_t submit_tls_server_end_point(SSL *ssl, uint8_t out[static 64]);

/* The client's verified certificate: fingerprint, first rfc822Name, common name (texts may become empty). false: none.
 */
bool submit_tls_client(SSL *ssl, uint8_t sha256[static 32], struct buf *mailbox, struct buf *subject);

#endif

/*
 * book.h: what is remembered of next hops, by address and port: down until when and in whose words, TLS broken until
 * when. All destinations share it, so that a dead host is found dead once a minute and not once a domain.
 *
 * Pure: the caller brings the time (monotonic, ms). Bounded: the oldest entry makes room.
 */
#ifndef KIDOBAN_DELIVER_BOOK_H
#define KIDOBAN_DELIVER_BOOK_H

#include "wire/address.h"

#define BOOK_MAX       4096
#define BOOK_WORDS_MAX 512
#define BOOK_DOWN_MS   60000 /* at most, and never longer than spool.retry.first */
#define BOOK_TLS_MS    600000

struct book;

/* Why mail cannot go on, as if a next hop had said it. */
struct refusal {
    bool permanent;
    uint16_t code; /* 0: our own words */
    uint8_t enhanced[3];
    char words[BOOK_WORDS_MAX];
};
__attribute__((format(printf, 6, 7))) void refusal_set(struct refusal *r, bool permanent, uint16_t code,
                                                       uint8_t subject, uint8_t detail, const char *fmt, ...);

struct book *book_new(void); /* NULL: out of memory */
void book_free(struct book **b);

/* Down until then. scope 0: for all. Else only for who demands the same: a host without TLS is down for a route
 * that must have it, and well for the others. Without memory nothing is remembered. */
void book_set_down(struct book *b, const struct net_address *a, uint64_t scope, const struct refusal *why,
                   uint64_t until_ms);
/* The refusal, borrowed until the next call, or NULL: worth a try. */
const struct refusal *book_down(const struct book *b, const struct net_address *a, uint64_t scope, uint64_t now_ms);
void book_set_up(struct book *b, const struct net_address *a, uint64_t scope); /* and for all */

/* Its STARTTLS fails: opportunistic TLS is not tried again for BOOK_TLS_MS. */
void book_set_tls_broken(struct book *b, const struct net_address *a, uint64_t now_ms);
bool book_tls_broken(const struct book *b, const struct net_address *a, uint64_t now_ms);

size_t book_count(const struct book *b);

#endif

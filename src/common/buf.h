/*
 * buf.h: a byte buffer that cannot be made without a maximum.
 *
 * Too long is a protocol answer, not a crash: buf_append() says -EMSGSIZE and leaves the buffer as it was. The
 * bytes belong to the buffer; pointers into it die at the next call that may grow or shift it.
 */
#ifndef KIDOBAN_COMMON_BUF_H
#define KIDOBAN_COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A view into bytes that somebody else owns; valid as long as they are. Not NUL-terminated. */
struct span {
    const uint8_t *ptr;
    size_t len;
};

#define SPAN_LIT(s) ((struct span){(const uint8_t *)(s), sizeof(s) - 1})

struct span span_str(const char *s); /* s may be NULL: an empty span */
bool span_eq(struct span a, struct span b);
bool span_eq_nocase(struct span a, struct span b); /* ASCII only */
/* A NUL-terminated copy on the heap, or NULL when out of memory. A NUL inside is copied as it is. */
char *span_dup(struct span s);

struct buf {
    uint8_t *data; /* first live byte */
    size_t len;    /* live bytes */
    size_t max;    /* len never exceeds this */
    uint8_t *base; /* start of the allocation */
    size_t cap;    /* its size */
};

void buf_init(struct buf *b, size_t max); /* no allocation yet */
void buf_fini(struct buf *b);             /* frees; b may be used again after buf_init */
void buf_wipe(struct buf *b);             /* zeroes the allocation, then frees: for secrets */
void buf_clear(struct buf *b);            /* len = 0, memory kept */

/* 0, -EMSGSIZE (over max), -ENOMEM; on failure b is unchanged. */
int buf_append(struct buf *b, const void *bytes, size_t len);
int buf_append_str(struct buf *b, const char *s);
int buf_append_byte(struct buf *b, uint8_t byte);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Room for len bytes after the live ones, at *room; add what was written with buf_commit(). */
int buf_reserve(struct buf *b, size_t len, uint8_t **room);
void buf_commit(struct buf *b, size_t len);
void buf_consume(struct buf *b, size_t len); /* drops from the front */
struct span buf_span(const struct buf *b);

#endif

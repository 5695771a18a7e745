#include "common/buf.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct span span_str(const char *s)
{
    return (struct span){(const uint8_t *)s, s != NULL ? strlen(s) : 0};
}

bool span_eq(struct span a, struct span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static uint8_t ascii_lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

bool span_eq_nocase(struct span a, struct span b)
{
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (ascii_lower(a.ptr[i]) != ascii_lower(b.ptr[i])) {
            return false;
        }
    }
    return true;
}

char *span_dup(struct span s)
{
    char *copy = malloc(s.len + 1);
    if (copy == NULL) {
        return NULL;
    }
    if (s.len > 0) {
        memcpy(copy, s.ptr, s.len);
    }
    copy[s.len] = '\0';
    return copy;
}

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_fini(struct buf *b)
{
    free(b->base);
    *b = (struct buf){.max = b->max};
}

void buf_wipe(struct buf *b)
{
    if (b->base != NULL) {
        explicit_bzero(b->base, b->cap);
    }
    buf_fini(b);
}

void buf_clear(struct buf *b)
{
    b->data = b->base;
    b->len = 0;
}

/* The next capacity: doubles, starts at 256, never more than max. */
static size_t grown_cap(const struct buf *b, size_t need)
{
    size_t cap = b->cap < 256 ? 256 : b->cap;
    while (cap < need) {
        cap *= 2;
    }
    return cap > b->max ? b->max : cap;
}

int buf_reserve(struct buf *b, size_t len, uint8_t **room)
{
    if (len > b->max || b->len > b->max - len) {
        return -EMSGSIZE;
    }
    size_t need = b->len + len;
    size_t front = b->base != NULL ? (size_t)(b->data - b->base) : 0;
    if (front + need > b->cap && need <= b->cap && front >= b->len) {
        memcpy(b->base, b->data, b->len); /* the hole in front is as large as what moves: amortised */
        b->data = b->base;
    } else if (front + need > b->cap) {
        size_t cap = grown_cap(b, need);
        uint8_t *base = malloc(cap > 0 ? cap : 1);
        if (base == NULL) {
            return -ENOMEM;
        }
        if (b->len > 0) {
            memcpy(base, b->data, b->len);
        }
        free(b->base);
        b->base = b->data = base;
        b->cap = cap;
    }
    *room = b->data + b->len;
    return 0;
}

void buf_commit(struct buf *b, size_t len)
{
    assert(b->data != NULL && (size_t)(b->data - b->base) + b->len + len <= b->cap);
    b->len += len;
}

int buf_append(struct buf *b, const void *bytes, size_t len)
{
    if (len == 0) {
        return 0;
    }
    uint8_t *room;
    int r = buf_reserve(b, len, &room);
    if (r < 0) {
        return r;
    }
    memcpy(room, bytes, len);
    b->len += len;
    return 0;
}

int buf_append_str(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

int buf_append_byte(struct buf *b, uint8_t byte)
{
    return buf_append(b, &byte, 1);
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    char stack[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(stack, sizeof(stack), fmt, ap);
    va_end(ap);
    if (n < 0) {
        return -EINVAL;
    }
    if ((size_t)n < sizeof(stack)) {
        return buf_append(b, stack, (size_t)n);
    }
    char *heap = malloc((size_t)n + 1);
    if (heap == NULL) {
        return -ENOMEM;
    }
    va_start(ap, fmt);
    (void)vsnprintf(heap, (size_t)n + 1, fmt, ap);
    va_end(ap);
    int r = buf_append(b, heap, (size_t)n);
    free(heap);
    return r;
}

void buf_consume(struct buf *b, size_t len)
{
    assert(len <= b->len);
    b->len -= len;
    b->data = b->len == 0 ? b->base : b->data + len;
}

struct span buf_span(const struct buf *b)
{
    return (struct span){b->data, b->len};
}

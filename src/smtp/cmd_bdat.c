/*
 * BDAT (RFC 3030). The octets announced are read whatever the reply will be: what follows them is the next command. One
 * reset function forgets sender, recipients and message together, so that nothing of a failed transaction is left for
 * the next chunk to find. Tiny chunks cost as much as large ones and are counted.
 */
#include <string.h>

#include "smtp/server_int.h"

static bool parse(struct span argument, struct server_bdat *ret)
{
    const uint8_t *space = argument.len > 0 ? memchr(argument.ptr, ' ', argument.len) : NULL;
    size_t digits = space != NULL ? (size_t)(space - argument.ptr) : argument.len;
    struct span rest = server_trim((struct span){argument.ptr + digits, argument.len - digits});
    ret->last = span_eq_nocase(rest, SPAN_LIT("LAST"));
    return (ret->last || rest.len == 0) && server_number_read((struct span){argument.ptr, digits}, &ret->octets);
}

/* A chunk this large is not even read to its end. */
static bool is_huge(const struct smtp_server *s, uint64_t octets)
{
    uint64_t max = s->config->limits.size_max;
    return octets / 2 > max;
}

static enum reply check_chunk(const struct smtp_server *s, struct span argument, struct server_bdat *ret)
{
    if (!parse(argument, ret)) {
        return REPLY_BDAT_SYNTAX;
    }
    return is_huge(s, ret->octets) ? REPLY_BDAT_HUGE : REPLY_NONE;
}

enum reply check_bdat(const struct smtp_server *s, struct span argument, union server_parsed *ret)
{
    return check_chunk(s, argument, &ret->bdat);
}

static void expect_chunk(struct smtp_server *s, const struct server_bdat *chunk)
{
    s->chunk_octets = s->chunk_left = chunk->octets;
    s->chunk_last = chunk->last;
    s->chunk_done = chunk->octets == 0;
    server_expect(s, INPUT_CHUNK);
}

/* Where the next command begins is not known, or too far away. */
static void refuse_and_end(struct smtp_server *s, enum reply why)
{
    server_refuse(s, why);
    server_end(s);
}

void refuse_bdat(struct smtp_server *s, struct span argument, enum reply why)
{
    struct server_bdat chunk;
    enum reply unreadable = check_chunk(s, argument, &chunk);
    if (unreadable != REPLY_NONE) {
        refuse_and_end(s, unreadable);
        return;
    }
    if (server_count_bad(s, why)) {
        return;
    }
    server_defer(s, why);
    s->chunk_dropped = true;
    expect_chunk(s, &chunk);
}

static bool too_many_small(struct smtp_server *s, const struct server_bdat *chunk)
{
    if (chunk->last || chunk->octets >= s->config->limits.bdat_small ||
        ++s->small_chunks <= s->config->limits.bdat_small_max) {
        return false;
    }
    server_event(s, SMTP_EVENT_BDAT_SMALL_MAX);
    server_reply(s, REPLY_BDAT_SMALL);
    return true;
}

void proceed_bdat(struct smtp_server *s, const union server_parsed *parsed)
{
    const struct server_bdat *chunk = &parsed->bdat;
    if (too_many_small(s, chunk)) {
        return;
    }
    bool first = s->state == STATE_RCPT;
    s->state = STATE_CHUNK;
    expect_chunk(s, chunk);
    if (!server_message_lost(s) && chunk->octets > s->config->limits.size_max - s->text.octets) {
        server_message_lose(s, SMTP_LINE_SIZE_MAX);
    } else if (first) {
        s->chunk_done = false; /* until data_begin() is answered */
        server_message_begin(s, s->declared > 0 || !chunk->last ? s->declared : chunk->octets);
    }
}

size_t server_take_chunk(struct smtp_server *s, struct span in)
{
    bool end;
    size_t left = s->chunk_left < in.len ? (size_t)s->chunk_left : in.len;
    size_t used = left;
    if (!s->chunk_dropped && !server_message_lost(s)) {
        used = server_message_text(s, (struct span){in.ptr, left}, &end);
    }
    s->chunk_left -= used;
    s->chunk_done = s->chunk_left == 0;
    return used;
}

static void reply_octets(struct smtp_server *s)
{
    if (buf_printf(&s->out, "250 2.0.0 %llu octets received\r\n", (unsigned long long)s->chunk_octets) < 0) {
        server_out_of_memory(s);
    }
}

void server_chunk_finish(struct smtp_server *s)
{
    server_expect(s, INPUT_COMMAND);
    if (s->chunk_dropped) {
        s->chunk_dropped = false;
        server_send_deferred(s);
        return;
    }
    if (s->chunk_last) {
        server_message_pad(s);
    }
    if (s->chunk_last || server_message_lost(s)) {
        server_message_end(s);
    } else {
        reply_octets(s);
    }
}

/* intake.c: whether new mail is taken now, and taking a small message. */
#include <errno.h>
#include <xxhash.h>

#include "common/fault.h"
#include "common/log.h"
#include "spool/spool_int.h"

#define PRESSURE_ON      (16U * 1024U * 1024U) /* gathered and not durable */
#define PRESSURE_STREAMS (2U * 1024U * 1024U)

void spool_refuse(struct spool *sp, uint64_t ticket, uint64_t id, int error)
{
    struct spool_refused r = {.code = 451, .enhanced = {4, 3, 0}, .text = SPAN_LIT("Cannot store the message now")};
    if (error == -ENOSPC || error == -EDQUOT) {
        r = (struct spool_refused){.code = 452, .enhanced = {4, 3, 1}, .text = SPAN_LIT("Not enough room to store it")};
    } else if (error == -EEXIST) {
        r.duplicate = 1;
    } else if (error == -EPROTO) {
        r.text = SPAN_LIT("The message came incomplete");
    }
    sp->ops->answer(sp->arg, ticket, id, &r);
}

void spool_state(const struct spool *sp, struct spool_state *ret)
{
    *ret = sp->state;
}

uint64_t intake_reserve(const struct spool *sp)
{
    uint64_t reserve = sp->config.reserve_octets;
    if (reserve == 0) {
        reserve = sp->space.total / 100 > 2 * sp->segment_size ? sp->space.total / 100 : 2 * sp->segment_size;
    }
    /* A default of gigabytes on a small disk would refuse everything for ever. */
    return reserve < sp->space.total / 4 ? reserve : sp->space.total / 4;
}

static bool space_low(const struct spool *sp)
{
    return sp->space.free < intake_reserve(sp) || sp->space.inodes_free < sp->config.reserve_inodes;
}

struct spool_state intake_state(const struct spool *sp)
{
    if (space_low(sp) || sp->log_error == -ENOSPC) {
        return (struct spool_state){.code = 452,
                                    .text = SPAN_LIT("4.3.1 Not enough room to store messages, try later")};
    }
    if (sp->log_error < 0) {
        return (struct spool_state){.code = 451, .text = SPAN_LIT("4.3.0 Cannot store messages now, try later")};
    }
    return (struct spool_state){.accepting = 1, .code = 250};
}

void intake_state_update(struct spool *sp)
{
    struct spool_state now = intake_state(sp);
    if (now.accepting == sp->state.accepting && now.code == sp->state.code) {
        return;
    }
    if (now.code == 452) {
        log_error("spool.disk.full", LF_UINT("free", sp->space.free), LF_UINT("inodes_free", sp->space.inodes_free));
    } else if (sp->state.code == 452 && now.accepting != 0) {
        log_info("spool.disk.room", LF_UINT("free", sp->space.free), LF_UINT("inodes_free", sp->space.inodes_free));
    }
    sp->state = now;
    sp->ops->state(sp->arg, &sp->state);
}

void intake_pressure_update(struct spool *sp)
{
    uint64_t pending = log_pending(sp->log);
    bool high = pending > PRESSURE_ON || sp->stream_octets > PRESSURE_STREAMS;
    bool low = pending < PRESSURE_ON / 2 && sp->stream_octets < PRESSURE_STREAMS / 2;
    if ((high && !sp->pressure) || (low && sp->pressure)) {
        sp->pressure = high;
        sp->ops->pressure(sp->arg, high);
    }
}

/* --- taking a message --- */

int spool_envelope_take(struct spool *sp, struct envelope *e)
{
    for (uint16_t i = 0; i < e->recipients_count; i++) {
        e->recipients[i].number = i;
    }
    e->flags &= (uint16_t)~ENVELOPE_DSN;
    struct wire_writer w = {.out = &sp->envelope};
    buf_clear(&sp->envelope);
    envelope_encode(&w, e);
    return w.error;
}

static int message_log_steps(struct spool *sp, struct log_batch *b, struct record_message *m, struct span octets,
                             const struct log_note *note)
{
    struct log_note n = *note;
    n.octets_at = b->octets.len;
    n.octets_length = octets.len;
    n.record_at = b->meta.len;
    m->place.offset = m->place.kind == PLACE_INLINE ? b->octets.len : 0;
    struct wire_writer w = {.out = &b->meta};
    int r = m->place.kind == PLACE_INLINE ? buf_append(&b->octets, octets.ptr, octets.len) : 0;
    r = r < 0 ? r : record_message_encode(&w, m);
    n.record_length = b->meta.len - n.record_at;
    r = r < 0 ? r : log_note_add(b, &n);
    if (r == 0 && n.kind != NOTE_MOVE) {
        struct message *put = index_put(sp->ix, m, 0, 0);
        if (put == NULL) {
            return -ENOMEM;
        }
        put->state |= INDEX_COMMITTING;
    }
    return r;
}

int spool_message_log(struct spool *sp, struct log_batch *b, struct record_message *m, struct span octets,
                      const struct log_note *note)
{
    struct log_mark mark = log_mark(b);
    int r = message_log_steps(sp, b, m, octets, note);
    if (r < 0) {
        log_rollback(b, &mark);
    }
    return r;
}

void spool_put(struct spool *sp, uint64_t ticket, uint64_t id, const struct spool_put *put)
{
    struct record_message m = {
        .id = id,
        .born_ms = spool_now(sp),
        .place = {.kind = PLACE_INLINE, .length = put->octets.len},
        .flags = (put->envelope.flags & ENVELOPE_HOLD) != 0 ? MESSAGE_HELD : 0,
        .envelope = put->envelope,
        .words = put->envelope.hold_words,
    };
    const struct log_note note = {.kind = NOTE_PUT, .type = RECORD_MESSAGE, .id = id, .ticket = ticket};
    int r = sp->state.accepting ? 0 : sp->state.code == 452 ? -ENOSPC : -EIO;
    r = r < 0 ? r : id == 0 || index_find(sp->ix, id) != NULL ? -EEXIST : 0;
    r = r < 0 ? r : FAULT_POINT("spool.put");
    r = r < 0 ? r : spool_envelope_take(sp, &m.envelope);
    struct log_batch *b = NULL;
    if (r == 0 && (b = log_gather(sp->log, sp->envelope.len + put->octets.len + RECORD_SLACK)) == NULL) {
        r = -ENOMEM;
    }
    if (r == 0) {
        m.place.xxh3 = XXH3_64bits(put->octets.ptr, put->octets.len);
        m.envelope_raw = buf_span(&sp->envelope);
        r = spool_message_log(sp, b, &m, put->octets, &note);
    }
    if (r < 0) {
        spool_refuse(sp, ticket, id, r);
    }
}

/* durable.c: what the log tells: a batch is on the disk, or could not be. Answers leave from here only. */
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "common/log.h"
#include "spool/spool_int.h"

#define RECIPIENTS_NAMED 20U /* in one event */

/* Everybody to whom it goes can be found in the events from the first, in lines of a bounded length. */
static void stored_events(struct spool *sp, const struct message *m)
{
    struct span to[RECIPIENTS_NAMED];
    struct envelope e;
    index_envelope(m, &e, &sp->scratch);
    for (uint16_t at = 0; at < m->recipients_count; at = (uint16_t)(at + RECIPIENTS_NAMED)) {
        uint16_t count = 0;
        for (; count < RECIPIENTS_NAMED && at + count < m->recipients_count; count++) {
            to[count] = e.recipients[at + count].address;
        }
        if (at == 0) {
            log_info("message.stored", LF_ID("id", m->id), LF_ID("session", e.session), LF_SPAN("account", e.account),
                     LF_SPAN("sender", e.sender), LF_UINT("recipients", m->recipients_count), LF_LIST("to", to, count),
                     LF_UINT("octets", m->length), LF_SPAN("message_id", e.message_id));
        } else {
            log_info("message.recipients", LF_ID("id", m->id), LF_LIST("to", to, count));
        }
    }
}

static void put_committed(struct spool *sp, const struct log_batch *b, const struct log_note *n)
{
    struct message *m = index_find(sp->ix, n->id);
    if (m == NULL || (m->state & INDEX_COMMITTING) == 0) {
        return;
    }
    m->segment = b->header.segment;
    if ((m->state & INDEX_LARGE) != 0) {
        m->offset = 0;
    } else if (n->kind == NOTE_PUT) {
        m->offset = log_octets_offset(b, n->octets_at);
    } else { /* embedded: the octets end the record */
        m->offset = log_meta_offset(b, n->record_at + n->record_length) - m->length;
    }
    m->state &= (uint8_t)~INDEX_COMMITTING;
    log_live_add(sp->log, m->segment, index_weight(m));
    spool_deadline_set(sp, m);
    index_schedule(sp->ix, m, spool_now(sp));
    sp->totals.stored += n->kind == NOTE_PUT;
    stored_events(sp, m);
    if ((m->state & INDEX_HELD) != 0) {
        log_info("message.held", LF_ID("id", m->id), LF_STR("words", m->words));
    }
}

static void log_committed(void *arg, struct log_batch *b)
{
    struct spool *sp = arg;
    tidy_batch_written(sp, b);
    for (size_t i = 0; i < b->notes_count; i++) {
        const struct log_note *n = &b->notes[i];
        if (n->kind == NOTE_PUT || (n->kind == NOTE_STATE && n->type == RECORD_MESSAGE)) {
            put_committed(sp, b, n);
        } else if (n->kind == NOTE_MOVE) {
            tidy_batch_moved(sp, b, n);
        } else if (n->kind == NOTE_END) {
            log_live_drop(sp->log, n->segment, n->octets_length);
            if (n->large) {
                stream_file_remove(sp, n->id);
            }
        }
        if (n->kind == NOTE_PUT) {
            sp->ops->answer(sp->arg, n->ticket, n->id, NULL);
        }
    }
}

static void put_failed(struct spool *sp, const struct log_note *n, int error)
{
    struct message *m = index_find(sp->ix, n->id);
    if (m != NULL) {
        if ((m->state & INDEX_LARGE) != 0) { /* the REMOVE first: the failed batch may stand on the disk */
            const struct log_note end = {.kind = NOTE_END, .id = n->id, .large = true};
            struct log_batch *b = log_gather(sp->log, 0);
            if (b != NULL) {
                (void)log_note_add(b, &end);
            }
        }
        index_remove(sp->ix, m);
    }
    spool_refuse(sp, n->ticket, n->id, error);
}

static void log_failed(void *arg, struct log_batch *b, int error)
{
    struct spool *sp = arg;
    log_error("spool.write.failed", LF_ERR(error), LF_UINT("segment", b->header.segment),
              LF_UINT("records", b->records));
    for (size_t i = 0; i < b->notes_count; i++) {
        if (b->notes[i].kind == NOTE_PUT) {
            put_failed(sp, &b->notes[i], error);
        } else if (b->notes[i].kind == NOTE_MOVE) {
            tidy_move_failed(sp, b->notes[i].id);
        }
    }
}

static void suspension_add(void *arg, const struct record_account *a)
{
    change_account_log(arg, RECORD_SUSPEND, a);
}

static void log_segment_begins(void *arg, struct log_batch *b)
{
    struct spool *sp = arg;
    index_suspensions(sp->ix, suspension_add, b);
}

static void log_segment_gone(void *arg, uint64_t seq)
{
    struct spool *sp = arg;
    sp->ops->forget(sp->arg, seq);
}

static void log_health(void *arg, int error)
{
    struct spool *sp = arg;
    if (error < 0) {
        log_error("spool.disk.failed", LF_ERR(error));
    } else {
        log_info("spool.disk.works", LF_UINT("free", sp->space.free));
    }
    sp->log_error = error;
    sp->space_checked_ms = 0;
}

static uint64_t log_spool_ms(void *arg)
{
    return spool_now(arg);
}

/* --- who waits for a change --- */

struct durable_wait {
    struct durable_wait *next;
    uint64_t turn; /* of the log */
    void (*done)(void *arg, int error);
    void *arg;
};

int spool_when_durable(struct spool *sp, void (*done)(void *arg, int error), void *arg)
{
    struct durable_wait *w = calloc(1, sizeof(*w));
    struct log_figures f;
    if (w == NULL) {
        return -ENOMEM;
    }
    log_figures(sp->log, &f);
    *w = (struct durable_wait){.turn = f.gather_turn, .done = done, .arg = arg};
    LL_APPEND(sp->waits, w);
    return 0;
}

void durable_waits_tick(struct spool *sp, bool closing)
{
    struct log_figures f;
    if (sp->waits == NULL) {
        return;
    }
    log_figures(sp->log, &f);
    while (sp->waits != NULL && (closing || f.down || sp->waits->turn <= f.durable_turn)) {
        struct durable_wait *w = sp->waits;
        int error = w->turn <= f.durable_turn ? 0 : sp->log_error < 0 ? sp->log_error : -EIO;
        LL_DELETE(sp->waits, w);
        w->done(w->arg, error);
        free(w);
    }
}

const struct log_ops durable_ops = {
    .committed = log_committed,
    .failed = log_failed,
    .segment_begins = log_segment_begins,
    .segment_gone = log_segment_gone,
    .health = log_health,
    .spool_ms = log_spool_ms,
};

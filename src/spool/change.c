/* change.c: changes of state become records, and what follows from the state of a message. */
#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "spool/spool_int.h"

#define AGAIN_MS 60000U /* after want of memory */

static int note_or_rollback(struct log_batch *b, const struct log_mark *mark, int encoded, enum record_type type,
                            uint64_t id)
{
    struct log_note n = {.kind = NOTE_STATE, .type = (uint8_t)type, .id = id, .record_at = mark->meta};
    n.record_length = b->meta.len - mark->meta;
    if (encoded < 0 || log_note_add(b, &n) < 0) {
        log_rollback(b, mark);
        log_error("spool.memory", LF_ID("id", id), LF_UINT("record", type));
        return -ENOMEM;
    }
    return 0;
}

int spool_change_log(struct spool *sp, enum record_type type, const struct record_change *c)
{
    struct log_batch *b = log_gather(sp->log, RECORD_SLACK + c->words.len);
    if (b == NULL) {
        log_error("spool.memory", LF_ID("id", c->id), LF_UINT("record", type));
        return -ENOMEM;
    }
    struct log_mark mark = log_mark(b);
    struct wire_writer w = {.out = &b->meta};
    return note_or_rollback(b, &mark, record_change_encode(&w, type, c), type, c->id);
}

void spool_record_log(struct spool *sp, const struct record *rec)
{
    struct log_batch *b = log_gather(sp->log, RECORD_SLACK + rec->payload.len);
    if (b == NULL) {
        log_error("spool.memory", LF_ID("id", 0), LF_UINT("record", rec->type));
        return;
    }
    struct log_mark mark = log_mark(b);
    struct wire_writer w = {.out = &b->meta};
    size_t start = record_begin(&w, rec->type);
    wire_put_fixed(&w, rec->payload.ptr, rec->payload.len);
    (void)note_or_rollback(b, &mark, record_end(&w, start), rec->type, 0);
}

void spool_outcome_log(struct spool *sp, const struct record_outcome *o)
{
    struct log_batch *b = log_gather(sp->log, RECORD_SLACK + o->count * (RECORD_WORDS_MAX + 16U));
    if (b == NULL) {
        log_error("spool.memory", LF_ID("id", o->id), LF_UINT("record", RECORD_OUTCOME));
        return;
    }
    struct log_mark mark = log_mark(b);
    struct wire_writer w = {.out = &b->meta};
    (void)note_or_rollback(b, &mark, record_outcome_encode(&w, o), RECORD_OUTCOME, o->id);
}

void change_account_log(struct log_batch *b, enum record_type type, const struct record_account *a)
{
    struct log_mark mark = log_mark(b);
    struct wire_writer w = {.out = &b->meta};
    (void)note_or_rollback(b, &mark, record_account_encode(&w, type, a), type, 0);
}

void spool_message_end(struct spool *sp, struct message *m)
{
    struct log_note n = {.kind = NOTE_END,
                         .id = m->id,
                         .segment = m->segment,
                         .octets_length = index_weight(m),
                         .large = (m->state & INDEX_LARGE) != 0};
    struct log_batch *b = log_gather(sp->log, 0);
    if (b == NULL || log_note_add(b, &n) < 0) {
        deadline_postpone(sp, m, AGAIN_MS); /* it stays in memory, ended, until then; a start would forget it */
        return;
    }
    if (n.large) {
        sp->ops->forget(sp->arg, LARGE_FILE_FLAG | m->id);
    }
    index_remove(sp->ix, m);
}

static bool any_job_ready(const struct message *m)
{
    for (size_t i = 0; i < m->jobs_count; i++) {
        if (m->jobs[i].state == JOB_READY) {
            return true;
        }
    }
    return false;
}

void spool_message_settle(struct spool *sp, struct message *m)
{
    if (m->out > 0 || (m->state & (INDEX_COMMITTING | INDEX_REPORTING)) != 0) {
        return;
    }
    if (m->removing || index_is_done(m)) {
        spool_message_end(sp, m);
        return;
    }
    bool tell = index_unreported(m, REPORT_FAILURE, sp->scratch.numbers) > 0 ||
                index_unreported(m, REPORT_SUCCESS, sp->scratch.numbers) > 0;
    if (tell && ((m->state & INDEX_HELD) != 0 || !any_job_ready(m))) {
        report_start(sp, m);
    }
}

/*
 * report.c: notifications to the sender (RFC 3461, RFC 3464), and what happens to a message whose octets have gone bad.
 *
 * The original's header is read on the house worker; the DSN and the note that it was sent go into one batch, the DSN's
 * octets inside its record: after a crash there are both or neither.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/clock.h"
#include "common/log.h"
#include "message/dsn.h"
#include "spool/spool_int.h"

#define HEAD_MAX      (64U * 1024U)  /* of the original: at least its header */
#define RETURN_MAX    (128U * 1024U) /* an original up to this size is returned whole with RET=FULL */
#define AGAIN_MS      60000U
#define ROOM_AGAIN_MS 1000U
#define REPORT_SLACK  (8U * 1024U) /* of a notification, beside what it returns */

struct report {
    struct task task;
    struct spool *sp;
    uint64_t id;
    struct octets_place place;
    uint64_t owes; /* octets of the log, at most */
    bool whole;
    uint8_t *head;
    size_t head_length;
    int error;
};

static void report_run(struct task *t)
{
    struct report *rp = (struct report *)t;
    size_t max = rp->whole ? RETURN_MAX : HEAD_MAX;
    rp->error = octets_read(rp->sp->disk, &rp->place, max, &rp->head);
    rp->head_length = rp->error < 0 ? 0 : rp->place.length < max ? (size_t)rp->place.length : max;
}

static enum message_dsn_action action_of(uint8_t state)
{
    switch ((enum recipient_state)state) {
    case RECIPIENT_QUEUED:
        return MESSAGE_DSN_DELAYED;
    case RECIPIENT_DELIVERED:
        return MESSAGE_DSN_DELIVERED;
    case RECIPIENT_RELAYED:
        return MESSAGE_DSN_RELAYED;
    case RECIPIENT_FAILED:
    case RECIPIENT_EXPIRED:
    case RECIPIENT_HANDED_OVER: /* is never told */
        break;
    }
    return MESSAGE_DSN_FAILED;
}

/* One recipient's lines. words is "remote\nwords" (spool.c). */
static struct message_dsn_recipient recipient_lines(const struct spool *sp, const struct message *m, uint16_t number)
{
    const struct index_recipient *r = &m->recipients[number];
    struct span words = span_str(r->words);
    const uint8_t *cut = words.len > 0 ? memchr(words.ptr, '\n', words.len) : NULL;
    struct message_dsn_recipient to = {.address = sp->scratch.recipients[number].address,
                                       .orcpt = sp->scratch.recipients[number].orcpt,
                                       .action = action_of(r->state),
                                       .code = r->code,
                                       .diagnostic = words};
    memcpy(to.status, r->enhanced, sizeof(to.status));
    if (cut != NULL) {
        to.remote = (struct span){words.ptr, (size_t)(cut - words.ptr)};
        to.diagnostic = (struct span){cut + 1, words.len - to.remote.len - 1};
    }
    if (r->state == RECIPIENT_EXPIRED) {
        static const uint8_t expired[3] = {5, 4, 7}; /* RFC 3463: delivery time expired */
        memcpy(to.status, expired, sizeof(expired));
    }
    uint64_t now = spool_now(sp), end = m->born_ms + sp->config.lifetime_ms;
    int64_t wall = (int64_t)(clock_wall_ms() / 1000);
    to.last_attempt = m->jobs[r->job].attempts > 0 ? wall : 0;
    to.will_retry_until = r->state == RECIPIENT_QUEUED && end > now ? wall + (int64_t)((end - now) / 1000) : 0;
    return to;
}

static int dsn_compose(struct spool *sp, const struct report *rp, const struct message *m, const struct envelope *e,
                       const struct record_report *what, struct buf *out, struct message_dsn_result *result)
{
    struct message_dsn_recipient *lines = calloc(what->count, sizeof(*lines));
    if (lines == NULL) {
        return -ENOMEM;
    }
    for (uint16_t i = 0; i < what->count; i++) {
        lines[i] = recipient_lines(sp, m, what->numbers[i]);
    }
    struct message_dsn dsn = {
        .hostname = sp->config.hostname,
        .from_domain = sp->config.from_domain,
        .help_url = sp->config.help_url,
        .id = what->dsn,
        .original_id = m->id,
        .now = (int64_t)(clock_wall_ms() / 1000),
        .sender = e->sender,
        .envid = e->envid,
        .arrived = (int64_t)(e->arrived_ms / 1000),
        .smtputf8 = (e->flags & ENVELOPE_SMTPUTF8) != 0,
        .message = {rp->head, rp->head_length},
        .message_full = rp->whole && rp->head_length == rp->place.length && what->kind == REPORT_FAILURE,
        .recipients = lines,
        .recipients_count = what->count,
    };
    int r = message_dsn_compose(&dsn, out, result);
    if (r == -EMSGSIZE) {
        dsn.message_full = false;
        dsn.message.len = 0;
        r = message_dsn_compose(&dsn, out, result);
    }
    free(lines);
    return r;
}

/* DSN and REPORT, both or neither. */
static int pair_log(struct spool *sp, const struct envelope *e, struct span octets, const struct record_report *what,
                    const struct message_dsn_result *result)
{
    struct envelope_recipient to = {.address = e->sender, .notify = NOTIFY_NEVER};
    struct envelope dsn = {.arrived_ms = clock_wall_ms(), .recipients_count = 1, .recipients = &to};
    int r = spool_envelope_take(sp, &dsn);
    dsn.flags =
        (uint16_t)(ENVELOPE_DSN | (result->has_8bit ? ENVELOPE_8BIT : 0) | (result->smtputf8 ? ENVELOPE_SMTPUTF8 : 0));
    struct wire_writer w = {.out = &sp->envelope, .error = r};
    buf_clear(&sp->envelope);
    envelope_encode(&w, &dsn);
    struct log_batch *b =
        w.error < 0 ? NULL : log_gather(sp->log, sp->envelope.len + octets.len + RECORD_SLACK + what->count * 2U);
    if (b == NULL) {
        return w.error < 0 ? w.error : -ENOMEM;
    }
    struct record_message m = {.id = what->dsn,
                               .born_ms = spool_now(sp),
                               .place = {.kind = PLACE_EMBEDDED, .length = octets.len},
                               .envelope_raw = buf_span(&sp->envelope),
                               .envelope = dsn,
                               .embedded = octets};
    struct log_note note = {.kind = NOTE_STATE, .type = RECORD_MESSAGE, .id = what->dsn};
    struct log_mark mark = log_mark(b);
    m.place.xxh3 = XXH3_64bits(octets.ptr, octets.len);
    r = spool_message_log(sp, b, &m, (struct span){0}, &note);
    if (r < 0) {
        return r;
    }
    struct wire_writer wr = {.out = &b->meta};
    note = (struct log_note){.kind = NOTE_STATE, .type = RECORD_REPORT, .id = what->id, .record_at = b->meta.len};
    r = record_report_encode(&wr, what);
    note.record_length = b->meta.len - note.record_at;
    r = r < 0 ? r : log_note_add(b, &note);
    if (r < 0) {
        log_rollback(b, &mark);
        index_remove(sp->ix, index_find(sp->ix, what->dsn));
    }
    return r;
}

static int report_kind(struct spool *sp, const struct report *rp, struct message *m, enum report_kind kind)
{
    struct record_report what = {.id = m->id, .kind = kind, .numbers = sp->scratch.numbers};
    struct message_dsn_result result;
    struct envelope e;
    struct buf out;
    what.count = index_unreported(m, kind, what.numbers);
    if (what.count == 0) {
        return 0;
    }
    what.dsn = spool_mint(sp);
    index_envelope(m, &e, &sp->scratch);
    buf_init(&out, SPOOL_INLINE_MAX);
    int r = dsn_compose(sp, rp, m, &e, &what, &out, &result);
    r = r < 0 ? r : pair_log(sp, &e, buf_span(&out), &what, &result);
    if (r == 0) {
        static const char *const names[] = {
            [REPORT_FAILURE] = "failure", [REPORT_DELAY] = "delay", [REPORT_SUCCESS] = "success"};
        index_apply_report(m, &what);
        sp->totals.reports++;
        log_info("dsn.sent", LF_ID("id", what.dsn), LF_ID("original", m->id), LF_STR("kind", names[kind]),
                 LF_UINT("recipients", what.count), LF_SPAN("to", e.sender));
    }
    buf_fini(&out);
    return r;
}

/* The delay is told when its time has come and somebody was tried; a hold is no delay of ours. */
static bool delay_is_due(const struct spool *sp, const struct message *m)
{
    return sp->config.delay_warning_ms > 0 && spool_now(sp) >= m->born_ms + sp->config.delay_warning_ms &&
           (m->state & INDEX_HELD) == 0;
}

static void report_done(struct task *t)
{
    struct report *rp = (struct report *)t;
    struct spool *sp = rp->sp;
    struct message *m = index_find(sp->ix, rp->id);
    sp->owed -= rp->owes;
    if (m != NULL) {
        m->state &= (uint8_t)~INDEX_REPORTING;
        int r = m->removing ? 0 : report_kind(sp, rp, m, REPORT_FAILURE);
        r = r < 0 || m->removing ? r : report_kind(sp, rp, m, REPORT_SUCCESS);
        r = r < 0 || m->removing || !delay_is_due(sp, m) ? r : report_kind(sp, rp, m, REPORT_DELAY);
        if (r < 0) { /* the deadline comes back to it */
            log_error("dsn.failed", LF_ID("original", m->id), LF_ERR(r));
            deadline_postpone(sp, m, AGAIN_MS);
        } else {
            spool_message_settle(sp, m);
        }
    }
    free(rp->head);
    free(rp);
}

void report_start(struct spool *sp, struct message *m)
{
    struct envelope e;
    struct report *rp = calloc(1, sizeof(*rp));
    if (rp == NULL) {
        deadline_postpone(sp, m, AGAIN_MS);
        return;
    }
    index_envelope(m, &e, &sp->scratch);
    rp->task = (struct task){.run = report_run, .done = report_done};
    rp->sp = sp;
    rp->id = m->id;
    rp->place = spool_place(m);
    rp->whole = (e.flags & ENVELOPE_RET_FULL) != 0 && m->length <= RETURN_MAX;
    rp->owes = REPORT_SLACK + (m->length < HEAD_MAX || rp->whole ? m->length : HEAD_MAX);
    bool may_end = index_unreported(m, REPORT_FAILURE, sp->scratch.numbers) > 0;
    if (!tidy_has_room(sp, rp->owes, may_end)) {
        free(rp);
        deadline_postpone(sp, m, may_end ? ROOM_AGAIN_MS : AGAIN_MS);
        return;
    }
    sp->owed += rp->owes;
    m->state |= INDEX_REPORTING;
    worker_submit(sp->house, &rp->task);
}

/* --- damage --- */

static const char damaged_words[] = "\nThe message was damaged on our disk and cannot be delivered";

static void damage_run(struct task *t)
{
    struct report *rp = (struct report *)t;
    char name[64], id[ID_TEXT_LEN + 1];
    rp->error = octets_read(rp->sp->disk, &rp->place, 0, &rp->head);
    if (rp->error != -EILSEQ) {
        return;
    }
    id_format(rp->id, id);
    (void)snprintf(name, sizeof(name), "%s.eml", id);
    int fd = octets_open(rp->sp->disk, &rp->place);
    if (fd >= 0) {
        (void)octets_set_aside(rp->sp->disk, fd, rp->place.offset, rp->place.length, name);
        rp->sp->disk->close(rp->sp->disk->arg, fd);
    }
}

/* Everybody who does not have it yet will not get it: the sender is told. */
static void message_spoil(struct spool *sp, struct message *m)
{
    struct record_outcome o = {.id = m->id, .results = sp->scratch.states};
    index_unschedule(sp->ix, m);
    for (uint16_t i = 0; i < m->recipients_count; i++) {
        if (m->recipients[i].state == RECIPIENT_QUEUED && !m->recipients[i].out) {
            o.results[o.count++] = (struct record_recipient){
                .number = i, .state = RECIPIENT_FAILED, .enhanced = {5, 3, 0}, .words = SPAN_LIT(damaged_words)};
            o.attempts = m->jobs[m->recipients[i].job].attempts;
        }
    }
    if (o.count > 0) {
        spool_outcome_log(sp, &o);
        index_apply_outcome(sp->ix, m, &o);
        sp->totals.failed += o.count;
    }
    sp->totals.damaged++;
    log_error("message.damaged", LF_ID("id", m->id), LF_UINT("segment", m->segment), LF_UINT("offset", m->offset),
              LF_UINT("octets", m->length), LF_UINT("recipients", o.count));
    spool_message_settle(sp, m);
}

static void damage_done(struct task *t)
{
    struct report *rp = (struct report *)t;
    struct spool *sp = rp->sp;
    struct message *m = index_find(sp->ix, rp->id);
    if (m != NULL && rp->error == -EILSEQ && m->segment == rp->place.segment) {
        message_spoil(sp, m);
    }
    free(rp);
}

void damage_check_start(struct spool *sp, const struct message *m)
{
    struct report *rp = calloc(1, sizeof(*rp));
    if (rp != NULL) { /* else the next attempt finds it again */
        rp->task = (struct task){.run = damage_run, .done = damage_done};
        rp->sp = sp;
        rp->id = m->id;
        rp->place = spool_place(m);
        worker_submit(sp->house, &rp->task);
    }
}

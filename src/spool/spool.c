#include "spool/spool.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "spool/recover.h"
#include "spool/spool_int.h"

#define SEGMENT_MAX      (64U * 1024U * 1024U)
#define SEGMENT_MIN      (1024U * 1024U)
#define BATCH_MAX        (8U * 1024U * 1024U)
#define MINTER_WORKER    31U /* submit processes have the others */
#define RECORD_SLACK     256U
#define PRESSURE_ON      (16U * 1024U * 1024U) /* gathered and not durable */
#define PRESSURE_STREAMS (4U * 1024U * 1024U)
#define BUSY_DEADLINE_MS (60U * 1000U) /* look again when a message cannot be expired now */
#define HELD_DEADLINE_MS (60U * 60U * 1000U)
#define POLL_IDLE_MS     1000U
#define LARGE_OUT_MAX    256U /* large messages with deliver at once */
#define LARGE_WAIT_MS    1000U

struct spool_config spool_config_default(void)
{
    return (struct spool_config){.schedule = schedule_config_default(),
                                 .shards = 1,
                                 .lifetime_ms = 5ULL * 24 * 60 * 60 * 1000,
                                 .delay_warning_ms = 4ULL * 60 * 60 * 1000,
                                 .reserve_inodes = 16,
                                 .threaded = true};
}

static uint64_t kernel_random(void *arg)
{
    (void)arg;
    uint64_t v = 0;
    while (getrandom(&v, sizeof(v), 0) != (ssize_t)sizeof(v)) {
    }
    return v;
}

uint64_t spool_now(const struct spool *sp)
{
    return sp->time_base_ms + (clock_mono_ms() - sp->mono_base_ms);
}

struct octets_place spool_place(const struct message *m)
{
    return (struct octets_place){m->id, m->segment, m->offset, m->length, m->xxh3, (m->state & INDEX_LARGE) != 0};
}

uint64_t spool_mint(struct spool *sp)
{
    uint64_t id;
    do {
        id = id_mint(&sp->minter, clock_wall_ms());
    } while (index_find(sp->ix, id) != NULL);
    return id;
}

/* --- answers --- */

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

static bool space_low(const struct spool *sp)
{
    uint64_t reserve = sp->config.reserve_octets;
    if (reserve == 0) {
        reserve = sp->space.total / 100 > 2 * sp->segment_size ? sp->space.total / 100 : 2 * sp->segment_size;
    }
    /* A default of gigabytes on a small disk would refuse everything for ever. */
    reserve = reserve < sp->space.total / 4 ? reserve : sp->space.total / 4;
    return sp->space.free < reserve || sp->space.inodes_free < sp->config.reserve_inodes;
}

static struct spool_state state_now(const struct spool *sp)
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

static void state_update(struct spool *sp)
{
    struct spool_state now = state_now(sp);
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

static void pressure_update(struct spool *sp)
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

/* --- changes of state --- */

static void note_or_rollback(struct log_batch *b, const struct log_mark *mark, int encoded, enum record_type type,
                             uint64_t id)
{
    struct log_note n = {.kind = NOTE_STATE, .type = (uint8_t)type, .id = id, .record_at = mark->meta};
    n.record_length = b->meta.len - mark->meta;
    if (encoded < 0 || log_note_add(b, &n) < 0) {
        log_rollback(b, mark);
        log_error("spool.memory", LF_ID("id", id), LF_UINT("record", type));
    }
}

void spool_change_log(struct spool *sp, enum record_type type, const struct record_change *c)
{
    struct log_batch *b = log_gather(sp->log, RECORD_SLACK + c->words.len);
    if (b == NULL) {
        log_error("spool.memory", LF_ID("id", c->id), LF_UINT("record", type));
        return;
    }
    struct log_mark mark = log_mark(b);
    struct wire_writer w = {.out = &b->meta};
    note_or_rollback(b, &mark, record_change_encode(&w, type, c), type, c->id);
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
    note_or_rollback(b, &mark, record_outcome_encode(&w, o), RECORD_OUTCOME, o->id);
}

static void account_log(struct log_batch *b, enum record_type type, const struct record_account *a)
{
    struct log_mark mark = log_mark(b);
    struct wire_writer w = {.out = &b->meta};
    note_or_rollback(b, &mark, record_account_encode(&w, type, a), type, 0);
}

/* The record that ends m is in this batch or an earlier one: when it is durable, its place is free. */
static void message_end(struct spool *sp, struct message *m)
{
    struct log_note n = {.kind = NOTE_END,
                         .id = m->id,
                         .segment = m->segment,
                         .octets_length = index_weight(m),
                         .large = (m->state & INDEX_LARGE) != 0};
    struct log_batch *b = log_gather(sp->log, 0);
    if (b == NULL || log_note_add(b, &n) < 0) {
        return; /* it stays in memory, ended; the next start forgets it */
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
    if (index_is_done(m)) {
        message_end(sp, m);
        return;
    }
    bool tell = index_unreported(m, REPORT_FAILURE, sp->scratch.numbers) > 0 ||
                index_unreported(m, REPORT_SUCCESS, sp->scratch.numbers) > 0;
    if (tell && ((m->state & INDEX_HELD) != 0 || !any_job_ready(m))) {
        report_start(sp, m);
    }
}

/* --- deadlines --- */

void spool_deadline_set(struct spool *sp, struct message *m)
{
    uint64_t end = m->born_ms + sp->config.lifetime_ms, warn = m->born_ms + sp->config.delay_warning_ms;
    bool to_warn =
        sp->config.delay_warning_ms > 0 && warn < end && index_unreported(m, REPORT_DELAY, sp->scratch.numbers) > 0;
    heap_remove(index_deadlines(sp->ix), &m->deadline);
    heap_add(index_deadlines(sp->ix), &m->deadline, to_warn ? warn : end);
}

static void deadline_after(struct spool *sp, struct message *m, uint64_t ms)
{
    heap_remove(index_deadlines(sp->ix), &m->deadline);
    heap_add(index_deadlines(sp->ix), &m->deadline, spool_now(sp) + ms);
}

/* The queued recipients that are not being tried now have had their time. */
static void message_expire(struct spool *sp, struct message *m)
{
    struct record_outcome o = {.id = m->id, .results = sp->scratch.states};
    index_unschedule(sp->ix, m);
    for (uint16_t i = 0; i < m->recipients_count; i++) {
        struct index_recipient *r = &m->recipients[i];
        if (r->state == RECIPIENT_QUEUED && !r->out) {
            struct record_recipient *to = &sp->scratch.states[o.count++];
            *to = (struct record_recipient){
                .number = i, .state = RECIPIENT_EXPIRED, .code = r->code, .words = span_str(r->words)};
            memcpy(to->enhanced, r->enhanced, sizeof(to->enhanced));
            o.attempts = m->jobs[r->job].attempts;
        }
    }
    struct envelope e;
    index_envelope(m, &e, &sp->scratch);
    for (uint16_t i = 0; i < o.count; i++) {
        sp->totals.expired++;
        log_warn("message.expired", LF_ID("id", m->id), LF_SPAN("recipient", e.recipients[o.results[i].number].address),
                 LF_UINT("attempt", o.attempts), LF_UINT("age_ms", spool_now(sp) - m->born_ms));
    }
    if (o.count > 0) {
        spool_outcome_log(sp, &o);
        index_apply_outcome(sp->ix, m, &o);
    }
}

static void deadline_met(struct spool *sp, struct message *m, uint64_t now)
{
    bool held = (m->state & INDEX_HELD) != 0 || schedule_account_suspended(m->jobs[0].account);
    if (m->out > 0 || (m->state & (INDEX_REPORTING | INDEX_COMMITTING)) != 0) {
        deadline_after(sp, m, BUSY_DEADLINE_MS);
    } else if (held) {
        deadline_after(sp, m, HELD_DEADLINE_MS);
        spool_message_settle(sp, m);
    } else if (now >= m->born_ms + sp->config.lifetime_ms) {
        deadline_after(sp, m, BUSY_DEADLINE_MS);
        message_expire(sp, m);
        spool_message_settle(sp, m);
    } else {
        deadline_after(sp, m, m->born_ms + sp->config.lifetime_ms - now);
        if (sp->config.delay_warning_ms > 0 && now >= m->born_ms + sp->config.delay_warning_ms &&
            index_unreported(m, REPORT_DELAY, sp->scratch.numbers) > 0) {
            report_start(sp, m);
        } else {
            spool_message_settle(sp, m);
        }
    }
}

static uint64_t deadlines_tick(struct spool *sp, uint64_t now)
{
    struct heap_node *n;
    for (int left = 1000; left > 0; left--) { /* a slice: others want the loop too */
        n = heap_first(index_deadlines(sp->ix));
        if (n == NULL || n->key > now) {
            return n == NULL ? UINT64_MAX : n->key;
        }
        deadline_met(sp, index_of_deadline(n), now);
    }
    return now;
}

/* --- jobs --- */

static void job_send(struct spool *sp, uint32_t shard, struct schedule_job *j)
{
    struct message *m = index_of_job(j);
    struct deliver_job job = {.attempt = j->attempts + 1,
                              .offset = m->offset,
                              .length = m->length,
                              .xxh3 = m->xxh3,
                              .domain = schedule_domain_name(j->domain)};
    bool large = (m->state & INDEX_LARGE) != 0;
    job.file = large ? LARGE_FILE_FLAG | m->id : m->segment;
    index_envelope(m, &job.envelope, &sp->scratch);
    uint16_t count = 0;
    for (uint16_t i = 0; i < m->recipients_count; i++) {
        if (m->recipients[i].job == j->place && m->recipients[i].state == RECIPIENT_QUEUED) {
            sp->job_recipients[count++] = job.envelope.recipients[i];
            m->recipients[i].out = true;
        }
    }
    job.envelope.recipients = sp->job_recipients;
    job.envelope.recipients_count = count;
    j->pinned = large ? 0 : m->segment;
    log_pin(sp->log, j->pinned);
    m->out++;
    sp->large_out += large;
    sp->ops->job(sp->arg, shard, m->id, &job);
}

/* Each large message that is out is a descriptor in deliver: the next one waits a moment. */
static bool large_must_wait(struct spool *sp, struct schedule *s, struct schedule_job *j)
{
    uint64_t now = spool_now(sp);
    if ((index_of_job(j)->state & INDEX_LARGE) == 0 || sp->large_out < LARGE_OUT_MAX) {
        return false;
    }
    schedule_result(s, j, SCHEDULE_LOST, now);
    schedule_add(s, j, now + LARGE_WAIT_MS, now);
    return true;
}

static void dispatch(struct spool *sp)
{
    for (uint32_t i = 0; i < sp->config.shards && !sp->draining; i++) {
        struct schedule *s = index_schedule_of(sp->ix, i);
        struct schedule_job *j;
        while (sp->shard_up[i] && (j = schedule_take(s)) != NULL) {
            if (!large_must_wait(sp, s, j)) {
                job_send(sp, i, j);
            }
        }
    }
}

/* The job is no longer out. */
static void job_back(struct spool *sp, struct message *m, struct schedule_job *j, enum schedule_result result)
{
    bool large = (m->state & INDEX_LARGE) != 0;
    bool old = log_unpin(sp->log, j->pinned, result == SCHEDULE_LOST);
    m->out--;
    sp->large_out -= large;
    if (large ? m->out == 0 : old) { /* descriptors are few: deliver gets it again when it is needed */
        sp->ops->forget(sp->arg, large ? LARGE_FILE_FLAG | m->id : j->pinned);
    }
    schedule_result(index_schedule_of(sp->ix, index_job_shard(sp->ix, j)), j, result, spool_now(sp));
}

void spool_shard_up(struct spool *sp, uint32_t shard, bool up)
{
    struct schedule_job *j;
    if (shard >= sp->config.shards) {
        return;
    }
    sp->shard_up[shard] = up;
    while (!up && (j = schedule_first_out(index_schedule_of(sp->ix, shard))) != NULL) {
        struct message *m = index_of_job(j);
        for (uint16_t i = 0; i < m->recipients_count; i++) {
            if (m->recipients[i].job == j->place) {
                m->recipients[i].out = false;
            }
        }
        job_back(sp, m, j, SCHEDULE_LOST);
        index_schedule(sp->ix, m, spool_now(sp));
        spool_message_settle(sp, m);
    }
}

void spool_drain(struct spool *sp)
{
    sp->draining = true;
}

int spool_file_open(struct spool *sp, uint64_t file)
{
    struct octets_place p = {.id = file & ~LARGE_FILE_FLAG, .segment = file, .large = (file & LARGE_FILE_FLAG) != 0};
    return octets_open(sp->disk, &p);
}

/* --- outcomes --- */

static void recipient_event(struct spool *sp, const struct message *m, const struct deliver_outcome *o,
                            const struct deliver_recipient_result *r, const struct record_recipient *s,
                            const struct record_outcome *record)
{
    static const struct {
        const char *event;
        enum log_level level;
    } events[] = {
        [RECIPIENT_QUEUED] = {"message.deferred", LOG_LEVEL_INFO},
        [RECIPIENT_DELIVERED] = {"message.delivered", LOG_LEVEL_INFO},
        [RECIPIENT_FAILED] = {"message.failed", LOG_LEVEL_WARN},
        [RECIPIENT_EXPIRED] = {"message.expired", LOG_LEVEL_WARN},
    };
    struct span address = sp->scratch.recipients[r->number].address;
    uint64_t now = spool_now(sp);
    char status[16];
    (void)snprintf(status, sizeof(status), "%u.%u.%u", r->enhanced[0], r->enhanced[1], r->enhanced[2]);
    const struct log_field fields[] = {
        LF_ID("id", m->id),
        LF_SPAN("recipient", address),
        LF_UINT("attempt", record->attempts),
        LF_SPAN("remote", o->remote),
        LF_SPAN("address", o->address),
        LF_SPAN("tls", o->tls),
        LF_UINT("code", r->code),
        LF_STR("status", status),
        LF_SPAN("words", r->text),
        LF_UINT("age_ms", now - m->born_ms),
        LF_UINT("next_in_ms", record->next_ms > now ? record->next_ms - now : 0),
    };
    size_t count = sizeof(fields) / sizeof(fields[0]) - (s->state != RECIPIENT_QUEUED);
    log_event(events[s->state].level, events[s->state].event, fields, count);
    sp->totals.delivered += s->state == RECIPIENT_DELIVERED;
    sp->totals.deferred += s->state == RECIPIENT_QUEUED;
    sp->totals.failed += s->state == RECIPIENT_FAILED;
    sp->totals.expired += s->state == RECIPIENT_EXPIRED;
}

static uint8_t result_state(const struct spool *sp, const struct message *m, uint8_t result)
{
    bool old = spool_now(sp) >= m->born_ms + sp->config.lifetime_ms && (m->state & INDEX_NO_DEADLINE) == 0;
    switch ((enum deliver_result)result) {
    case DELIVER_DELIVERED:
        return RECIPIENT_DELIVERED;
    case DELIVER_PERMANENT:
        return RECIPIENT_FAILED;
    case DELIVER_TEMPORARY:
        return old ? RECIPIENT_EXPIRED : RECIPIENT_QUEUED;
    case DELIVER_DAMAGED:
        break;
    }
    return RECIPIENT_QUEUED;
}

/* What is kept of an answer: "remote\nwords", clipped; neither holds a line end. */
static struct span words_kept(struct buf *words, const struct deliver_outcome *o, struct span text)
{
    size_t start = words->len;
    size_t room = RECORD_WORDS_MAX - 1 - (o->remote.len < DELIVER_HOST_MAX ? o->remote.len : DELIVER_HOST_MAX);
    (void)buf_append(words, o->remote.ptr, RECORD_WORDS_MAX - 1 - room);
    (void)buf_append_byte(words, '\n');
    (void)buf_append(words, text.ptr, text.len < room ? text.len : room);
    for (size_t i = start; i < words->len; i++) {
        bool separator = i == start + (RECORD_WORDS_MAX - 1 - room);
        if (!separator && (words->data[i] < 0x20 || words->data[i] == 0x7f)) {
            words->data[i] = ' ';
        }
    }
    return (struct span){words->data + start, words->len - start};
}

/* Results of one job that came together. */
static void job_results(struct spool *sp, struct message *m, struct schedule_job *j, const struct deliver_outcome *o)
{
    struct record_outcome record = {.id = m->id, .results = sp->scratch.states, .attempts = j->attempts};
    bool unreachable = true, damaged = false;
    uint8_t *room;
    buf_clear(&sp->envelope);
    if (buf_reserve(&sp->envelope, o->results_count * (size_t)RECORD_WORDS_MAX, &room) < 0) {
        return; /* nothing learned: the job stays out until deliver goes away, then it is tried again */
    }
    for (size_t i = 0; i < o->results_count; i++) {
        const struct deliver_recipient_result *r = &o->results[i];
        if (m->recipients[r->number].job != j->place || !m->recipients[r->number].out) {
            continue;
        }
        struct record_recipient *to = &record.results[record.count++];
        *to = (struct record_recipient){.number = r->number, .code = r->code, .state = result_state(sp, m, r->result)};
        memcpy(to->enhanced, r->enhanced, sizeof(to->enhanced));
        to->words = words_kept(&sp->envelope, o, r->text);
        m->recipients[r->number].out = false;
        unreachable &= r->result == DELIVER_TEMPORARY && r->code == 0;
        damaged |= r->result == DELIVER_DAMAGED;
    }
    bool complete = !index_job_is_out(m, j);
    uint64_t now = spool_now(sp);
    if (complete) {
        struct schedule *s = index_schedule_of(sp->ix, index_job_shard(sp->ix, j));
        record.attempts++;
        job_back(sp, m, j, damaged ? SCHEDULE_LOST : unreachable ? SCHEDULE_UNREACHABLE : SCHEDULE_ANSWERED);
        record.next_ms = now + schedule_backoff(s, record.attempts);
    }
    spool_outcome_log(sp, &record);
    struct envelope e;
    index_envelope(m, &e, &sp->scratch);
    for (size_t i = 0, k = 0; i < o->results_count && k < record.count; i++) {
        if (o->results[i].number == record.results[k].number) {
            recipient_event(sp, m, o, &o->results[i], &record.results[k++], &record);
        }
    }
    index_apply_outcome(sp->ix, m, &record);
    m->state &= (uint8_t)~INDEX_NO_DEADLINE;
    if (complete) {
        index_schedule(sp->ix, m, now);
    }
    if (damaged) {
        damage_check_start(sp, m);
    }
}

int spool_outcome(struct spool *sp, uint64_t shards, uint64_t id, const struct deliver_outcome *o)
{
    struct message *m = index_find(sp->ix, id);
    if (m == NULL) {
        return -1;
    }
    for (size_t i = 0; i < o->results_count; i++) { /* one number twice is caught below: it is out only once */
        uint16_t number = o->results[i].number;
        if (number >= m->recipients_count || !m->recipients[number].out) {
            return -1;
        }
        uint32_t shard = index_job_shard(sp->ix, &m->jobs[m->recipients[number].job]);
        if ((shards >> shard & 1) == 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < o->results_count; i++) {
        const struct index_recipient *r = &m->recipients[o->results[i].number];
        if (r->out) {
            job_results(sp, m, &m->jobs[r->job], o);
        }
    }
    spool_message_settle(sp, m);
    return 0;
}

/* --- the operator --- */

static int message_get(struct spool *sp, uint64_t id, struct message **ret)
{
    struct message *m = index_find(sp->ix, id);
    *ret = m;
    return m == NULL || (m->state & INDEX_COMMITTING) != 0 ? -ENOENT : 0;
}

int spool_hold(struct spool *sp, uint64_t id, struct span words)
{
    struct message *m;
    int r = message_get(sp, id, &m);
    if (r < 0 || (m->state & INDEX_HELD) != 0) {
        return r < 0 ? r : -EALREADY;
    }
    words.len = words.len < RECORD_WORDS_MAX ? words.len : RECORD_WORDS_MAX;
    index_apply_hold(sp->ix, m, words);
    index_unschedule(sp->ix, m);
    spool_change_log(sp, RECORD_HOLD, &(struct record_change){.id = id, .words = words});
    log_info("message.held", LF_ID("id", id), LF_SPAN("words", words));
    return 0;
}

int spool_release(struct spool *sp, uint64_t id)
{
    struct message *m;
    int r = message_get(sp, id, &m);
    if (r < 0 || (m->state & INDEX_HELD) == 0) {
        return r < 0 ? r : -EALREADY;
    }
    index_apply_release(sp->ix, m);
    spool_change_log(sp, RECORD_RELEASE, &(struct record_change){.id = id});
    log_info("message.released", LF_ID("id", id));
    if (spool_now(sp) >= m->born_ms + sp->config.lifetime_ms) {
        m->state |= INDEX_NO_DEADLINE;
        deadline_after(sp, m, HELD_DEADLINE_MS);
    }
    index_schedule(sp->ix, m, spool_now(sp));
    return 0;
}

int spool_retry(struct spool *sp, uint64_t id)
{
    struct message *m;
    uint64_t now = spool_now(sp);
    int r = message_get(sp, id, &m);
    if (r < 0) {
        return r;
    }
    index_unschedule(sp->ix, m);
    index_apply_retry(m, now);
    spool_change_log(sp, RECORD_RETRY, &(struct record_change){.id = id, .next_ms = now});
    for (size_t i = 0; i < m->jobs_count; i++) {
        struct schedule_job *j = &m->jobs[i];
        schedule_unpause(index_schedule_of(sp->ix, index_job_shard(sp->ix, j)), j->domain);
    }
    index_schedule(sp->ix, m, now);
    log_info("message.retried", LF_ID("id", id));
    return 0;
}

int spool_remove(struct spool *sp, uint64_t id, struct span words)
{
    struct message *m;
    int r = message_get(sp, id, &m);
    if (r < 0 || m->out > 0) {
        return r < 0 ? r : -EBUSY;
    }
    spool_change_log(sp, RECORD_REMOVE, &(struct record_change){.id = id, .reason = REMOVE_OPERATOR});
    log_warn("message.removed", LF_ID("id", id), LF_SPAN("words", words));
    message_end(sp, m);
    return 0;
}

int spool_suspend(struct spool *sp, struct span account, struct span words)
{
    bool known = index_is_suspended(sp->ix, account);
    words.len = words.len < RECORD_WORDS_MAX ? words.len : RECORD_WORDS_MAX;
    int r = index_suspend(sp->ix, account, words);
    if (r == 0 && !known) {
        struct log_batch *b = log_gather(sp->log, RECORD_SLACK + account.len + words.len);
        struct record_account a = {account, words};
        if (b != NULL) {
            account_log(b, RECORD_SUSPEND, &a);
        }
        log_info("spool.account.held", LF_SPAN("account", account), LF_SPAN("words", words));
    }
    return r;
}

int spool_resume(struct spool *sp, struct span account)
{
    if (!index_is_suspended(sp->ix, account)) {
        return 0;
    }
    struct log_batch *b = log_gather(sp->log, RECORD_SLACK + account.len);
    struct record_account a = {.account = account};
    if (b != NULL) {
        account_log(b, RECORD_RESUME, &a);
    }
    log_info("spool.account.released", LF_SPAN("account", account));
    index_resume(sp->ix, account);
    return 0;
}

void spool_suspensions_begin(struct spool *sp)
{
    index_suspensions_confirm(sp->ix, true, NULL, NULL);
}

static void resume_each(void *arg, struct span account)
{
    (void)spool_resume(arg, account);
}

void spool_suspensions_settle(struct spool *sp)
{
    index_suspensions_confirm(sp->ix, false, resume_each, sp);
}

/* --- what the log tells --- */

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
    struct envelope e;
    index_envelope(m, &e, &sp->scratch);
    log_info("message.stored", LF_ID("id", m->id), LF_ID("session", e.session), LF_SPAN("account", e.account),
             LF_SPAN("sender", e.sender), LF_UINT("recipients", m->recipients_count), LF_UINT("octets", m->length),
             LF_SPAN("message_id", e.message_id));
    if ((m->state & INDEX_HELD) != 0) {
        log_info("message.held", LF_ID("id", m->id), LF_STR("words", m->words));
    }
}

static void log_committed(void *arg, struct log_batch *b)
{
    struct spool *sp = arg;
    sp->snapshot_octets += b->size;
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
    account_log(arg, RECORD_SUSPEND, a);
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

static const struct log_ops log_ops = {
    .committed = log_committed,
    .failed = log_failed,
    .segment_begins = log_segment_begins,
    .segment_gone = log_segment_gone,
    .health = log_health,
    .spool_ms = log_spool_ms,
};

/* --- life --- */

static void collect(struct spool *sp)
{
    (void)worker_collect(sp->commit);
    (void)worker_collect(sp->streams_worker);
    (void)worker_collect(sp->house);
}

static uint64_t schedules_tick(struct spool *sp, uint64_t now)
{
    uint64_t at = UINT64_MAX;
    for (uint32_t i = 0; i < sp->config.shards; i++) {
        uint64_t t = schedule_tick(index_schedule_of(sp->ix, i), now);
        at = t < at ? t : at;
    }
    return at;
}

uint64_t spool_poll(struct spool *sp)
{
    collect(sp);
    uint64_t mono = clock_mono_ms(), now = spool_now(sp);
    tidy_space(sp, mono);
    uint64_t at = deadlines_tick(sp, now), tick = schedules_tick(sp, now);
    dispatch(sp);
    tidy_move(sp);
    tidy_snapshot(sp);
    uint64_t retry = log_kick(sp->log, mono);
    state_update(sp);
    pressure_update(sp);
    at = tick < at ? tick : at;
    uint64_t next =
        at == UINT64_MAX || at > now + POLL_IDLE_MS ? mono + POLL_IDLE_MS : mono + (at > now ? at - now : 0);
    return retry < next ? retry : next;
}

static uint64_t segment_size_for(uint64_t total)
{
    uint64_t size = SEGMENT_MAX;
    while (size > SEGMENT_MIN && size > total / 16) {
        size /= 2;
    }
    return size;
}

static void found_log(void *arg, const struct recover_report *report)
{
    struct spool *sp = arg;
    if (report->event == RECOVER_PROGRESS) {
        return;
    }
    bool torn = report->event == RECOVER_TORN;
    const struct log_field fields[] = {
        LF_ID("id", report->id),
        LF_STR("words", recover_event_words(report->event)),
        LF_UINT("segment", report->segment),
        LF_UINT("offset", report->offset),
        LF_UINT("octets", report->length),
        LF_STR("aside", report->aside),
    };
    sp->totals.damaged += !torn;
    log_event(torn ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR, torn ? "spool.torn" : "message.damaged", fields,
              sizeof(fields) / sizeof(fields[0]));
}

/* What recovery found out is written down before anything else is. */
static int recovered_log(struct spool *sp, const struct recovery *rec)
{
    for (size_t i = 0; i < rec->torn_count; i++) {
        spool_change_log(sp, RECORD_REMOVE, &(struct record_change){.id = rec->torn[i], .reason = REMOVE_TORN});
    }
    for (size_t i = 0; i < rec->salvaged_count; i++) {
        struct message *m = index_find(sp->ix, rec->salvaged[i]);
        int r = m != NULL ? tidy_move_now(sp, m) : 0;
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static void recovered_schedule(struct spool *sp)
{
    struct message *next;
    for (struct message *m = index_first(sp->ix); m != NULL; m = next) {
        next = m->next;
        spool_deadline_set(sp, m);
        index_schedule(sp->ix, m, spool_now(sp));
        spool_message_settle(sp, m);
    }
}

static int recover_and_start(struct spool *sp)
{
    struct recovery rec;
    struct recover_options options = {.segment_size = sp->segment_size, .found = found_log, .arg = sp};
    uint64_t began = clock_mono_ms();
    int r = recover_run(sp->disk, sp->ix, &options, &rec);
    if (r < 0) {
        return r;
    }
    sp->time_base_ms = rec.spool_ms + 1;
    sp->mono_base_ms = clock_mono_ms();
    r = log_start(sp->log, &rec.log);
    if (r == 0) {
        sp->snapshot_octets = rec.replayed * SPOOL_BLOCK; /* a floor: what was replayed is worth a snapshot in time */
        r = recovered_log(sp, &rec);
        recovered_schedule(sp);
        log_info("spool.recovered", LF_UINT("messages", index_count(sp->ix)), LF_UINT("batches", rec.replayed),
                 LF_UINT("records", rec.records), LF_UINT("snapshot", rec.from_snapshot),
                 LF_UINT("torn", rec.torn_count), LF_UINT("salvaged", rec.salvaged_count),
                 LF_UINT("segments", rec.log.segments_count), LF_UINT("ms", clock_mono_ms() - began));
    }
    free(rec.torn);
    free(rec.salvaged);
    return r;
}

static int parts_new(struct spool *sp)
{
    uint64_t seed = sp->config.random(sp->config.random_arg);
    struct index_config ic = {.shards = sp->config.shards, .schedule = sp->config.schedule, .seed = seed};
    struct log_config lc = {.segment_size = sp->segment_size,
                            .batch_max = sp->segment_size / 2 < BATCH_MAX ? sp->segment_size / 2 : BATCH_MAX,
                            .random = sp->config.random,
                            .random_arg = sp->config.random_arg};
    ic.schedule.seed = sp->config.random(sp->config.random_arg);
    sp->minter =
        (struct id_minter){.worker = MINTER_WORKER, .counter = (uint32_t)sp->config.random(sp->config.random_arg)};
    sp->shard_up = calloc(sp->config.shards, sizeof(bool));
    sp->ix = index_new(&ic);
    sp->commit = worker_new(sp->config.threaded, sp->ops->wake, sp->arg);
    sp->house = worker_new(sp->config.threaded, sp->ops->wake, sp->arg);
    sp->streams_worker = worker_new(sp->config.threaded, sp->ops->wake, sp->arg);
    bool ok =
        sp->shard_up != NULL && sp->ix != NULL && sp->commit != NULL && sp->house != NULL && sp->streams_worker != NULL;
    sp->log = ok ? log_new(sp->disk, sp->commit, sp->house, &lc, &log_ops, sp) : NULL;
    return sp->log == NULL ? -ENOMEM : 0;
}

static void spool_free(struct spool *sp)
{
    worker_free(&sp->streams_worker);
    worker_free(&sp->commit);
    worker_free(&sp->house);
    snapshot_free(&sp->snapshot);
    log_free(&sp->log);
    index_free(&sp->ix);
    if (sp->lock_fd >= 0) {
        sp->disk->close(sp->disk->arg, sp->lock_fd);
    }
    buf_fini(&sp->envelope);
    free(sp->shard_up);
    free(sp);
}

int spool_open(const struct spool_disk *disk, const struct spool_config *config, const struct spool_ops *ops, void *arg,
               struct spool **ret)
{
    struct spool *sp = calloc(1, sizeof(*sp));
    if (sp == NULL) {
        return -ENOMEM;
    }
    sp->disk = disk;
    sp->config = *config;
    sp->config.random = config->random != NULL ? config->random : kernel_random;
    sp->ops = ops;
    sp->arg = arg;
    buf_init(&sp->envelope, FRAME_PAYLOAD_MAX * 2);
    sp->lock_fd = disk->lock(disk->arg, "lock");
    int r = sp->lock_fd < 0 ? sp->lock_fd : disk->space(disk->arg, &sp->space);
    if (r >= 0) {
        sp->segment_size = config->segment_size > 0 ? config->segment_size : segment_size_for(sp->space.total);
        r = parts_new(sp);
    }
    r = r < 0 ? r : recover_and_start(sp);
    if (r < 0) {
        log_error("spool.unusable", LF_ERR(r));
        spool_free(sp);
        return r;
    }
    sp->state = state_now(sp);
    *ret = sp;
    return 0;
}

/* Everything gathered is durable, or cannot be now. */
static bool settled(const struct spool *sp)
{
    struct log_figures f;
    log_figures(sp->log, &f);
    bool idle = worker_is_idle(sp->commit) && worker_is_idle(sp->house) && worker_is_idle(sp->streams_worker);
    return idle && (f.pending == 0 || f.down);
}

void spool_close(struct spool **spp)
{
    struct spool *sp = *spp;
    if (sp == NULL) {
        return;
    }
    sp->closing = true;
    stream_abort_all(sp, 0, true);
    do {
        worker_wait(sp->streams_worker);
        worker_wait(sp->commit);
        worker_wait(sp->house);
        collect(sp);
        (void)log_kick(sp->log, clock_mono_ms());
    } while (!settled(sp));
    spool_free(sp);
    *spp = NULL;
}

void spool_configure(struct spool *sp, const struct spool_config *config)
{
    sp->config.lifetime_ms = config->lifetime_ms;
    sp->config.delay_warning_ms = config->delay_warning_ms;
    sp->config.reserve_octets = config->reserve_octets;
    sp->config.reserve_inodes = config->reserve_inodes;
    sp->config.hostname = config->hostname;
    sp->config.from_domain = config->from_domain;
    sp->config.help_url = config->help_url;
    for (uint32_t i = 0; i < sp->config.shards; i++) {
        schedule_configure(index_schedule_of(sp->ix, i), &config->schedule);
    }
}

void spool_figures(const struct spool *sp, struct spool_figures *ret)
{
    *ret = sp->totals;
    index_figures(sp->ix, &ret->index);
    log_figures(sp->log, &ret->log);
    ret->space = sp->space;
    ret->now_ms = spool_now(sp);
    ret->oldest_age_ms = ret->index.oldest_ms > 0 ? ret->now_ms - ret->index.oldest_ms : 0;
    ret->streams = sp->streams_count;
    ret->accepting = sp->state.accepting != 0;
    for (uint32_t i = 0; i < sp->config.shards; i++) {
        struct schedule_figures f;
        schedule_figures(index_schedule_of(sp->ix, i), &f);
        ret->out += f.out;
        ret->ready += f.ready;
        ret->waiting += f.waiting;
    }
}

struct index *spool_index(struct spool *sp)
{
    return sp->ix;
}

uint64_t spool_born_wall(const struct message *m)
{
    struct wire_reader r = wire_reader((struct span){m->envelope_raw, m->envelope_length});
    (void)wire_get_u64(&r); /* the session */
    return wire_get_u64(&r);
}

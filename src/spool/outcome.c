/* outcome.c: what deliver says became of a job. Its words come from strangers. */
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "spool/spool_int.h"

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
        [RECIPIENT_RELAYED] = {"message.delivered", LOG_LEVEL_INFO},
        [RECIPIENT_HANDED_OVER] = {"message.delivered", LOG_LEVEL_INFO},
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
    sp->totals.delivered +=
        s->state == RECIPIENT_DELIVERED || s->state == RECIPIENT_RELAYED || s->state == RECIPIENT_HANDED_OVER;
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
    case DELIVER_RELAYED:
        return RECIPIENT_RELAYED;
    case DELIVER_HANDED_OVER:
        return RECIPIENT_HANDED_OVER;
    case DELIVER_PERMANENT:
        return RECIPIENT_FAILED;
    case DELIVER_TEMPORARY:
        return old ? RECIPIENT_EXPIRED : RECIPIENT_QUEUED;
    case DELIVER_DAMAGED:
    case DELIVER_CANCELLED:
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

/* What an OUTCOME says of a job, beside its recipients. */
struct learned {
    bool unreachable, damaged;
    uint16_t cancelled; /* recipients */
};

/* Takes the recipients of j that are out from o into record; words go into sp->envelope if that has room. */
static struct learned results_take(struct spool *sp, struct message *m, const struct schedule_job *j,
                                   const struct deliver_outcome *o, bool words, struct record_outcome *record)
{
    struct learned l = {.unreachable = true};
    for (size_t i = 0; i < o->results_count; i++) {
        const struct deliver_recipient_result *r = &o->results[i];
        if (m->recipients[r->number].job != j->place || !m->recipients[r->number].out) {
            continue;
        }
        m->recipients[r->number].out = false;
        if (r->result == DELIVER_CANCELLED) {
            l.cancelled++;
            continue;
        }
        struct record_recipient *to = &record->results[record->count++];
        *to = (struct record_recipient){.number = r->number, .code = r->code, .state = result_state(sp, m, r->result)};
        memcpy(to->enhanced, r->enhanced, sizeof(to->enhanced));
        to->words = words ? words_kept(&sp->envelope, o, r->text) : (struct span){0};
        l.unreachable &= r->result == DELIVER_TEMPORARY && r->code == 0;
        l.damaged |= r->result == DELIVER_DAMAGED;
    }
    return l;
}

static void results_note(struct spool *sp, struct message *m, const struct deliver_outcome *o,
                         const struct record_outcome *record)
{
    struct envelope e;
    spool_outcome_log(sp, record);
    index_envelope(m, &e, &sp->scratch);
    for (size_t i = 0, k = 0; i < o->results_count && k < record->count; i++) {
        if (o->results[i].number == record->results[k].number) {
            recipient_event(sp, m, o, &o->results[i], &record->results[k++], record);
        }
    }
    index_apply_outcome(sp->ix, m, record);
    m->state &= (uint8_t)~INDEX_NO_DEADLINE;
}

/* Results of one job that came together. One that was cancelled is as it was before it went out. */
static void job_results(struct spool *sp, struct message *m, struct schedule_job *j, const struct deliver_outcome *o)
{
    struct record_outcome record = {.id = m->id, .results = sp->scratch.states, .attempts = j->attempts};
    uint8_t *room;
    buf_clear(&sp->envelope);
    /* Out of memory: the result counts all the same, or the recipient would be out for ever. */
    bool words = buf_reserve(&sp->envelope, o->results_count * (size_t)RECORD_WORDS_MAX, &room) == 0;
    struct learned l = results_take(sp, m, j, o, words, &record);
    bool complete = !index_job_is_out(m, j);
    uint64_t now = spool_now(sp);
    if (complete) {
        bool lost = l.damaged || l.cancelled > 0;
        job_back(sp, m, j, lost ? SCHEDULE_LOST : l.unreachable ? SCHEDULE_UNREACHABLE : SCHEDULE_ANSWERED);
        if (record.count > 0) {
            struct schedule *s = index_schedule_of(sp->ix, index_job_shard(sp->ix, j));
            record.next_ms = now + schedule_backoff(s, ++record.attempts);
        }
    }
    if (record.count > 0) {
        results_note(sp, m, o, &record);
    }
    if (l.cancelled > 0) {
        log_info("message.cancelled", LF_ID("id", m->id), LF_UINT("recipients", l.cancelled));
    }
    if (complete) {
        index_schedule(sp->ix, m, now);
    }
    if (l.damaged) {
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

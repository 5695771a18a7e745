/* deadline.c: the lifetime of a message and the warning of its delay. */
#include <string.h>

#include "common/log.h"
#include "spool/spool_int.h"

#define BUSY_DEADLINE_MS (60U * 1000U) /* look again when a message cannot be expired now */

void spool_deadline_set(struct spool *sp, struct message *m)
{
    uint64_t end = m->born_ms + sp->config.lifetime_ms, warn = m->born_ms + sp->config.delay_warning_ms;
    bool to_warn =
        sp->config.delay_warning_ms > 0 && warn < end && index_unreported(m, REPORT_DELAY, sp->scratch.numbers) > 0;
    heap_remove(index_deadlines(sp->ix), &m->deadline);
    heap_add(index_deadlines(sp->ix), &m->deadline, to_warn ? warn : end);
}

void deadline_postpone(struct spool *sp, struct message *m, uint64_t ms)
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
        deadline_postpone(sp, m, BUSY_DEADLINE_MS);
    } else if (held) {
        deadline_postpone(sp, m, HELD_DEADLINE_MS);
        spool_message_settle(sp, m);
    } else if (now >= m->born_ms + sp->config.lifetime_ms) {
        deadline_postpone(sp, m, BUSY_DEADLINE_MS);
        message_expire(sp, m);
        spool_message_settle(sp, m);
    } else {
        deadline_postpone(sp, m, m->born_ms + sp->config.lifetime_ms - now);
        if (sp->config.delay_warning_ms > 0 && now >= m->born_ms + sp->config.delay_warning_ms &&
            index_unreported(m, REPORT_DELAY, sp->scratch.numbers) > 0) {
            report_start(sp, m);
        } else {
            spool_message_settle(sp, m);
        }
    }
}

uint64_t deadlines_tick(struct spool *sp, uint64_t now)
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

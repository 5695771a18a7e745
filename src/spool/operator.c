/* operator.c: what the operator asks for, and the suspensions that the guard tells. */
#include <errno.h>

#include "common/log.h"
#include "spool/spool_int.h"

static int message_get(struct spool *sp, uint64_t id, struct message **ret)
{
    struct message *m = index_find(sp->ix, id);
    *ret = m;
    return m == NULL || (m->state & INDEX_COMMITTING) != 0 || m->removing ? -ENOENT : 0;
}

/* 1 when an attempt is under way. */
static int attempts_cancel(struct spool *sp, struct message *m)
{
    for (size_t i = 0; i < m->jobs_count; i++) {
        job_cancel(sp, &m->jobs[i]);
    }
    return m->out > 0;
}

int spool_hold(struct spool *sp, uint64_t id, struct span words)
{
    struct message *m;
    int r = message_get(sp, id, &m);
    if (r < 0 || (m->state & INDEX_HELD) != 0) {
        return r < 0 ? r : -EALREADY;
    }
    words.len = words.len < RECORD_WORDS_MAX ? words.len : RECORD_WORDS_MAX;
    r = spool_change_log(sp, RECORD_HOLD, &(struct record_change){.id = id, .words = words});
    if (r < 0) {
        return r;
    }
    index_apply_hold(sp->ix, m, words);
    index_unschedule(sp->ix, m);
    log_info("message.held", LF_ID("id", id), LF_SPAN("words", words));
    return attempts_cancel(sp, m);
}

int spool_release(struct spool *sp, uint64_t id)
{
    struct message *m;
    int r = message_get(sp, id, &m);
    if (r < 0 || (m->state & INDEX_HELD) == 0) {
        return r < 0 ? r : -EALREADY;
    }
    r = spool_change_log(sp, RECORD_RELEASE, &(struct record_change){.id = id});
    if (r < 0) {
        return r;
    }
    index_apply_release(sp->ix, m);
    log_info("message.released", LF_ID("id", id));
    if (spool_now(sp) >= m->born_ms + sp->config.lifetime_ms) {
        m->state |= INDEX_NO_DEADLINE;
        deadline_postpone(sp, m, HELD_DEADLINE_MS);
    }
    index_schedule(sp->ix, m, spool_now(sp));
    return 0;
}

int spool_retry(struct spool *sp, uint64_t id)
{
    struct message *m;
    uint64_t now = spool_now(sp);
    int r = message_get(sp, id, &m);
    r = r < 0 ? r : spool_change_log(sp, RECORD_RETRY, &(struct record_change){.id = id, .next_ms = now});
    if (r < 0) {
        return r;
    }
    index_unschedule(sp->ix, m);
    index_apply_retry(m, now);
    for (size_t i = 0; i < m->jobs_count; i++) {
        struct schedule_job *j = &m->jobs[i];
        j->anew = true;
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
    r = r < 0 ? r : spool_change_log(sp, RECORD_REMOVE, &(struct record_change){.id = id, .reason = REMOVE_OPERATOR});
    if (r < 0) {
        return r;
    }
    log_warn("message.removed", LF_ID("id", id), LF_SPAN("words", words), LF_UINT("delivering", m->out));
    if (m->out == 0) {
        spool_message_end(sp, m);
        return 0;
    }
    m->removing = true;
    index_unschedule(sp->ix, m);
    return attempts_cancel(sp, m);
}

static void account_cancel(struct spool *sp)
{
    for (uint32_t i = 0; i < sp->config.shards; i++) {
        for (struct schedule_job *j = schedule_first_out(index_schedule_of(sp->ix, i)); j != NULL; j = j->next) {
            if (schedule_account_suspended(j->account)) {
                job_cancel(sp, j);
            }
        }
    }
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
            change_account_log(b, RECORD_SUSPEND, &a);
        }
        log_info("spool.account.held", LF_SPAN("account", account), LF_SPAN("words", words));
        account_cancel(sp);
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
        change_account_log(b, RECORD_RESUME, &a);
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

/* jobs.c: what is due goes out to deliver, and comes back. */
#include "spool/spool_int.h"

#define LARGE_OUT_MAX 256U /* large messages with deliver at once */
#define WAIT_MS       1000U
/* Deliveries whose outcome is not on the disk are made again after a crash. While the disk hangs or fails, no more
 * than so many are added to those that are out. */
#define RESULTS_MAX 500U

/* What the outcomes of a job may take of the log: two batches (they may come in two parts, each alone), and the words.
 */
static uint64_t job_owes(const struct message *m)
{
    return 2U * SPOOL_BLOCK + m->recipients_count * (RECORD_WORDS_MAX + 16U);
}

static void job_send(struct spool *sp, uint32_t shard, struct schedule_job *j)
{
    struct message *m = index_of_job(j);
    struct deliver_job job = {.attempt = j->attempts + 1,
                              .offset = m->offset,
                              .length = m->length,
                              .xxh3 = m->xxh3,
                              .flags = j->anew ? DELIVER_JOB_ANEW : 0,
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
    j->anew = false;
    log_pin(sp->log, j->pinned);
    m->out++;
    sp->large_out += large;
    sp->owed += job_owes(m);
    sp->ops->job(sp->arg, shard, m->id, &job);
}

/* Each large message that is out is a descriptor in deliver; and what is out must find room for its outcome: else the
 * next one waits a moment. */
static bool must_wait(struct spool *sp, struct schedule *s, struct schedule_job *j)
{
    uint64_t now = spool_now(sp);
    const struct message *m = index_of_job(j);
    bool large = (m->state & INDEX_LARGE) != 0 && sp->large_out >= LARGE_OUT_MAX;
    if (!large && tidy_has_room(sp, job_owes(m), true)) {
        return false;
    }
    schedule_result(s, j, SCHEDULE_LOST, now);
    schedule_add(s, j, now + WAIT_MS, now);
    return true;
}

void jobs_dispatch(struct spool *sp)
{
    if (sp->draining || log_pending_results(sp->log) > RESULTS_MAX) {
        return; /* the spool is polled again when a batch is done */
    }
    for (uint32_t i = 0; i < sp->config.shards; i++) {
        struct schedule *s = index_schedule_of(sp->ix, i);
        struct schedule_job *j;
        while (sp->shard_up[i] && (j = schedule_take(s)) != NULL) {
            if (!must_wait(sp, s, j)) {
                job_send(sp, i, j);
            }
        }
    }
}

void job_back(struct spool *sp, struct message *m, struct schedule_job *j, enum schedule_result result)
{
    bool large = (m->state & INDEX_LARGE) != 0;
    bool old = log_unpin(sp->log, j->pinned, result == SCHEDULE_LOST);
    m->out--;
    sp->large_out -= large;
    sp->owed -= job_owes(m);
    if (large ? m->out == 0 : old) { /* descriptors are few: deliver gets it again when it is needed */
        sp->ops->forget(sp->arg, large ? LARGE_FILE_FLAG | m->id : j->pinned);
    }
    schedule_result(index_schedule_of(sp->ix, index_job_shard(sp->ix, j)), j, result, spool_now(sp));
}

void job_cancel(struct spool *sp, struct schedule_job *j)
{
    if (j->state == JOB_OUT) {
        sp->ops->cancel(sp->arg, index_job_shard(sp->ix, j), index_of_job(j)->id);
    }
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

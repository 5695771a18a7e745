#include "spool/spool.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "spool/recover.h"
#include "spool/spool_int.h"

#define SEGMENT_MAX   (64U * 1024U * 1024U)
#define SEGMENT_MIN   (1024U * 1024U)
#define BATCH_MAX     (8U * 1024U * 1024U)
#define MINTER_WORKER 31U /* submit processes have the others */
#define POLL_IDLE_MS  1000U

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
    jobs_dispatch(sp);
    tidy_move(sp);
    tidy_snapshot(sp);
    uint64_t retry = tidy_is_gathering(sp) ? UINT64_MAX : log_kick(sp->log, mono);
    durable_waits_tick(sp, false);
    intake_state_update(sp);
    intake_pressure_update(sp);
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
        (void)spool_change_log(sp, RECORD_REMOVE, &(struct record_change){.id = rec->torn[i], .reason = REMOVE_TORN});
    }
    for (size_t i = 0; i < rec->salvaged_count; i++) {
        struct message *m = index_find(sp->ix, rec->salvaged[i]);
        int r = m != NULL ? tidy_move_now(sp, m) : 0;
        if (r < 0 && r != -EILSEQ &&
            r != -EIO) { /* these are the message's own: who delivers it finds out, and tells */
            return r;
        }
    }
    struct span rest = buf_span(&rec->changes);
    struct record record;
    while (record_next(&rest, &record) == 1) {
        spool_record_log(sp, &record);
    }
    return 0;
}

static void recovered_schedule(struct spool *sp)
{
    struct message *next;
    uint64_t now = spool_now(sp);
    for (struct message *m = index_first(sp->ix); m != NULL; m = next) {
        next = m->next;
        spool_deadline_set(sp, m);
        index_schedule(sp->ix, m, now);
        spool_message_settle(sp, m);
    }
}

static int recover_and_start(struct spool *sp)
{
    struct recovery rec;
    struct recover_options options = {
        .segment_size = sp->segment_size, .read_ahead = sp->config.threaded, .found = found_log, .arg = sp};
    uint64_t began = clock_mono_ms();
    int r = recover_run(sp->disk, sp->ix, &options, &rec);
    (void)FAULT_POINT("spool.recover.read");
    if (r < 0) {
        return r;
    }
    sp->time_base_ms = rec.spool_ms + 1;
    sp->mono_base_ms = clock_mono_ms();
    r = log_start(sp->log, &rec.log);
    if (r == 0) {
        sp->snapshot_octets = rec.replayed * SPOOL_BLOCK; /* a floor: what was replayed is worth a snapshot in time */
        r = recovered_log(sp, &rec);
        (void)FAULT_POINT("spool.recover.logged");
        recovered_schedule(sp);
        log_info("spool.recovered", LF_UINT("messages", index_count(sp->ix)), LF_UINT("batches", rec.replayed),
                 LF_UINT("records", rec.records), LF_UINT("snapshot", rec.from_snapshot),
                 LF_UINT("torn", rec.torn_count), LF_UINT("salvaged", rec.salvaged_count),
                 LF_UINT("segments", rec.log.segments_count), LF_UINT("ms", clock_mono_ms() - began));
    }
    recovery_fini(&rec);
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
    sp->log = ok ? log_new(sp->disk, sp->commit, sp->house, &lc, &durable_ops, sp) : NULL;
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
    sp->state = intake_state(sp);
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
    durable_waits_tick(sp, true);
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

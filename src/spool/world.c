#include "spool/world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/clock.h"
#include "common/id.h"
#include "spool/quiet.h"
#include "spool/segment.h"

static struct world *clock_owner;

static uint64_t world_mono_ns(void *arg)
{
    (void)arg;
    return clock_owner->mono_ms * 1000000U;
}

static uint64_t world_wall_ms(void *arg)
{
    (void)arg;
    return clock_owner->wall_ms;
}

static const struct clock_source world_clock = {world_mono_ns, world_wall_ms, NULL};

uint64_t world_random(struct world *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

static uint64_t random_for_spool(void *arg)
{
    return world_random(arg) << 24 ^ world_random(arg);
}

__attribute__((format(printf, 2, 3))) static void broken(struct world *w, const char *fmt, ...)
{
    if (w->broken++ == 0) {
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(w->why, sizeof(w->why), fmt, ap);
        va_end(ap);
    }
}

void world_octets(uint64_t id, uint32_t length, uint8_t *to)
{
    char text[ID_TEXT_LEN + 1];
    id_format(id, text);
    for (uint32_t i = 0; i < length; i++) {
        to[i] = (uint8_t)text[i % ID_TEXT_LEN];
    }
}

static struct world_entry *entry_find(struct world *w, uint64_t id)
{
    for (size_t i = w->ledger_count; i > 0; i--) {
        if (w->ledger[i - 1].id == id) {
            return &w->ledger[i - 1];
        }
    }
    return NULL;
}

/* Reads the octets of a place as deliver would: through a descriptor, checksum before anything else. */
static uint8_t *octets_get(struct world *w, uint64_t file, uint64_t offset, uint64_t length, uint64_t xxh3)
{
    uint8_t *octets = memdisk_alloc(NULL, length + 1);
    memdisk_hush(w->mem, true);
    int fd = spool_file_open(w->sp, file);
    int64_t n = fd < 0 ? fd : w->disk.read(w->disk.arg, fd, octets, length, offset);
    if (fd >= 0) {
        w->disk.close(w->disk.arg, fd);
    }
    memdisk_hush(w->mem, false);
    if (n != (int64_t)length || XXH3_64bits(octets, length) != xxh3) {
        free(octets);
        return NULL;
    }
    octets[length] = '\0';
    return octets;
}

/* --- what the spool calls --- */

static void on_answer(void *arg, uint64_t ticket, uint64_t id, const struct spool_refused *refused)
{
    struct world *w = arg;
    struct world_entry *e = entry_find(w, id);
    (void)ticket;
    w->answers++;
    w->refused += refused != NULL;
    w->last_code = refused != NULL ? refused->code : w->last_code;
    if (e == NULL || e->fate != WORLD_SENT) {
        broken(w, "an answer nobody waits for");
    } else if (memdisk_is_cut(w->mem) && refused == NULL) {
        broken(w, "acknowledged without power");
    } else {
        e->fate = refused == NULL ? WORLD_ACKED : WORLD_REFUSED;
    }
}

static void on_job(void *arg, uint32_t shard, uint64_t id, const struct deliver_job *job)
{
    struct world *w = arg;
    (void)shard;
    w->jobs = memdisk_alloc(w->jobs, (w->jobs_count + 1) * sizeof(*w->jobs));
    struct world_job *j = &w->jobs[w->jobs_count++];
    *j = (struct world_job){.id = id, .job = *job, .count = job->envelope.recipients_count};
    for (uint16_t i = 0; i < j->count && i < 4; i++) {
        j->numbers[i] = job->envelope.recipients[i].number;
    }
    j->is_dsn = (job->envelope.flags & ENVELOPE_DSN) != 0;
    const struct world_entry *e = entry_find(w, id);
    if (e != NULL && e->fate == WORLD_REMOVED) {
        broken(w, "message %llx was removed and is tried again", (unsigned long long)id);
    }
}

static void on_cancel(void *arg, uint32_t shard, uint64_t id)
{
    struct world *w = arg;
    (void)shard;
    for (size_t i = 0; i < w->jobs_count; i++) {
        w->jobs[i].cancelled = w->jobs[i].cancelled || (w->jobs[i].id == id && world_random(w) % 2 != 0);
    }
}

static const struct spool_ops world_ops = {on_answer,   on_job,         quiet_forget, on_cancel,
                                           quiet_state, quiet_pressure, quiet_wake};

/* --- life --- */

void world_init(struct world *w, uint64_t seed, uint64_t segment_size)
{
    *w = (struct world){.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1,
                        .mono_ms = 1000000,
                        .wall_ms = UINT64_C(1790000000000),
                        .next_id = UINT64_C(1) << 40,
                        .puts_weight = 6,
                        .large_weight = 2};
    w->mem = memdisk_new(UINT64_C(1) << 30);
    w->disk = memdisk_calls(w->mem);
    w->config = spool_config_default();
    w->config.threaded = false;
    w->config.segment_size = segment_size;
    w->config.random = random_for_spool;
    w->config.random_arg = w;
    w->config.hostname = SPAN_LIT("mx.example.org");
    w->config.from_domain = SPAN_LIT("example.org");
    clock_owner = w;
    clock_override(&world_clock);
}

int world_open(struct world *w)
{
    int r = spool_open(&w->disk, &w->config, &world_ops, w, &w->sp);
    if (r == 0) {
        spool_shard_up(w->sp, 0, true);
    }
    return r;
}

/* What is still known when the process is gone. Clients without an answer get none; a removal that was not on the disk
 * has not been, though nobody is owed the message any more. */
static void entry_forget(struct world_entry *e, uint64_t durable_turn)
{
    bool removed = e->fate == WORLD_REMOVED && e->settled_turn > durable_turn;
    e->fate = e->fate == WORLD_SENT || removed ? WORLD_REFUSED : e->fate;
}

/* As kill -9 would: nothing more reaches the disk. */
void world_drop(struct world *w)
{
    struct spool *sp = w->sp;
    w->sp = NULL;
    w->jobs_count = 0;
    if (sp != NULL) {
        memdisk_cut(w->mem, 1);
        for (size_t i = 0; i < w->ledger_count; i++) {
            entry_forget(&w->ledger[i], 0); /* a change that found no memory was never written: nothing is sure */
            w->ledger[i].settled_turn = 0;  /* the next log counts anew */
        }
        unsigned was = w->broken;
        spool_close(&sp);
        w->broken = was;
    }
}

void world_fini(struct world *w)
{
    world_drop(w);
    memdisk_free(&w->mem);
    free(w->ledger);
    free(w->jobs);
    clock_override(NULL);
}

/* Durable ends may not come again. */
static void entries_settle(const struct world *w, struct world *fork)
{
    struct spool_figures f = {0};
    if (w->sp != NULL) {
        spool_figures(w->sp, &f);
    }
    for (size_t i = 0; i < fork->ledger_count; i++) {
        struct world_entry *e = &fork->ledger[i];
        entry_forget(e, f.log.durable_turn);
        e->settled |= e->settled_turn > 0 && e->settled_turn <= f.log.durable_turn;
        e->settled_turn = 0;
    }
}

void world_fork(const struct world *w, struct world *fork, enum memdisk_loss loss, uint64_t seed)
{
    *fork = *w;
    fork->sp = NULL;
    fork->jobs = NULL;
    fork->jobs_count = 0;
    fork->answers = fork->refused = 0;
    fork->random = (w->random ^ seed) | 1;
    fork->mono_ms = 5000;
    fork->mem = memdisk_copy(w->mem);
    fork->disk = memdisk_calls(fork->mem);
    fork->config.random_arg = fork;
    fork->ledger = memdisk_alloc(NULL, (w->ledger_count + 1) * sizeof(*fork->ledger));
    memcpy(fork->ledger, w->ledger, w->ledger_count * sizeof(*fork->ledger));
    entries_settle(w, fork);
    memdisk_power_on(fork->mem, loss, seed);
    clock_owner = fork;
}

void world_join(struct world *w, struct world *fork)
{
    world_drop(fork);
    memdisk_free(&fork->mem);
    free(fork->ledger);
    free(fork->jobs);
    clock_owner = w;
}

void world_send(struct world *w, uint32_t length, bool large)
{
    uint64_t id = w->next_id++;
    char sender[48], to[2][48], text[ID_TEXT_LEN + 1];
    id_format(id, text);
    (void)snprintf(sender, sizeof(sender), "from%llu@example.org", (unsigned long long)(id % 7));
    (void)snprintf(to[0], sizeof(to[0]), "u%s@d%llu.example", text, (unsigned long long)(id % 5));
    (void)snprintf(to[1], sizeof(to[1]), "v%s@D%llu.example", text, (unsigned long long)(id % 3));
    struct envelope_recipient recipients[2] = {{.address = span_str(to[0])}, {.address = span_str(to[1])}};
    struct envelope e = {.session = 1,
                         .arrived_ms = w->wall_ms,
                         .sender = span_str(sender),
                         .account = span_str(id % 2 ? "alice" : "bob"),
                         .recipients_count = (uint16_t)(1 + id % 2),
                         .recipients = recipients};
    uint8_t *octets = memdisk_alloc(NULL, length + 1);
    world_octets(id, length, octets);
    w->ledger = memdisk_alloc(w->ledger, (w->ledger_count + 1) * sizeof(*w->ledger));
    w->ledger[w->ledger_count++] = (struct world_entry){.id = id, .length = length, .fate = WORLD_SENT};
    if (!large) {
        spool_put(w->sp, 7, id, &(struct spool_put){e, {octets, length}});
    } else {
        spool_begin(w->sp, 7, id, &(struct spool_begin){e, length});
        spool_chunk(w->sp, 7, id, (struct span){octets, length / 2});
        spool_chunk(w->sp, 7, id, (struct span){octets + length / 2, length - length / 2});
        spool_commit(w->sp, 7, id, length);
    }
    free(octets);
}

/* The operator's hand. */
static void operate(struct world *w, struct world_entry *e)
{
    switch (world_random(w) % 16) {
    case 0:
        if (spool_remove(w->sp, e->id, SPAN_LIT("by chance")) >= 0) {
            struct spool_figures f;
            spool_figures(w->sp, &f);
            e->fate = WORLD_REMOVED;
            e->settled_turn = f.log.gather_turn;
        }
        break;
    case 1:
        (void)spool_retry(w->sp, e->id);
        break;
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
        (void)spool_hold(w->sp, e->id, SPAN_LIT("by chance"));
        break;
    default:
        (void)spool_release(w->sp, e->id);
        break;
    }
}

static void dsn_delivered(struct world *w, const uint8_t *octets)
{
    for (size_t i = 0; i < w->ledger_count; i++) {
        char text[ID_TEXT_LEN + 3];
        text[0] = 'u';
        id_format(w->ledger[i].id, text + 1);
        if (strstr((const char *)octets, text) != NULL) {
            w->ledger[i].dsn_delivered = true;
        }
    }
}

/* A job ends: the octets are what was sent, whatever else happens. */
static void job_end(struct world *w, size_t i, enum deliver_result result)
{
    struct world_job j = w->jobs[i];
    w->jobs[i] = w->jobs[--w->jobs_count];
    uint8_t *octets = octets_get(w, j.job.file, j.job.offset, j.job.length, j.job.xxh3);
    struct world_entry *e = entry_find(w, j.id);
    if (octets == NULL) {
        result = DELIVER_DAMAGED;
    } else if (j.cancelled) {
        result = DELIVER_CANCELLED;
    } else if (e != NULL) {
        uint8_t *expected = memdisk_alloc(NULL, e->length + 1);
        world_octets(e->id, e->length, expected);
        if (j.job.length != e->length || memcmp(octets, expected, e->length) != 0) {
            broken(w, "a job with foreign octets");
        }
        free(expected);
    }
    struct deliver_recipient_result results[4];
    struct deliver_outcome o = {.results = results, .results_count = j.count};
    for (uint16_t k = 0; k < j.count; k++) {
        results[k] = (struct deliver_recipient_result){.number = j.numbers[k],
                                                       .result = (uint8_t)result,
                                                       .code = result == DELIVER_DELIVERED   ? 250
                                                               : result == DELIVER_PERMANENT ? 550
                                                                                             : 451,
                                                       .text = SPAN_LIT("so says chance")};
    }
    if (spool_outcome(w->sp, 1, j.id, &o) < 0) {
        broken(w, "an outcome is called nonsense");
    }
    bool known = e != NULL && e->fate != WORLD_REMOVED;
    if (known && j.numbers[0] == 0 && (result == DELIVER_DELIVERED || result == DELIVER_PERMANENT)) {
        e->deliveries += result == DELIVER_DELIVERED;
        e->fate = result == DELIVER_DELIVERED ? WORLD_DELIVERED : WORLD_FAILED;
        struct spool_figures f;
        spool_figures(w->sp, &f);
        e->settled_turn = f.log.gather_turn;
    }
    if (j.is_dsn && octets != NULL && (result == DELIVER_DELIVERED || result == DELIVER_PERMANENT)) {
        dsn_delivered(w, octets);
    }
    free(octets);
}

void world_end_one(struct world *w, enum deliver_result result)
{
    job_end(w, (size_t)(world_random(w) % w->jobs_count), result);
}

void world_step(struct world *w)
{
    uint64_t dice = world_random(w) % 16;
    w->mono_ms += world_random(w) % 20;
    w->wall_ms += 10;
    if (dice < w->puts_weight) {
        bool large = world_random(w) % 16 < w->large_weight;
        world_send(w, (uint32_t)(world_random(w) % (large ? 20000 : 6000)) + 1, large);
    } else if (dice < 12 && w->jobs_count > 0) {
        static const enum deliver_result results[] = {DELIVER_DELIVERED, DELIVER_DELIVERED, DELIVER_DELIVERED,
                                                      DELIVER_TEMPORARY, DELIVER_PERMANENT};
        job_end(w, (size_t)(world_random(w) % w->jobs_count), results[world_random(w) % 5]);
    } else if (dice == 12) {
        w->mono_ms += world_random(w) % 1000000; /* retries become due */
    } else if (dice == 13 && w->ledger_count > 0) {
        operate(w, &w->ledger[world_random(w) % w->ledger_count]);
    } else {
        (void)spool_poll(w->sp);
    }
    (void)spool_poll(w->sp);
}

void world_settle(struct world *w)
{
    for (int i = 0; i < 64; i++) {
        (void)spool_poll(w->sp);
    }
}

void world_deliver_all(struct world *w)
{
    for (int idle = 0; idle < 40;) {
        struct index_figures f;
        index_figures(spool_index(w->sp), &f);
        world_settle(w);
        for (const struct message *m = index_first(spool_index(w->sp)); f.held > 0 && m != NULL; m = m->next) {
            (void)spool_release(w->sp, m->id);
        }
        idle = w->jobs_count == 0 ? idle + 1 : 0;
        if (index_count(spool_index(w->sp)) == 0) {
            break;
        }
        while (w->jobs_count > 0) {
            job_end(w, 0, DELIVER_DELIVERED);
        }
        w->mono_ms += 3600 * 1000;
    }
    world_settle(w);
}

static bool dsn_for(struct world *w, const struct world_entry *e)
{
    char text[ID_TEXT_LEN + 3];
    bool found = e->dsn_delivered;
    text[0] = 'u';
    id_format(e->id, text + 1);
    for (const struct message *m = index_first(spool_index(w->sp)); m != NULL && !found; m = m->next) {
        if ((m->state & (INDEX_DSN | INDEX_COMMITTING)) == (INDEX_DSN | INDEX_COMMITTING)) {
            found = true; /* it waits for the disk; looked at later */
        } else if ((m->state & INDEX_DSN) != 0) {
            uint8_t *octets = octets_get(w, m->segment, m->offset, m->length, m->xxh3);
            found = octets != NULL && strstr((char *)octets, text) != NULL;
            free(octets);
        }
    }
    return found;
}

static void message_check(struct world *w, const struct message *m)
{
    bool large = (m->state & INDEX_LARGE) != 0;
    uint8_t *octets = octets_get(w, large ? UINT64_C(1) << 63 | m->id : m->segment, m->offset, m->length, m->xxh3);
    const struct world_entry *e = entry_find(w, m->id);
    if (octets == NULL) {
        broken(w, "message %llx is torn", (unsigned long long)m->id);
    } else if (e != NULL) {
        uint8_t *expected = memdisk_alloc(NULL, e->length + 1);
        world_octets(e->id, e->length, expected);
        if (m->length != e->length || memcmp(octets, expected, e->length) != 0) {
            broken(w, "message %llx has foreign octets", (unsigned long long)m->id);
        }
        free(expected);
    }
    free(octets);
}

void world_check(struct world *w)
{
    for (size_t i = 0; i < w->ledger_count; i++) {
        const struct world_entry *e = &w->ledger[i];
        const struct message *m = index_find(spool_index(w->sp), e->id);
        if (e->fate == WORLD_ACKED && m == NULL) {
            broken(w, "message %llx was acknowledged and is lost", (unsigned long long)e->id);
        }
        if (e->settled && m != NULL && m->recipients[0].state == RECIPIENT_QUEUED) {
            broken(w, "message %llx would be delivered a second time", (unsigned long long)e->id);
        }
        if (e->fate == WORLD_FAILED && m == NULL && !dsn_for(w, e)) {
            broken(w, "message %llx failed and nobody is told", (unsigned long long)e->id);
        }
    }
    for (const struct message *m = index_first(spool_index(w->sp)); m != NULL; m = m->next) {
        if ((m->state & INDEX_COMMITTING) == 0) {
            message_check(w, m);
        }
    }
}

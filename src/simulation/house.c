/* house.c: the spool and deliver's relay, the frames between them, and how they die and start. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/clock.h"
#include "common/id.h"
#include "config/config.h"
#include "deliver/relay.h"
#include "simulation/sim.h"
#include "spool/memdisk.h"
#include "spool/quiet.h"
#include "spool/spool.h"

#define SEGMENT       (512U * 1024U)
#define DISK_OCTETS   (UINT64_C(1) << 30)
#define FILES_MAX     4096
#define FRAME_LATE_MS 3
#define QUIET_POLLS   3 /* turns without work before the spool is left alone */
#define GRACE_MS      (10 * SECOND)

enum frame_kind { FRAME_FILE, FRAME_FORGET, FRAME_JOB, FRAME_CANCEL, FRAME_OUTCOME };

struct message_frame {
    struct message_frame *prev, *next;
    enum frame_kind kind;
    uint64_t id; /* the message's or the file's */
    int fd;
    struct buf payload;
};

enum fall { FALL_POWER, FALL_SPOOL, FALL_DELIVER, FALL_STOP, FALLS };

struct house {
    struct sim *sim;
    struct memdisk *mem;
    struct spool_disk disk;
    struct spool_config config;
    struct spool *sp;
    bool dying; /* the spool's last words go nowhere */
    struct sim_event poll, boot, deliver_boot, grace, fall, step, operator;
    unsigned quiet;
    uint64_t calls;
    struct id_minter minter;
    uint64_t held; /* by the operator; 0: none */

    struct relay *relay;
    struct settings settings;
    struct config route_config;
    struct outcome_sink sink;
    struct files *files;
    uint64_t generation;
    bool relay_dying, stopping;
    struct sim_event tick, to_deliver_event, to_spool_event;
    struct message_frame *to_deliver, *to_spool;
    uint64_t sent[FILES_MAX]; /* file numbers that deliver has */
    size_t sent_count;
    struct envelope_recipient recipients[ENVELOPE_RECIPIENTS_MAX];
    struct deliver_recipient_result results[ENVELOPE_RECIPIENTS_MAX];
    unsigned falls_left[FALLS], steps_left;
};

static void wake(struct house *h);
static void machine_dies(struct house *h);

/* --- frames --- */

static void frame_free(struct house *h, struct message_frame *f)
{
    if (f->fd >= 0) {
        h->disk.close(h->disk.arg, f->fd);
    }
    buf_fini(&f->payload);
    free(f);
}

static void frames_drop(struct house *h, struct message_frame **list)
{
    struct message_frame *f, *next;
    DL_FOREACH_SAFE(*list, f, next)
    {
        DL_DELETE(*list, f);
        frame_free(h, f);
    }
}

static struct message_frame *frame_new(enum frame_kind kind, uint64_t id)
{
    struct message_frame *f = memdisk_alloc(NULL, sizeof(*f));
    *f = (struct message_frame){.kind = kind, .id = id, .fd = -1};
    buf_init(&f->payload, FRAME_PAYLOAD_MAX);
    return f;
}

static void job_take(struct house *h, struct message_frame *f)
{
    struct job *j;
    if (job_new(f->id, buf_span(&f->payload), h->files, &j) < 0) {
        sim_broken(h->sim, "deliver does not understand a job");
        return;
    }
    j->generation = h->generation;
    relay_job(h->relay, j);
}

static void on_to_deliver(void *arg)
{
    struct house *h = arg;
    struct message_frame *f;
    while ((f = h->to_deliver) != NULL && h->relay != NULL) {
        DL_DELETE(h->to_deliver, f);
        if (f->kind == FRAME_FILE) {
            if (files_add(h->files, f->id, f->fd) < 0) {
                sim_broken(h->sim, "a file is sent twice");
            }
            f->fd = -1;
        } else if (f->kind == FRAME_FORGET) {
            if (files_forget(h->files, f->id) < 0) {
                sim_broken(h->sim, "a file that was never sent is to be forgotten");
            }
        } else if (f->kind == FRAME_CANCEL) {
            relay_cancel(h->relay, f->id);
        } else {
            job_take(h, f);
        }
        frame_free(h, f);
    }
}

static void to_deliver(struct house *h, struct message_frame *f)
{
    DL_APPEND(h->to_deliver, f);
    if (h->to_deliver_event.node.at == 0) {
        sim_in(h->sim, &h->to_deliver_event, sim_below(h->sim, FRAME_LATE_MS), on_to_deliver, h);
    }
}

static void on_to_spool(void *arg)
{
    struct house *h = arg;
    struct message_frame *f;
    while ((f = h->to_spool) != NULL && h->sp != NULL) {
        struct deliver_outcome o = {.results = h->results};
        DL_DELETE(h->to_spool, f);
        if (deliver_outcome_decode(buf_span(&f->payload), &o) < 0 || spool_outcome(h->sp, UINT64_MAX, f->id, &o) < 0) {
            sim_broken(h->sim, "the spool calls an outcome nonsense");
        }
        ledger_outcome(h->sim, f->id, &o);
        frame_free(h, f);
        wake(h);
    }
}

static void on_outcome(void *arg, uint64_t id, uint64_t generation, const struct deliver_outcome *o)
{
    struct house *h = arg;
    if (h->sp == NULL || h->relay_dying || generation != h->generation) {
        return;
    }
    struct message_frame *f = frame_new(FRAME_OUTCOME, id);
    struct wire_writer w = {.out = &f->payload};
    deliver_outcome_encode(&w, o);
    DL_APPEND(h->to_spool, f);
    if (h->to_spool_event.node.at == 0) {
        sim_in(h->sim, &h->to_spool_event, sim_below(h->sim, FRAME_LATE_MS), on_to_spool, h);
    }
}

/* --- what the spool calls --- */

static void on_answer(void *arg, uint64_t ticket, uint64_t id, const struct spool_refused *refused)
{
    struct house *h = arg;
    sim_trace(h->sim, "answer", id, refused != NULL ? refused->code : 250);
    if (refused == NULL && memdisk_is_cut(h->mem)) {
        sim_broken(h->sim, "acknowledged without power");
    }
    if (!h->dying) {
        users_answer(h->sim, ticket, id, refused);
    }
}

static bool file_was_sent(const struct house *h, uint64_t file, size_t *ret_at)
{
    for (*ret_at = 0; *ret_at < h->sent_count; (*ret_at)++) {
        if (h->sent[*ret_at] == file) {
            return true;
        }
    }
    return false;
}

static void on_job(void *arg, uint32_t shard, uint64_t id, const struct deliver_job *job)
{
    struct house *h = arg;
    size_t at;
    (void)shard;
    ledger_job(h->sim, id, job);
    if (!file_was_sent(h, job->file, &at)) {
        struct message_frame *file = frame_new(FRAME_FILE, job->file);
        file->fd = spool_file_open(h->sp, job->file);
        if (file->fd < 0 || h->sent_count == FILES_MAX) {
            sim_broken(h->sim, "a job's file cannot be opened");
        }
        h->sent[h->sent_count++] = job->file;
        to_deliver(h, file);
    }
    struct message_frame *f = frame_new(FRAME_JOB, id);
    struct wire_writer w = {.out = &f->payload};
    deliver_job_encode(&w, job);
    to_deliver(h, f);
}

static void on_forget(void *arg, uint64_t file)
{
    struct house *h = arg;
    size_t at;
    if (!h->dying && h->relay != NULL && file_was_sent(h, file, &at)) {
        h->sent[at] = h->sent[--h->sent_count];
        to_deliver(h, frame_new(FRAME_FORGET, file));
    }
}

static void on_cancel(void *arg, uint32_t shard, uint64_t id)
{
    (void)shard;
    to_deliver(arg, frame_new(FRAME_CANCEL, id));
}

static const struct spool_ops spool_ops = {on_answer,   on_job,         on_forget, on_cancel,
                                           quiet_state, quiet_pressure, quiet_wake};

/* --- the spool's turns --- */

static uint64_t disk_calls(const struct house *h)
{
    return memdisk_calls_made(h->mem) + memdisk_calls_of(h->mem, MEMDISK_READ) + memdisk_calls_of(h->mem, MEMDISK_OPEN);
}

/* How long nothing will be due: what spool_poll() would find if it were called each second, as its owner does. */
static uint64_t idle_ms(struct house *h)
{
    uint64_t now = spool_now(h->sp), at = now + HOUR;
    const struct heap_node *n = heap_first(index_deadlines(spool_index(h->sp)));
    at = n != NULL && n->key < at ? n->key : at;
    for (uint32_t i = 0; i < h->config.shards; i++) {
        uint64_t t = schedule_tick(index_schedule_of(spool_index(h->sp), i), now);
        at = t < at ? t : at;
    }
    return at > now ? at - now : 1;
}

static void on_poll(void *arg)
{
    struct house *h = arg;
    uint64_t next = spool_poll(h->sp), now = clock_mono_ms();
    if (memdisk_is_cut(h->mem)) {
        machine_dies(h);
        return;
    }
    uint64_t calls = disk_calls(h);
    h->quiet = calls == h->calls ? h->quiet + 1 : 0;
    h->calls = calls;
    uint64_t wait = next > now ? next - now : 1;
    wait = wait >= SECOND ? idle_ms(h) : wait;
    sim_in(h->sim, &h->poll, h->quiet < QUIET_POLLS ? 1 + sim_below(h->sim, 4) : wait, on_poll, h);
}

static void wake(struct house *h)
{
    h->quiet = 0;
    if (h->sp != NULL) {
        sim_in(h->sim, &h->poll, sim_below(h->sim, 3), on_poll, h);
    }
}

/* --- starts --- */

static void on_tick(void *arg)
{
    struct house *h = arg;
    sim_in(h->sim, &h->tick, RELAY_TICK_MS, on_tick, h);
    relay_tick(h->relay);
}

static void tick_wanted(void *arg, bool wanted)
{
    struct house *h = arg;
    if (wanted) {
        sim_in(h->sim, &h->tick, RELAY_TICK_MS, on_tick, h);
    } else {
        sim_cancel(h->sim, &h->tick);
    }
}

static void relay_start(struct house *h)
{
    h->relay_dying = false;
    h->sink = (struct outcome_sink){.send = on_outcome, .arg = h};
    h->files = files_new();
    h->sent_count = 0;
    h->relay = relay_new(&h->sink, settings_hold(&h->settings), tick_wanted, h);
    if (h->relay == NULL || h->files == NULL) {
        abort();
    }
}

static void shards_set(struct house *h, bool up)
{
    for (uint32_t i = 0; h->sp != NULL && i < h->config.shards; i++) {
        spool_shard_up(h->sp, i, up);
    }
}

static void spool_start(struct house *h)
{
    h->dying = false;
    h->calls = 0;
    int r = spool_open(&h->disk, &h->config, &spool_ops, h, &h->sp);
    if (r < 0) {
        sim_broken(h->sim, "the spool does not start: %s", strerror(-r));
        return;
    }
    sim_trace(h->sim, "spool starts", house_queued(h->sim), 0);
    spool_suspensions_begin(h->sp);
    spool_suspensions_settle(h->sp);
    /* A release whose record was lost left its message held: the operator looks again. */
    for (const struct message *m = index_first(spool_index(h->sp)); m != NULL; m = m->next) {
        (void)spool_release(h->sp, m->id);
    }
    h->held = 0;
    shards_set(h, h->relay != NULL);
    wake(h);
}

static void on_boot(void *arg)
{
    struct house *h = arg;
    if (h->relay == NULL) {
        h->sim->boot_ms = h->sim->now_ms;
        relay_start(h);
    }
    spool_start(h);
}

static void on_deliver_boot(void *arg)
{
    struct house *h = arg;
    if (h->relay == NULL) {
        relay_start(h);
        shards_set(h, true);
        wake(h);
    }
}

/* --- ends --- */

static void boot_in(struct house *h, uint64_t ms)
{
    h->sim->down_ms += ms;
    sim_in(h->sim, &h->boot, ms, on_boot, h);
}

static void nothing(void *arg)
{
    (void)arg;
}

static void relay_dies(struct house *h)
{
    if (h->relay == NULL) {
        return;
    }
    h->relay_dying = true;
    relay_stop(h->relay, nothing, h);
    net_cut_all(h->sim);
    frames_drop(h, &h->to_deliver);
    frames_drop(h, &h->to_spool);
    sim_cancel(h->sim, &h->to_deliver_event);
    sim_cancel(h->sim, &h->to_spool_event);
    relay_free(&h->relay);
    files_free(&h->files);
}

static void spool_dies(struct house *h)
{
    uint64_t gather, durable;
    house_turns(h->sim, &gather, &durable);
    ledger_spool_died(h->sim, durable);
    h->dying = true;
    if (!memdisk_is_cut(h->mem)) {
        memdisk_cut(h->mem, 1);
    }
    spool_close(&h->sp);
    sim_cancel(h->sim, &h->poll);
    h->generation++;
    net_orphan_all(h->sim);
}

static void machine_dies(struct house *h)
{
    struct sim *s = h->sim;
    sim_trace(s, "power off", memdisk_calls_made(h->mem), 0);
    s->crashes++;
    s->power_cuts++;
    sim_cancel(s, &h->grace);
    h->stopping = false;
    relay_dies(h);
    users_disconnect_all(s, false);
    spool_dies(h);
    memdisk_power_on(h->mem, (enum memdisk_loss)sim_below(s, MEMDISK_KEEP_ONE + 1), sim_random(s));
    boot_in(h, 5 * SECOND + sim_below(s, sim_chance(s, 200) ? 20 * HOUR : HOUR));
}

/* kill -9 of the spool: deliver lives, and what is at its last answer goes on for nobody. */
static void spool_killed(struct house *h)
{
    struct sim *s = h->sim;
    sim_trace(s, "spool killed", 0, 0);
    s->crashes++;
    h->dying = true;
    users_disconnect_all(s, true);
    spool_dies(h);
    memdisk_restart(h->mem);
    frames_drop(h, &h->to_spool);
    frames_drop(h, &h->to_deliver);
    relay_forget_jobs(h->relay);
    files_free(&h->files);
    h->files = files_new();
    h->sent_count = 0;
    boot_in(h, SECOND + sim_below(s, 10 * SECOND));
}

static void deliver_killed(struct house *h)
{
    struct sim *s = h->sim;
    sim_trace(s, "deliver killed", 0, 0);
    s->deliver_deaths++;
    relay_dies(h);
    ledger_deliver_died(s);
    shards_set(h, false);
    wake(h);
    sim_in(s, &h->deliver_boot, SECOND + sim_below(s, 5 * SECOND), on_deliver_boot, h);
}

/* --- a stop in good order --- */

static void on_stopped(void *arg)
{
    struct house *h = arg;
    struct sim *s = h->sim;
    if (!h->stopping) {
        return;
    }
    h->stopping = false;
    sim_cancel(s, &h->grace);
    on_to_spool(h);
    relay_dies(h);
    ledger_deliver_died(s); /* only of what the end of the grace has cut */
    h->dying = true;
    spool_close(&h->sp);
    if (memdisk_is_cut(h->mem)) { /* the power went in its last words */
        ledger_spool_died(s, 0);
        s->power_cuts++;
    } else {
        ledger_spool_died(s, UINT64_MAX);
    }
    sim_cancel(s, &h->poll);
    memdisk_power_on(h->mem, MEMDISK_LOSE_RANDOM, sim_random(s)); /* all was synced: nothing is lost */
    h->generation++;
    boot_in(h, 3 * SECOND);
}

static void on_stopped_soon(void *arg)
{
    struct house *h = arg;
    sim_in(h->sim, &h->grace, 0, on_stopped, h);
}

static void stop_begins(struct house *h)
{
    struct sim *s = h->sim;
    sim_trace(s, "stop", 0, 0);
    s->clean_stops++;
    h->stopping = true;
    spool_drain(h->sp);
    users_disconnect_all(s, false);
    frames_drop(h, &h->to_deliver); /* jobs that deliver never saw */
    sim_in(s, &h->grace, GRACE_MS, on_stopped, h);
    relay_stop(h->relay, on_stopped_soon, h);
}

/* --- chance --- */

static void fall_plan(struct house *h);

static void on_fall(void *arg)
{
    struct house *h = arg;
    unsigned kind = (unsigned)sim_below(h->sim, FALLS);
    while (h->falls_left[kind] == 0) {
        kind = (kind + 1) % FALLS;
    }
    if (h->sp != NULL && h->relay != NULL && !h->stopping) {
        h->falls_left[kind]--;
        switch ((enum fall)kind) {
        case FALL_POWER: /* within the next calls of the disk */
            memdisk_cut(h->mem, memdisk_calls_made(h->mem) + 1 + sim_below(h->sim, 40));
            break;
        case FALL_SPOOL:
            spool_killed(h);
            break;
        case FALL_DELIVER:
            deliver_killed(h);
            break;
        case FALL_STOP:
            stop_begins(h);
            break;
        case FALLS:
            break;
        }
    }
    fall_plan(h);
}

static void fall_plan(struct house *h)
{
    unsigned left = 0;
    for (unsigned i = 0; i < FALLS; i++) {
        left += h->falls_left[i];
    }
    if (left > 0 && !sim_healed(h->sim)) {
        sim_in(h->sim, &h->fall, MINUTE + sim_below(h->sim, 2 * SIM_HEALED_AT / (h->sim->weather.crashes * FALLS + 1)),
               on_fall, h);
    }
}

/* The wall clock steps: a day or ten years, there or back. */
static void on_step(void *arg)
{
    static const int64_t steps[] = {0, (int64_t)DAY, -(int64_t)DAY, 3653 * (int64_t)DAY, -3653 * (int64_t)DAY};
    struct house *h = arg;
    h->sim->wall_offset_ms = steps[sim_below(h->sim, sizeof(steps) / sizeof(steps[0]))];
    sim_trace(h->sim, "clock steps", (uint64_t)h->sim->wall_offset_ms, 0);
    if (--h->steps_left > 0) {
        sim_in(h->sim, &h->step, sim_below(h->sim, 2 * SIM_HEALED_AT / h->sim->weather.steps), on_step, h);
    }
}

/* Holds a message for some hours, and lets it go; wants another tried at once, or gone. */
static void on_operator(void *arg)
{
    struct house *h = arg;
    struct sim *s = h->sim;
    if (h->sp != NULL && s->messages_count > 0 && !h->stopping) {
        struct sim_message *m = &s->messages[sim_below(s, s->messages_count)];
        uint64_t id = m->id;
        if (h->held != 0) {
            (void)spool_release(h->sp, h->held);
            h->held = 0;
        } else if (sim_chance(s, 500)) {
            h->held = spool_hold(h->sp, id, SPAN_LIT("to be looked at")) >= 0 ? id : 0;
            m->held |= h->held != 0;
        } else if (!m->dsn && sim_chance(s, 200)) {
            ledger_removed(s, id, spool_remove(h->sp, id, SPAN_LIT("unwanted")));
        } else {
            (void)spool_retry(h->sp, id);
        }
        wake(h);
    }
    if (!sim_healed(s) || h->held != 0) {
        sim_in(s, &h->operator, sim_below(s, 6 * HOUR), on_operator, h);
    }
}

/* --- life --- */

static bool is_self(void *arg, const struct net_address *address)
{
    (void)arg, (void)address;
    return false;
}

static uint32_t random_bits(void *arg)
{
    return (uint32_t)sim_random(arg);
}

static uint64_t random_for_spool(void *arg)
{
    return sim_random(arg);
}

static void settings_make(struct house *h)
{
    h->route_config.delivery.tls = TLS_NONE;
    h->settings = (struct settings){.holders = 1,
                                    .number = 1,
                                    .routes = routes_new(&h->route_config, NULL),
                                    .self = {.name = "mx.sim.example", .is_self = is_self, .random = random_bits},
                                    .concurrency = 5,
                                    .connections_max = 20,
                                    .idle_ms = 5 * SECOND,
                                    .down_ms = MINUTE,
                                    .env = {.sink = &h->sink,
                                            .hostname = "mx.sim.example",
                                            .connect_ms = 30 * SECOND,
                                            .command_ms = 5 * MINUTE,
                                            .data_ms = 10 * MINUTE,
                                            .messages_max = 20}};
    h->settings.self.arg = h->sim;
}

int house_init(struct sim *s)
{
    struct house *h = calloc(1, sizeof(*h));
    if (h == NULL) {
        return -ENOMEM;
    }
    s->house = h;
    h->sim = s;
    h->mem = memdisk_new(DISK_OCTETS);
    h->disk = memdisk_calls(h->mem);
    h->config = spool_config_default();
    h->config.shards = 2;
    h->config.threaded = false;
    h->config.segment_size = SEGMENT;
    h->config.random = random_for_spool;
    h->config.random_arg = s;
    h->config.lifetime_ms = SIM_LIFETIME;
    h->config.delay_warning_ms = SIM_DELAY;
    h->config.hostname = SPAN_LIT("mx.sim.example");
    h->config.from_domain = SPAN_LIT("sim.example");
    h->minter = (struct id_minter){.worker = 1, .counter = (uint32_t)sim_random(s)};
    settings_make(h);
    for (unsigned i = 0; i < FALLS; i++) {
        h->falls_left[i] = s->weather.crashes;
    }
    h->steps_left = s->weather.steps;
    fall_plan(h);
    if (h->steps_left > 0) {
        sim_in(s, &h->step, sim_below(s, DAY), on_step, h);
    }
    sim_in(s, &h->operator, sim_below(s, DAY), on_operator, h);
    relay_start(h);
    spool_start(h);
    return 0;
}

void house_fini(struct sim *s)
{
    struct house *h = s->house;
    relay_dies(h);
    h->dying = true;
    spool_close(&h->sp);
    routes_free(&h->settings.routes);
    memdisk_free(&h->mem);
    free(h);
    s->house = NULL;
}

bool house_accepts(const struct sim *s)
{
    struct spool_state st;
    if (s->house->sp == NULL || s->house->dying) {
        return false;
    }
    spool_state(s->house->sp, &st);
    return st.accepting != 0;
}

uint64_t house_mint(struct sim *s)
{
    return id_mint(&s->house->minter, clock_wall_ms());
}

void house_put(struct sim *s, uint64_t ticket, uint64_t id, const struct envelope *e, struct span octets)
{
    struct house *h = s->house;
    if (h->sp == NULL || h->dying) {
        const struct spool_refused refused = {451, {4, 3, 0}, SPAN_LIT("Cannot store the message now"), 0};
        users_answer(s, ticket, id, &refused);
        return;
    }
    if (octets.len < SIM_LARGE) {
        spool_put(h->sp, ticket, id, &(struct spool_put){*e, octets});
    } else {
        spool_begin(h->sp, ticket, id, &(struct spool_begin){*e, octets.len});
        for (size_t at = 0, len; at < octets.len; at += len) {
            len = octets.len - at < SPOOL_CHUNK_MAX / 4 ? octets.len - at : SPOOL_CHUNK_MAX / 4;
            spool_chunk(h->sp, ticket, id, (struct span){octets.ptr + at, len});
        }
        spool_commit(h->sp, ticket, id, octets.len);
    }
    wake(h);
}

const struct spool_disk *house_disk(const struct sim *s)
{
    return &s->house->disk;
}

void house_client_gone(struct sim *s, uint64_t ticket)
{
    if (s->house != NULL && s->house->sp != NULL && !s->house->dying) {
        spool_client_gone(s->house->sp, ticket);
        wake(s->house);
    }
}

size_t house_queued(struct sim *s)
{
    return s->house->sp != NULL ? index_count(spool_index(s->house->sp)) : 0;
}

void house_turns(const struct sim *s, uint64_t *ret_gather, uint64_t *ret_durable)
{
    struct spool_figures f = {0};
    if (s->house->sp != NULL) {
        spool_figures(s->house->sp, &f);
    }
    *ret_gather = f.log.gather_turn;
    *ret_durable = f.log.durable_turn;
}

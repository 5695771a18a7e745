/*
 * process.c: the spool's process: channels to submit, deliver and guard, the control socket, one loop. It believes none
 * of them: a frame that does not decode, or an outcome for what is not out, closes the channel, and the master makes a
 * new one.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/hash.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "process/child.h"
#include "spool/control.h"
#include "wire/guard.h"

#define INSTANCES_MAX   64
#define ROUTE_GRACE_MS  10000U /* a deliver process that died may come back before its domains go to another */
#define STOP_POLL_MS    50U
#define STOP_RESERVE_MS 500U /* of the grace, for the last batch */

struct sent_file {
    uint64_t number;
    UT_hash_handle hh;
};

struct peer {
    struct process *p;
    struct channel *ch; /* NULL: not there */
    enum master_role role;
    uint32_t instance;
    uint32_t generation;     /* grows with each channel: answers to an older one go nowhere */
    struct sent_file *files; /* deliver: what it was given */
    uint64_t shards;         /* deliver: a bit for each shard that it serves */
    uint64_t gone_at;
};

struct process {
    struct child *child;
    struct spool_disk disk;
    struct spool_config config;
    struct spool *sp;
    struct control *control;
    uv_async_t wake;
    uv_timer_t timer, stop_timer;
    uv_check_t check;
    struct peer submit[INSTANCES_MAX], deliver[INSTANCES_MAX], guard;
    bool paused;
    uint64_t stop_at;
    struct envelope_recipient recipients[ENVELOPE_RECIPIENTS_MAX];
    struct deliver_recipient_result results[ENVELOPE_RECIPIENTS_MAX];
};

static uint64_t ticket_of(const struct peer *peer)
{
    return (uint64_t)peer->generation << 32 | peer->instance;
}

/* --- submit --- */

static int on_put(struct process *p, const struct peer *peer, uint64_t id, struct span payload)
{
    struct spool_put put = {.envelope.recipients = p->recipients};
    if (spool_put_decode(payload, &put) < 0) {
        return -1;
    }
    (void)FAULT_POINT("spool.frame");
    spool_put(p->sp, ticket_of(peer), id, &put);
    return 0;
}

static int on_begin(struct process *p, const struct peer *peer, uint64_t id, struct span payload)
{
    struct spool_begin begin = {.envelope.recipients = p->recipients};
    if (spool_begin_decode(payload, &begin) < 0) {
        return -1;
    }
    (void)FAULT_POINT("spool.large.begin");
    spool_begin(p->sp, ticket_of(peer), id, &begin);
    return 0;
}

static int on_commit(struct process *p, const struct peer *peer, uint64_t id, struct span payload)
{
    struct wire_reader r = wire_reader(payload);
    uint64_t total = wire_get_u64(&r);
    if (wire_reader_end(&r) < 0) {
        return -1;
    }
    (void)FAULT_POINT("spool.large.commit");
    spool_commit(p->sp, ticket_of(peer), id, total);
    return 0;
}

static int on_submit_frame(void *arg, const struct frame *f, struct span payload, int fd)
{
    struct peer *peer = arg;
    struct process *p = peer->p;
    if (fd >= 0) {
        (void)close(fd);
        return -1;
    }
    switch ((enum spool_type)f->type) {
    case SPOOL_PUT:
        return on_put(p, peer, f->id, payload);
    case SPOOL_BEGIN:
        return on_begin(p, peer, f->id, payload);
    case SPOOL_CHUNK:
        spool_chunk(p->sp, ticket_of(peer), f->id, payload);
        return payload.len > SPOOL_CHUNK_MAX ? -1 : 0;
    case SPOOL_COMMIT:
        return on_commit(p, peer, f->id, payload);
    case SPOOL_ABORT:
        spool_abort(p->sp, ticket_of(peer), f->id);
        return 0;
    case SPOOL_STORED:
    case SPOOL_REFUSED:
    case SPOOL_STATE:
        break;
    }
    return -1;
}

static void state_send(const struct peer *peer, const struct spool_state *state)
{
    if (peer->ch != NULL) {
        struct wire_writer w = channel_begin(peer->ch, SPOOL_STATE, 0);
        spool_state_encode(&w, state);
        (void)channel_end(peer->ch, &w);
    }
}

static void on_answer(void *arg, uint64_t ticket, uint64_t id, const struct spool_refused *refused)
{
    struct process *p = arg;
    const struct peer *peer = &p->submit[(uint32_t)ticket % INSTANCES_MAX];
    if (peer->ch == NULL || ticket_of(peer) != ticket) {
        return;
    }
    (void)FAULT_POINT("spool.answer");
    if (refused == NULL) {
        (void)channel_send(peer->ch, SPOOL_STORED, id, (struct span){0}, -1);
        return;
    }
    struct wire_writer w = channel_begin(peer->ch, SPOOL_REFUSED, id);
    spool_refused_encode(&w, refused);
    (void)channel_end(peer->ch, &w);
}

static void on_state(void *arg, const struct spool_state *state)
{
    struct process *p = arg;
    for (size_t i = 0; i < INSTANCES_MAX; i++) {
        state_send(&p->submit[i], state);
    }
}

static void on_pressure(void *arg, bool on)
{
    struct process *p = arg;
    p->paused = on;
    for (size_t i = 0; i < INSTANCES_MAX; i++) {
        if (p->submit[i].ch != NULL) {
            channel_read_pause(p->submit[i].ch, on);
        }
    }
}

/* --- deliver --- */

static int file_send(struct process *p, struct peer *peer, uint64_t number)
{
    struct sent_file *f = NULL;
    HASH_FIND(hh, peer->files, &number, sizeof(number), f);
    if (f != NULL) {
        return 0;
    }
    f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return -ENOMEM;
    }
    f->number = number;
    HASH_ADD(hh, peer->files, number, sizeof(f->number), f);
    if (f->hh.tbl == NULL) {
        free(f);
        return -ENOMEM;
    }
    int fd = spool_file_open(p->sp, number);
    int r =
        fd < 0 ? fd : channel_send(peer->ch, DELIVER_FILE, 0, (struct span){(uint8_t *)&number, sizeof(number)}, fd);
    if (fd >= 0) {
        (void)close(fd);
    }
    if (r < 0) {
        HASH_DEL(peer->files, f);
        free(f);
    }
    return r < 0 ? r : 0;
}

static void files_forget_all(struct peer *peer)
{
    struct sent_file *f, *tmp;
    HASH_ITER(hh, peer->files, f, tmp)
    {
        HASH_DEL(peer->files, f);
        free(f);
    }
}

static struct peer *peer_of_shard(struct process *p, uint32_t shard)
{
    for (size_t i = 0; i < INSTANCES_MAX; i++) {
        if (p->deliver[i].ch != NULL && (p->deliver[i].shards >> shard & 1) != 0) {
            return &p->deliver[i];
        }
    }
    return NULL;
}

/* The file of a job cannot be opened or the job not be sent: an outcome of our own. */
static void job_fail(struct process *p, const struct peer *peer, uint64_t id, const struct deliver_job *job, int error)
{
    const struct envelope *e = &job->envelope;
    struct deliver_outcome o = {.results = p->results, .results_count = e->recipients_count};
    for (uint16_t i = 0; i < e->recipients_count; i++) {
        p->results[i] =
            (struct deliver_recipient_result){.number = e->recipients[i].number,
                                              .result = error == -ENOENT ? DELIVER_DAMAGED : DELIVER_TEMPORARY,
                                              .code = 451,
                                              .enhanced = {4, 3, 0},
                                              .text = SPAN_LIT("The message cannot be read now")};
    }
    log_error("spool.file.failed", LF_ID("id", id), LF_ERR(error));
    (void)spool_outcome(p->sp, peer->shards, id, &o);
}

static void on_job(void *arg, uint32_t shard, uint64_t id, const struct deliver_job *job)
{
    struct process *p = arg;
    struct peer *peer = peer_of_shard(p, shard);
    if (peer == NULL) {
        return; /* its channel is closing: the shard goes down in a moment */
    }
    (void)FAULT_POINT("spool.job");
    int r = file_send(p, peer, job->file);
    if (r == 0) {
        struct wire_writer w = channel_begin(peer->ch, DELIVER_JOB, id);
        deliver_job_encode(&w, job);
        r = channel_end(peer->ch, &w);
    }
    if (r < 0 && r != -EPIPE) {
        job_fail(p, peer, id, job, r);
    }
}

static void on_forget(void *arg, uint64_t number)
{
    struct process *p = arg;
    for (size_t i = 0; i < INSTANCES_MAX; i++) {
        struct peer *peer = &p->deliver[i];
        struct sent_file *f = NULL;
        HASH_FIND(hh, peer->files, &number, sizeof(number), f);
        if (f != NULL && peer->ch != NULL) {
            (void)channel_send(peer->ch, DELIVER_FORGET, 0, (struct span){(uint8_t *)&number, sizeof(number)}, -1);
            HASH_DEL(peer->files, f);
            free(f);
        }
    }
}

static void on_cancel(void *arg, uint32_t shard, uint64_t id)
{
    struct peer *peer = peer_of_shard(arg, shard);
    if (peer != NULL) {
        (void)channel_send(peer->ch, DELIVER_CANCEL, id, (struct span){0}, -1);
    }
}

static int on_deliver_frame(void *arg, const struct frame *f, struct span payload, int fd)
{
    struct peer *peer = arg;
    struct process *p = peer->p;
    struct deliver_outcome o = {.results = p->results};
    if (fd >= 0) {
        (void)close(fd);
        return -1;
    }
    if (f->type != DELIVER_OUTCOME || deliver_outcome_decode(payload, &o) < 0) {
        return -1;
    }
    (void)FAULT_POINT("spool.outcome");
    int r = spool_outcome(p->sp, peer->shards, f->id, &o);
    (void)FAULT_POINT("spool.outcome.gathered");
    return r;
}

/* Each shard belongs to the deliver process of its number; to another only when that has been away for long. */
static void shards_route(struct process *p)
{
    uint64_t now = clock_mono_ms();
    for (uint32_t s = 0; s < p->config.shards; s++) {
        struct peer *own = &p->deliver[s], *any = own->ch != NULL ? own : NULL;
        if (peer_of_shard(p, s) != NULL) {
            continue;
        }
        for (size_t i = 0; any == NULL && now - own->gone_at > ROUTE_GRACE_MS && i < INSTANCES_MAX; i++) {
            any = p->deliver[i].ch != NULL ? &p->deliver[i] : NULL;
        }
        if (any != NULL) {
            any->shards |= UINT64_C(1) << s;
            spool_shard_up(p->sp, s, true);
        }
    }
}

static void shards_lost(struct process *p, struct peer *peer)
{
    uint64_t shards = peer->shards;
    peer->shards = 0;
    for (uint32_t s = 0; s < p->config.shards; s++) {
        if ((shards >> s & 1) != 0) {
            spool_shard_up(p->sp, s, false);
        }
    }
}

/* --- guard --- */

static int on_guard_frame(void *arg, const struct frame *f, struct span payload, int fd)
{
    struct peer *peer = arg;
    struct guard_suspension s;
    if (fd >= 0) {
        (void)close(fd);
        return -1;
    }
    if (f->type == GUARD_TOLD_ALL) {
        spool_suspensions_settle(peer->p->sp);
        return payload.len == 0 ? 0 : -1;
    }
    if (guard_suspension_decode(payload, &s) < 0) {
        return -1;
    }
    if (f->type == GUARD_SUSPENDED) {
        (void)spool_suspend(peer->p->sp, s.account, s.words);
    } else if (f->type == GUARD_RESUMED) {
        (void)spool_resume(peer->p->sp, s.account);
    } else {
        return -1;
    }
    return 0;
}

/* --- channels --- */

static void peer_drop(struct peer *peer)
{
    struct process *p = peer->p;
    if (peer->ch == NULL) {
        return;
    }
    channel_free(&peer->ch);
    if (peer->role == ROLE_SUBMIT && p->sp != NULL) {
        spool_client_gone(p->sp, ticket_of(peer));
    } else if (peer->role == ROLE_DELIVER && p->sp != NULL) {
        peer->gone_at = clock_mono_ms();
        files_forget_all(peer);
        shards_lost(p, peer);
    }
}

static void on_closed(void *arg, const char *why)
{
    struct peer *peer = arg;
    peer_drop(peer);
    child_peer_broken(peer->p->child, peer->role, peer->instance, why);
}

static const struct channel_ops submit_ops = {.frame = on_submit_frame, .closed = on_closed};
static const struct channel_ops deliver_ops = {.frame = on_deliver_frame, .closed = on_closed};
static const struct channel_ops guard_ops = {.frame = on_guard_frame, .closed = on_closed};

static struct peer *peer_get(struct process *p, enum master_role role, uint32_t instance)
{
    if (role == ROLE_GUARD) {
        return &p->guard;
    }
    if (instance >= INSTANCES_MAX || (role != ROLE_SUBMIT && role != ROLE_DELIVER)) {
        return NULL;
    }
    return role == ROLE_SUBMIT ? &p->submit[instance] : &p->deliver[instance];
}

static void peer_opened(struct process *p, struct peer *peer)
{
    struct spool_state state;
    channel_read_pause(peer->ch, peer->role == ROLE_SUBMIT && p->paused);
    if (peer->role == ROLE_SUBMIT) {
        spool_state(p->sp, &state);
        state_send(peer, &state);
    } else if (peer->role == ROLE_DELIVER) {
        shards_route(p);
    } else {
        spool_suspensions_begin(p->sp);
    }
}

static void op_peer(struct child *c, enum master_role role, uint32_t instance, int fd)
{
    static const struct channel_ops *const ops[ROLE_COUNT] = {
        [ROLE_SUBMIT] = &submit_ops, [ROLE_DELIVER] = &deliver_ops, [ROLE_GUARD] = &guard_ops};
    struct process *p = c->arg;
    struct peer *peer = peer_get(p, role, instance);
    if (peer == NULL) {
        (void)close(fd);
        return;
    }
    peer_drop(peer);
    peer->p = p;
    peer->role = role;
    peer->instance = instance;
    peer->generation++;
    peer->ch = channel_new(c->loop, fd, ops[role], peer);
    if (peer->ch != NULL && p->sp != NULL) {
        peer_opened(p, peer);
    } else if (peer->ch != NULL) {
        channel_read_pause(peer->ch, true); /* until the spool is there */
    }
}

/* --- loop --- */

static void on_timer(uv_timer_t *t);

/* Once a turn, after what has arrived was taken: one batch for all of it. What it sends leaves before the loop waits
 * again. */
static void poll_spool(struct process *p)
{
    shards_route(p);
    uint64_t next = spool_poll(p->sp), now = clock_mono_ms();
    uv_update_time(p->child->loop);
    (void)uv_timer_start(&p->timer, on_timer, next > now ? next - now : 0, 0);
}

static void on_timer(uv_timer_t *t)
{
    poll_spool(t->data);
}

static void on_check(uv_check_t *c)
{
    poll_spool(c->data);
}

static void on_async(uv_async_t *a)
{
    (void)a; /* the check handle follows in this turn */
}

static void on_wake(void *arg)
{
    struct process *p = arg;
    (void)uv_async_send(&p->wake);
}

static const struct spool_ops spool_ops = {
    .answer = on_answer,
    .job = on_job,
    .forget = on_forget,
    .cancel = on_cancel,
    .state = on_state,
    .pressure = on_pressure,
    .wake = on_wake,
};

/* --- the child --- */

static void config_take(struct process *p, const struct config *c)
{
    struct spool_config *to = &p->config;
    to->lifetime_ms = c->spool.lifetime_ms;
    to->delay_warning_ms = c->spool.delay_warning_ms;
    to->schedule.retry_min_ms = c->spool.retry_first_ms;
    to->schedule.retry_max_ms = c->spool.retry_max_ms;
    /* A domain that cannot be reached is left alone no longer than one of its messages would be. */
    const struct schedule_config standard = schedule_config_default();
    to->schedule.pause_min_ms =
        standard.pause_min_ms < c->spool.retry_first_ms ? standard.pause_min_ms : c->spool.retry_first_ms;
    to->schedule.pause_max_ms =
        standard.pause_max_ms < c->spool.retry_max_ms ? standard.pause_max_ms : c->spool.retry_max_ms;
    to->reserve_octets = c->spool.reserve;
    to->hostname = span_str(c->submission.hostname);
    to->from_domain = span_str(c->operator_.domains.count > 0 ? c->operator_.domains.list[0] : c->submission.hostname);
    to->help_url = span_str(c->operator_.help_url);
}

static int op_start(struct child *c)
{
    struct process *p = c->arg;
    p->child = c;
    p->wake.data = p->timer.data = p->stop_timer.data = p->check.data = p;
    if (uv_async_init(c->loop, &p->wake, on_async) != 0) {
        return -ENOMEM;
    }
    (void)uv_timer_init(c->loop, &p->timer);
    (void)uv_timer_init(c->loop, &p->stop_timer);
    (void)uv_check_init(c->loop, &p->check);
    return 0;
}

/* With rights dropped: files belong to the spool's user from the first. */
static int op_ready(struct child *c)
{
    struct process *p = c->arg;
    uint32_t workers = c->config->config->delivery.workers;
    p->config = spool_config_default();
    p->config.shards = workers == 0 ? 1 : workers < SPOOL_SHARDS_MAX ? workers : SPOOL_SHARDS_MAX;
    config_take(p, c->config->config);
    p->disk = disk_kernel(&c->directory_fd);
    int r = spool_open(&p->disk, &p->config, &spool_ops, p, &p->sp);
    if (r < 0) {
        return r;
    }
    if (c->control_fd >= 0) {
        p->control = control_new(c->loop, c->control_fd, spool_verbs, p->sp);
    }
    for (size_t i = 0; i < INSTANCES_MAX; i++) {
        if (p->submit[i].ch != NULL) {
            peer_opened(p, &p->submit[i]);
        }
        if (p->deliver[i].ch != NULL) {
            peer_opened(p, &p->deliver[i]);
        }
    }
    if (p->guard.ch != NULL) {
        peer_opened(p, &p->guard);
    }
    (void)uv_check_start(&p->check, on_check);
    poll_spool(p);
    return 0;
}

static int op_reload(struct child *c, struct child_tls *tls, size_t tls_count)
{
    struct process *p = c->arg;
    (void)tls, (void)tls_count;
    if (p->sp != NULL) {
        config_take(p, c->config->config);
        spool_configure(p->sp, &p->config);
    }
    return 0;
}

static void on_stop_timer(uv_timer_t *t)
{
    struct process *p = t->data;
    struct spool_figures f;
    spool_figures(p->sp, &f);
    if (f.out > 0 && clock_mono_ms() < p->stop_at) {
        return;
    }
    (void)uv_timer_stop(t);
    (void)uv_timer_stop(&p->timer);
    (void)uv_check_stop(&p->check);
    control_free(&p->control);
    spool_close(&p->sp);
    for (size_t i = 0; i < INSTANCES_MAX; i++) {
        if (p->submit[i].ch != NULL) {
            channel_flush(p->submit[i].ch);
        }
    }
    child_exit(p->child, 0);
}

/* Deliveries under way may end and are noted, so that none is repeated; no new one begins. */
static void op_stop(struct child *c, uint32_t grace_ms)
{
    struct process *p = c->arg;
    if (p->sp == NULL) {
        child_exit(c, 0);
        return;
    }
    spool_drain(p->sp);
    p->stop_at = clock_mono_ms() + (grace_ms > STOP_RESERVE_MS ? grace_ms - STOP_RESERVE_MS : 0);
    (void)uv_timer_start(&p->stop_timer, on_stop_timer, 0, STOP_POLL_MS);
}

static void op_status(struct child *c, struct buf *json)
{
    struct process *p = c->arg;
    json_t *o = p->sp != NULL ? spool_status_json(p->sp) : NULL;
    char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    if (text != NULL) {
        (void)buf_append_str(json, text);
    }
    free(text);
    json_decref(o);
}

int spool_main(uint32_t instance)
{
    static struct process process; /* one a process */
    static const struct child_ops ops = {
        .start = op_start,
        .ready = op_ready,
        .reload = op_reload,
        .peer = op_peer,
        .stop = op_stop,
        .status = op_status,
    };
    return child_run(ROLE_SPOOL, instance, &ops, &process);
}

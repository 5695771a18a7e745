#include "spool/index.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include <xxhash.h>

#include "common/hash.h"

#include "spool/pool.h"

#define TABLE_START     1024U
#define RECORD_OVERHEAD 160U /* of a message on disk beside octets and envelope */

struct suspension {
    UT_hash_handle hh;
    bool confirmed;
    char *words;
    size_t name_length;
    char name[];
};

/* The id stands beside the pointer: a probe looks at the table only. */
struct slot {
    uint64_t id;
    struct message *message; /* NULL: free */
};

struct index {
    struct index_config config;
    struct slot *table; /* open addressing, linear */
    size_t table_size, count;
    struct pool pool; /* messages */
    struct message *list;
    struct index_cursor *cursors;
    struct schedule **schedules;
    struct heap deadlines;
    struct suspension *suspensions;
    uint64_t held, octets, recipients_queued;
    struct record_scratch scratch;
};

struct index *index_new(const struct index_config *config)
{
    struct index *ix = calloc(1, sizeof(*ix));
    if (ix == NULL) {
        return NULL;
    }
    ix->config = *config;
    ix->table_size = TABLE_START;
    ix->table = pool_array_get(ix->table_size * sizeof(struct slot));
    ix->schedules = calloc(config->shards, sizeof(struct schedule *));
    bool ok = ix->table != NULL && ix->schedules != NULL;
    for (uint32_t i = 0; ok && i < config->shards; i++) {
        ix->schedules[i] = schedule_new(&config->schedule);
        ok = ix->schedules[i] != NULL;
    }
    if (!ok) {
        index_free(&ix);
    }
    return ix;
}

static void suspension_free(struct index *ix, struct suspension *s)
{
    HASH_DELETE(hh, ix->suspensions, s);
    free(s->words);
    free(s);
}

void index_clear(struct index *ix)
{
    while (ix->list != NULL) {
        index_remove(ix, ix->list);
    }
    struct suspension *s, *tmp;
    HASH_ITER(hh, ix->suspensions, s, tmp)
    {
        suspension_free(ix, s);
    }
}

void index_free(struct index **ixp)
{
    struct index *ix = *ixp;
    if (ix == NULL) {
        return;
    }
    if (ix->table != NULL && ix->schedules != NULL) {
        for (struct message *m = ix->list; m != NULL; m = m->next) {
            for (size_t i = 0; i < m->jobs_count; i++) { /* what is out when the daemon ends is tried again */
                if (m->jobs[i].state == JOB_OUT) {
                    schedule_result(ix->schedules[index_job_shard(ix, &m->jobs[i])], &m->jobs[i], SCHEDULE_LOST, 0);
                }
            }
        }
        index_clear(ix);
        for (uint32_t i = 0; i < ix->config.shards; i++) {
            schedule_free(&ix->schedules[i]);
        }
    }
    heap_fini(&ix->deadlines);
    free(ix->schedules);
    if (ix->table != NULL) {
        pool_array_put(ix->table, ix->table_size * sizeof(struct slot));
    }
    pool_fini(&ix->pool);
    free(ix);
    *ixp = NULL;
}

struct schedule *index_schedule_of(struct index *ix, uint32_t shard)
{
    return ix->schedules[shard];
}

uint32_t index_shards(const struct index *ix)
{
    return ix->config.shards;
}

static uint32_t domain_shard(const struct index *ix, struct span domain)
{
    return (uint32_t)(XXH3_64bits(domain.ptr, domain.len) % ix->config.shards);
}

uint32_t index_job_shard(const struct index *ix, const struct schedule_job *j)
{
    return domain_shard(ix, schedule_domain_name(j->domain));
}

/* --- table --- */

static size_t slot_of(const struct index *ix, uint64_t id)
{
    return XXH3_64bits_withSeed(&id, sizeof(id), ix->config.seed) & (ix->table_size - 1);
}

struct message *index_find(const struct index *ix, uint64_t id)
{
    for (size_t i = slot_of(ix, id); ix->table[i].message != NULL; i = (i + 1) & (ix->table_size - 1)) {
        if (ix->table[i].id == id) {
            return ix->table[i].message;
        }
    }
    return NULL;
}

void index_find_soon(const struct index *ix, uint64_t id)
{
    __builtin_prefetch(&ix->table[slot_of(ix, id)], 1);
}

static void table_place(struct index *ix, struct slot slot)
{
    size_t i = slot_of(ix, slot.id);
    while (ix->table[i].message != NULL) {
        i = (i + 1) & (ix->table_size - 1);
    }
    ix->table[i] = slot;
}

static int table_grow(struct index *ix)
{
    if ((ix->count + 1) * 4 < ix->table_size * 3) {
        return 0;
    }
    struct slot *old = ix->table;
    size_t old_size = ix->table_size;
    struct slot *grown = pool_array_get(old_size * 2 * sizeof(struct slot));
    if (grown == NULL) {
        return -ENOMEM;
    }
    ix->table = grown;
    ix->table_size = old_size * 2;
    for (size_t i = 0; i < old_size; i++) {
        if (old[i].message != NULL) {
            table_place(ix, old[i]);
        }
    }
    pool_array_put(old, old_size * sizeof(struct slot));
    return 0;
}

/* Linear probing without tombstones: those behind the hole that belong before it move up. */
static void table_remove(struct index *ix, const struct message *m)
{
    size_t mask = ix->table_size - 1, hole = slot_of(ix, m->id);
    while (ix->table[hole].message != m) {
        hole = (hole + 1) & mask;
    }
    for (size_t i = (hole + 1) & mask; ix->table[i].message != NULL; i = (i + 1) & mask) {
        size_t home = slot_of(ix, ix->table[i].id);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            ix->table[hole] = ix->table[i];
            hole = i;
        }
    }
    ix->table[hole] = (struct slot){0};
}

/* --- making a message --- */

struct grouping {
    uint8_t domains[ENVELOPE_RECIPIENTS_MAX][8]; /* hash of each recipient's domain */
    uint16_t job[ENVELOPE_RECIPIENTS_MAX];
    uint16_t first[ENVELOPE_RECIPIENTS_MAX]; /* of each job: its first recipient */
    uint16_t jobs;
};

static uint8_t ascii_lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

/* What is behind the last @, lower case; the whole address when there is none. */
static struct span domain_lower(struct span address, uint8_t out[static ENVELOPE_ADDRESS_MAX])
{
    const uint8_t *at = memrchr(address.ptr, '@', address.len);
    size_t skip = at != NULL ? (size_t)(at - address.ptr) + 1 : 0;
    for (size_t i = skip; i < address.len; i++) {
        out[i - skip] = ascii_lower(address.ptr[i]);
    }
    return (struct span){out, address.len - skip};
}

static bool domain_same(struct span a, struct span b)
{
    uint8_t one[ENVELOPE_ADDRESS_MAX], two[ENVELOPE_ADDRESS_MAX];
    return span_eq(domain_lower(a, one), domain_lower(b, two));
}

static void recipients_group(const struct envelope *e, struct grouping *g)
{
    uint8_t lower[ENVELOPE_ADDRESS_MAX];
    uint64_t hash;
    g->jobs = 0;
    for (uint16_t i = 0; i < e->recipients_count; i++) {
        struct span domain = domain_lower(e->recipients[i].address, lower);
        hash = XXH3_64bits(domain.ptr, domain.len);
        memcpy(g->domains[i], &hash, sizeof(hash));
        uint16_t j = 0;
        while (j < g->jobs && (memcmp(g->domains[g->first[j]], &hash, sizeof(hash)) != 0 ||
                               !domain_same(e->recipients[g->first[j]].address, e->recipients[i].address))) {
            j++;
        }
        if (j == g->jobs) {
            g->first[g->jobs++] = i;
        }
        g->job[i] = j;
    }
}

static char *words_dup(struct span words)
{
    return words.len > 0 ? span_dup(words) : NULL;
}

static void recipients_fill(struct index *ix, struct message *m, const struct record_message *r,
                            const struct grouping *g)
{
    for (uint16_t i = 0; i < m->recipients_count; i++) {
        struct index_recipient *to = &m->recipients[i];
        *to = (struct index_recipient){
            .job = g->job[i], .state = RECIPIENT_QUEUED, .notify = r->envelope.recipients[i].notify};
        if ((r->flags & MESSAGE_HAS_STATES) != 0) {
            const struct record_recipient *s = &r->states[i];
            struct schedule_job *j = &m->jobs[to->job];
            to->state = s->state;
            to->reported = s->reported;
            to->code = s->code;
            memcpy(to->enhanced, s->enhanced, sizeof(to->enhanced));
            to->words = words_dup(s->words);
            j->attempts = s->attempts > j->attempts ? s->attempts : j->attempts;
            j->wait.key = s->next_ms > j->wait.key ? s->next_ms : j->wait.key;
        }
        m->queued += to->state == RECIPIENT_QUEUED;
    }
    ix->recipients_queued += m->queued;
}

static int jobs_init(struct index *ix, struct message *m, const struct envelope *e, const struct grouping *g)
{
    uint8_t lower[ENVELOPE_ADDRESS_MAX];
    bool suspended = index_is_suspended(ix, e->account);
    for (uint16_t i = 0; i < g->jobs; i++) {
        struct span domain = domain_lower(e->recipients[g->first[i]].address, lower);
        struct schedule *s = ix->schedules[domain_shard(ix, domain)];
        m->jobs[i].place = i;
        if (schedule_job_init(s, &m->jobs[i], domain, e->account, suspended) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static size_t message_size(uint16_t jobs, uint16_t recipients, size_t envelope)
{
    return sizeof(struct message) + jobs * sizeof(struct schedule_job) + recipients * sizeof(struct index_recipient) +
           envelope;
}

static void message_free(struct index *ix, struct message *m)
{
    for (size_t i = 0; i < m->jobs_count && m->jobs[i].domain != NULL; i++) {
        schedule_job_fini(ix->schedules[index_job_shard(ix, &m->jobs[i])], &m->jobs[i]);
    }
    for (size_t i = 0; i < m->recipients_count; i++) {
        free(m->recipients[i].words);
    }
    free(m->words);
    pool_put(&ix->pool, m, message_size(m->jobs_count, m->recipients_count, m->envelope_length));
}

static struct message *message_new(struct index *ix, const struct record_message *r)
{
    static _Thread_local struct grouping g;
    recipients_group(&r->envelope, &g);
    uint16_t count = r->envelope.recipients_count;
    size_t jobs = g.jobs * sizeof(struct schedule_job), recipients = count * sizeof(struct index_recipient);
    struct message *m = pool_get(&ix->pool, message_size(g.jobs, count, r->envelope_raw.len));
    if (m == NULL) {
        return NULL;
    }
    uint8_t *behind = (uint8_t *)m->jobs + jobs;
    m->recipients = (struct index_recipient *)(void *)behind;
    m->envelope_raw = behind + recipients;
    memcpy(behind + recipients, r->envelope_raw.ptr, r->envelope_raw.len);
    m->envelope_length = (uint32_t)r->envelope_raw.len;
    m->jobs_count = g.jobs;
    m->recipients_count = count;
    m->id = r->id;
    m->born_ms = r->born_ms;
    m->length = r->place.length;
    m->xxh3 = r->place.xxh3;
    if (jobs_init(ix, m, &r->envelope, &g) < 0) {
        message_free(ix, m);
        return NULL;
    }
    recipients_fill(ix, m, r, &g);
    return m;
}

struct message *index_put(struct index *ix, const struct record_message *r, uint64_t segment, uint64_t offset)
{
    struct message *old = index_find(ix, r->id);
    if (table_grow(ix) < 0 || heap_reserve(&ix->deadlines, ix->count + 1) < 0) {
        return NULL;
    }
    struct message *m = message_new(ix, r);
    if (m == NULL) {
        return NULL;
    }
    if (old != NULL) {
        index_remove(ix, old);
    }
    m->segment = segment;
    m->offset = offset;
    m->state |= r->place.kind == PLACE_LARGE || r->place.kind == PLACE_ABSOLUTE_LARGE ? INDEX_LARGE : 0;
    m->state |= r->envelope.sender.len == 0 ? INDEX_FROM_NULL : 0;
    m->state |= (r->envelope.flags & ENVELOPE_DSN) != 0 ? INDEX_DSN : 0;
    if ((r->flags & MESSAGE_HELD) != 0) {
        index_apply_hold(ix, m, r->words);
    }
    table_place(ix, (struct slot){m->id, m});
    DL_APPEND(ix->list, m);
    ix->count++;
    ix->octets += m->length;
    return m;
}

void index_remove(struct index *ix, struct message *m)
{
    for (struct index_cursor *c = ix->cursors; c != NULL; c = c->next_cursor) {
        if (c->at == m) {
            c->at = m->next;
        }
    }
    table_remove(ix, m);
    DL_DELETE(ix->list, m);
    heap_remove(&ix->deadlines, &m->deadline);
    ix->count--;
    ix->octets -= m->length;
    ix->held -= (m->state & INDEX_HELD) != 0;
    ix->recipients_queued -= m->queued;
    message_free(ix, m);
}

void index_to_end(struct index *ix, struct message *m)
{
    for (struct index_cursor *c = ix->cursors; c != NULL; c = c->next_cursor) {
        if (c->at == m) {
            c->at = m->next;
        }
    }
    DL_DELETE(ix->list, m);
    DL_APPEND(ix->list, m);
}

struct message *index_first(const struct index *ix)
{
    return ix->list;
}

size_t index_count(const struct index *ix)
{
    return ix->count;
}

void index_envelope(const struct message *m, struct envelope *e, struct record_scratch *scratch)
{
    struct wire_reader r = wire_reader((struct span){m->envelope_raw, m->envelope_length});
    e->recipients = scratch->recipients;
    (void)envelope_decode(&r, e); /* it was decoded when it came */
}

void index_record(const struct message *m, struct record_message *ret, struct record_scratch *scratch)
{
    for (uint16_t i = 0; i < m->recipients_count; i++) {
        const struct index_recipient *from = &m->recipients[i];
        const struct schedule_job *j = &m->jobs[from->job];
        scratch->states[i] = (struct record_recipient){.number = i,
                                                       .state = from->state,
                                                       .reported = from->reported,
                                                       .code = from->code,
                                                       .attempts = j->attempts,
                                                       .next_ms = j->wait.key,
                                                       .words = span_str(from->words)};
        memcpy(scratch->states[i].enhanced, from->enhanced, sizeof(from->enhanced));
    }
    *ret = (struct record_message){
        .id = m->id,
        .born_ms = m->born_ms,
        .place = {.segment = m->segment, .offset = m->offset, .length = m->length, .xxh3 = m->xxh3},
        .flags = (uint8_t)(MESSAGE_HAS_STATES | ((m->state & INDEX_HELD) != 0 ? MESSAGE_HELD : 0)),
        .envelope_raw = {m->envelope_raw, m->envelope_length},
        .recipients_count = m->recipients_count,
        .states = scratch->states,
        .words = span_str(m->words),
    };
}

/* --- changes of state --- */

static void recipient_apply(struct index *ix, struct message *m, const struct record_recipient *r)
{
    struct index_recipient *to = &m->recipients[r->number];
    bool was = to->state == RECIPIENT_QUEUED, is = r->state == RECIPIENT_QUEUED;
    to->state = r->state;
    to->code = r->code;
    memcpy(to->enhanced, r->enhanced, sizeof(to->enhanced));
    char *words = words_dup(r->words); /* r may be a view of what to has */
    free(to->words);
    to->words = words;
    m->queued = (uint16_t)(m->queued + is - was);
    ix->recipients_queued = ix->recipients_queued + is - was;
}

void index_apply_outcome(struct index *ix, struct message *m, const struct record_outcome *o)
{
    for (size_t i = 0; i < o->count; i++) {
        if (o->results[i].number < m->recipients_count) {
            struct schedule_job *j = &m->jobs[m->recipients[o->results[i].number].job];
            recipient_apply(ix, m, &o->results[i]);
            j->attempts = o->attempts;
            if (j->wait.at == 0) {
                j->wait.key = o->next_ms;
            }
        }
    }
}

void index_apply_hold(struct index *ix, struct message *m, struct span words)
{
    ix->held += (m->state & INDEX_HELD) == 0;
    m->state |= INDEX_HELD;
    free(m->words);
    m->words = words_dup(words);
}

void index_apply_release(struct index *ix, struct message *m)
{
    ix->held -= (m->state & INDEX_HELD) != 0;
    m->state &= (uint8_t)~INDEX_HELD;
    free(m->words);
    m->words = NULL;
}

void index_apply_retry(struct message *m, uint64_t next_ms)
{
    for (size_t i = 0; i < m->jobs_count; i++) {
        if (m->jobs[i].wait.at == 0) {
            m->jobs[i].wait.key = next_ms;
        }
    }
}

void index_apply_report(struct message *m, const struct record_report *r)
{
    for (size_t i = 0; i < r->count; i++) {
        if (r->numbers[i] < m->recipients_count) {
            m->recipients[r->numbers[i]].reported |= r->kind;
        }
    }
}

static struct suspension *suspension_find(const struct index *ix, struct span account)
{
    struct suspension *s = NULL;
    if (account.len > 0) {
        HASH_FIND(hh, ix->suspensions, account.ptr, account.len, s);
    }
    return s;
}

int index_suspend(struct index *ix, struct span account, struct span words)
{
    struct suspension *s = suspension_find(ix, account);
    if (s == NULL) {
        s = calloc(1, sizeof(*s) + account.len + 1);
        if (s == NULL) {
            return -ENOMEM;
        }
        s->name_length = account.len;
        memcpy(s->name, account.ptr, account.len);
        HASH_ADD_KEYPTR(hh, ix->suspensions, s->name, s->name_length, s);
        if (s->hh.tbl == NULL) {
            free(s);
            return -ENOMEM;
        }
    }
    s->confirmed = true;
    free(s->words);
    s->words = words_dup(words);
    for (uint32_t i = 0; i < ix->config.shards; i++) {
        schedule_suspend(ix->schedules[i], account, true);
    }
    return 0;
}

void index_resume(struct index *ix, struct span account)
{
    struct suspension *s = suspension_find(ix, account);
    if (s == NULL) {
        return;
    }
    for (uint32_t i = 0; i < ix->config.shards; i++) {
        schedule_suspend(ix->schedules[i], account, false);
    }
    suspension_free(ix, s); /* last: account may be a view of its name */
}

bool index_is_suspended(const struct index *ix, struct span account)
{
    return suspension_find(ix, account) != NULL;
}

void index_suspensions(const struct index *ix, void (*each)(void *arg, const struct record_account *a), void *arg)
{
    struct suspension *s, *tmp;
    HASH_ITER(hh, ix->suspensions, s, tmp)
    {
        struct record_account a = {.account = {(const uint8_t *)s->name, s->name_length}, .words = span_str(s->words)};
        each(arg, &a);
    }
}

void index_suspensions_confirm(struct index *ix, bool start, void (*each)(void *arg, struct span account), void *arg)
{
    struct suspension *s, *tmp;
    HASH_ITER(hh, ix->suspensions, s, tmp)
    {
        if (start) {
            s->confirmed = false;
        } else if (!s->confirmed) {
            each(arg, (struct span){(const uint8_t *)s->name, s->name_length});
        }
    }
}

/* --- jobs --- */

struct message *index_of_job(struct schedule_job *j)
{
    return (struct message *)(void *)((char *)(j - j->place) - offsetof(struct message, jobs));
}

bool index_job_has_queued(const struct message *m, const struct schedule_job *j)
{
    for (size_t i = 0; i < m->recipients_count; i++) {
        if (m->recipients[i].job == j->place && m->recipients[i].state == RECIPIENT_QUEUED) {
            return true;
        }
    }
    return false;
}

bool index_job_is_out(const struct message *m, const struct schedule_job *j)
{
    for (size_t i = 0; i < m->recipients_count; i++) {
        if (m->recipients[i].job == j->place && m->recipients[i].out) {
            return true;
        }
    }
    return false;
}

void index_schedule(struct index *ix, struct message *m, uint64_t now_ms)
{
    if ((m->state & (INDEX_HELD | INDEX_COMMITTING)) != 0 || m->removing) {
        return;
    }
    for (size_t i = 0; i < m->jobs_count; i++) {
        struct schedule_job *j = &m->jobs[i];
        if (j->state == JOB_IDLE && index_job_has_queued(m, j)) {
            schedule_add(ix->schedules[index_job_shard(ix, j)], j, j->wait.key, now_ms);
        }
    }
}

void index_unschedule(struct index *ix, struct message *m)
{
    for (size_t i = 0; i < m->jobs_count; i++) {
        schedule_remove(ix->schedules[index_job_shard(ix, &m->jobs[i])], &m->jobs[i]);
    }
}

static bool recipient_unreported(const struct index_recipient *r, enum report_kind kind)
{
    if ((r->reported & kind) != 0 || r->notify == NOTIFY_NEVER) {
        return false;
    }
    switch (kind) {
    case REPORT_FAILURE: /* RFC 3461 section 4.1: without NOTIFY, failures are told */
        return (r->state == RECIPIENT_FAILED || r->state == RECIPIENT_EXPIRED) &&
               (r->notify == 0 || (r->notify & NOTIFY_FAILURE) != 0);
    case REPORT_DELAY:
        return r->state == RECIPIENT_QUEUED && (r->notify == 0 || (r->notify & NOTIFY_DELAY) != 0);
    case REPORT_SUCCESS:
        return (r->state == RECIPIENT_DELIVERED || r->state == RECIPIENT_RELAYED) && (r->notify & NOTIFY_SUCCESS) != 0;
    }
    return false;
}

uint16_t index_unreported(const struct message *m, enum report_kind kind, uint16_t *numbers)
{
    uint16_t count = 0;
    for (uint16_t i = 0; (m->state & INDEX_FROM_NULL) == 0 && i < m->recipients_count; i++) {
        if (recipient_unreported(&m->recipients[i], kind)) {
            numbers[count++] = i;
        }
    }
    return count;
}

bool index_is_done(const struct message *m)
{
    if (m->queued > 0) {
        return false;
    }
    for (uint16_t i = 0; (m->state & INDEX_FROM_NULL) == 0 && i < m->recipients_count; i++) {
        if (recipient_unreported(&m->recipients[i], REPORT_FAILURE) ||
            recipient_unreported(&m->recipients[i], REPORT_SUCCESS)) {
            return false;
        }
    }
    return true;
}

uint64_t index_weight(const struct message *m)
{
    return ((m->state & INDEX_LARGE) != 0 ? 0 : m->length) + m->envelope_length + RECORD_OVERHEAD;
}

struct heap *index_deadlines(struct index *ix)
{
    return &ix->deadlines;
}

struct message *index_of_deadline(struct heap_node *n)
{
    return (struct message *)(void *)((char *)n - offsetof(struct message, deadline));
}

void index_cursor_open(struct index *ix, struct index_cursor *c, struct message *at)
{
    c->at = at;
    LL_PREPEND2(ix->cursors, c, next_cursor);
}

void index_cursor_close(struct index *ix, struct index_cursor *c)
{
    LL_DELETE2(ix->cursors, c, next_cursor);
}

void index_figures(const struct index *ix, struct index_figures *ret)
{
    *ret = (struct index_figures){.messages = ix->count,
                                  .held = ix->held,
                                  .octets = ix->octets,
                                  .recipients_queued = ix->recipients_queued,
                                  .oldest_ms = ix->list != NULL ? ix->list->born_ms : 0};
}

/*
 * ledger.c: what was promised to whom, and what came of it. A second copy is allowed only where nobody can help it: the
 * host took the message, and a crash or a lost answer fell between that and our record of it.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/id.h"
#include "simulation/sim.h"

#define ATTEMPT_MAX_MS (2 * HOUR)
#define ATTEMPTS_MAX   80 /* five days with four hours between, and what is tried early */

struct sim_message *ledger_add(struct sim *s)
{
    if (s->messages_count == s->messages_cap) {
        s->messages_cap = s->messages_cap == 0 ? 256 : s->messages_cap * 2;
        s->messages = realloc(s->messages, s->messages_cap * sizeof(*s->messages));
        if (s->messages == NULL) {
            abort();
        }
    }
    struct sim_message *m = &s->messages[s->messages_count];
    *m = (struct sim_message){.token = (uint32_t)++s->messages_count};
    return m;
}

struct sim_message *ledger_by_token(struct sim *s, uint32_t token)
{
    return token > 0 && token <= s->messages_count ? &s->messages[token - 1] : NULL;
}

struct sim_message *ledger_by_id(struct sim *s, uint64_t id)
{
    for (size_t i = s->messages_count; i > 0; i--) {
        if (s->messages[i - 1].id == id) {
            return &s->messages[i - 1];
        }
    }
    return NULL;
}

static struct sim_recipient *recipient_find(struct sim_message *m, struct span address)
{
    for (size_t i = 0; i < m->count; i++) {
        if (span_eq(span_str(m->recipients[i].address), address)) {
            return &m->recipients[i];
        }
    }
    return NULL;
}

/* A notification is the spool's own: it enters the ledger when it first goes out. */
static struct sim_message *dsn_of(struct sim *s, uint64_t id, struct span to)
{
    struct sim_message *m = ledger_by_id(s, id);
    if (m == NULL) {
        m = ledger_add(s);
        m->id = id;
        m->dsn = true;
        m->at = s->now_ms;
        m->count = 1;
        memcpy(m->recipients[0].address, to.ptr, to.len < 47 ? to.len : 47);
    }
    return m;
}

void ledger_job(struct sim *s, uint64_t id, const struct deliver_job *job)
{
    bool dsn = (job->envelope.flags & ENVELOPE_DSN) != 0;
    struct sim_message *m = dsn ? dsn_of(s, id, job->envelope.recipients[0].address) : ledger_by_id(s, id);
    sim_trace(s, "job", id, job->attempt);
    for (uint16_t i = 0; m != NULL && i < job->envelope.recipients_count; i++) {
        struct sim_recipient *r = recipient_find(m, job->envelope.recipients[i].address);
        if (r == NULL) {
            continue;
        }
        r->attempts++;
        r->out_at = s->now_ms;
        s->attempts_most = r->attempts > s->attempts_most ? r->attempts : s->attempts_most;
        if (r->attempts > ATTEMPTS_MAX + 2 * (s->crashes + s->deliver_deaths + s->clean_stops)) {
            sim_broken(s, "message %u is tried too often", m->token);
        }
    }
    if (m == NULL) {
        sim_broken(s, "a job for a message that nobody sent");
    }
}

/* --- what hosts have taken --- */

static void copy_taken(struct sim *s, const struct sim_message *m, struct sim_recipient *r, bool orphan)
{
    r->accepted++;
    r->taken_first = r->accepted == 1 ? s->now_ms : r->taken_first;
    s->accepted++;
    if (orphan) {
        r->allowed++;
    } else {
        r->pending++;
    }
    /* An orphan's copy may be the first or the second: the one that is waited for counts. */
    s->duplicates += r->accepted > 1;
    if (r->accepted > 1 + r->allowed) {
        sim_broken(s, "message %u comes a second time to %s", m->token, r->address);
    }
}

/* "\nNAME: value": a view of the value, empty when it is not there. */
static struct span field(struct span text, const char *name)
{
    size_t len = strlen(name);
    const uint8_t *at = memmem(text.ptr, text.len, name, len);
    if (at == NULL) {
        return (struct span){0};
    }
    at += len;
    const uint8_t *end = memchr(at, '\r', (size_t)(text.ptr + text.len - at));
    return (struct span){at, end != NULL ? (size_t)(end - at) : 0};
}

static void told(struct sim *s, const struct sim_message *m, struct sim_recipient *r, struct span action, uint64_t when,
                 bool expired)
{
    uint8_t kind = span_eq(action, SPAN_LIT("failed"))    ? NOTIFY_FAILURE
                   : span_eq(action, SPAN_LIT("delayed")) ? NOTIFY_DELAY
                                                          : NOTIFY_SUCCESS;
    uint64_t early = (uint64_t)s->crashes * HOUR + MINUTE; /* what a start may add to the spool's clock */
    r->told[kind]++;
    r->told_first[kind] = r->told_first[kind] == 0 ? when : r->told_first[kind];
    s->bounced += kind == NOTIFY_FAILURE;
    s->delayed += kind == NOTIFY_DELAY;
    s->expired += expired;
    if (expired && when + early < m->at + SIM_LIFETIME) {
        sim_broken(s, "message %u is given up after %" PRIu64 " h", m->token, (when - m->at) / HOUR);
    }
    if (kind == NOTIFY_FAILURE && r->accepted > 0 && r->allowed == 0) {
        sim_broken(s, "message %u was taken for %s and bounced", m->token, r->address);
    }
    if (kind == NOTIFY_DELAY && when + early < m->at + SIM_DELAY) {
        sim_broken(s, "message %u: the delay is told after %" PRIu64 " s", m->token, (when - m->at) / 1000);
    }
    if (r->notify == NOTIFY_NEVER) {
        sim_broken(s, "message %u: told, but NOTIFY=NEVER", m->token);
    }
    if (r->told[kind] > 1 + s->power_cuts + s->duplicates) {
        sim_broken(s, "message %u: %s is told again and again", m->token, r->address);
    }
}

/* Each recipient that the notification names. */
static void dsn_read(struct sim *s, uint32_t token, uint64_t when, struct span octets)
{
    struct sim_message *m = ledger_by_token(s, token);
    static const char lead[] = "\r\nFinal-Recipient: rfc822; ";
    const uint8_t *at = octets.ptr, *end = octets.ptr + octets.len;
    unsigned named = 0;
    while (m != NULL && (at = memmem(at, (size_t)(end - at), lead, sizeof(lead) - 1)) != NULL) {
        struct span rest = {at, (size_t)(end - at)};
        struct sim_recipient *r = recipient_find(m, field(rest, lead));
        if (r == NULL) {
            sim_broken(s, "a notification names somebody else");
            return;
        }
        told(s, m, r, field(rest, "\r\nAction: "), when, span_eq(field(rest, "\r\nStatus: "), SPAN_LIT("5.4.7")));
        named++;
        at += sizeof(lead) - 1;
    }
    if (named == 0) {
        sim_broken(s, "a notification names nobody");
    }
}

static void message_compare(struct sim *s, const struct sim_message *m, struct span octets)
{
    struct buf expected;
    buf_init(&expected, 2 * SIM_MESSAGE_MAX);
    users_octets(m->token, m->size, &expected);
    if (!span_eq(buf_span(&expected), octets)) {
        sim_broken(s, "message %u arrives torn or foreign", m->token);
    }
    buf_fini(&expected);
}

static uint32_t number_of(struct span text)
{
    uint32_t n = 0;
    for (size_t i = 0; i < text.len && text.ptr[i] >= '0' && text.ptr[i] <= '9'; i++) {
        n = n * 10 + (uint32_t)(text.ptr[i] - '0');
    }
    return n;
}

void ledger_accepted(struct sim *s, struct span sender, struct span recipient, struct span octets, bool orphan)
{
    bool dsn = sender.len == 0;
    char text[ID_TEXT_LEN + 1] = "";
    uint64_t id = 0;
    struct sim_message *m;
    if (dsn) { /* the spool names its notifications by their ids */
        struct span name = field(octets, "Message-ID: <");
        memcpy(text, name.ptr, name.len < ID_TEXT_LEN ? name.len : ID_TEXT_LEN);
        m = id_parse(text, &id) == 0 ? ledger_by_id(s, id) : NULL;
    } else {
        m = ledger_by_token(s, number_of(field(octets, "X-Sim: ")));
    }
    struct sim_recipient *r = m != NULL ? recipient_find(m, recipient) : NULL;
    sim_trace(s, orphan ? "taken, unheard" : "taken", m != NULL ? m->token : 0, octets.len);
    if (r == NULL) {
        sim_broken(s, "a host gets what nobody sent");
        return;
    }
    copy_taken(s, m, r, orphan);
    if (!dsn) {
        message_compare(s, m, octets);
    } else if (r->accepted == 1) {
        dsn_read(s, number_of((struct span){recipient.ptr + 1, recipient.len - 1}), m->at, octets);
    }
}

/* --- what we know of it --- */

static void unheard(struct sim_recipient *r)
{
    r->out_at = 0;
    r->allowed += r->pending;
    r->pending = 0;
    r->turn = 0;
}

void ledger_outcome(struct sim *s, uint64_t id, const struct deliver_outcome *o)
{
    struct sim_message *m = ledger_by_id(s, id);
    uint64_t gather, durable;
    house_turns(s, &gather, &durable);
    for (uint16_t i = 0; m != NULL && i < o->results_count; i++) {
        uint16_t number = o->results[i].number;
        sim_trace(s, "outcome", id, o->results[i].result * 1000U + o->results[i].code);
        if (number >= m->count) {
            sim_broken(s, "an outcome for nobody");
            return;
        }
        struct sim_recipient *r = &m->recipients[number];
        if (r->out_at != 0 && s->now_ms - r->out_at > ATTEMPT_MAX_MS) {
            sim_broken(s, "message %u: an attempt took %" PRIu64 " min", m->token, (s->now_ms - r->out_at) / MINUTE);
        }
        r->out_at = 0;
        bool success = o->results[i].result == DELIVER_DELIVERED || o->results[i].result == DELIVER_RELAYED ||
                       o->results[i].result == DELIVER_HANDED_OVER;
        if (success) {
            r->turn = gather;
        } else {
            unheard(r);
        }
    }
}

void ledger_deliver_died(struct sim *s)
{
    for (size_t i = 0; i < s->messages_count; i++) {
        for (size_t k = 0; k < s->messages[i].count; k++) {
            struct sim_recipient *r = &s->messages[i].recipients[k];
            if (r->turn == 0) {
                unheard(r);
            }
        }
    }
}

void ledger_spool_died(struct sim *s, uint64_t durable_turn)
{
    for (size_t i = 0; i < s->messages_count; i++) {
        for (size_t k = 0; k < s->messages[i].count; k++) {
            struct sim_recipient *r = &s->messages[i].recipients[k];
            if (r->turn == 0 || r->turn > durable_turn) {
                unheard(r);
            }
            r->pending = 0; /* it is on the disk: for good */
            r->turn = 0;
        }
    }
}

void ledger_removed(struct sim *s, uint64_t id, int result)
{
    struct sim_message *m = ledger_by_id(s, id);
    if (m != NULL && result >= 0) {
        m->acked = false; /* nobody is owed anything */
    }
}

/* --- the end --- */

static void recipient_check(struct sim *s, const struct sim_message *m, const struct sim_recipient *r)
{
    unsigned failed = r->told[NOTIFY_FAILURE];
    bool silent = r->notify == NOTIFY_NEVER || (r->notify != 0 && (r->notify & NOTIFY_FAILURE) == 0);
    if (r->accepted == 0 && failed == 0 && !silent) {
        sim_broken(s, "message %u for %s is neither delivered nor bounced", m->token, r->address);
    }
    uint64_t end = r->accepted > 0 ? r->taken_first : r->told_first[NOTIFY_FAILURE];
    if (r->notify == 0 && !m->held && r->told[NOTIFY_DELAY] == 0 && end > m->at + SIM_DELAY + s->down_ms + 2 * HOUR) {
        sim_broken(s, "message %u: nobody is told that it is late", m->token);
    }
    if (r->nobody && r->accepted > 0) {
        sim_broken(s, "message %u was taken for nobody", m->token);
    }
    if (failed > 0 && !r->nobody && r->told_first[NOTIFY_FAILURE] > m->at + SIM_LIFETIME + s->down_ms + 6 * HOUR) {
        sim_broken(s, "message %u was kept for %" PRIu64 " h", m->token,
                   (r->told_first[NOTIFY_FAILURE] - m->at) / HOUR);
    }
}

void ledger_check_end(struct sim *s)
{
    for (size_t i = 0; i < s->messages_count && !s->broken; i++) {
        const struct sim_message *m = &s->messages[i];
        for (size_t k = 0; m->acked && k < m->count; k++) {
            recipient_check(s, m, &m->recipients[k]);
        }
    }
    if (!s->broken && house_queued(s) > 0) {
        sim_broken(s, "%zu messages are still queued", house_queued(s));
    }
}

#include "guard/limits.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/hash.h"

#define MS_NS UINT64_C(1000000)

struct rule {
    struct limit limit;
    struct gcra gcra;
    char key_name[LIMITS_NAME_MAX + 32];
};

struct charge {
    struct table_key key;
    struct gcra gcra;
    uint64_t cost;
};

/* What one message was charged, until it is forgotten. */
struct receipt {
    uint64_t message_id;
    UT_hash_handle hh;
    size_t count;
    struct charge charges[];
};

struct limits {
    struct table *table;
    struct rule rules[LIMITS_MAX];
    size_t rules_count;
    char help_url[200];
    struct receipt *receipts; /* in order of age */
};

/* One rule asked about one message. */
struct question {
    const struct rule *rule;
    struct table_key key;
    uint64_t cost;
    struct gcra_answer answer;
};

struct limits *limits_new(struct table *table)
{
    struct limits *l = calloc(1, sizeof(*l));
    if (l != NULL) {
        l->table = table;
    }
    return l;
}

static void receipt_drop(struct limits *l, struct receipt *r)
{
    HASH_DEL(l->receipts, r);
    free(r);
}

void limits_free(struct limits **lp)
{
    struct limits *l = *lp;
    if (l == NULL) {
        return;
    }
    *lp = NULL;
    struct receipt *r, *next;
    HASH_ITER(hh, l->receipts, r, next)
    {
        receipt_drop(l, r);
    }
    free(l);
}

static int rule_init(struct rule *r, const struct limit *limit)
{
    if (limit->window_ms > GCRA_WINDOW_MAX_NS / MS_NS || limit->name[0] == '\0' ||
        (limit->action != GUARD_DEFER && limit->action != GUARD_REJECT && limit->action != GUARD_HOLD) ||
        (limit->subject == LIMIT_NETWORK &&
         (limit->v4_bits == 0 || limit->v4_bits > 32 || limit->v6_bits == 0 || limit->v6_bits > 128))) {
        return -EINVAL;
    }
    r->limit = *limit;
    r->limit.name[LIMITS_NAME_MAX] = '\0';
    (void)snprintf(r->key_name, sizeof(r->key_name), "%s/%" PRIu64, r->limit.name, limit->window_ms);
    return gcra_init(&r->gcra, limit->amount, limit->window_ms * MS_NS);
}

int limits_configure(struct limits *l, const struct limit *list, size_t count, const char *help_url, size_t *ret_bad)
{
    if (count > LIMITS_MAX) {
        return -E2BIG;
    }
    struct rule *rules = calloc(LIMITS_MAX, sizeof(*rules));
    if (rules == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        if (rule_init(&rules[i], &list[i]) < 0) {
            *ret_bad = i;
            free(rules);
            return -EINVAL;
        }
    }
    memcpy(l->rules, rules, sizeof(l->rules));
    l->rules_count = count;
    free(rules);
    (void)snprintf(l->help_url, sizeof(l->help_url), "%s", help_url != NULL ? help_url : "");
    return 0;
}

/* The prefix of the address that the rule counts; ret_bits as written for its family. */
static struct net_address prefix_of(const struct rule *r, const struct net_address *a, unsigned *ret_bits)
{
    bool v4 = net_address_is_v4(a);
    struct net_address p = *a;
    unsigned bits = v4 ? 96U + r->limit.v4_bits : r->limit.v6_bits;
    *ret_bits = v4 ? r->limit.v4_bits : r->limit.v6_bits;
    for (unsigned i = 0; i < 16; i++) {
        unsigned keep = bits >= (i + 1) * 8 ? 8 : bits > i * 8 ? bits - i * 8 : 0;
        p.bytes[i] &= (uint8_t)(0xff00U >> keep);
    }
    p.port = 0;
    return p;
}

/* false: the rule does not apply. */
static bool rule_key(const struct limits *l, const struct rule *r, struct span account,
                     const struct net_address *address, struct table_key *ret_key)
{
    if (r->limit.subject == LIMIT_ACCOUNT) {
        if (account.len == 0 || account.len > GUARD_NAME_MAX) {
            return false;
        }
        table_key_make(l->table, span_str(r->key_name), account, ret_key);
        return true;
    }
    if (address == NULL) {
        return false;
    }
    unsigned bits;
    struct net_address p = prefix_of(r, address, &bits);
    table_key_make(l->table, span_str(r->key_name), (struct span){p.bytes, sizeof(p.bytes)}, ret_key);
    return true;
}

static uint64_t tat_now(const struct limits *l, const struct gcra *g, const struct table_key *key, uint64_t now_ns)
{
    uint64_t tat, interval;
    return table_get(l->table, key, now_ns, &tat, &interval) ? gcra_adopt(g, tat, interval, now_ns) : 0;
}

static void subject_text(const struct rule *r, struct span account, const struct net_address *address, char *text,
                         size_t size)
{
    if (r->limit.subject == LIMIT_NETWORK) {
        char a[NET_ADDRESS_TEXT];
        unsigned bits;
        struct net_address p = prefix_of(r, address, &bits);
        net_address_format(&p, a);
        bool whole = bits == (net_address_is_v4(&p) ? 32U : 128U);
        if (whole) {
            (void)snprintf(text, size, "address %s", a);
        } else {
            (void)snprintf(text, size, "network %s/%u", a, bits);
        }
        return;
    }
    bool plain = account.len <= 128;
    for (size_t i = 0; i < account.len && plain; i++) {
        plain = account.ptr[i] > 0x20 && account.ptr[i] < 0x7f;
    }
    if (plain) {
        (void)snprintf(text, size, "account %.*s", (int)account.len, (const char *)account.ptr);
    } else {
        (void)snprintf(text, size, "this account"); /* the client may not have asked for UTF-8 in replies */
    }
}

static void window_text(uint64_t ms, char *text, size_t size)
{
    static const struct {
        uint64_t ms;
        const char *one, *many;
    } units[] = {{86400000, "a day", "days"},
                 {3600000, "an hour", "hours"},
                 {60000, "a minute", "minutes"},
                 {1000, "a second", "seconds"},
                 {1, "a millisecond", "milliseconds"}};
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (ms == units[i].ms) {
            (void)snprintf(text, size, "%s", units[i].one);
            return;
        }
        if (ms % units[i].ms == 0) {
            (void)snprintf(text, size, "in %" PRIu64 " %s", ms / units[i].ms, units[i].many);
            return;
        }
    }
}

static void time_text(uint64_t wall_ms, char text[static 32])
{
    struct tm tm;
    time_t s = (time_t)((wall_ms + 999) / 1000); /* up: at the second told it is free */
    (void)gmtime_r(&s, &tm);
    if (strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        text[0] = '\0';
    }
}

static uint64_t to_wall_ms(uint64_t table_ns, struct limits_moment now)
{
    return table_ns <= now.table_ns ? now.wall_ms : now.wall_ms + (table_ns - now.table_ns + 999999) / 1000000;
}

static void refusal_text(const struct limits *l, const struct question *qn, const struct guard_check *q,
                         struct limits_moment now, char text[static GUARD_TEXT_MAX])
{
    const struct limit *limit = &qn->rule->limit;
    char subject[160], window[48], when[32];
    subject_text(qn->rule, q->account, &q->peer, subject, sizeof(subject));
    window_text(limit->window_ms, window, sizeof(window));
    time_text(to_wall_ms(qn->answer.free_at_ns, now), when);
    const char *unit = limit->unit == LIMIT_MESSAGES ? "message" : "recipient", *plural = limit->amount == 1 ? "" : "s";
    bool link = l->help_url[0] != '\0';
    if (qn->answer.never) {
        (void)snprintf(text, GUARD_TEXT_MAX,
                       "One message has more recipients than limit \"%s\" allows: %" PRIu64 " %s%s %s for %s%s%s%s",
                       limit->name, limit->amount, unit, plural, window, subject, link ? " (" : "", l->help_url,
                       link ? ")" : "");
        return;
    }
    (void)snprintf(text, GUARD_TEXT_MAX, "Limit \"%s\" is reached: %" PRIu64 " %s%s %s for %s; free again at %s%s%s%s",
                   limit->name, limit->amount, unit, plural, window, subject, when, link ? " (" : "", l->help_url,
                   link ? ")" : "");
}

/* Reject is stronger than defer, defer than hold. A message that can never pass is rejected: deferring would only bring
 * it back for days. */
static enum guard_verdict question_verdict(const struct question *qn)
{
    if (qn->answer.allowed) {
        return GUARD_PASS;
    }
    return qn->answer.never && qn->rule->limit.action == GUARD_DEFER ? GUARD_REJECT : qn->rule->limit.action;
}

static int strength(enum guard_verdict v)
{
    return v == GUARD_REJECT ? 3 : v == GUARD_DEFER ? 2 : v == GUARD_HOLD ? 1 : 0;
}

/* The strongest refusal; of equals the one that lasts longest, so that the time in the sentence is true for all. */
static const struct question *find_refusal(const struct question *all, size_t count)
{
    const struct question *worst = NULL;
    for (size_t i = 0; i < count; i++) {
        int s = strength(question_verdict(&all[i]));
        int w = worst != NULL ? strength(question_verdict(worst)) : 0;
        if (s > w || (s == w && s > 0 && all[i].answer.free_at_ns > worst->answer.free_at_ns)) {
            worst = &all[i];
        }
    }
    return worst;
}

static void remember(struct limits *l, uint64_t message_id, const struct question *all, size_t count)
{
    struct receipt *old;
    HASH_FIND(hh, l->receipts, &message_id, sizeof(message_id), old);
    if (old != NULL) {
        receipt_drop(l, old);
    }
    struct receipt *r = malloc(sizeof(*r) + count * sizeof(r->charges[0]));
    if (r == NULL) {
        return; /* it stays charged */
    }
    if (HASH_COUNT(l->receipts) >= LIMITS_REFUNDS) {
        receipt_drop(l, l->receipts);
    }
    *r = (struct receipt){.message_id = message_id};
    for (size_t i = 0; i < count; i++) {
        if (all[i].answer.allowed) {
            r->charges[r->count++] = (struct charge){all[i].key, all[i].rule->gcra, all[i].cost};
        }
    }
    HASH_ADD(hh, l->receipts, message_id, sizeof(r->message_id), r);
    if (!hash_added(r->hh)) {
        free(r);
    }
}

static void charge(struct limits *l, const struct question *all, size_t count, uint64_t now_ns)
{
    for (size_t i = 0; i < count; i++) {
        if (all[i].answer.allowed) {
            table_set(l->table, &all[i].key, now_ns, all[i].answer.tat_ns, all[i].rule->gcra.interval_ns);
        }
    }
}

void limits_check(struct limits *l, uint64_t message_id, const struct guard_check *q, struct limits_moment now,
                  struct limits_answer *ret)
{
    struct question all[LIMITS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < l->rules_count; i++) {
        struct question *qn = &all[count];
        qn->rule = &l->rules[i];
        if (!rule_key(l, qn->rule, q->account, &q->peer, &qn->key)) {
            continue;
        }
        qn->cost = qn->rule->limit.unit == LIMIT_MESSAGES || q->recipients == 0 ? 1 : q->recipients;
        uint64_t tat = tat_now(l, &qn->rule->gcra, &qn->key, now.table_ns);
        qn->answer = gcra_try(&qn->rule->gcra, tat, now.table_ns, qn->cost);
        count++;
    }
    const struct question *refusal = find_refusal(all, count);
    *ret = (struct limits_answer){.verdict = refusal != NULL ? question_verdict(refusal) : GUARD_PASS};
    if (refusal != NULL) {
        ret->limit = &refusal->rule->limit;
        refusal_text(l, refusal, q, now, ret->text);
    }
    if (ret->verdict == GUARD_PASS || ret->verdict == GUARD_HOLD) {
        charge(l, all, count, now.table_ns);
        remember(l, message_id, all, count);
    }
}

bool limits_refund(struct limits *l, uint64_t message_id, struct limits_moment now)
{
    struct receipt *r;
    HASH_FIND(hh, l->receipts, &message_id, sizeof(message_id), r);
    if (r == NULL) {
        return false;
    }
    for (size_t i = 0; i < r->count; i++) {
        const struct charge *c = &r->charges[i];
        uint64_t tat, interval;
        if (!table_get(l->table, &c->key, now.table_ns, &tat, &interval)) {
            continue;
        }
        /* The limit may have been changed since: the units are given back at what one costs now. */
        struct gcra g = c->gcra;
        g.interval_ns = interval;
        table_set(l->table, &c->key, now.table_ns, gcra_refund(&g, tat, c->cost), interval);
    }
    receipt_drop(l, r);
    return true;
}

size_t limits_usage(struct limits *l, struct span account, const struct net_address *address, struct limits_moment now,
                    struct limits_usage out[static LIMITS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < l->rules_count; i++) {
        const struct rule *r = &l->rules[i];
        struct table_key key;
        if (!rule_key(l, r, account, address, &key)) {
            continue;
        }
        struct limits_usage *u = &out[count++];
        uint64_t tat = tat_now(l, &r->gcra, &key, now.table_ns);
        *u = (struct limits_usage){.limit = &r->limit, .used = gcra_used(&r->gcra, tat, now.table_ns)};
        u->free_ms = u->used > 0 ? to_wall_ms(tat, now) : 0;
        subject_text(r, account, address, u->subject, sizeof(u->subject));
    }
    return count;
}

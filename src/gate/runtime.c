#include "gate/runtime.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS UINT64_C(1000000)

static void words_free(struct runtime_words *w)
{
    free(w->reason);
    free(w->by);
    *w = (struct runtime_words){0};
}

static int words_copy(struct runtime_words *to, const struct runtime_words *from)
{
    struct runtime_words w = {.reason = strdup(from->reason), .by = strdup(from->by)};
    if (w.reason == NULL || w.by == NULL) {
        words_free(&w);
        return -ENOMEM;
    }
    *to = w;
    return 0;
}

struct runtime *runtime_new(void)
{
    return calloc(1, sizeof(struct runtime));
}

void runtime_free(struct runtime **rp)
{
    struct runtime *r = *rp;
    *rp = NULL;
    if (r == NULL) {
        return;
    }
    for (size_t i = 0; i < r->exemptions_count; i++) {
        words_free(&r->exemptions[i].words);
    }
    for (size_t i = 0; i < r->modes_count; i++) {
        words_free(&r->modes[i].words);
    }
    free(r->exemptions);
    free(r->modes);
    free(r);
}

static int append_exemption(struct runtime *r, const struct runtime_exemption *e)
{
    struct runtime_exemption one = *e;
    if (r->exemptions_count == r->exemptions_room) {
        size_t room = r->exemptions_room * 2 + 16;
        struct runtime_exemption *grown = reallocarray(r->exemptions, room, sizeof(*grown));
        if (grown == NULL) {
            return -ENOMEM;
        }
        r->exemptions = grown;
        r->exemptions_room = room;
    }
    int error = words_copy(&one.words, &e->words);
    if (error == 0) {
        r->exemptions[r->exemptions_count++] = one;
    }
    return error;
}

/* There are few, and they change seldom: room for one more each time. */
static int append_mode(struct runtime *r, const struct runtime_mode *m)
{
    struct runtime_mode one = *m, *grown = reallocarray(r->modes, r->modes_count + 1, sizeof(*grown));
    if (grown == NULL) {
        return -ENOMEM;
    }
    r->modes = grown;
    int error = words_copy(&one.words, &m->words);
    if (error == 0) {
        r->modes[r->modes_count++] = one;
    }
    return error;
}

struct runtime *runtime_copy(const struct runtime *r)
{
    struct runtime *n = runtime_new();
    int error = n != NULL ? 0 : -ENOMEM;
    for (size_t i = 0; i < r->exemptions_count && error == 0; i++) {
        error = append_exemption(n, &r->exemptions[i]);
    }
    for (size_t i = 0; i < r->modes_count && error == 0; i++) {
        error = append_mode(n, &r->modes[i]);
    }
    if (error < 0) {
        runtime_free(&n);
        return NULL;
    }
    n->last_id = r->last_id;
    n->known_ms = r->known_ms;
    return n;
}

uint64_t runtime_now(const struct runtime *r, uint64_t wall_ms)
{
    return wall_ms > r->known_ms ? wall_ms : r->known_ms;
}

/* Exemptions */

static bool same_prefix(const struct policy_prefix *a, const struct policy_prefix *b)
{
    return a->v6 == b->v6 && a->bits == b->bits && memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

const struct runtime_exemption *runtime_exemption_of(const struct runtime *r, const struct policy_prefix *prefix)
{
    for (size_t i = 0; i < r->exemptions_count; i++) {
        if (same_prefix(&r->exemptions[i].prefix, prefix)) {
            return &r->exemptions[i];
        }
    }
    return NULL;
}

const struct runtime_exemption *runtime_covering(const struct runtime *r, const struct policy_prefix *prefix)
{
    struct policy_address first = {.v6 = prefix->v6};
    const struct runtime_exemption *best = NULL;
    memcpy(first.bytes, prefix->bytes, sizeof(first.bytes));
    for (size_t i = 0; i < r->exemptions_count; i++) {
        const struct runtime_exemption *e = &r->exemptions[i];
        if (e->prefix.bits <= prefix->bits && policy_prefix_contains(&e->prefix, &first) &&
            (best == NULL || e->prefix.bits > best->prefix.bits)) {
            best = e;
        }
    }
    return best;
}

static void remove_exemption(struct runtime *r, size_t i)
{
    words_free(&r->exemptions[i].words);
    r->exemptions_count--;
    memmove(&r->exemptions[i], &r->exemptions[i + 1], (r->exemptions_count - i) * sizeof(r->exemptions[0]));
}

int runtime_unexempt(struct runtime *r, const struct policy_prefix *prefix, uint64_t now_ms)
{
    const struct runtime_exemption *e = runtime_exemption_of(r, prefix);
    if (e == NULL) {
        return -ENOENT;
    }
    remove_exemption(r, (size_t)(e - r->exemptions));
    r->known_ms = runtime_now(r, now_ms);
    return 0;
}

int runtime_exempt(struct runtime *r, const struct runtime_exemption *e, uint64_t now_ms)
{
    struct runtime_exemption one = *e;
    const struct runtime_exemption *old = runtime_exemption_of(r, &e->prefix);
    if (old == NULL && r->exemptions_count >= RUNTIME_EXEMPTIONS_MAX) {
        return -E2BIG;
    }
    one.id = r->last_id + 1;
    size_t at = old != NULL ? (size_t)(old - r->exemptions) : 0;
    int error = append_exemption(r, &one);
    if (error == 0) {
        r->last_id++;
        r->known_ms = runtime_now(r, now_ms);
    }
    if (error == 0 && old != NULL) {
        remove_exemption(r, at);
    }
    return error;
}

size_t runtime_prune(struct runtime *r, uint64_t now_ms, void (*ended)(void *arg, const struct runtime_exemption *e),
                     void *arg)
{
    size_t count = 0;
    for (size_t i = r->exemptions_count; i-- > 0;) {
        const struct runtime_exemption *e = &r->exemptions[i];
        if (e->until_ms != 0 && e->until_ms <= now_ms) {
            ended(arg, e);
            remove_exemption(r, i);
            count++;
        }
    }
    if (count > 0) {
        r->known_ms = runtime_now(r, now_ms);
    }
    return count;
}

uint64_t runtime_next_end(const struct runtime *r)
{
    uint64_t next = 0;
    for (size_t i = 0; i < r->exemptions_count; i++) {
        uint64_t until = r->exemptions[i].until_ms;
        if (until != 0 && (next == 0 || until < next)) {
            next = until;
        }
    }
    return next;
}

/* Modes */

const struct runtime_mode *runtime_mode_of(const struct runtime *r, const char *class_)
{
    for (size_t i = 0; i < r->modes_count; i++) {
        if (strcmp(r->modes[i].class_, class_) == 0) {
            return &r->modes[i];
        }
    }
    return NULL;
}

static void remove_mode(struct runtime *r, size_t i)
{
    words_free(&r->modes[i].words);
    r->modes_count--;
    memmove(&r->modes[i], &r->modes[i + 1], (r->modes_count - i) * sizeof(r->modes[0]));
}

int runtime_mode_set(struct runtime *r, const struct runtime_mode *m, uint64_t now_ms)
{
    const struct runtime_mode *old = runtime_mode_of(r, m->class_);
    size_t at = old != NULL ? (size_t)(old - r->modes) : 0;
    int error = m->monitor != m->was_monitor ? append_mode(r, m) : 0;
    if (error == 0 && old != NULL) {
        remove_mode(r, at);
    }
    if (error == 0) {
        r->known_ms = runtime_now(r, now_ms);
    }
    return error;
}

int runtime_mode_written(const struct config_gate *g, const char *class_, bool *ret_monitor)
{
    if (class_[0] == '\0') {
        *ret_monitor = g->monitor;
        return 0;
    }
    for (size_t i = 0; i < g->classes_count; i++) {
        enum config_port25 rule = g->classes[i].port25;
        if (strcmp(g->classes[i].name, class_) == 0) {
            *ret_monitor = rule == PORT25_MONITOR;
            return rule == PORT25_MONITOR || rule == PORT25_DENY ? 0 : -EINVAL;
        }
    }
    return -ENOENT;
}

/* It does while the configuration says what it said then. */
static bool mode_holds(const struct config_gate *g, const struct runtime_mode *m)
{
    bool monitor;
    return runtime_mode_written(g, m->class_, &monitor) == 0 && monitor == m->was_monitor;
}

size_t runtime_reconcile(struct runtime *r, const struct config_gate *g,
                         void (*dropped)(void *arg, const struct runtime_mode *m), void *arg)
{
    size_t count = 0;
    for (size_t i = r->modes_count; i-- > 0;) {
        if (!mode_holds(g, &r->modes[i])) {
            dropped(arg, &r->modes[i]);
            remove_mode(r, i);
            count++;
        }
    }
    return count;
}

/* The policy */

static bool set_exemption(const struct runtime *r, const struct runtime_exemption *e, const struct runtime_moment *now,
                          struct policy_exemption *to)
{
    uint64_t wall_ms = runtime_now(r, now->wall_ms);
    if (e->until_ms != 0 && e->until_ms <= wall_ms) {
        return false;
    }
    *to = (struct policy_exemption){.prefix = e->prefix,
                                    .until_ns = POLICY_NO_END,
                                    .until_wall_ms = e->until_ms,
                                    .id = e->id,
                                    .reason = e->words.reason,
                                    .by = e->words.by};
    if (e->until_ms != 0) {
        to->until_ns = now->boot_ns + (e->until_ms - wall_ms) * NS_PER_MS;
    }
    return true;
}

int runtime_policy(const struct runtime *r, const struct config_gate *g, const struct runtime_moment *now,
                   struct policy **ret)
{
    struct config_gate gate = *g; /* the same lists, but for the classes' rules */
    struct policy_exemption *exemptions = calloc(r->exemptions_count + 1, sizeof(*exemptions));
    size_t count = 0;
    gate.classes = calloc(g->classes_count + 1, sizeof(*gate.classes));
    int error = gate.classes != NULL && exemptions != NULL ? 0 : -ENOMEM;
    const struct runtime_mode *whole = runtime_mode_of(r, "");
    gate.monitor = whole != NULL && mode_holds(g, whole) ? whole->monitor : g->monitor;
    for (size_t i = 0; i < g->classes_count && error == 0; i++) {
        const struct runtime_mode *m = runtime_mode_of(r, g->classes[i].name);
        gate.classes[i] = g->classes[i];
        if (m != NULL && mode_holds(g, m)) {
            gate.classes[i].port25 = m->monitor ? PORT25_MONITOR : PORT25_DENY;
        }
    }
    for (size_t i = 0; i < r->exemptions_count && error == 0; i++) {
        count += set_exemption(r, &r->exemptions[i], now, &exemptions[count]);
    }
    error = error < 0 ? error : policy_new(&gate, exemptions, count, ret);
    free(gate.classes);
    free(exemptions);
    return error;
}

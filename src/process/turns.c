#include "process/turns.h"

#include "common/clock.h"

struct turn *turns_first(const struct turns *ts, unsigned rank)
{
    return ts->ranks[rank].first;
}

static bool some_wait(const struct turns *ts)
{
    return ts->ranks[0].first != NULL || ts->ranks[1].first != NULL;
}

/* One of those who wait. */
static struct turn *take(struct turns *ts)
{
    struct turn *low = ts->ranks[0].first, *high = ts->ranks[1].first;
    bool passed_over = high != NULL && ts->passed_over == TURNS_PASSED_OVER;
    struct turn *t = low == NULL || passed_over ? high : low;
    ts->passed_over = t == high || high == NULL ? 0 : ts->passed_over + 1;
    turns_remove(t);
    return t;
}

static void on_idle(uv_idle_t *h)
{
    (void)h; /* only that the loop does not sleep */
}

static void on_check(uv_check_t *h)
{
    struct turns *ts = h->data;
    uint64_t until_ns = some_wait(ts) ? clock_mono_ns() + ts->budget_ns : 0;
    while (some_wait(ts)) {
        struct turn *t = take(ts);
        t->run(t);
        if (clock_mono_ns() >= until_ns) {
            break;
        }
    }
    if (some_wait(ts)) {
        (void)uv_idle_start(&ts->idle, on_idle);
    } else {
        (void)uv_idle_stop(&ts->idle);
    }
}

void turns_init(struct turns *ts, uv_loop_t *loop, unsigned budget_us)
{
    *ts = (struct turns){.budget_ns = budget_us * UINT64_C(1000)};
    for (unsigned i = 0; i < TURNS_RANKS; i++) {
        ts->ranks[i].last = &ts->ranks[i].first;
    }
    (void)uv_check_init(loop, &ts->check);
    (void)uv_idle_init(loop, &ts->idle);
    ts->check.data = ts;
    (void)uv_check_start(&ts->check, on_check);
    uv_unref((uv_handle_t *)&ts->check);
}

void turns_add(struct turns *ts, struct turn *t, unsigned rank)
{
    t->waits = ts;
    t->next = NULL;
    t->link = ts->ranks[rank].last;
    *t->link = t;
    ts->ranks[rank].last = &t->next;
    /* Added by a callback that comes after the check, it must not wait for an event that has nothing to do with it. */
    (void)uv_idle_start(&ts->idle, on_idle);
}

void turns_remove(struct turn *t)
{
    struct turns *ts = t->waits;
    if (ts == NULL) {
        return;
    }
    *t->link = t->next;
    if (t->next != NULL) {
        t->next->link = t->link;
    }
    for (unsigned i = 0; i < TURNS_RANKS; i++) {
        if (ts->ranks[i].last == &t->next) {
            ts->ranks[i].last = t->link;
        }
    }
    t->waits = NULL;
}

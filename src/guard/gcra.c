#include "guard/gcra.h"

#include <errno.h>

int gcra_init(struct gcra *g, uint64_t amount, uint64_t window_ns)
{
    if (amount == 0 || amount > GCRA_AMOUNT_MAX || window_ns == 0 || window_ns > GCRA_WINDOW_MAX_NS) {
        return -EINVAL;
    }
    *g = (struct gcra){.amount = amount, .interval_ns = (window_ns + amount - 1) / amount};
    return 0;
}

/* amount * interval and not the window: the quotient was rounded, and the window would let one more or one less pass.
 * At most window + amount: no overflow. */
static uint64_t capacity_ns(const struct gcra *g)
{
    return g->amount * g->interval_ns;
}

struct gcra_answer gcra_try(const struct gcra *g, uint64_t tat_ns, uint64_t now_ns, uint64_t cost)
{
    struct gcra_answer a = {.tat_ns = tat_ns};
    if (cost > g->amount) {
        a.never = true;
        return a;
    }
    uint64_t after = (tat_ns > now_ns ? tat_ns : now_ns) + cost * g->interval_ns;
    if (after - now_ns <= capacity_ns(g)) {
        a.allowed = true;
        a.tat_ns = after;
    } else {
        a.free_at_ns = after - capacity_ns(g);
    }
    return a;
}

uint64_t gcra_refund(const struct gcra *g, uint64_t tat_ns, uint64_t cost)
{
    uint64_t back = (cost < g->amount ? cost : g->amount) * g->interval_ns;
    return tat_ns > back ? tat_ns - back : 0;
}

uint64_t gcra_used(const struct gcra *g, uint64_t tat_ns, uint64_t now_ns)
{
    if (tat_ns <= now_ns) {
        return 0;
    }
    uint64_t used = (tat_ns - now_ns - 1) / g->interval_ns + 1;
    return used < g->amount ? used : g->amount;
}

uint64_t gcra_adopt(const struct gcra *g, uint64_t tat_ns, uint64_t interval_ns, uint64_t now_ns)
{
    if (tat_ns <= now_ns) {
        return tat_ns;
    }
    uint64_t ahead = tat_ns - now_ns;
    if (interval_ns != g->interval_ns && interval_ns != 0) {
        uint64_t units = (ahead - 1) / interval_ns + 1;
        ahead = (units < g->amount ? units : g->amount) * g->interval_ns;
    }
    return now_ns + (ahead < capacity_ns(g) ? ahead : capacity_ns(g));
}

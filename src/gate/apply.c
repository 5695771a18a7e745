/*
 * From what the operator wrote and said to what the kernel reads: the one way.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "gate/keeper_int.h"

struct runtime_moment keeper_now(void)
{
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    return (struct runtime_moment){.wall_ms = clock_wall_ms(),
                                   .boot_ns = (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec};
}

static void note(struct keeper *k, const struct policy *p, uint64_t generation, size_t cells)
{
    k->in_force = (struct keeper_policy){.generation = generation,
                                         .since_ms = clock_wall_ms(),
                                         .cells = cells,
                                         .prefixes = p->sources_count,
                                         .destinations = p->destinations_count,
                                         .classes = p->classes_count,
                                         .exemptions = p->exemptions_count,
                                         .monitor = (p->flags & BLOB_MODE_MONITOR) != 0};
    log_info("gate.policy", LF_UINT("generation", generation), LF_UINT("prefixes", p->sources_count),
             LF_UINT("exemptions", p->exemptions_count), LF_UINT("cells", cells),
             LF_STR("mode", k->in_force.monitor ? "monitor" : "enforce"));
}

int keeper_apply(struct keeper *k)
{
    struct policy *p = NULL;
    struct policy_blob blob = {0};
    const struct runtime_moment now = keeper_now();
    uint64_t generation = now.boot_ns;
    int r = runtime_policy(k->runtime, &k->child->config->config->gate, &now, &p);
    r = r == 0 ? policy_rows_assign(&k->rows, p) : r;
    r = r == 0 ? rows_save(&k->rows, k->child->directory_fd) : r; /* before a packet is counted there */
    r = r == 0 ? policy_compile(p, &k->rows, generation, &blob) : r;
    r = r == 0 && k->loaded ? gate_policy_set(&k->pins.maps, blob.cells, blob.count) : r;
    if (r == 0) {
        note(k, p, generation, blob.count);
        watchers_tell(k);
    } else {
        log_error("gate.policy.failed", LF_ERR(r));
    }
    free(blob.cells);
    policy_free(&p);
    return r;
}

/* quiet.h: what the spool calls (struct spool_ops), for tests, simulations and measurements that have nobody to tell.
 */
#ifndef KIDOBAN_SPOOL_QUIET_H
#define KIDOBAN_SPOOL_QUIET_H

#include "spool/spool.h"

static inline void quiet_job(void *arg, uint32_t shard, uint64_t id, const struct deliver_job *job)
{
    (void)arg, (void)shard, (void)id, (void)job;
}

static inline void quiet_forget(void *arg, uint64_t file)
{
    (void)arg, (void)file;
}

static inline void quiet_cancel(void *arg, uint32_t shard, uint64_t id)
{
    (void)arg, (void)shard, (void)id;
}

static inline void quiet_state(void *arg, const struct spool_state *state)
{
    (void)arg, (void)state;
}

static inline void quiet_pressure(void *arg, bool on)
{
    (void)arg, (void)on;
}

static inline void quiet_wake(void *arg)
{
    (void)arg;
}

#endif

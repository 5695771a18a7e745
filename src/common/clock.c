#include "common/clock.h"

#include <stddef.h>
#include <time.h>

static const struct clock_source *override_source;

void clock_override(const struct clock_source *source)
{
    override_source = source;
}

uint64_t clock_mono_ns(void)
{
    if (override_source != NULL) {
        return override_source->mono_ns(override_source->arg);
    }
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

uint64_t clock_mono_ms(void)
{
    return clock_mono_ns() / 1000000U;
}

uint64_t clock_wall_ms(void)
{
    if (override_source != NULL) {
        return override_source->wall_ms(override_source->arg);
    }
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000U + (uint64_t)ts.tv_nsec / 1000000U;
}

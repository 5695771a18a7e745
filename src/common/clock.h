/*
 * clock.h: the two clocks. Intervals are measured on the monotonic one; the wall clock is for display, for ids and for
 * the age of a message, nothing else. Both can be replaced (clock_override) so that a simulation owns time.
 */
#ifndef KIDOBAN_COMMON_CLOCK_H
#define KIDOBAN_COMMON_CLOCK_H

#include <stdint.h>

uint64_t clock_mono_ms(void);
uint64_t clock_mono_ns(void);
uint64_t clock_wall_ms(void); /* Unix time in milliseconds */
/* Of this boot of the machine, in which the monotonic clock goes on; all zero: unknown. Reads /proc. */
void clock_boot_id(uint8_t ret[static 16]);

struct clock_source {
    uint64_t (*mono_ns)(void *arg);
    uint64_t (*wall_ms)(void *arg);
    void *arg;
};
void clock_override(const struct clock_source *source); /* borrowed until the next call; NULL: the kernel's again */

#endif

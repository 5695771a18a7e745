#include "common/clock.h"

#include <ctype.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

static unsigned digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a') + 10U;
}

void clock_boot_id(uint8_t ret[static 16])
{
    char text[64];
    size_t digits = 0;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text)) : 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    memset(ret, 0, 16);
    for (ssize_t i = 0; i < n && digits < 32; i++) {
        if (isxdigit((unsigned char)text[i]) && !isupper((unsigned char)text[i])) {
            ret[digits / 2] = (uint8_t)(ret[digits / 2] << 4 | digit(text[i]));
            digits++;
        }
    }
    if (digits < 32) {
        memset(ret, 0, 16);
    }
}

/*
 * Times as an operator writes them: RFC 3339, section 5.6, or a span from now.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gate/runtime.h"

#define SECOND_MS UINT64_C(1000)
#define FARTHEST  (UINT64_C(3653) * 86400 * SECOND_MS)

/* Exactly `count` digits, from *at on. */
static bool take_digits(const char **at, int count, int *ret)
{
    *ret = 0;
    for (int i = 0; i < count; i++) {
        if ((*at)[i] < '0' || (*at)[i] > '9') {
            return false;
        }
        *ret = *ret * 10 + ((*at)[i] - '0');
    }
    *at += count;
    return true;
}

static bool take(const char **at, char c)
{
    bool there = toupper((unsigned char)**at) == c;
    *at += there ? 1 : 0;
    return there;
}

static bool take_offset(const char **at, int64_t *ret_s)
{
    bool east = **at == '+';
    int hours, minutes;
    *ret_s = 0;
    if (take(at, 'Z')) {
        return true;
    }
    if (!take(at, '+') && !take(at, '-')) {
        return false;
    }
    if (!take_digits(at, 2, &hours) || !take(at, ':') || !take_digits(at, 2, &minutes) || hours > 23 || minutes > 59) {
        return false;
    }
    *ret_s = (east ? 1 : -1) * (int64_t)(hours * 3600 + minutes * 60);
    return true;
}

/* Parts of a second round up: an end is never before the time written. */
static bool take_fraction(const char **at, bool *ret_more)
{
    *ret_more = false;
    if (!take(at, '.')) {
        return true;
    }
    const char *first = *at;
    for (; **at >= '0' && **at <= '9'; (*at)++) {
        *ret_more = *ret_more || **at != '0';
    }
    return *at > first;
}

static bool in_month(const struct tm *tm)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = tm->tm_year + 1900;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return tm->tm_mon >= 0 && tm->tm_mon < 12 && tm->tm_mday >= 1 &&
           tm->tm_mday <= days[tm->tm_mon] + (tm->tm_mon == 1 && leap ? 1 : 0);
}

static int parse_absolute(const char *at, uint64_t *ret_ms)
{
    struct tm tm = {0};
    bool more;
    int64_t offset;
    bool good = take_digits(&at, 4, &tm.tm_year) && take(&at, '-') && take_digits(&at, 2, &tm.tm_mon) &&
                take(&at, '-') && take_digits(&at, 2, &tm.tm_mday) && take(&at, 'T') &&
                take_digits(&at, 2, &tm.tm_hour) && take(&at, ':') && take_digits(&at, 2, &tm.tm_min) &&
                take(&at, ':') && take_digits(&at, 2, &tm.tm_sec) && take_fraction(&at, &more) &&
                take_offset(&at, &offset) && *at == '\0';
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    if (!good || !in_month(&tm) || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60) {
        return -EINVAL;
    }
    int64_t s = (int64_t)timegm(&tm) - offset + (more ? 1 : 0);
    if (s < 0) {
        return -ERANGE;
    }
    *ret_ms = (uint64_t)s * SECOND_MS;
    return 0;
}

static int parse_relative(const char *text, uint64_t now_ms, uint64_t *ret_ms)
{
    static const struct {
        char unit;
        uint64_t s;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}};
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (end[0] == units[i].unit && end[1] == '\0') {
            if (errno != 0 || n == 0 || n > FARTHEST / SECOND_MS / units[i].s) {
                return -ERANGE;
            }
            uint64_t ms = now_ms + n * units[i].s * SECOND_MS;
            *ret_ms = (ms + SECOND_MS - 1) / SECOND_MS * SECOND_MS;
            return 0;
        }
    }
    return -EINVAL;
}

int runtime_until_parse(const char *text, uint64_t now_ms, uint64_t *ret_ms)
{
    uint64_t ms = 0;
    if (text[0] < '0' || text[0] > '9') {
        return -EINVAL;
    }
    int r = strchr(text, '-') != NULL ? parse_absolute(text, &ms) : parse_relative(text, now_ms, &ms);
    if (r == 0 && (ms <= now_ms || ms - now_ms > FARTHEST + SECOND_MS)) {
        r = -ERANGE;
    }
    if (r == 0) {
        *ret_ms = ms;
    }
    return r;
}

int runtime_time_parse(const char *text, uint64_t *ret_ms)
{
    return text[0] >= '0' && text[0] <= '9' ? parse_absolute(text, ret_ms) : -EINVAL;
}

void runtime_time_format(uint64_t ms, char text[static 24])
{
    time_t s = (time_t)(ms / SECOND_MS);
    struct tm tm;
    if (gmtime_r(&s, &tm) == NULL || strftime(text, 24, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        text[0] = '\0';
    }
}

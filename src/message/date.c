#include <stdio.h>
#include <time.h>

#include "message/date.h"

#define YEAR_0_SECONDS    (-62167219200LL) /* 0000-01-01T00:00:00Z */
#define YEAR_9999_SECONDS 253402300799LL   /* 9999-12-31T23:59:59Z */

/* Locale-free, and the year always has four digits. */
static void broken_down(int64_t unix_s, int *offset_min, struct tm *ret)
{
    if (*offset_min < -1439 || *offset_min > 1439) {
        *offset_min = 0;
    }
    int64_t shift = (int64_t)*offset_min * 60;
    if (unix_s < YEAR_0_SECONDS - shift) {
        unix_s = YEAR_0_SECONDS - shift;
    } else if (unix_s > YEAR_9999_SECONDS - shift) {
        unix_s = YEAR_9999_SECONDS - shift;
    }
    time_t t = (time_t)(unix_s + shift);
    (void)gmtime_r(&t, ret);
}

/* Bounds that the compiler can see. */
static unsigned part(int value, unsigned below)
{
    return (unsigned)value % below;
}

void message_date_format(int64_t unix_s, int utc_offset_min, char text[static MESSAGE_DATE_LEN + 1])
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm;
    broken_down(unix_s, &utc_offset_min, &tm);
    int offset = utc_offset_min < 0 ? -utc_offset_min : utc_offset_min;
    (void)snprintf(text, MESSAGE_DATE_LEN + 1, "%s, %02u %s %04u %02u:%02u:%02u %c%02u%02u", days[part(tm.tm_wday, 7)],
                   part(tm.tm_mday, 32), months[part(tm.tm_mon, 12)], part(tm.tm_year + 1900, 10000),
                   part(tm.tm_hour, 24), part(tm.tm_min, 60), part(tm.tm_sec, 61), utc_offset_min < 0 ? '-' : '+',
                   part(offset / 60, 24), part(offset, 60));
}

void message_time_format(int64_t unix_s, int utc_offset_min, char text[static MESSAGE_TIME_LEN + 1])
{
    struct tm tm;
    broken_down(unix_s, &utc_offset_min, &tm);
    int offset = utc_offset_min < 0 ? -utc_offset_min : utc_offset_min;
    int used = snprintf(text, MESSAGE_TIME_LEN + 1, "%04u-%02u-%02uT%02u:%02u:%02u", part(tm.tm_year + 1900, 10000),
                        part(tm.tm_mon, 12) + 1, part(tm.tm_mday, 32), part(tm.tm_hour, 24), part(tm.tm_min, 60),
                        part(tm.tm_sec, 61));
    if (offset == 0) {
        (void)snprintf(text + used, MESSAGE_TIME_LEN + 1 - (size_t)used, "Z");
    } else {
        (void)snprintf(text + used, MESSAGE_TIME_LEN + 1 - (size_t)used, "%c%02u:%02u", utc_offset_min < 0 ? '-' : '+',
                       part(offset / 60, 24), part(offset, 60));
    }
}

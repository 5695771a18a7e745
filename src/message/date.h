/* date.h: dates in text. Unix seconds in, years 0..9999 (others are clamped); no clock, no time zone of the host. */
#ifndef KIDOBAN_MESSAGE_DATE_H
#define KIDOBAN_MESSAGE_DATE_H

#include <stdint.h>

#define MESSAGE_DATE_LEN 31 /* "Tue, 24 Nov 2026 12:10:18 +0900" */
#define MESSAGE_TIME_LEN 25 /* "2026-11-24T12:10:18+09:00" */

/* utc_offset_min: minutes east of UTC, -1439..1439. RFC 5322 section 3.3; RFC 3339, "Z" for offset 0. */
void message_date_format(int64_t unix_s, int utc_offset_min, char text[static MESSAGE_DATE_LEN + 1]);
void message_time_format(int64_t unix_s, int utc_offset_min, char text[static MESSAGE_TIME_LEN + 1]);

#endif

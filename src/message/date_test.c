#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "message/date.h"

static const struct {
    int64_t unix_s;
    int offset;
    const char *date, *time;
} rows[] = {
    {0, 0, "Thu, 01 Jan 1970 00:00:00 +0000", "1970-01-01T00:00:00Z"},
    {1795522218, 0, "Tue, 24 Nov 2026 12:10:18 +0000", "2026-11-24T12:10:18Z"},
    {1795522218, 540, "Tue, 24 Nov 2026 21:10:18 +0900", "2026-11-24T21:10:18+09:00"},
    {1795522218, -210, "Tue, 24 Nov 2026 08:40:18 -0330", "2026-11-24T08:40:18-03:30"},
    {1709164800, 0, "Thu, 29 Feb 2024 00:00:00 +0000", "2024-02-29T00:00:00Z"},
    {-1, 0, "Wed, 31 Dec 1969 23:59:59 +0000", "1969-12-31T23:59:59Z"},
    {INT64_MAX, 0, "Fri, 31 Dec 9999 23:59:59 +0000", "9999-12-31T23:59:59Z"},
    {INT64_MAX, 540, "Fri, 31 Dec 9999 23:59:59 +0900", "9999-12-31T23:59:59+09:00"},
    {INT64_MIN, -60, "Sat, 01 Jan 0000 00:00:00 -0100", "0000-01-01T00:00:00-01:00"},
    {0, 100000, "Thu, 01 Jan 1970 00:00:00 +0000", "1970-01-01T00:00:00Z"},
};

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char date[MESSAGE_DATE_LEN + 1], time[MESSAGE_TIME_LEN + 1];
        message_date_format(rows[i].unix_s, rows[i].offset, date);
        message_time_format(rows[i].unix_s, rows[i].offset, time);
        assert_string_equal(date, rows[i].date);
        assert_string_equal(time, rows[i].time);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/id.h"
#include "message/dsn.h"

#define ORIGINAL "Subject: hello\r\nMessage-ID: <orig@example.net>\r\n\r\nbody\r\n"

static struct message_dsn_recipient failed_recipient(void)
{
    return (struct message_dsn_recipient){
        .address = SPAN_LIT("nobody@example.org"),
        .orcpt = SPAN_LIT("rfc822;No+2Bbody@example.org"),
        .action = MESSAGE_DSN_FAILED,
        .status = {5, 1, 1},
        .remote = SPAN_LIT("mx.example.org"),
        .code = 550,
        .diagnostic = SPAN_LIT("No such user here"),
        .last_attempt = 1795522218,
    };
}

static struct message_dsn dsn_of(const struct message_dsn_recipient *r, size_t count)
{
    return (struct message_dsn){
        .hostname = SPAN_LIT("mail.example.net"),
        .help_url = SPAN_LIT("https://help.example.net/"),
        .id = 31,
        .original_id = 32,
        .now = 1795522218,
        .sender = SPAN_LIT("user@example.net"),
        .envid = SPAN_LIT("QQ+2B314"),
        .arrived = 1795522000,
        .message = SPAN_LIT(ORIGINAL),
        .recipients = r,
        .recipients_count = count,
    };
}

static struct message_dsn_result compose(const struct message_dsn *dsn, struct buf *out)
{
    struct message_dsn_result result;
    buf_init(out, 8U * 1024U * 1024U);
    assert_int_equal(message_dsn_compose(dsn, out, &result), 0);
    return result;
}

static size_t count_of(const struct buf *b, const char *needle)
{
    size_t count = 0, len = strlen(needle);
    struct span s = buf_span(b);
    const uint8_t *hit;
    while ((hit = memmem(s.ptr, s.len, needle, len)) != NULL) {
        count++;
        s.len -= (size_t)(hit - s.ptr) + len;
        s.ptr = hit + len;
    }
    return count;
}

static bool has(const struct buf *b, const char *needle)
{
    return count_of(b, needle) > 0;
}

/* CRLF everywhere, no line over 998 octets. */
static void assert_lines(const struct buf *b)
{
    size_t column = 0;
    for (size_t i = 0; i < b->len; i++) {
        uint8_t c = b->data[i];
        if (c == '\n') {
            assert_true(i > 0 && b->data[i - 1] == '\r');
            column = 0;
        } else {
            assert_true(c != '\r' || (i + 1 < b->len && b->data[i + 1] == '\n'));
            assert_true(++column <= 999);
        }
        assert_int_not_equal(c, '\0');
    }
}

static void test_failure(void **state)
{
    (void)state;
    struct message_dsn_recipient r = failed_recipient();
    struct message_dsn dsn = dsn_of(&r, 1);
    struct buf out;
    struct message_dsn_result result = compose(&dsn, &out);
    static const char *const wanted[] = {
        "Date: Tue, 24 Nov 2026 12:10:18 +0000\r\nFrom: Mail Delivery System <MAILER-DAEMON@mail.example.net>\r\n"
        "To: <user@example.net>\r\nSubject: Your message could not be delivered\r\n"
        "Message-ID: <000000000000z@mail.example.net>\r\nIn-Reply-To: <orig@example.net>\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"kidoban-000000000000z-00\"\r\n",
        "\r\n--kidoban-000000000000z-00\r\nContent-Type: text/plain; charset=utf-8\r\n",
        "mx.example.org said: 550 No such user here\r\n",
        "\r\n--kidoban-000000000000z-00\r\nContent-Type: message/delivery-status\r\n\r\n"
        "Original-Envelope-Id: QQ+314\r\nReporting-MTA: dns; mail.example.net\r\n"
        "Arrival-Date: Tue, 24 Nov 2026 12:06:40 +0000\r\n\r\n"
        "Original-Recipient: rfc822; No+body@example.org\r\nFinal-Recipient: rfc822; nobody@example.org\r\n"
        "Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example.org\r\n"
        "Diagnostic-Code: smtp; 550 5.1.1 No such user here\r\n"
        "Last-Attempt-Date: Tue, 24 Nov 2026 12:10:18 +0000\r\n\r\n--kidoban-000000000000z-00\r\n"
        "Content-Type: text/rfc822-headers\r\n\r\nSubject: hello\r\nMessage-ID: <orig@example.net>\r\n\r\n"
        "\r\n--kidoban-000000000000z-00--\r\n",
        "https://help.example.net/",
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (!has(&out, wanted[i])) {
            print_error("%.*s\n---\n%s\n", (int)out.len, (const char *)out.data, wanted[i]);
        }
        assert_true(has(&out, wanted[i]));
    }
    assert_false(has(&out, "body\r\n"));
    assert_false(result.has_8bit || result.smtputf8);
    for (size_t i = 0; i < out.len; i++) {
        assert_true(out.data[i] < 0x80);
    }
    assert_lines(&out);
    buf_fini(&out);
}

static void test_full(void **state)
{
    (void)state;
    struct message_dsn_recipient r = failed_recipient();
    struct message_dsn dsn = dsn_of(&r, 1);
    struct buf out;
    dsn.message_full = true;
    (void)compose(&dsn, &out);
    assert_true(has(&out, "Content-Type: message/rfc822\r\n\r\n" ORIGINAL "\r\n--kidoban-"));
    buf_fini(&out);
    dsn.message = SPAN_LIT("A: b\r\n\r\n\xc3\xa4 and no line end");
    struct message_dsn_result result = compose(&dsn, &out);
    assert_true(result.has_8bit && !result.smtputf8);
    assert_true(has(&out, "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nA: b\r\n"));
    assert_true(has(&out, "no line end\r\n\r\n--kidoban-"));
    buf_fini(&out);
    dsn.message = (struct span){0};
    (void)compose(&dsn, &out);
    assert_false(has(&out, "rfc822\r\n"));
    buf_fini(&out);
}

static void test_actions(void **state)
{
    (void)state;
    struct message_dsn_recipient r[3] = {failed_recipient(), failed_recipient(), failed_recipient()};
    struct buf out;
    r[0].action = MESSAGE_DSN_DELAYED;
    memset(r[0].status, 0, 3);
    r[0].code = 0;
    r[0].diagnostic = SPAN_LIT("The connection timed out");
    r[0].will_retry_until = 1795954218;
    r[1].action = MESSAGE_DSN_RELAYED;
    r[2].action = MESSAGE_DSN_DELIVERED;
    struct message_dsn dsn = dsn_of(r, 3);
    (void)compose(&dsn, &out);
    assert_true(has(&out, "Subject: Your message is delayed\r\n"));
    assert_true(has(&out, "Action: delayed\r\nStatus: 4.0.0\r\n"));
    assert_true(has(&out, "Diagnostic-Code: X-Kidoban; The connection timed out\r\n"));
    assert_true(has(&out, "Will-Retry-Until: Sun, 29 Nov 2026 12:10:18 +0000\r\n"));
    assert_true(has(&out, "Action: relayed\r\n"));
    assert_true(has(&out, "Action: delivered\r\n"));
    assert_int_equal(count_of(&out, "Final-Recipient: "), 3);
    buf_fini(&out);
}

/* Lines that are the boundary which the notification names. */
static size_t delimiters(const struct buf *b)
{
    char line[64] = "\r\n--";
    const uint8_t *name = memmem(b->data, b->len, "boundary=\"", 10);
    assert_non_null(name);
    memcpy(line + 4, name + 10, strlen("kidoban-000000000000z-00"));
    return count_of(b, line);
}

/* Everything a stranger can put in, trying to leave its field, its part or its line. */
static void test_hostile(void **state)
{
    (void)state;
    static const char *const words[] = {
        "x\r\nSubject: injected\r\n\r\ninjected",
        "x\n\n--kidoban-000000000000z-00--\n",
        "--kidoban-000000000000z-00",
        "--kidoban-000000000000z-00--",
        "\r\n\r\n\r\n",
        "   ",
        "\x1b[2J\x01\x7f\xff\xc3",
        "=?utf-8?q?x?=",
        "",
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        struct message_dsn_recipient r = failed_recipient();
        struct span hostile = span_str(words[i]);
        r.address = r.remote = r.diagnostic = r.orcpt = hostile;
        struct message_dsn dsn = dsn_of(&r, 1);
        struct buf out;
        dsn.envid = hostile;
        dsn.message = hostile;
        dsn.message_full = i % 2 == 0;
        (void)compose(&dsn, &out);
        assert_int_equal(delimiters(&out), hostile.len > 0 ? 4 : 3);
        assert_int_equal(count_of(&out, "\r\nSubject: "), i == 0 ? 2 : 1); /* its own, where it is returned */
        assert_int_equal(count_of(&out, "\r\nStatus: "), 1);
        buf_fini(&out);
    }
}

static void test_xtext(void **state)
{
    (void)state;
    static const char *const bad[] = {"rfc822;a+0D+0Ab", "rfc822;a+00", "rfc822;a+", "rfc822;a+2", "rfc822;a+2b",
                                      "rfc822",          ";a",          "a b;c",     "rfc822;",    "rfc822;\xc3\xa4"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct message_dsn_recipient r = failed_recipient();
        r.orcpt = span_str(bad[i]);
        struct message_dsn dsn = dsn_of(&r, 1);
        struct buf out;
        dsn.envid = SPAN_LIT("+0A");
        (void)compose(&dsn, &out);
        assert_false(has(&out, "Original-"));
        buf_fini(&out);
    }
}

static void test_boundary(void **state)
{
    (void)state;
    struct message_dsn_recipient r = failed_recipient();
    struct message_dsn dsn = dsn_of(&r, 1);
    struct buf out, all;
    dsn.message_full = true;
    dsn.message = SPAN_LIT("A: b\r\n\r\n--kidoban-000000000000z-00\r\nkidoban-000000000000z-01kidoban-000000000000z-");
    (void)compose(&dsn, &out);
    assert_true(has(&out, "boundary=\"kidoban-000000000000z-02\""));
    buf_fini(&out);
    buf_init(&all, 8192);
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(buf_printf(&all, "A: kidoban-000000000000z-%02u\r\n", i), 0);
    }
    dsn.message = buf_span(&all);
    (void)compose(&dsn, &out);
    assert_false(has(&out, "message/rfc822"));
    buf_fini(&out);
    buf_fini(&all);
}

static void test_utf8(void **state)
{
    (void)state;
    struct message_dsn_recipient r = failed_recipient();
    r.address = SPAN_LIT("\xe6\x9c\xa8@example.org");
    r.orcpt = SPAN_LIT("utf-8;\xe6\x9c\xa8@example.org");
    struct message_dsn dsn = dsn_of(&r, 1);
    struct buf out;
    dsn.smtputf8 = true;
    struct message_dsn_result result = compose(&dsn, &out);
    assert_true(result.has_8bit && !result.smtputf8);
    assert_true(has(&out, "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n"));
    assert_true(has(&out, "Content-Type: message/global-headers\r\n"));
    assert_true(has(&out, "Final-Recipient: utf-8; \xe6\x9c\xa8@example.org\r\n"));
    assert_true(has(&out, "Original-Recipient: utf-8; \xe6\x9c\xa8@example.org\r\n"));
    buf_fini(&out);
    dsn.sender = SPAN_LIT("\xe6\x9c\xa8@example.net");
    result = compose(&dsn, &out);
    assert_true(result.smtputf8);
    assert_true(has(&out, "To: <\xe6\x9c\xa8@example.net>\r\n"));
    buf_fini(&out);
    r.address = SPAN_LIT("\xff@example.org");
    (void)compose(&dsn, &out);
    assert_true(has(&out, "Final-Recipient: utf-8; ?@example.org\r\n"));
    buf_fini(&out);
}

static void test_long(void **state)
{
    (void)state;
    static uint8_t words[5000];
    struct buf out;
    for (int spaces = 0; spaces < 2; spaces++) {
        memset(words, 'w', sizeof(words));
        for (size_t i = 0; spaces && i < sizeof(words); i += 10) {
            words[i] = ' ';
        }
        struct message_dsn_recipient r = failed_recipient();
        r.diagnostic = (struct span){words, sizeof(words)};
        r.address = r.diagnostic;
        struct message_dsn dsn = dsn_of(&r, 1);
        (void)compose(&dsn, &out);
        assert_lines(&out);
        assert_true(out.len < 20000);
        buf_fini(&out);
    }
}

static void test_many(void **state)
{
    (void)state;
    static struct message_dsn_recipient r[1000];
    for (size_t i = 0; i < 1000; i++) {
        r[i] = failed_recipient();
    }
    struct message_dsn dsn = dsn_of(r, 1000);
    struct buf out;
    (void)compose(&dsn, &out);
    assert_int_equal(count_of(&out, "Final-Recipient: "), 1000);
    assert_int_equal(count_of(&out, "  <nobody@example.org>"), 2 * MESSAGE_DSN_LISTED_MAX);
    buf_fini(&out);
}

static void test_too_small(void **state)
{
    (void)state;
    struct message_dsn_recipient r = failed_recipient();
    struct message_dsn dsn = dsn_of(&r, 1);
    struct message_dsn_result result;
    bool done = false;
    for (size_t max = 4; !done; max += 7) {
        struct buf out;
        buf_init(&out, max);
        assert_int_equal(buf_append_str(&out, "keep"), 0);
        int err = message_dsn_compose(&dsn, &out, &result);
        done = err == 0;
        assert_true(done || (err == -EMSGSIZE && span_eq(buf_span(&out), SPAN_LIT("keep"))));
        buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failure),   cmocka_unit_test(test_full),  cmocka_unit_test(test_actions),
        cmocka_unit_test(test_hostile),   cmocka_unit_test(test_xtext), cmocka_unit_test(test_boundary),
        cmocka_unit_test(test_utf8),      cmocka_unit_test(test_long),  cmocka_unit_test(test_many),
        cmocka_unit_test(test_too_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

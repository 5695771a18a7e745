#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "message/submission.h"

#define OK_FROM "From: a@example.net\r\n"
#define REST    "Date: x\r\nMessage-ID: <i@x>\r\n"
#define ID      "000000000000z" /* of 31 */
#define DATE    "Tue, 24 Nov 2026 21:10:18 +0900"

static const struct span identities[] = {{(const uint8_t *)"a@example.net", 13}, {(const uint8_t *)"@example.org", 12}};

static struct message_submission facts(void)
{
    return (struct message_submission){
        .hostname = SPAN_LIT("mail.example.net"),
        .id = 31,
        .client_name = SPAN_LIT("[10.0.0.1]"),
        .client_address = SPAN_LIT("192.0.2.7"),
        .tls = SPAN_LIT("TLSv1.3 TLS_AES_256_GCM_SHA384"),
        .extended = true,
        .authenticated = true,
        .now = 1795522218,
        .utc_offset_min = 540,
        .identities = identities,
        .identities_count = 2,
        .check_identities = true,
        .enforce = true,
    };
}

/* What is written behind Received; NULL: refused with code and enhanced. */
static const struct {
    const char *in, *out;
    uint16_t code;
    const char *enhanced;
    bool utf8, plus;
} rows[] = {
    {OK_FROM REST "\r\n", OK_FROM REST "\r\n", 0, NULL},
    {OK_FROM REST, OK_FROM REST, 0, NULL}, /* nothing but header */
    {OK_FROM "\r\n", OK_FROM "Date: " DATE "\r\nMessage-ID: <" ID "@mail.example.net>\r\n\r\n", 0, NULL},
    {OK_FROM, OK_FROM "Date: " DATE "\r\nMessage-ID: <" ID "@mail.example.net>\r\n", 0, NULL},
    {OK_FROM "DATE: x\r\n\r\n", OK_FROM "DATE: x\r\nMessage-ID: <" ID "@mail.example.net>\r\n\r\n", 0, NULL},
    {OK_FROM "message-id: <q>\r\n\r\n", OK_FROM "message-id: <q>\r\nDate: " DATE "\r\n\r\n", 0, NULL},
    /* Bcc goes, whole and wherever it is; nothing else moves */
    {"Bcc: x@y\r\n" OK_FROM REST "\r\n", OK_FROM REST "\r\n", 0, NULL},
    {OK_FROM REST "BCC:\r\n x@y,\r\n\tz@y\r\n\r\n", OK_FROM REST "\r\n", 0, NULL},
    {OK_FROM REST "Bcc : x@y\r\n", OK_FROM REST, 0, NULL},
    {"X: 1\r\nBcc: x@y\r\nY: 2\r\nresent-bcc: z@y\r\n" OK_FROM REST "Z: 3\r\n\r\n",
     "X: 1\r\nY: 2\r\n" OK_FROM REST "Z: 3\r\n\r\n", 0, NULL},
    {"Bcc: x@y\r\nBcc: z@y\r\n" OK_FROM REST "\r\n", OK_FROM REST "\r\n", 0, NULL},
    {"X-Bcc: kept\r\n" OK_FROM REST "\r\n", "X-Bcc: kept\r\n" OK_FROM REST "\r\n", 0, NULL},
    {"DKIM-Signature: v=1;\r\n\th=from; \r\n b=abc  def\r\n" OK_FROM REST "X:  odd   spaces\t\r\n\r\n",
     "DKIM-Signature: v=1;\r\n\th=from; \r\n b=abc  def\r\n" OK_FROM REST "X:  odd   spaces\t\r\n\r\n", 0, NULL},
    /* authorship */
    {"From: A <A@Example.net>, b@example.org\r\n" REST "\r\n", "From: A <A@Example.net>, b@example.org\r\n" REST "\r\n",
     0, NULL},
    {OK_FROM "Sender: c@example.org\r\n" REST "\r\n", OK_FROM "Sender: c@example.org\r\n" REST "\r\n", 0, NULL},
    {"From: a+x@example.net\r\n" REST "\r\n", "From: a+x@example.net\r\n" REST "\r\n", 0, NULL, false, true},
    {"From: a+x@example.net\r\n" REST "\r\n", NULL, 550, "571"},
    {"From: evil@example.com\r\n" REST "\r\n", NULL, 550, "571"},
    {"From : evil@example.com\r\n" REST "\r\n", NULL, 550, "571"},
    {"From:\r\n evil@example.com\r\n" REST "\r\n", NULL, 550, "571"},
    {"From: \"a@example.net\" <evil@example.com>\r\n" REST "\r\n", NULL, 550, "571"},
    {"From: (a@example.net) evil@example.com (a@example.net)\r\n" REST "\r\n", NULL, 550, "571"},
    {"From: a@example.net, evil@example.com\r\n" REST "\r\n", NULL, 550, "571"},
    {"From: G:a@example.net, evil@example.com;\r\n" REST "\r\n", NULL, 550, "571"},
    {"From: <@example.net:evil@example.com>\r\n" REST "\r\n", NULL, 550, "571"},
    {OK_FROM "Sender: evil@example.com\r\n" REST "\r\n", NULL, 550, "571"},
    {OK_FROM "From: evil@example.com\r\n" REST "\r\n", NULL, 550, "560"},
    {OK_FROM "from : a@example.net\r\n" REST "\r\n", NULL, 550, "560"},
    {OK_FROM "Sender: a@example.net\r\nSender: a@example.net\r\n" REST "\r\n", NULL, 550, "560"},
    {REST "\r\n", NULL, 550, "560"},
    {REST "\r\n" OK_FROM, NULL, 550, "560"},
    {"\r\n", NULL, 550, "560"},
    {"", NULL, 550, "560"},
    {"From:\r\n" REST "\r\n", NULL, 550, "560"},
    {"From: undisclosed:;\r\n" REST "\r\n", NULL, 550, "560"},
    {"From: a@example.net <evil@example.com>\r\n" REST "\r\n", NULL, 550, "560"},
    {"From: nobody\r\n" REST "\r\n", NULL, 550, "560"},
    {OK_FROM "Sender:\r\n" REST "\r\n", NULL, 550, "560"},
    /* sent again: no excuse for a foreign From, and a claim of its own; the latest block stands first */
    {"Resent-From: a@example.net\r\nResent-Sender: b@example.org\r\n" OK_FROM REST "\r\n",
     "Resent-From: a@example.net\r\nResent-Sender: b@example.org\r\n" OK_FROM REST "\r\n", 0, NULL},
    {"Resent-From: a@example.net\r\nResent-From: evil@example.com\r\n" OK_FROM REST "\r\n",
     "Resent-From: a@example.net\r\nResent-From: evil@example.com\r\n" OK_FROM REST "\r\n", 0, NULL},
    {"Resent-From: a@example.net\r\nFrom: evil@example.com\r\n" REST "\r\n", NULL, 550, "571"},
    {"Resent-From: evil@example.com\r\nResent-From: a@example.net\r\n" OK_FROM REST "\r\n", NULL, 550, "571"},
    {"Resent-Sender: evil@example.com\r\nResent-From: a@example.net\r\n" OK_FROM REST "\r\n", NULL, 550, "571"},
    {"Resent-From:\r\n" OK_FROM REST "\r\n", NULL, 550, "560"},
    /* form */
    {OK_FROM REST "no colon\r\n\r\n", NULL, 550, "560"},
    {" folded first\r\n" OK_FROM REST "\r\n", NULL, 550, "560"},
    {OK_FROM REST "X: bare\nFrom: evil@example.com\r\n\r\n", NULL, 550, "560"},
    {OK_FROM REST "X: bare\rFrom: evil@example.com\r\n\r\n", NULL, 550, "560"},
    {OK_FROM REST "Subject: \xe6\x9c\xa8\r\n\r\n", NULL, 550, "567"},
    {OK_FROM REST "Subject: \xe6\x9c\xa8\r\n\r\n", OK_FROM REST "Subject: \xe6\x9c\xa8\r\n\r\n", 0, NULL, true},
    {OK_FROM REST "Subject: \xe6\r\n\r\n", NULL, 550, "567", true},
    {OK_FROM REST "Subject: \xe6\r\n\r\n", NULL, 550, "567"},
};

static struct span behind_received(const struct buf *b)
{
    const uint8_t *p = b->data;
    assert_true(b->len > 10 && memcmp(p, "Received: ", 10) == 0);
    const uint8_t *end = memmem(p, b->len, DATE "\r\n", strlen(DATE) + 2);
    assert_non_null(end);
    end += strlen(DATE) + 2;
    return (struct span){end, b->len - (size_t)(end - p)};
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct message_submission m = facts();
        struct message_submission_result result;
        struct buf out;
        buf_init(&out, 65536);
        m.smtputf8 = rows[i].utf8;
        m.plus_addressing = rows[i].plus;
        assert_int_equal(message_submission_prepare(span_str(rows[i].in), &m, &out, &result), 0);
        if (result.code != rows[i].code) {
            print_error("%s: %u %s\n", rows[i].in, result.code, result.text);
        }
        assert_int_equal(result.code, rows[i].code);
        assert_false(result.reported);
        if (rows[i].code == 0) {
            assert_true(span_eq(behind_received(&out), span_str(rows[i].out)));
        } else {
            for (size_t k = 0; k < 3; k++) {
                assert_int_equal(result.enhanced[k], rows[i].enhanced[k] - '0');
            }
            assert_int_equal(out.len, 0);
            assert_true(strlen(result.text) > 0);
        }
        buf_fini(&out);
    }
}

/* Received, whole. */
static const struct {
    const char *name, *address, *tls;
    bool hide, extended, authenticated, utf8;
    const char *want;
} received[] = {
    {"[10.0.0.1]", "192.0.2.7", "TLSv1.3 X", false, true, true, false,
     "Received: from [10.0.0.1] ([192.0.2.7])\r\n\tby mail.example.net (Kidoban) with ESMTPSA (TLSv1.3 X)\r\n"},
    {"pc.local", "2001:db8::1", "TLSv1.3 X", false, true, true, true,
     "Received: from pc.local ([IPv6:2001:db8::1])\r\n\tby mail.example.net (Kidoban) with UTF8SMTPSA (TLSv1.3 X)\r\n"},
    {"pc", "192.0.2.7", "", true, true, true, false, "Received: by mail.example.net (Kidoban) with ESMTPA\r\n"},
    {"pc", "192.0.2.7", "T", true, true, false, false, "Received: by mail.example.net (Kidoban) with ESMTPS (T)\r\n"},
    {"pc", "192.0.2.7", "", true, true, false, true, "Received: by mail.example.net (Kidoban) with UTF8SMTP\r\n"},
    {"pc", "192.0.2.7", "", true, false, false, false, "Received: by mail.example.net (Kidoban) with SMTP\r\n"},
    {"a b", "192.0.2.7", "", false, true, false, false,
     "Received: from unknown ([192.0.2.7])\r\n\tby mail.example.net (Kidoban) with ESMTP\r\n"},
    {"x\r\nFrom: evil", "192.0.2.7", "", false, true, false, false,
     "Received: from unknown ([192.0.2.7])\r\n\tby mail.example.net (Kidoban) with ESMTP\r\n"},
    {"(x", "bad\r\naddress", "T)\r\n(\\", false, true, false, false,
     "Received: from unknown\r\n\tby mail.example.net (Kidoban) with ESMTPS (T)\r\n"},
    {"", "", "", false, true, false, false, "Received: from unknown\r\n\tby mail.example.net (Kidoban) with ESMTP\r\n"},
    {"\xe6\x9c\xa8.example", "", "", false, true, false, false,
     "Received: from unknown\r\n\tby mail.example.net (Kidoban) with ESMTP\r\n"},
    {"\xe6\x9c\xa8.example", "", "", false, true, false, true,
     "Received: from \xe6\x9c\xa8.example\r\n\tby mail.example.net (Kidoban) with UTF8SMTP\r\n"},
};

static void test_received(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(received) / sizeof(received[0]); i++) {
        struct message_submission m = facts();
        struct message_submission_result result;
        struct buf out, want;
        buf_init(&out, 65536);
        buf_init(&want, 65536);
        m.client_name = span_str(received[i].name);
        m.client_address = span_str(received[i].address);
        m.tls = span_str(received[i].tls);
        m.hide_client = received[i].hide;
        m.extended = received[i].extended;
        m.authenticated = received[i].authenticated;
        m.smtputf8 = received[i].utf8;
        assert_int_equal(message_submission_prepare(SPAN_LIT(OK_FROM REST "\r\n"), &m, &out, &result), 0);
        assert_int_equal(buf_printf(&want, "%s\tid " ID "; " DATE "\r\n" OK_FROM REST "\r\n", received[i].want), 0);
        assert_true(span_eq(buf_span(&out), buf_span(&want)));
        buf_fini(&out);
        buf_fini(&want);
    }
}

static void test_report(void **state)
{
    (void)state;
    static const char *const wrong[] = {"From: evil@example.com\r\n" REST "\r\n", REST "\r\n",
                                        OK_FROM OK_FROM REST "\r\n", "From: x y z\r\n" REST "\r\n"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct message_submission m = facts();
        struct message_submission_result result;
        struct buf out;
        buf_init(&out, 65536);
        m.enforce = false;
        assert_int_equal(message_submission_prepare(span_str(wrong[i]), &m, &out, &result), 0);
        assert_int_equal(result.code, 0);
        assert_true(result.reported && strlen(result.text) > 0);
        assert_string_equal(result.address, i == 0 ? "evil@example.com" : "");
        assert_true(span_eq(behind_received(&out), span_str(wrong[i])));
        buf_fini(&out);
    }
}

/* A network that relays without AUTH: From may be anybody's, but must be there. */
static void test_no_account(void **state)
{
    (void)state;
    struct message_submission m = facts();
    struct message_submission_result result;
    struct buf out;
    buf_init(&out, 65536);
    m.check_identities = false;
    m.identities_count = 0;
    assert_int_equal(message_submission_prepare(SPAN_LIT("From: x@y\r\n" REST "\r\n"), &m, &out, &result), 0);
    assert_true(result.code == 0 && !result.reported);
    assert_int_equal(message_submission_prepare(SPAN_LIT(REST "\r\n"), &m, &out, &result), 0);
    assert_int_equal(result.code, 550);
    buf_fini(&out);
}

static void test_message_id(void **state)
{
    (void)state;
    static const char *const rows_of_ids[][2] = {
        {OK_FROM "Message-ID: <a@b>\r\n\r\n", "a@b"}, {OK_FROM "Message-ID:\r\n <a@b>\r\n\r\n", "a@b"},
        {OK_FROM "Message-ID: none\r\n\r\n", ""},     {OK_FROM "Message-ID: <a\x01@b>\r\n\r\n", "a?@b"},
        {OK_FROM "\r\n", ID "@mail.example.net"},
    };
    for (size_t i = 0; i < sizeof(rows_of_ids) / sizeof(rows_of_ids[0]); i++) {
        struct message_submission m = facts();
        struct message_submission_result result;
        struct buf out;
        buf_init(&out, 65536);
        assert_int_equal(message_submission_prepare(span_str(rows_of_ids[i][0]), &m, &out, &result), 0);
        assert_string_equal(result.message_id, rows_of_ids[i][1]);
        buf_fini(&out);
    }
}

static void test_loop(void **state)
{
    (void)state;
    for (size_t hops = MESSAGE_RECEIVED_MAX; hops <= MESSAGE_RECEIVED_MAX + 1; hops++) {
        struct message_submission m = facts();
        struct message_submission_result result;
        struct buf in, out;
        buf_init(&in, 65536);
        buf_init(&out, 65536);
        for (size_t i = 0; i < hops; i++) {
            assert_int_equal(buf_append_str(&in, "Received: x\r\n"), 0);
        }
        assert_int_equal(buf_append_str(&in, OK_FROM REST "\r\n"), 0);
        assert_int_equal(message_submission_prepare(buf_span(&in), &m, &out, &result), 0);
        assert_int_equal(result.code, hops > MESSAGE_RECEIVED_MAX ? 554 : 0);
        buf_fini(&in);
        buf_fini(&out);
    }
}

/* At every size that is too small out stays as it was; the largest that is added fits MESSAGE_SUBMISSION_ADDED. */
static void test_sizes(void **state)
{
    (void)state;
    char name[255];
    memset(name, 'n', sizeof(name));
    struct message_submission m = facts();
    m.client_name = (struct span){(const uint8_t *)name, sizeof(name)};
    m.hostname = m.client_name;
    m.client_address = SPAN_LIT("2001:db8:1111:2222:3333:4444:5555:6666");
    struct message_submission_result result;
    struct span in = SPAN_LIT("Bcc: x\r\n" OK_FROM "\r\n");
    bool done = false;
    for (size_t max = 4; !done; max++) {
        struct buf out;
        buf_init(&out, max);
        assert_int_equal(buf_append_str(&out, "keep"), 0);
        int r = message_submission_prepare(in, &m, &out, &result);
        done = r == 0;
        assert_true(done || (r == -EMSGSIZE && span_eq(buf_span(&out), SPAN_LIT("keep"))));
        assert_true(out.len <= 4 + in.len + MESSAGE_SUBMISSION_ADDED);
        buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),       cmocka_unit_test(test_received),   cmocka_unit_test(test_report),
        cmocka_unit_test(test_no_account), cmocka_unit_test(test_message_id), cmocka_unit_test(test_loop),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

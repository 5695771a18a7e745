/* A session as it should be, rights, STARTTLS; and what cannot be cut at will, because time decides it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/server_dialogue.h"
#include "smtp/server_int.h"

static void relay_refuse_begin(struct fake *f)
{
    f->start.may_relay = true;
    f->refuse_begin = true;
}

static void clear(struct fake *f)
{
    f->config.tls = SMTP_SERVER_CLEAR;
}

static const struct dialogue dialogues[] = {
    /* --- the way it should be --- */
    {"submission",
     NULL,
     {DATA_OPEN, C("Subject: x\r\n\r\nhello\r\n.\r\n", "250 2.0.0"), QUIT},
     "Subject: x\r\n\r\nhello\r\n",
     true},
    {"implicit tls",
     implicit,
     {HELLO, C("AUTH PLAIN " USER_PASS "\r\n", "235 2.7.0"), ENVELOPE, C("DATA\r\n", "354"),
      C("x\r\n.\r\n", "250 2.0.0")},
     "x\r\n"},
    {"two messages",
     relay,
     {DATA_RELAY, C("one\r\n.\r\n", "250"), ENVELOPE, C("DATA\r\n", "354"), C("two\r\n.\r\n", "250")},
     "two\r\n"},
    {"dots are undone", relay, {DATA_RELAY, C("..\r\n...x\r\na.\r\n.b\r\n.\r\n", "250")}, ".\r\n..x\r\na.\r\nb\r\n"},
    {"empty message", relay, {DATA_RELAY, C(".\r\n", "250")}, ""},
    {"empty lines", relay, {DATA_RELAY, C("\r\n\r\n\r\n.\r\n", "250")}, "\r\n\r\n\r\n"},
    {"pipelined behind the end of data",
     relay,
     {DATA_RELAY, C("x\r\n.\r\nNOOP\r\nQUIT\r\n", "250|250|221")},
     "x\r\n",
     true},
    {"pipelined envelope and data",
     relay,
     {HELLO, C("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<no@d>\r\nDATA\r\n", "250|250|550 5.1.1|354"),
      C("x\r\n.\r\n", "250")},
     "x\r\n"},
    {"helo",
     relay,
     {C("HELO me\r\n", "250 mail.example.net"), ENVELOPE, C("DATA\r\n", "354"), C("x\r\n.\r\n", "250")},
     "x\r\n"},
    {"verbs are not case-sensitive",
     relay,
     {C("ehlo me\r\nmail from:<a@b>\r\nrcpt to:<C@D>\r\nrSeT\r\n", "250|250|250|250")}},
    {"chunks",
     relay,
     {TRANSACTION, C("BDAT 5\r\na\r\nb\r", "250 2.0.0 5"), C("BDAT 4 LAST\r\n\n.\r\n", "250 2.0.0")},
     "a\r\nb\r\n.\r\n"},
    {"one chunk", relay, {TRANSACTION, C("BDAT 5 LAST\r\n.\r\nx\r", "550 5.6.11")}},
    {"chunks pipelined",
     relay,
     {HELLO,
      C("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\r\nBDAT 3 last\r\nb\r\nNOOP\r\n", "250|250|250|250|250")},
     "a\r\nb\r\n"},
    {"chunk without its last line end", relay, {TRANSACTION, C("BDAT 3 LAST\r\nabc", "250")}, "abc\r\n"},
    {"chunk of nothing, last", relay, {TRANSACTION, C("BDAT 3\r\na\r\n", "250"), C("BDAT 0 LAST\r\n", "250")}, "a\r\n"},
    {"only a chunk of nothing", relay, {TRANSACTION, C("BDAT 0 LAST\r\n", "250"), ALIVE}, ""},
    {"parameters",
     relay,
     {HELLO, C("MAIL FROM:<a@b> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=abc+2B SMTPUTF8 AUTH=<>\r\n", "250"),
      C("RCPT TO:<c@d> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c+2Bx@d\r\n", "250")}},
    {"help, vrfy, expn, noop",
     NULL,
     {C("HELP\r\nHELP x\r\nVRFY x\r\nEXPN x\r\nNOOP x\r\n", "214 2.0.0|214|252 2.0.0|502 5.5.1|250")}},

    /* --- rights --- */
    {"mail before tls",
     NULL,
     {HELLO, C("MAIL FROM:<a@b>\r\n", "530 5.7.0 Must issue a STARTTLS")},
     .event = SMTP_EVENT_TLS_REQUIRED},
    {"auth before tls",
     NULL,
     {HELLO, C("AUTH PLAIN " USER_PASS "\r\n", "538 5.7.11")},
     .event = SMTP_EVENT_TLS_REQUIRED},
    {"mail before auth", NULL, {SECURE, C("MAIL FROM:<a@b>\r\n", "530 5.7.0 Auth")}, .event = SMTP_EVENT_AUTH_REQUIRED},
    {"mail before auth, the rest pipelined",
     NULL,
     {SECURE, C("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "530|503 5.5.1 MAIL was|503 5.5.1 MAIL was"), ALIVE}},
    {"clear listener has no auth",
     clear,
     {HELLO, C("AUTH PLAIN " USER_PASS "\r\n", "502 5.5.1"), C("STARTTLS\r\n", "502 5.5.1"),
      C("MAIL FROM:<a@b>\r\n", "530 5.7.0")}},

    /* --- STARTTLS --- */
    {"starttls with argument", NULL, {HELLO, C("STARTTLS x\r\n", "501 5.5.4")}},
    {"starttls before ehlo", NULL, {C("STARTTLS\r\n", "220"), HELLO, C("AUTH PLAIN " USER_PASS "\r\n", "235 2.7.0")}},
    {"starttls after helo",
     NULL,
     {C("HELO x\r\nSTARTTLS\r\n", "250|220"), C("MAIL FROM:<a@b>\r\n", "503 5.5.1 Say EHLO")}},
    {"starttls twice", NULL, {SECURE, C("STARTTLS\r\n", "503 5.5.1 TLS")}},
    {"starttls on implicit", implicit, {HELLO, C("STARTTLS\r\n", "503 5.5.1 TLS")}},
    {"starttls in a transaction", relay, {TRANSACTION, C("STARTTLS\r\n", "503 5.5.1")}},
    {"ehlo is forgotten", NULL, {HELLO, C("STARTTLS\r\n", "220"), C("MAIL FROM:<a@b>\r\n", "503 5.5.1 Say EHLO")}},
};

static void dialogues_run_alike(void **state)
{
    (void)state;
    dialogues_run(dialogues, sizeof(dialogues) / sizeof(dialogues[0]));
}

static void starttls_pipelined(void **state)
{
    static const char *const behind[] = {"STARTTLS\r\nEHLO x\r\n", "STARTTLS\r\n\x16\x03\x01", "STARTTLS\r\n\r\n"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fake f;
        dialogue_start(&f, NULL);
        dialogue_send(&f, "EHLO x\r\n");
        dialogue_send(&f, behind[i]);
        check_replies("pipelined", buf_span(&f.out), "503 5.5.1 Octets stood behind STARTTLS");
        assert_true(smtp_server_wants_close(f.s));
        assert_false(f.tls_wanted);
        assert_int_equal(f.events[SMTP_EVENT_STARTTLS_PIPELINED], 1);
        fake_fini(&f);
    }
}

/* In clear text after 220 but before the handshake. */
static void starttls_then_clear(void **state)
{
    struct fake f;
    (void)state;
    dialogue_start(&f, NULL);
    dialogue_send(&f, "EHLO x\r\n");
    dialogue_send(&f, "STARTTLS\r\n");
    assert_true(smtp_server_waiting(f.s));
    dialogue_send(&f, "EHLO x\r\n");
    check_replies("clear", buf_span(&f.out), "503 5.5.1");
    assert_true(smtp_server_wants_close(f.s));
    fake_fini(&f);
}

static void starttls_partial_line_before(void **state)
{
    struct fake f;
    (void)state;
    dialogue_start(&f, NULL);
    dialogue_send(&f, "EHLO x\r\nSTART");
    dialogue_send(&f, "TLS\r\nNO");
    assert_true(smtp_server_wants_close(f.s));
    fake_fini(&f);
}

static void data_pipelined_and_refused(void **state)
{
    struct fake f;
    (void)state;
    dialogue_start(&f, relay_refuse_begin);
    dialogue_send(&f, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    dialogue_send(&f, "DATA\r\nMAIL FROM:<evil@b>\r\n.\r\n");
    check_replies("pipelined", buf_span(&f.out), "450 4.7.1|421 4.5.0");
    assert_true(smtp_server_wants_close(f.s));
    assert_int_equal(f.events[SMTP_EVENT_DATA_PIPELINED], 1);
    fake_fini(&f);
}

static void ehlo_offers(void **state)
{
    struct fake f;
    (void)state;
    dialogue_start(&f, NULL);
    dialogue_send(&f, "EHLO x\r\n");
    buf_append_byte(&f.out, 0);
    assert_non_null(strstr((char *)f.out.data, "250-mail.example.net\r\n"));
    assert_non_null(strstr((char *)f.out.data, "250-STARTTLS\r\n"));
    assert_non_null(strstr((char *)f.out.data, "250-SIZE 52428800\r\n"));
    assert_non_null(strstr((char *)f.out.data, "250-LIMITS RCPTMAX=1000\r\n"));
    assert_null(strstr((char *)f.out.data, "AUTH"));
    dialogue_send(&f, "STARTTLS\r\n");
    fake_tls(&f);
    dialogue_send(&f, "EHLO x\r\n");
    buf_append_byte(&f.out, 0);
    assert_null(strstr((char *)f.out.data, "STARTTLS"));
    assert_non_null(strstr((char *)f.out.data, "250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1-PLUS SCRAM-SHA-1 "
                                               "LOGIN PLAIN\r\n"));
    for (size_t i = 0; i < 5; i++) {
        static const char *const words[] = {"PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING"};
        assert_non_null(strstr((char *)f.out.data, words[i]));
    }
    assert_non_null(strstr((char *)f.out.data, "250-DSN\r\n"));
    fake_fini(&f);
}

static void refusals_end_with_url_and_session(void **state)
{
    struct fake f;
    (void)state;
    dialogue_start(&f, implicit);
    dialogue_send(&f, "EHLO x\r\n");
    dialogue_send(&f, "MAIL FROM:<a@b>\r\n");
    buf_append_byte(&f.out, 0);
    assert_non_null(strstr((char *)f.out.data, ". See https://help.example.net/ (0000000000001)\r\n"));
    fake_fini(&f);
}

static void close_from_outside(void **state)
{
    static const char *const until[] = {"",
                                        "EHLO x\r\n",
                                        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n",
                                        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nabc",
                                        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 9\r\nabc",
                                        "NOO"};
    const struct smtp_decision late = {421, {4, 4, 2}, SPAN_LIT("Time is up")};
    (void)state;
    for (size_t i = 0; i < sizeof(until) / sizeof(until[0]); i++) {
        struct fake f;
        dialogue_start(&f, relay);
        dialogue_send(&f, until[i]);
        buf_clear(&f.out);
        smtp_server_close(f.s, &late);
        fake_collect(&f);
        check_replies(until[i], buf_span(&f.out), "421 4.4.2 Time is up");
        assert_true(smtp_server_wants_close(f.s));
        assert_false(f.open);
        assert_false(f.in_mail);
        smtp_server_close(f.s, &late);
        assert_int_equal(smtp_server_feed(f.s, (const uint8_t *)"NOOP\r\n", 6), 6);
        assert_int_equal(smtp_server_output(f.s).len, 0);
        fake_fini(&f);
    }
}

static void close_while_asked(void **state)
{
    static const char *const until[] = {"DATA\r\n", "BDAT 3 LAST\r\na\r\n", "BDAT 0 LAST\r\n"};
    const struct smtp_decision gone = {421, {4, 3, 2}, SPAN_LIT("Going down")};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fake f;
        dialogue_start(&f, relay);
        dialogue_send(&f, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        f.later = true;
        size_t len = strlen(until[i]);
        (void)smtp_server_feed(f.s, (const uint8_t *)until[i], len);
        assert_true(smtp_server_waiting(f.s));
        smtp_server_close(f.s, &gone);
        assert_false(f.open);
        smtp_server_data_go(f.s); /* too late: dropped */
        smtp_server_message_result(f.s, &gone);
        fake_collect(&f);
        fake_fini(&f);
    }
}

/* Whatever the owner is told or asked, it may close the session there and then. */
static void close_within_any_callback(void **state)
{
    static const char *const texts[] = {
        "EHLO x\r\nAUTH PLAIN " USER_PASS "\r\nAUTH PLAIN\r\n",
        "EHLO x\r\nAUTH LOGIN\r\nbm8=\r\nbm8=\r\nAUTH SCRAM-SHA-256 biwsbj11c2VyLHI9YWJj\r\n*\r\n",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\n.\n\r\n.\r\nNOOP\r\n",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\r\nBDAT 1 LAST\r\nb",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 0 LAST\r\nBDAT 3 LAST\r\nabc",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\nbRSET\r\nXYZZY\r\n",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\r\nRSET\r\n",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\na\nb\r\n.\r\nNOOP\r\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        for (unsigned how = 0; how < 4; how++) {
            bool closed = true;
            for (unsigned at = 1; closed; at++) {
                struct fake f;
                dialogue_start(&f, implicit);
                f.s->may_relay = true;
                f.later = (how & 1) != 0;
                f.config.repair_bare_lf = (how & 2) != 0;
                f.close_at = at;
                dialogue_send(&f, texts[i]);
                closed = f.callbacks >= at;
                assert_int_equal(smtp_server_wants_close(f.s), closed);
                assert_false(smtp_server_waiting(f.s));
                if (closed) {
                    assert_false(f.open);
                    assert_false(f.in_mail);
                }
                fake_fini(&f);
            }
        }
    }
}

/* A client that does not read its replies stops being read. */
static void output_is_bounded(void **state)
{
    static const char line[] = "HELP\r\n";
    struct fake f;
    size_t taken = 0;
    (void)state;
    fake_init(&f);
    f.config.limits.commands_max = 100000;
    fake_open(&f);
    for (unsigned i = 0; i < 10000; i++) {
        taken += smtp_server_feed(f.s, (const uint8_t *)line, sizeof(line) - 1);
    }
    assert_true(taken < 1000);
    assert_true(smtp_server_output(f.s).len < 9000);
    fake_collect(&f);
    assert_int_equal(smtp_server_feed(f.s, (const uint8_t *)line, sizeof(line) - 1), sizeof(line) - 1);
    fake_fini(&f);
}

/* A message that is lost and never ends is not read for ever. */
static void lost_message_is_bounded(void **state)
{
    struct fake f;
    unsigned pieces = 0;
    (void)state;
    dialogue_start(&f, relay_small);
    dialogue_send(&f, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    dialogue_send(&f, "DATA\r\n");
    while (!smtp_server_wants_close(f.s) && pieces++ < 10000) {
        dialogue_send(&f, X100("0123456789"));
    }
    check_replies("lost", buf_span(&f.out), "550 5.6.0");
    assert_in_range(pieces, 60, 80);
    fake_fini(&f);
}

static void idle_is_small(void **state)
{
    (void)state;
    assert_true(smtp_server_size() < 1024);
}

static void reply_text_is_tamed(void **state)
{
    struct fake f;
    struct smtp_decision d = {550, {2, 0, 0}, SPAN_LIT("bad\r\n250 evil\x1b[2J\xff")};
    (void)state;
    dialogue_start(&f, NULL);
    buf_clear(&f.out);
    smtp_server_close(f.s, &d);
    fake_collect(&f);
    check_replies("tamed", buf_span(&f.out), "550 5.0.0 bad??250 evil?[2J?");
    fake_fini(&f);
}

static void body_end_tells(void **state)
{
    struct fake f;
    (void)state;
    dialogue_start(&f, relay_repair);
    dialogue_send(&f, "EHLO x\r\nMAIL FROM:<a@b> SMTPUTF8\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    dialogue_send(&f, "a\nb\xc3\xa9\r\n.\r\n");
    assert_int_equal(f.end.octets, 8);
    assert_true(f.end.has_8bit && f.end.smtputf8 && !f.end.bdat);
    assert_int_equal(f.end.repaired_lf, 1);
    dialogue_send(&f, "MAIL FROM:<a@b> BODY=8BITMIME\r\nRCPT TO:<c@d>\r\nBDAT 1 LAST\r\na");
    assert_true(f.end.has_8bit && !f.end.smtputf8 && f.end.bdat);
    assert_string_equal("a@b>c@d", (buf_append_byte(&f.senders, 0), (char *)f.senders.data));
    fake_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dialogues_run_alike),
        cmocka_unit_test(starttls_pipelined),
        cmocka_unit_test(starttls_then_clear),
        cmocka_unit_test(starttls_partial_line_before),
        cmocka_unit_test(data_pipelined_and_refused),
        cmocka_unit_test(ehlo_offers),
        cmocka_unit_test(refusals_end_with_url_and_session),
        cmocka_unit_test(close_from_outside),
        cmocka_unit_test(close_while_asked),
        cmocka_unit_test(close_within_any_callback),
        cmocka_unit_test(output_is_bounded),
        cmocka_unit_test(lost_message_is_bounded),
        cmocka_unit_test(idle_is_small),
        cmocka_unit_test(reply_text_is_tamed),
        cmocka_unit_test(body_end_tells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Every command in every state, also directly after every kind of error: the reply and the state that follows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/server_fake.h"
#include "smtp/server_int.h"

struct cell {
    const char *reply;
    int next; /* enum server_state; -1: as it was; -2: ended */
};
#define SAME  (-1)
#define ENDED (-2)

static const char *const said[VERB_COUNT] = {
    [VERB_HELO] = "HELO x\r\n",
    [VERB_EHLO] = "EHLO x\r\n",
    [VERB_STARTTLS] = "STARTTLS\r\n",
    [VERB_AUTH] = "AUTH PLAIN AHVzZXIAcGFzcw==\r\n",
    [VERB_MAIL] = "MAIL FROM:<a@b.example>\r\n",
    [VERB_RCPT] = "RCPT TO:<c@d.example>\r\n",
    [VERB_DATA] = "DATA\r\n",
    [VERB_BDAT] = "BDAT 6\r\nQUIT\r\n",
    [VERB_RSET] = "RSET\r\n",
    [VERB_NOOP] = "NOOP\r\n",
    [VERB_QUIT] = "QUIT\r\n",
    [VERB_HELP] = "HELP\r\n",
    [VERB_VRFY] = "VRFY c\r\n",
    [VERB_EXPN] = "EXPN c\r\n",
};

/* Written by hand from RFC 5321 4.1.4, 3030, 3207, 4954: what must come out, not what the code's table says. */
static const struct cell cells[VERB_COUNT][STATE_COUNT] = {
    [VERB_HELO] =
        {{"250 ", STATE_READY}, {"250 ", SAME}, {"250 ", STATE_READY}, {"250 ", STATE_READY}, {"250 ", STATE_READY}},
    [VERB_EHLO] =
        {{"250-", STATE_READY}, {"250-", SAME}, {"250-", STATE_READY}, {"250-", STATE_READY}, {"250-", STATE_READY}},
    [VERB_STARTTLS] = {{"220 2.0.0", STATE_CONNECTED},
                       {"220 2.0.0", STATE_CONNECTED},
                       {"503 5.5.1", SAME},
                       {"503 5.5.1", SAME},
                       {"503 5.5.1", SAME}},
    [VERB_AUTH] =
        {{"503 5.5.1", SAME}, {"235 2.7.0", SAME}, {"503 5.5.1", SAME}, {"503 5.5.1", SAME}, {"503 5.5.1", SAME}},
    [VERB_MAIL] =
        {{"503 5.5.1", SAME}, {"250 2.1.0", STATE_MAIL}, {"503 5.5.1", SAME}, {"503 5.5.1", SAME}, {"503 5.5.1", SAME}},
    [VERB_RCPT] =
        {{"503 5.5.1", SAME}, {"503 5.5.1", SAME}, {"250 2.1.5", STATE_RCPT}, {"250 2.1.5", SAME}, {"503 5.5.1", SAME}},
    [VERB_DATA] = {{"503 5.5.1", SAME}, {"503 5.5.1", SAME}, {"503 5.5.1", SAME}, {"354 ", SAME}, {"503 5.5.1", SAME}},
    [VERB_BDAT] = {{"503 5.5.1", SAME},
                   {"503 5.5.1", SAME},
                   {"503 5.5.1", SAME},
                   {"250 2.0.0", STATE_CHUNK},
                   {"250 2.0.0", SAME}},
    [VERB_RSET] = {{"250 2.0.0", SAME},
                   {"250 2.0.0", SAME},
                   {"250 2.0.0", STATE_READY},
                   {"250 2.0.0", STATE_READY},
                   {"250 2.0.0", STATE_READY}},
    [VERB_NOOP] =
        {{"250 2.0.0", SAME}, {"250 2.0.0", SAME}, {"250 2.0.0", SAME}, {"250 2.0.0", SAME}, {"250 2.0.0", SAME}},
    [VERB_QUIT] =
        {{"221 2.0.0", ENDED}, {"221 2.0.0", ENDED}, {"221 2.0.0", ENDED}, {"221 2.0.0", ENDED}, {"221 2.0.0", ENDED}},
    [VERB_HELP] =
        {{"214 2.0.0", SAME}, {"214 2.0.0", SAME}, {"214 2.0.0", SAME}, {"214 2.0.0", SAME}, {"214 2.0.0", SAME}},
    [VERB_VRFY] =
        {{"252 2.0.0", SAME}, {"252 2.0.0", SAME}, {"252 2.0.0", SAME}, {"252 2.0.0", SAME}, {"252 2.0.0", SAME}},
    [VERB_EXPN] =
        {{"502 5.5.1", SAME}, {"502 5.5.1", SAME}, {"502 5.5.1", SAME}, {"502 5.5.1", SAME}, {"502 5.5.1", SAME}},
};

static const char *const path[STATE_COUNT] = {
    [STATE_CONNECTED] = "",
    [STATE_READY] = "EHLO x\r\n",
    [STATE_MAIL] = "EHLO x\r\nMAIL FROM:<a@b.example>\r\n",
    [STATE_RCPT] = "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n",
    [STATE_CHUNK] = "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 6\r\nabcd\r\n",
};

/* None of these may change the state. */
static const char *const errors[] = {
    "",
    "XYZZY\r\n",
    "\r\n",
    "NOOP\nQUIT\r\n",
    "NOOP\rQUIT\r\n",
    "NOOP \xff\r\n",
    "EHLO\r\n",
    "RSET x\r\n",
    "DATA x\r\n",
    "MAIL FROM:nonsense\r\n",
    "MAIL FROM:<no@b.example>\r\n",
    "RCPT TO:<no@b.example>\r\n",
    "RCPT TO:nonsense\r\n",
    "AUTH PLAIN !\r\n",
    "AUTH NONSENSE\r\n",
    "STARTTLS x\r\n",
};

static void open_session(struct fake *f, bool tls)
{
    fake_init(f);
    f->start.may_relay = true;
    f->config.tls = tls ? SMTP_SERVER_IMPLICIT : SMTP_SERVER_STARTTLS;
    fake_open(f);
}

static void check_cell(bool tls, enum server_state state, const char *error, enum server_verb verb)
{
    struct fake f;
    struct cell cell = cells[verb][state];
    open_session(&f, tls);
    fake_send(&f, span_str(path[state]), 0);
    assert_int_equal(f.s->state, state);
    fake_send(&f, span_str(error), 0);
    if (f.s->state != state) {
        fail_msg("state %d moved to %d by '%s'", state, f.s->state, error);
    }
    if (tls && verb == VERB_STARTTLS) {
        cell = (struct cell){"503 5.5.1", SAME};
    }
    if (!tls && verb == VERB_AUTH && state == STATE_READY) {
        cell = (struct cell){"538 5.7.11", SAME};
    }
    buf_clear(&f.out);
    fake_send(&f, span_str(said[verb]), 0);
    size_t len = strlen(cell.reply);
    if (f.out.len < len || memcmp(f.out.data, cell.reply, len) != 0) {
        fail_msg("%s in state %d after '%s': got %.*s", server_commands[verb].name, state, error, (int)f.out.len,
                 (const char *)f.out.data);
    }
    assert_int_equal(smtp_server_wants_close(f.s), cell.next == ENDED);
    if (cell.next != ENDED) {
        assert_int_equal(f.s->state, cell.next == SAME ? (int)state : cell.next);
    }
    fake_fini(&f);
}

static void every_cell(void **state)
{
    (void)state;
    for (unsigned tls = 0; tls < 2; tls++) {
        for (unsigned at = 0; at < STATE_COUNT; at++) {
            for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
                for (unsigned verb = 0; verb < VERB_COUNT; verb++) {
                    check_cell(tls == 1, (enum server_state)at, errors[e], (enum server_verb)verb);
                }
            }
        }
    }
}

/* Whatever ends a transaction leaves nothing of it: the same cells as in READY. */
static void every_way_out_forgets(void **state)
{
    static const char *const ways[] = {
        "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
        "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\ny\r\n.\r\n",
        "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3 LAST\r\nx\r\n",
        "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\nx\ny",
        "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\nx\r\nBDAT 3 LAST\r\nx\ny",
        "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\nx\r\nRSET\r\n",
        "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRSET\r\n",
        "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nEHLO x\r\n",
        "MAIL FROM:<a@b>\r\nRSET\r\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        static const enum server_verb after[] = {VERB_RCPT, VERB_DATA, VERB_BDAT, VERB_AUTH, VERB_MAIL};
        for (size_t v = 0; v < sizeof(after) / sizeof(after[0]); v++) {
            struct fake f;
            open_session(&f, true);
            fake_send(&f, SPAN_LIT("EHLO x\r\n"), 0);
            fake_send(&f, span_str(ways[i]), 0);
            assert_false(f.in_mail);
            assert_false(f.open);
            assert_false(smtp_server_in_transaction(f.s));
            buf_clear(&f.out);
            fake_send(&f, span_str(said[after[v]]), 0);
            const char *expect = cells[after[v]][STATE_READY].reply;
            assert_memory_equal(f.out.data, expect, strlen(expect));
            fake_fini(&f);
        }
    }
}

static void table_is_whole(void **state)
{
    (void)state;
    for (unsigned v = 0; v < VERB_COUNT; v++) {
        assert_non_null(server_commands[v].name);
        assert_non_null(server_commands[v].proceed);
    }
    for (unsigned e = 0; e < SMTP_EVENT_COUNT; e++) {
        assert_non_null(smtp_event_name((enum smtp_event)e));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell),
        cmocka_unit_test(every_way_out_forgets),
        cmocka_unit_test(table_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

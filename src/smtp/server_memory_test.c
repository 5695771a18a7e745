/* Each allocation of a session fails in turn: the session ends with 421 or simply goes on, and nothing is leaked or
 * touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/scarce.h"
#include "smtp/server_fake.h"

/* base64 of "n,,n=user,r=abc", and of a final message that fits the fake's nonce is not needed: a wrong one ends the
 * exchange. */
static const char *const texts[] = {
    "EHLO x\r\n",
    "AUTH LOGIN\r\ndXNlcg==\r\ncGFzcw==\r\n",
    "RSET\r\nAUTH SCRAM-SHA-256 biwsbj11c2VyLHI9YWJj\r\n*\r\n",
    "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
    "A: b\r\n\r\n..x\r\ny\r\n.\r\n",
    "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\r\nBDAT 3 LAST\r\nb\r\n",
    "BDAT 3 LAST\r\nabcVRFY x\r\nHELP\r\nXYZZY\r\nNOOP\nNOOP\r\n",
    "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\nb",
    "QUIT\r\n",
};

/* The fake has its own allocations: only those made within the engine may fail. */
static void feed(struct fake *f, const char *text, size_t step)
{
    for (size_t len = strlen(text); len > 0;) {
        size_t n = step < len ? step : len;
        size_t used = smtp_server_feed(f->s, (const uint8_t *)text, n);
        struct span out = smtp_server_output(f->s);
        assert_true(fake_replies_well_formed(out) || smtp_server_wants_close(f->s));
        smtp_server_written(f->s, out.len);
        text += used;
        len -= used;
    }
}

static bool run_once(long fail_at, size_t step)
{
    struct fake f;
    fake_init(&f);
    f.config.tls = SMTP_SERVER_IMPLICIT;
    scarce_countdown = -1;
    fake_open(&f);
    uint8_t *room; /* so that the fake itself never allocates below */
    assert_int_equal(buf_reserve(&f.body, 4096, &room) | buf_reserve(&f.message, 4096, &room) |
                         buf_reserve(&f.senders, 4096, &room),
                     0);
    scarce_countdown = fail_at;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        feed(&f, texts[i], step);
    }
    bool reached = scarce_countdown < 0;
    scarce_countdown = -1;
    if (reached) {
        assert_true(f.events[SMTP_EVENT_MEMORY] <= 1);
    } else {
        assert_int_equal(f.messages, 2);
    }
    assert_true(smtp_server_wants_close(f.s));
    fake_fini(&f);
    return reached;
}

static void each_allocation_fails(void **state)
{
    static const size_t steps[] = {1, 7, 1000};
    (void)state;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        long n = 0;
        while (run_once(n, steps[i])) {
            n++;
        }
        assert_in_range(n, 10, 5000);
    }
}

static void new_fails(void **state)
{
    struct fake f;
    (void)state;
    fake_init(&f);
    scarce_countdown = 0;
    assert_null(smtp_server_new(&f.config, &f.ops, &f, &f.start));
    scarce_countdown = -1;
    fake_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_fails),
        cmocka_unit_test(new_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

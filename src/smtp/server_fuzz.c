/*
 * Whole sessions. First four octets: how listener and owner behave; then what the client sends. The session runs twice,
 * in one piece with answers at once, and cut as the seed says with answers later: replies, events and the last message
 * must be the same, unless the client pipelined where only time can tell (STARTTLS, refused DATA).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/server_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void configure(struct fake *f, const uint8_t *how)
{
    fake_init(f);
    f->config.tls = (enum smtp_server_tls_mode)(how[0] % 3);
    f->config.repair_bare_lf = (how[0] & 8) != 0;
    f->config.smtputf8 = (how[0] & 16) != 0;
    f->start.may_relay = (how[0] & 32) != 0;
    f->certificate = (how[0] & 64) != 0;
    f->no_binding = (how[0] & 128) != 0;
    f->refuse_begin = (how[1] & 1) != 0;
    f->refuse_result = (how[1] & 2) != 0;
    f->refuse_after = (how[1] & 4) != 0 ? 20 : 0;
    f->config.limits.size_max = (how[1] & 8) != 0 ? 64 : 4096;
    f->config.limits.text_line_max = (how[1] & 16) != 0 ? 20 : 998;
    f->config.limits.header_max = (how[1] & 32) != 0 ? 40 : 2048;
    f->config.limits.bdat_small_max = 4;
    f->config.limits.bdat_small = 8;
    f->config.limits.command_line_max = (how[1] & 64) != 0 ? 64 : 2048;
    f->config.limits.auth_line_max = (how[1] & 128) != 0 ? 128 : 12288;
}

/* Heap that the session may hold between calls. */
static void check_bounds(const struct fake *f)
{
    assert(smtp_server_output(f->s).len == 0);
    assert(f->out.len < (1U << 25));
}

static void run(struct fake *f, struct span in, unsigned seed)
{
    fake_open(f);
    while (in.len > 0 && !f->tls_wanted) {
        size_t n = seed == 0 ? in.len : (size_t)(rand_r(&seed) % 16) + 1;
        n = n < in.len ? n : in.len;
        fake_send(f, (struct span){in.ptr, n}, 0);
        check_bounds(f);
        in.ptr += n;
        in.len -= n;
    }
    if (f->tls_wanted && in.len > 0) { /* the client waited: what follows comes through TLS */
        fake_tls(f);
        fake_send(f, in, 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake whole, cut;
    if (size < 4) {
        return 0;
    }
    struct span in = {data + 4, size - 4};
    configure(&whole, data);
    configure(&cut, data);
    cut.later = true;
    cut.pause_every = data[2] % 4;
    whole.close_at = cut.close_at = data[2] / 4;
    run(&whole, in, 0);
    run(&cut, in, 1U + data[3]);
    /* An owner that gives up after so many octets, or calls, gives up elsewhere when they come in small pieces. */
    bool timed = whole.refuse_after > 0 || whole.close_at > 0 ||
                 whole.events[SMTP_EVENT_STARTTLS_PIPELINED] + cut.events[SMTP_EVENT_STARTTLS_PIPELINED] +
                         whole.events[SMTP_EVENT_DATA_PIPELINED] + cut.events[SMTP_EVENT_DATA_PIPELINED] +
                         cut.tls_wanted + whole.tls_wanted >
                     0;
    if (!timed) {
        assert(span_eq(buf_span(&whole.out), buf_span(&cut.out)));
        assert(memcmp(whole.events, cut.events, sizeof(whole.events)) == 0);
        assert(whole.messages == cut.messages && span_eq(buf_span(&whole.message), buf_span(&cut.message)));
        assert(whole.logins == cut.logins && whole.aborts == cut.aborts && whole.ends == cut.ends);
    }
    fake_fini(&whole);
    fake_fini(&cut);
    return 0;
}

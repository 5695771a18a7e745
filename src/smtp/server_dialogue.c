#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/server_dialogue.h"

void implicit(struct fake *f)
{
    f->config.tls = SMTP_SERVER_IMPLICIT;
}

void relay(struct fake *f)
{
    f->start.may_relay = true;
}

void relay_repair(struct fake *f)
{
    f->start.may_relay = true;
    f->config.repair_bare_lf = true;
}

void relay_small(struct fake *f)
{
    f->start.may_relay = true;
    f->config.limits.size_max = 20;
    f->config.limits.recipients_max = 2;
    f->config.limits.text_line_max = 10;
    f->config.limits.messages_max = 1;
}

void few(struct fake *f)
{
    f->config.limits.bad_commands_max = 2;
    f->config.limits.commands_max = 6;
    f->config.limits.auth_failures_max = 2;
}

void short_lines(struct fake *f)
{
    f->config.limits.command_line_max = 32;
    f->config.limits.auth_line_max = 64;
}

/* The next whole reply in *out; its last line. */
static struct span next_reply(struct span *out)
{
    for (;;) {
        const uint8_t *lf = out->len > 0 ? memchr(out->ptr, '\n', out->len) : NULL;
        if (lf == NULL) {
            return (struct span){NULL, 0};
        }
        struct span line = {out->ptr, (size_t)(lf - out->ptr) + 1};
        out->ptr += line.len;
        out->len -= line.len;
        if (line.ptr[3] == ' ') {
            return line;
        }
    }
}

void check_replies(const char *name, struct span out, const char *expect)
{
    for (const char *at = expect; *at != '\0';) {
        size_t len = strcspn(at, "|");
        struct span reply = next_reply(&out);
        if (reply.len < len || memcmp(reply.ptr, at, len) != 0) {
            fail_msg("%s: expected '%.*s', got '%.*s'", name, (int)len, at, (int)reply.len, (const char *)reply.ptr);
        }
        at += len + (at[len] == '|');
    }
    if (out.len > 0) {
        fail_msg("%s: unexpected '%.*s'", name, (int)out.len, (const char *)out.ptr);
    }
}

static void check_classes(const char *name, struct span out)
{
    while (out.len > 0) {
        const uint8_t *lf = memchr(out.ptr, '\n', out.len);
        if (out.ptr[0] != '3' && out.ptr[5] == '.' && out.ptr[4] != out.ptr[0]) {
            fail_msg("%s: classes disagree: %.*s", name, (int)(lf - out.ptr), (const char *)out.ptr);
        }
        out.len -= (size_t)(lf - out.ptr) + 1;
        out.ptr = lf + 1;
    }
}

struct way {
    bool later;
    size_t step; /* 0: whole; SIZE_MAX: random */
    unsigned pause_every;
};

static void send_randomly(struct fake *f, struct span octets, unsigned *seed)
{
    while (octets.len > 0) {
        size_t n = (size_t)(rand_r(seed) % 7) + 1;
        n = n < octets.len ? n : octets.len;
        fake_send(f, (struct span){octets.ptr, n}, 0);
        octets.ptr += n;
        octets.len -= n;
    }
}

static void run(const struct dialogue *d, const struct way *way, struct fake *f)
{
    unsigned seed = 1;
    fake_init(f);
    if (d->setup != NULL) {
        d->setup(f);
    }
    f->later = way->later;
    f->pause_every = way->pause_every;
    fake_open(f);
    check_replies(d->name, buf_span(&f->out), "220 mail.example.net");
    for (size_t i = 0; i < STEPS_MAX && d->steps[i].send != NULL; i++) {
        size_t before = f->out.len;
        struct span octets = {(const uint8_t *)d->steps[i].send, d->steps[i].len};
        if (way->step == SIZE_MAX) {
            send_randomly(f, octets, &seed);
        } else {
            fake_send(f, octets, way->step);
        }
        check_replies(d->name, (struct span){f->out.data + before, f->out.len - before}, d->steps[i].expect);
        if (f->tls_wanted) {
            fake_tls(f);
        }
    }
    check_classes(d->name, buf_span(&f->out));
}

static void check_outcome(const struct dialogue *d, const struct fake *f)
{
    if (d->message != NULL && !span_eq(buf_span(&f->message), span_str(d->message))) {
        fail_msg("%s: message is '%.*s'", d->name, (int)f->message.len, (const char *)f->message.data);
    }
    if ((d->message != NULL) != (f->messages > 0)) {
        fail_msg("%s: %u messages", d->name, f->messages);
    }
    if (d->closed != smtp_server_wants_close(f->s)) {
        fail_msg("%s: closed is %d", d->name, !d->closed);
    }
    if (d->event != 0 && f->events[d->event] == 0) {
        fail_msg("%s: no event %s", d->name, smtp_event_name((enum smtp_event)d->event));
    }
    if (f->begins != f->messages + f->aborts && !f->open && !f->refuse_begin && !f->refuse_result &&
        f->refuse_after == 0) {
        fail_msg("%s: %u begun, %u whole, %u aborted", d->name, f->begins, f->messages, f->aborts);
    }
}

void dialogues_run(const struct dialogue *dialogues, size_t count)
{
    static const struct way ways[] = {{false, 0, 0}, {true, 0, 1},         {false, 1, 0},      {true, 1, 1},
                                      {true, 2, 2},  {false, SIZE_MAX, 0}, {true, SIZE_MAX, 1}};
    for (size_t i = 0; i < count; i++) {
        struct fake first;
        run(&dialogues[i], &ways[0], &first);
        check_outcome(&dialogues[i], &first);
        for (size_t w = 1; w < sizeof(ways) / sizeof(ways[0]); w++) {
            struct fake other;
            run(&dialogues[i], &ways[w], &other);
            check_outcome(&dialogues[i], &other);
            if (!span_eq(buf_span(&first.out), buf_span(&other.out))) {
                fail_msg("%s: way %zu differs: %.*s", dialogues[i].name, w, (int)other.out.len,
                         (const char *)other.out.data);
            }
            assert_memory_equal(first.events, other.events, sizeof(first.events));
            fake_fini(&other);
        }
        fake_fini(&first);
    }
}

struct all {
    const struct dialogue *dialogues;
    size_t count;
};

static void dialogues_run_alike(void **state)
{
    const struct all *all = *state;
    dialogues_run(all->dialogues, all->count);
}

int dialogues_main(const struct dialogue *dialogues, size_t count)
{
    struct all all = {dialogues, count};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(dialogues_run_alike, &all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

void dialogue_start(struct fake *f, void (*setup)(struct fake *f))
{
    fake_init(f);
    if (setup != NULL) {
        setup(f);
    }
    fake_open(f);
}

void dialogue_send(struct fake *f, const char *text)
{
    buf_clear(&f->out);
    fake_send(f, span_str(text), 0);
}

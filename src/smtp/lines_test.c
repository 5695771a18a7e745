/* The scanner against a plain model of one octet at a time, on every short message of the octets that matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/lines.h"

struct outcome {
    uint8_t body[64];
    size_t body_len;
    uint8_t fault;
    bool lookalike, end;
    size_t used;
};

static void feed(const struct smtp_text_rules *rules, struct span in, size_t step, struct outcome *o)
{
    struct smtp_text t;
    smtp_text_init(&t);
    *o = (struct outcome){0};
    while (o->used < in.len && !o->end) {
        struct span piece = {in.ptr + o->used, in.len - o->used}, run;
        piece.len = step > 0 && step < piece.len ? step : piece.len;
        size_t used = smtp_text_next(&t, rules, piece, &run, &o->end);
        assert_true(used > 0 || t.fault != SMTP_LINE_OK);
        assert_true(run.len == 0 || t.fault == SMTP_LINE_OK);
        memcpy(o->body + o->body_len, run.ptr, run.len);
        o->body_len += run.len;
        o->used += used;
    }
    if (!o->end && !rules->dots) {
        struct span run;
        smtp_text_finish(&t, rules, &run);
        memcpy(o->body + o->body_len, run.ptr, run.len);
        o->body_len += run.len;
    }
    o->fault = t.fault;
    o->lookalike = t.lookalike;
    assert_true(o->fault != SMTP_LINE_OK || t.octets == o->body_len);
}

/* What RFC 5321 and the head of lines.h say, written as slowly as possible. Without repair, without limits. */
static void model(struct span in, struct outcome *o)
{
    bool start = true;
    *o = (struct outcome){0};
    for (size_t i = 0; i < in.len && !o->end; i++) {
        uint8_t c = in.ptr[i], next = i + 1 < in.len ? in.ptr[i + 1] : 0;
        bool have = i + 1 < in.len;
        o->used = i + 1;
        if (start && c == '.' && i + 2 < in.len && next == '\r' && in.ptr[i + 2] == '\n') {
            o->end = true;
            o->used = i + 3;
            break;
        }
        enum smtp_line_fault fault = SMTP_LINE_OK;
        if (c == '\0') {
            fault = SMTP_LINE_NUL;
        } else if (c == '\r' && have && next != '\n') {
            fault = SMTP_LINE_BARE_CR;
        } else if (c == '\n' && (i == 0 || in.ptr[i - 1] != '\r')) {
            fault = SMTP_LINE_BARE_LF;
        }
        if (o->fault == SMTP_LINE_OK) {
            o->fault = (uint8_t)fault;
        }
        if (o->fault == SMTP_LINE_OK && !(start && c == '.') && !(c == '\r' && !have)) {
            o->body[o->body_len++] = c;
        }
        start = c == '\n' && i > 0 && in.ptr[i - 1] == '\r';
    }
}

static void every_short_message(void **state)
{
    static const uint8_t octets[] = {'\r', '\n', '.', 'x', '\0'};
    const struct smtp_text_rules rules = {.size_max = 100, .line_max = 100, .header_max = 100, .dots = true};
    enum { LEN = 8 };
    uint8_t text[LEN];
    unsigned long total = 1;
    (void)state;
    for (int i = 0; i < LEN; i++) {
        total *= sizeof(octets);
    }
    for (unsigned long n = 0; n < total; n++) {
        struct outcome want, got;
        unsigned long v = n;
        for (int i = 0; i < LEN; i++, v /= sizeof(octets)) {
            text[i] = octets[v % sizeof(octets)];
        }
        struct span in = {text, LEN};
        model(in, &want);
        for (size_t step = 0; step < 4; step++) {
            feed(&rules, in, step, &got);
            bool smuggling = got.fault == SMTP_LINE_SMUGGLING; /* the model calls it by its octets */
            assert_int_equal(got.end, want.end);
            assert_int_equal(got.used, want.used);
            assert_int_equal(got.fault != 0, want.fault != 0);
            assert_true(smuggling || got.fault == want.fault);
            if (want.fault == SMTP_LINE_OK) {
                assert_int_equal(got.body_len, want.body_len);
                assert_memory_equal(got.body, want.body, want.body_len);
            }
        }
    }
}

/* All rules, all cuts: the same outcome. What is handed on holds no bare CR, bare LF or NUL. */
static void cuts_do_not_matter(void **state)
{
    static const uint8_t octets[] = {'\r', '\n', '.', 'x', '\0', 0xe9, '\r', '\n'};
    unsigned seed = 1;
    (void)state;
    for (unsigned n = 0; n < 200000; n++) {
        uint8_t text[24];
        size_t len = (size_t)(rand_r(&seed) % 24) + 1;
        for (size_t i = 0; i < len; i++) {
            text[i] = octets[rand_r(&seed) % (int)sizeof(octets)];
        }
        const struct smtp_text_rules rules = {.size_max = 4 + (unsigned)rand_r(&seed) % 20,
                                              .line_max = (unsigned)rand_r(&seed) % 6,
                                              .header_max = 2 + (unsigned)rand_r(&seed) % 20,
                                              .repair_bare_lf = rand_r(&seed) % 2 == 0,
                                              .dots = rand_r(&seed) % 2 == 0};
        struct outcome whole, cut;
        feed(&rules, (struct span){text, len}, 0, &whole);
        for (size_t step = 1; step < 4; step++) {
            feed(&rules, (struct span){text, len}, step, &cut);
            assert_int_equal(cut.fault, whole.fault);
            assert_int_equal(cut.end, whole.end);
            assert_int_equal(cut.used, whole.used);
            assert_int_equal(cut.lookalike, whole.lookalike);
            if (whole.fault == SMTP_LINE_OK) {
                assert_int_equal(cut.body_len, whole.body_len);
                assert_memory_equal(cut.body, whole.body, whole.body_len);
            }
        }
        for (size_t i = 0; whole.fault == SMTP_LINE_OK && i < whole.body_len; i++) {
            uint8_t c = whole.body[i];
            assert_true(c != 0);
            assert_true(c != '\n' || (i > 0 && whole.body[i - 1] == '\r'));
            assert_true(c != '\r' || i + 1 == whole.body_len || whole.body[i + 1] == '\n');
        }
        assert_true(whole.body_len <= rules.size_max);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_short_message),
        cmocka_unit_test(cuts_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

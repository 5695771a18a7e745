/* The codecs of every pair: what is written is read, every shorter payload is refused, and so is one octet too many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire/address.h"
#include "wire/deliver.h"
#include "wire/guard.h"
#include "wire/master.h"
#include "wire/spool.h"
#include "wire/vault.h"

static struct envelope_recipient in_recipients[2] = {
    {.number = 0, .notify = NOTIFY_FAILURE, .address = SPAN_LIT("a@example.net")},
    {.number = 7,
     .notify = NOTIFY_NEVER,
     .address = SPAN_LIT("b@example.org"),
     .orcpt = SPAN_LIT("rfc822;b@example.org")},
};
static struct envelope_recipient out_recipients[ENVELOPE_RECIPIENTS_MAX];
static struct deliver_recipient_result in_results[1] = {
    {.number = 3, .result = DELIVER_PERMANENT, .code = 550, .enhanced = {5, 1, 1}, .text = SPAN_LIT("no such user")}};
static struct deliver_recipient_result out_results[ENVELOPE_RECIPIENTS_MAX];

static struct envelope sample_envelope(void)
{
    return (struct envelope){.session = 5,
                             .arrived_ms = 1700000000123,
                             .flags = ENVELOPE_8BIT | ENVELOPE_RET_HDRS,
                             .sender = SPAN_LIT("me@example.com"),
                             .account = SPAN_LIT("me"),
                             .envid = SPAN_LIT("QQ314159"),
                             .message_id = SPAN_LIT("x@y"),
                             .recipients_count = 2,
                             .recipients = in_recipients};
}

#define CHECK_CODEC(type, sample, clear)                                                                               \
    static void check_##type(void **state)                                                                             \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        struct buf b;                                                                                                  \
        buf_init(&b, FRAME_PAYLOAD_MAX);                                                                               \
        struct wire_writer w = {.out = &b};                                                                            \
        struct type in = sample;                                                                                       \
        type##_encode(&w, &in);                                                                                        \
        assert_int_equal(w.error, 0);                                                                                  \
        struct type out = {0};                                                                                         \
        clear;                                                                                                         \
        assert_int_equal(type##_decode(buf_span(&b), &out), 0);                                                        \
        struct buf again;                                                                                              \
        buf_init(&again, FRAME_PAYLOAD_MAX);                                                                           \
        struct wire_writer w2 = {.out = &again};                                                                       \
        type##_encode(&w2, &out);                                                                                      \
        assert_true(span_eq(buf_span(&b), buf_span(&again)));                                                          \
        for (size_t len = 0; len < b.len; len++) {                                                                     \
            uint8_t *exact = malloc(len + 1); /* so that a sanitizer sees a step too far */                            \
            memcpy(exact, b.data, len);                                                                                \
            assert_int_not_equal(type##_decode((struct span){exact, len}, &out), 0);                                   \
            free(exact);                                                                                               \
        }                                                                                                              \
        assert_int_equal(buf_append_byte(&b, 0), 0);                                                                   \
        assert_int_not_equal(type##_decode(buf_span(&b), &out), 0);                                                    \
        buf_fini(&b);                                                                                                  \
        buf_fini(&again);                                                                                              \
    }

CHECK_CODEC(vault_verify,
            ((struct vault_verify){.session = 1,
                                   .peer = {.port = 25},
                                   .name = SPAN_LIT("n"),
                                   .password = SPAN_LIT("p"),
                                   .mechanism = SPAN_LIT("PLAIN")}), )
CHECK_CODEC(vault_scram_salt, ((struct vault_scram_salt){.hash = VAULT_SHA256, .name = SPAN_LIT("n")}), )
CHECK_CODEC(vault_salt, ((struct vault_salt){.status = VAULT_OK, .iterations = 4096, .salt = SPAN_LIT("salt")}), )
CHECK_CODEC(vault_scram_proof,
            ((struct vault_scram_proof){.hash = VAULT_SHA1,
                                        .name = SPAN_LIT("n"),
                                        .mechanism = SPAN_LIT("SCRAM-SHA-1"),
                                        .auth_message = SPAN_LIT("n=n,r=x"),
                                        .proof = SPAN_LIT("proof")}), )
CHECK_CODEC(vault_certificate,
            ((struct vault_certificate){.sha256 = SPAN_LIT("01234567890123456789012345678901"),
                                        .mailbox = SPAN_LIT("a@b")}), )
CHECK_CODEC(vault_verdict,
            ((struct vault_verdict){.status = VAULT_OK,
                                    .account = SPAN_LIT("me"),
                                    .identities_count = 2,
                                    .identities = {SPAN_LIT("a@b"), SPAN_LIT("*@c")}}), )
CHECK_CODEC(guard_check, ((struct guard_check){.recipients = 3, .account = SPAN_LIT("me")}), )
CHECK_CODEC(guard_answer,
            ((struct guard_answer){.verdict = GUARD_DEFER, .limit = SPAN_LIT("hourly"), .text = SPAN_LIT("words")}), )
CHECK_CODEC(guard_suspension, ((struct guard_suspension){.account = SPAN_LIT("me"), .words = SPAN_LIT("sends spam")}), )
CHECK_CODEC(spool_put, ((struct spool_put){.envelope = sample_envelope(), .octets = SPAN_LIT("Subject: x\r\n\r\n")}),
            out.envelope.recipients = out_recipients)
CHECK_CODEC(spool_begin, ((struct spool_begin){.envelope = sample_envelope(), .declared = 1 << 30}),
            out.envelope.recipients = out_recipients)
CHECK_CODEC(spool_refused,
            ((struct spool_refused){.code = 452, .enhanced = {4, 3, 1}, .text = SPAN_LIT("full"), .duplicate = 0}), )
CHECK_CODEC(spool_state, ((struct spool_state){.accepting = 0, .code = 452, .text = SPAN_LIT("full")}), )
CHECK_CODEC(deliver_job,
            ((struct deliver_job){.file = 9,
                                  .offset = 4096,
                                  .length = 77,
                                  .xxh3 = 1,
                                  .attempt = 1,
                                  .domain = SPAN_LIT("example.net"),
                                  .envelope = sample_envelope()}),
            out.envelope.recipients = out_recipients)
CHECK_CODEC(deliver_outcome,
            ((struct deliver_outcome){.remote = SPAN_LIT("mx.example.net"), .results_count = 1, .results = in_results}),
            out.results = out_results)
CHECK_CODEC(master_tls, ((struct master_tls){.kind = TLS_KEY, .number = 4}), )

static void check_frames(void **state)
{
    (void)state;
    struct frame f = {.length = 5, .type = 2, .version = FRAME_VERSION, .id = 9}, out;
    struct span s = {(const uint8_t *)&f, sizeof(f)};
    assert_int_equal(frame_decode(s, &out), 1);
    assert_int_equal(out.id, 9);
    assert_int_equal(frame_decode((struct span){s.ptr, s.len - 1}, &out), 0);
    f.length = FRAME_PAYLOAD_MAX + 1;
    assert_int_equal(frame_decode(s, &out), -1);
    f.length = 0;
    f.version = FRAME_VERSION + 1;
    assert_int_equal(frame_decode(s, &out), -1);
}

static void check_addresses(void **state)
{
    (void)state;
    static const char *const texts[] = {"192.0.2.1", "2001:db8::1", "::1", "0.0.0.0"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct net_address a;
        char text[NET_ADDRESS_TEXT];
        assert_int_equal(net_address_parse(texts[i], &a), 0);
        net_address_format(&a, text);
        assert_string_equal(text, texts[i]);
    }
    struct net_address a, b;
    assert_int_equal(net_address_parse("192.0.2.200", &a), 0);
    assert_int_equal(net_address_parse("192.0.3.1", &b), 0);
    struct net_prefix p = {.bits = 96 + 24};
    memcpy(p.bytes, a.bytes, 16);
    assert_true(net_prefix_contains(&p, &a));
    assert_false(net_prefix_contains(&p, &b));
    p.bits = 96 + 23;
    assert_true(net_prefix_contains(&p, &b));
    assert_int_not_equal(net_address_parse("192.0.2.1:25", &a), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_vault_verify),
        cmocka_unit_test(check_vault_scram_salt),
        cmocka_unit_test(check_vault_salt),
        cmocka_unit_test(check_vault_scram_proof),
        cmocka_unit_test(check_vault_certificate),
        cmocka_unit_test(check_vault_verdict),
        cmocka_unit_test(check_guard_check),
        cmocka_unit_test(check_guard_answer),
        cmocka_unit_test(check_guard_suspension),
        cmocka_unit_test(check_spool_put),
        cmocka_unit_test(check_spool_begin),
        cmocka_unit_test(check_spool_refused),
        cmocka_unit_test(check_spool_state),
        cmocka_unit_test(check_deliver_job),
        cmocka_unit_test(check_deliver_outcome),
        cmocka_unit_test(check_master_tls),
        cmocka_unit_test(check_frames),
        cmocka_unit_test(check_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

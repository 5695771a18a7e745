#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/base64.h"
#include "smtp/sasl.h"

static size_t binding(void *arg, enum smtp_binding type, uint8_t octets[static SMTP_BINDING_MAX])
{
    (void)arg;
    if (type != SMTP_BINDING_TLS_EXPORTER) {
        return 0;
    }
    memcpy(octets, "channel", 7);
    return 7;
}

static struct sasl *begin(enum smtp_mechanism mechanism, const char *nonce, bool plus_offered)
{
    const struct sasl_setup setup = {
        .mechanism = mechanism, .plus_offered = plus_offered, .nonce = span_str(nonce), .binding = binding};
    struct sasl *s = sasl_new(&setup);
    assert_non_null(s);
    return s;
}

static enum sasl_outcome initial(struct sasl *s, const char *text)
{
    struct span message = span_str(text);
    return sasl_start(s, &message);
}

/* The examples of RFC 5802 section 5 and RFC 7677 section 3, message for message. */
static const struct {
    enum smtp_mechanism mechanism;
    const char *nonce, *first, *salt, *server_first, *final, *auth_message, *proof, *signature, *last;
} vectors[] = {
    {SMTP_MECHANISM_SCRAM_SHA_1, "3rfcNHYJY1ZVvWVs7j", "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "QSXCR+Q6sek8bf92",
     "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
     "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
     "n=user,r=fyko+d2lbbFgONRv9qkxdawL,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096,"
     "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j",
     "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "rmF9pqV8S7suAoZWja4dJRkFsKQ=", "v=rmF9pqV8S7suAoZWja4dJRkFsKQ="},
    {SMTP_MECHANISM_SCRAM_SHA_256, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
     "W22ZaJ0SNY7soEsUEjb6gQ==",
     "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
     "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
     "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
     "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
     "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
     "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
};

static struct span decoded(const char *text, uint8_t out[static 64])
{
    size_t len = 0;
    assert_int_equal(base64_decode(span_str(text), out, 64, &len), 0);
    return (struct span){out, len};
}

static void scram_examples(void **state)
{
    uint8_t octets[64];
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct sasl *s = begin(vectors[i].mechanism, vectors[i].nonce, false);
        assert_int_equal(initial(s, vectors[i].first), SASL_ASK_SALT);
        assert_true(span_eq(sasl_name(s), SPAN_LIT("user")));
        assert_int_equal(sasl_salt(s, decoded(vectors[i].salt, octets), 4096), SASL_CHALLENGE);
        assert_true(span_eq(sasl_challenge(s), span_str(vectors[i].server_first)));
        assert_int_equal(sasl_step(s, span_str(vectors[i].final)), SASL_ASK_PROOF);
        assert_true(span_eq(sasl_proof(s)->auth_message, span_str(vectors[i].auth_message)));
        assert_true(span_eq(sasl_proof(s)->proof, decoded(vectors[i].proof, octets)));
        assert_int_equal(sasl_signature(s, decoded(vectors[i].signature, octets)), SASL_CHALLENGE);
        assert_true(span_eq(sasl_challenge(s), span_str(vectors[i].last)));
        assert_int_equal(sasl_step(s, SPAN_LIT("")), SASL_DONE);
        assert_int_equal(sasl_step(s, SPAN_LIT("")), SASL_MALFORMED);
        sasl_free(&s);
    }
}

#define PLUS      SMTP_MECHANISM_SCRAM_SHA_256_PLUS
#define PLAIN_256 SMTP_MECHANISM_SCRAM_SHA_256

static const struct {
    enum smtp_mechanism mechanism;
    bool plus_offered;
    const char *message;
    enum sasl_outcome outcome;
} firsts[] = {
    {PLAIN_256, false, "y,,n=user,r=abc", SASL_ASK_SALT},
    {PLAIN_256, true, "y,,n=user,r=abc", SASL_BINDING},
    {PLAIN_256, true, "n,,n=user,r=abc", SASL_ASK_SALT},
    {PLAIN_256, true, "p=tls-exporter,,n=user,r=abc", SASL_BINDING},
    {PLUS, true, "p=tls-exporter,,n=user,r=abc", SASL_ASK_SALT},
    {PLUS, true, "p=tls-server-end-point,,n=user,r=abc", SASL_ASK_SALT},
    {PLUS, true, "p=tls-unknown,,n=user,r=abc", SASL_BINDING},
    {PLUS, true, "p=,,n=user,r=abc", SASL_BINDING},
    {PLUS, true, "p,,n=user,r=abc", SASL_MALFORMED},
    {PLUS, true, "n,,n=user,r=abc", SASL_BINDING},
    {PLUS, true, "y,,n=user,r=abc", SASL_BINDING},
    {PLAIN_256, false, "n,a=user,n=user,r=abc", SASL_ASK_SALT},
    {PLAIN_256, false, "n,a=a=2Cb=3D,n=a=2Cb=3D,r=abc", SASL_ASK_SALT},
    {PLAIN_256, false, "n,a=root,n=user,r=abc", SASL_AUTHZID},
    {PLAIN_256, false, "n,b=user,n=user,r=abc", SASL_MALFORMED},
    {PLAIN_256, false, "n,user,n=user,r=abc", SASL_MALFORMED},
    {PLAIN_256, false, "n,,n=user,r=abc,x=ext", SASL_ASK_SALT},
    {PLAIN_256, false, "n,,n=user,r=abc,", SASL_ASK_SALT},
    {PLAIN_256, false, "n,,n=user,r=abc,x", SASL_MALFORMED},
    {PLAIN_256, false, "n,,m=ext,n=user,r=abc", SASL_MALFORMED},
    {PLAIN_256, false, "n,,n=,r=abc", SASL_MALFORMED},
    {PLAIN_256, false, "n,,n=user,r=", SASL_MALFORMED},
    {PLAIN_256, false, "n,,n=user", SASL_MALFORMED},
    {PLAIN_256, false, "n,,r=abc,n=user", SASL_MALFORMED},
    {PLAIN_256, false, "n,,n=us=er,r=abc", SASL_MALFORMED},
    {PLAIN_256, false, "n,,n=us=2,r=abc", SASL_MALFORMED},
    {PLAIN_256, false, "n,,n=us=2c,r=abc", SASL_MALFORMED},
    {PLAIN_256, false, "n,,n=\xff,r=abc", SASL_MALFORMED},
    {PLAIN_256, false, "n,,n=user,r=a\x01", SASL_MALFORMED},
    {PLAIN_256, false, "n,,n=user,r=a b", SASL_MALFORMED},
    {PLAIN_256, false, "n,,n=user,r=\xc3\xa9", SASL_MALFORMED},
    {PLAIN_256, false, "x,,n=user,r=abc", SASL_MALFORMED},
    {PLAIN_256, false, "n,n=user,r=abc", SASL_MALFORMED},
    {PLAIN_256, false, "n", SASL_MALFORMED},
    {PLAIN_256, false, "n,", SASL_MALFORMED},
    {PLAIN_256, false, "n,,", SASL_MALFORMED},
    {PLAIN_256, false, ",", SASL_MALFORMED},
    {PLAIN_256, false, "", SASL_MALFORMED},
};

static void scram_first(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        struct sasl *s = begin(firsts[i].mechanism, "xyz", firsts[i].plus_offered);
        enum sasl_outcome outcome = initial(s, firsts[i].message);
        if (outcome != firsts[i].outcome) {
            fail_msg("%s: %d", firsts[i].message, outcome);
        }
        sasl_free(&s);
    }
}

#define PROOF "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" /* 32 octets */

static const struct {
    const char *first, *final;
    enum sasl_outcome outcome;
} finals[] = {
    {"n,,n=user,r=abc", "c=biws,r=abcxyz,p=" PROOF, SASL_ASK_PROOF},
    {"n,,n=user,r=abc", "c=biws,r=abcxyz,x=ext,p=" PROOF, SASL_ASK_PROOF},
    {"n,,n=user,r=abc", "c=biws,r=abcxyzz,p=" PROOF, SASL_MALFORMED},
    {"n,,n=user,r=abc", "c=biws,r=abc,p=" PROOF, SASL_MALFORMED},
    {"n,,n=user,r=abc", "c=biws,r=,p=" PROOF, SASL_MALFORMED},
    {"n,,n=user,r=abc", "c=eSws,r=abcxyz,p=" PROOF, SASL_BINDING},
    {"n,,n=user,r=abc", "c=,r=abcxyz,p=" PROOF, SASL_BINDING},
    {"n,,n=user,r=abc", "c=biw,r=abcxyz,p=" PROOF, SASL_MALFORMED},
    {"n,,n=user,r=abc", "c=biws,r=abcxyz,p=AAAA", SASL_MALFORMED},
    {"n,,n=user,r=abc", "c=biws,r=abcxyz,p=", SASL_MALFORMED},
    {"n,,n=user,r=abc", "c=biws,r=abcxyz", SASL_MALFORMED},
    {"n,,n=user,r=abc", "c=biws,r=abcxyz,p=" PROOF ",x=y", SASL_MALFORMED},
    {"n,,n=user,r=abc", "r=abcxyz,c=biws,p=" PROOF, SASL_MALFORMED},
    {"n,,n=user,r=abc", "", SASL_MALFORMED},
    {"p=tls-exporter,,n=user,r=abc", "c=cD10bHMtZXhwb3J0ZXIsLGNoYW5uZWw=,r=abcxyz,p=" PROOF, SASL_ASK_PROOF},
    {"p=tls-exporter,,n=user,r=abc", "c=cD10bHMtZXhwb3J0ZXIsLA==,r=abcxyz,p=" PROOF, SASL_BINDING},
    {"p=tls-exporter,,n=user,r=abc", "c=cD10bHMtZXhwb3J0ZXIsLGNoYW5uZW0=,r=abcxyz,p=" PROOF, SASL_BINDING},
    {"p=tls-exporter,,n=user,r=abc", "c=biws,r=abcxyz,p=" PROOF, SASL_BINDING},
    {"p=tls-unique,,n=user,r=abc", "c=cD10bHMtdW5pcXVlLCw=,r=abcxyz,p=" PROOF, SASL_BINDING},
};

static void scram_final(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(finals) / sizeof(finals[0]); i++) {
        struct sasl *s = begin(finals[i].first[0] == 'p' ? PLUS : PLAIN_256, "xyz", true);
        assert_int_equal(initial(s, finals[i].first), SASL_ASK_SALT);
        assert_int_equal(sasl_salt(s, SPAN_LIT("salt"), 4096), SASL_CHALLENGE);
        enum sasl_outcome outcome = sasl_step(s, span_str(finals[i].final));
        if (outcome != finals[i].outcome) {
            fail_msg("%s: %d", finals[i].final, outcome);
        }
        sasl_free(&s);
    }
}

static void scram_out_of_order(void **state)
{
    struct sasl *s = begin(PLAIN_256, "xyz", false);
    (void)state;
    assert_int_equal(initial(s, "n,,n=user,r=abc"), SASL_ASK_SALT);
    assert_int_equal(sasl_signature(s, SPAN_LIT("early")), SASL_MEMORY);
    assert_int_equal(sasl_step(s, SPAN_LIT("c=biws,r=abcxyz,p=" PROOF)), SASL_MALFORMED);
    sasl_free(&s);
    sasl_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scram_examples),
        cmocka_unit_test(scram_first),
        cmocka_unit_test(scram_final),
        cmocka_unit_test(scram_out_of_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * One exchange. First octet: mechanism; second: bit 0 an initial response, bit 1 -PLUS offered, bit 2 the binding
 * fails. Then messages, each a length of two octets (big-endian) and its octets; also the text of each as base64.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "smtp/base64.h"
#include "smtp/sasl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t binding(void *arg, enum smtp_binding type, uint8_t octets[static SMTP_BINDING_MAX])
{
    const uint8_t *flags = arg;
    if ((*flags & 4) != 0 || type == SMTP_BINDING_TLS_UNIQUE) {
        return 0;
    }
    memset(octets, 'c', SMTP_BINDING_MAX);
    return SMTP_BINDING_MAX;
}

static bool next_message(const uint8_t **data, size_t *size, struct span *ret)
{
    if (*size < 2) {
        return false;
    }
    size_t len = (size_t)((*data)[0] << 8 | (*data)[1]);
    *data += 2;
    *size -= 2;
    len = len < *size ? len : *size;
    *ret = (struct span){*data, len};
    *data += len;
    *size -= len;
    return true;
}

static void check_base64(struct span in)
{
    uint8_t out[512];
    char back[BASE64_ENCODED_LEN(512)];
    size_t len;
    if (base64_decode(in, out, sizeof(out), &len) == 0) {
        assert(base64_encode((struct span){out, len}, back) == in.len);
        assert(in.len == 0 || memcmp(back, in.ptr, in.len) == 0); /* strict: one text for one value */
    }
}

/* What the owner would do; the answer to it. */
static enum sasl_outcome answer(struct sasl *s, enum sasl_outcome outcome)
{
    struct span name = sasl_name(s);
    assert(name.len <= SASL_NAME_MAX && utf8_valid(name));
    switch (outcome) {
    case SASL_ASK_PASSWORD: {
        const struct smtp_auth_password *q = sasl_password(s);
        assert(q->name.len > 0 && q->password.len > 0 && q->password.len <= SASL_PASSWORD_MAX);
        assert(memchr(q->password.ptr, 0, q->password.len) == NULL);
        return SASL_DONE;
    }
    case SASL_ASK_SALT:
        assert(name.len > 0);
        return sasl_salt(s, SPAN_LIT("0123456789abcdef"), 4096);
    case SASL_ASK_PROOF: {
        const struct smtp_auth_proof *q = sasl_proof(s);
        assert(q->proof.len == 20 || q->proof.len == 32);
        assert(q->auth_message.len <= SASL_MESSAGE_MAX);
        return sasl_signature(s, q->proof);
    }
    default:
        return outcome;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    uint8_t flags = data[1];
    struct sasl_setup setup = {.mechanism = (enum smtp_mechanism)(1U << data[0] % 7),
                               .plus_offered = (flags & 2) != 0,
                               .nonce = SPAN_LIT("server-nonce"),
                               .binding = binding,
                               .arg = &flags};
    struct sasl *s = sasl_new(&setup);
    assert(s != NULL);
    data += 2;
    size -= 2;
    struct span message;
    bool first = (flags & 1) != 0 && next_message(&data, &size, &message);
    enum sasl_outcome outcome = answer(s, sasl_start(s, first ? &message : NULL));
    while (outcome == SASL_CHALLENGE && next_message(&data, &size, &message)) {
        check_base64(message);
        assert(sasl_challenge(s).len <= SASL_MESSAGE_MAX);
        outcome = answer(s, sasl_step(s, message));
        assert(outcome != SASL_MEMORY);
    }
    sasl_free(&s);
    return 0;
}

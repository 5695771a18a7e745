/* RFC 5802 section 5 and 7: the messages of SCRAM, read strictly and in order. */
#include <string.h>

#include "smtp/base64.h"
#include "smtp/sasl_int.h"

#define CLIENT_NONCE_MAX 512
#define FIRST_MAX        1536 /* octets of client-first-message: leaves room for the rest of the AuthMessage */

static bool is_plus(enum smtp_mechanism m)
{
    return m == SMTP_MECHANISM_SCRAM_SHA_1_PLUS || m == SMTP_MECHANISM_SCRAM_SHA_256_PLUS;
}

static size_t proof_len(enum smtp_mechanism m)
{
    return m == SMTP_MECHANISM_SCRAM_SHA_1 || m == SMTP_MECHANISM_SCRAM_SHA_1_PLUS ? 20 : 32;
}

/* The octets before the next comma, which is taken; the rest when there is none. */
static struct span until_comma(struct span *rest)
{
    const uint8_t *comma = rest->len > 0 ? memchr(rest->ptr, ',', rest->len) : NULL;
    struct span word = {rest->ptr, comma != NULL ? (size_t)(comma - rest->ptr) : rest->len};
    size_t skip = word.len + (comma != NULL);
    rest->ptr += skip;
    rest->len -= skip;
    return word;
}

/* "x=value": the value, when the word is attribute x. */
static bool attribute(struct span word, uint8_t name, struct span *ret_value)
{
    if (word.len < 2 || word.ptr[0] != name || word.ptr[1] != '=') {
        return false;
    }
    *ret_value = (struct span){word.ptr + 2, word.len - 2};
    return true;
}

static bool is_alpha(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Optional extensions are ignored (section 5.1), but have the form of one. */
static bool extensions_good(struct span rest)
{
    while (rest.len > 0) {
        struct span word = until_comma(&rest);
        struct span value;
        if (word.len < 3 || !is_alpha(word.ptr[0]) || !attribute(word, word.ptr[0], &value) ||
            memchr(value.ptr, '\0', value.len) != NULL) {
            return false;
        }
    }
    return true;
}

static bool nonce_good(struct span nonce)
{
    for (size_t i = 0; i < nonce.len; i++) {
        if (nonce.ptr[i] < 33 || nonce.ptr[i] > 126 || nonce.ptr[i] == ',') {
            return false;
        }
    }
    return nonce.len > 0 && nonce.len <= CLIENT_NONCE_MAX;
}

/* saslname: "=2C" is a comma, "=3D" an equals sign, no other "=". At most SASL_NAME_MAX octets to out. */
static bool decode_name(struct span in, uint8_t out[static SASL_NAME_MAX], size_t *ret_len)
{
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = in.ptr[i];
        if (c == '=') {
            struct span code = {in.ptr + i + 1, 2};
            bool comma = in.len - i >= 3 && span_eq(code, SPAN_LIT("2C"));
            if (!comma && !(in.len - i >= 3 && span_eq(code, SPAN_LIT("3D")))) {
                return false;
            }
            c = comma ? ',' : '=';
            i += 2;
        }
        if (n == SASL_NAME_MAX) {
            return false;
        }
        out[n++] = c;
    }
    *ret_len = n;
    return n > 0;
}

/* RFC 5929, RFC 9266. */
static bool binding_type(struct span name, enum smtp_binding *ret)
{
    static const struct {
        const char *name;
        enum smtp_binding type;
    } types[] = {
        {"tls-exporter", SMTP_BINDING_TLS_EXPORTER},
        {"tls-server-end-point", SMTP_BINDING_TLS_SERVER_END_POINT},
        {"tls-unique", SMTP_BINDING_TLS_UNIQUE},
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (span_eq(name, span_str(types[i].name))) {
            *ret = types[i].type;
            return true;
        }
    }
    return false;
}

/* gs2-cbind-flag: "n", "y" or "p=type". SASL_CHALLENGE: go on. */
static enum sasl_outcome read_binding_flag(struct sasl *s, struct span flag)
{
    struct span type;
    bool plus = is_plus(s->setup.mechanism);
    if (attribute(flag, 'p', &type)) {
        s->bound = true;
        return plus && s->setup.binding != NULL && binding_type(type, &s->binding) ? SASL_CHALLENGE : SASL_BINDING;
    }
    if (span_eq(flag, SPAN_LIT("n"))) {
        return plus ? SASL_BINDING : SASL_CHALLENGE;
    }
    if (span_eq(flag, SPAN_LIT("y"))) { /* it believes that we cannot bind: somebody took -PLUS from our list */
        return plus || s->setup.plus_offered ? SASL_BINDING : SASL_CHALLENGE;
    }
    return SASL_MALFORMED;
}

/* authzid: empty, or "a=" and the same name. */
static enum sasl_outcome check_authzid(const struct sasl *s, struct span word)
{
    uint8_t octets[SASL_NAME_MAX];
    struct span value, decoded = {octets, 0};
    if (word.len == 0) {
        return SASL_CHALLENGE;
    }
    if (!attribute(word, 'a', &value) || !decode_name(value, octets, &decoded.len)) {
        return SASL_MALFORMED;
    }
    return span_eq(decoded, buf_span(&s->name)) ? SASL_CHALLENGE : SASL_AUTHZID;
}

/* client-first-message-bare: n=name,r=nonce[,extensions]. A mandatory extension ("m=") is one we do not know. */
static enum sasl_outcome read_first_bare(struct sasl *s, struct span bare, struct span *ret_nonce)
{
    uint8_t octets[SASL_NAME_MAX];
    struct span name, decoded = {octets, 0}, rest = bare;
    struct span name_word = until_comma(&rest), nonce_word = until_comma(&rest);
    if (!attribute(name_word, 'n', &name) || !decode_name(name, octets, &decoded.len) ||
        !attribute(nonce_word, 'r', ret_nonce) || !nonce_good(*ret_nonce) || !extensions_good(rest)) {
        return SASL_MALFORMED;
    }
    return sasl_set_name(s, decoded);
}

enum sasl_outcome sasl_scram_first(struct sasl *s, struct span message)
{
    struct span rest = message, nonce;
    struct span flag = until_comma(&rest), authzid = until_comma(&rest);
    size_t gs2_len = message.len - rest.len;
    if (message.len > FIRST_MAX || gs2_len == 0 || message.ptr[gs2_len - 1] != ',' || rest.len == 0) {
        return SASL_MALFORMED;
    }
    enum sasl_outcome outcome = read_binding_flag(s, flag);
    outcome = outcome == SASL_CHALLENGE ? read_first_bare(s, rest, &nonce) : outcome;
    outcome = outcome == SASL_CHALLENGE ? check_authzid(s, authzid) : outcome;
    if (outcome != SASL_CHALLENGE) {
        return outcome;
    }
    s->step = SASL_STEP_SCRAM_SALT;
    bool kept = buf_append(&s->gs2, message.ptr, gs2_len) == 0 && buf_append(&s->transcript, rest.ptr, rest.len) == 0 &&
                buf_append(&s->nonce, nonce.ptr, nonce.len) == 0 &&
                buf_append(&s->nonce, s->setup.nonce.ptr, s->setup.nonce.len) == 0;
    return kept ? SASL_ASK_SALT : SASL_MEMORY;
}

enum sasl_outcome sasl_salt(struct sasl *s, struct span salt, uint32_t iterations)
{
    char encoded[BASE64_ENCODED_LEN(SASL_SALT_MAX)];
    if (s->step != SASL_STEP_SCRAM_SALT || salt.len == 0 || salt.len > SASL_SALT_MAX) {
        return SASL_MEMORY;
    }
    int encoded_len = (int)base64_encode(salt, encoded);
    buf_clear(&s->challenge);
    bool kept = buf_append_str(&s->challenge, "r=") == 0 &&
                buf_append(&s->challenge, s->nonce.data, s->nonce.len) == 0 &&
                buf_printf(&s->challenge, ",s=%.*s,i=%u", encoded_len, encoded, (unsigned)iterations) == 0 &&
                buf_append_byte(&s->transcript, ',') == 0 &&
                buf_append(&s->transcript, s->challenge.data, s->challenge.len) == 0;
    s->step = kept ? SASL_STEP_SCRAM_FINAL : SASL_STEP_ENDED;
    return kept ? SASL_CHALLENGE : SASL_MEMORY;
}

/* Equal in a time that does not tell where they differ. */
static bool same_octets(struct span a, struct span b)
{
    uint8_t diff = 0;
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        diff |= a.ptr[i] ^ b.ptr[i];
    }
    return diff == 0;
}

/* cbind-input is the GS2 header and, when bound, the channel's octets. */
static enum sasl_outcome check_binding(struct sasl *s, struct span value)
{
    uint8_t got[SASL_MESSAGE_MAX], channel[SMTP_BINDING_MAX];
    size_t got_len;
    if (base64_decode(value, got, sizeof(got), &got_len) < 0) {
        return SASL_MALFORMED;
    }
    size_t channel_len = s->bound ? s->setup.binding(s->setup.arg, s->binding, channel) : 0;
    if (s->bound && (channel_len == 0 || channel_len > sizeof(channel))) {
        return SASL_BINDING;
    }
    if (channel_len > 0 && buf_append(&s->gs2, channel, channel_len) < 0) {
        return SASL_MEMORY;
    }
    explicit_bzero(channel, sizeof(channel));
    return same_octets((struct span){got, got_len}, buf_span(&s->gs2)) ? SASL_CHALLENGE : SASL_BINDING;
}

/* Where ",p=" of the proof, which is last, begins. */
static bool find_proof(struct span message, size_t *ret_at)
{
    for (size_t at = message.len; at >= 3; at--) {
        if (message.ptr[at - 1] == ',') {
            *ret_at = at - 1;
            return message.len - at >= 2 && message.ptr[at] == 'p' && message.ptr[at + 1] == '=';
        }
    }
    return false;
}

static bool append_final(struct sasl *s, struct span without_proof)
{
    return buf_append_byte(&s->transcript, ',') == 0 &&
           buf_append(&s->transcript, without_proof.ptr, without_proof.len) == 0;
}

/* client-final-message: c=binding,r=nonce[,extensions],p=proof. */
enum sasl_outcome sasl_scram_final(struct sasl *s, struct span message)
{
    struct span binding, nonce;
    size_t at, len;
    if (!find_proof(message, &at)) {
        return SASL_MALFORMED;
    }
    struct span without_proof = {message.ptr, at}, rest = without_proof;
    struct span proof = {message.ptr + at + 3, message.len - at - 3};
    struct span binding_word = until_comma(&rest), nonce_word = until_comma(&rest);
    if (!attribute(binding_word, 'c', &binding) || !attribute(nonce_word, 'r', &nonce) || !extensions_good(rest) ||
        base64_decode(proof, s->proof_octets, sizeof(s->proof_octets), &len) < 0 ||
        len != proof_len(s->setup.mechanism) || !same_octets(nonce, buf_span(&s->nonce))) {
        return SASL_MALFORMED;
    }
    enum sasl_outcome outcome = check_binding(s, binding);
    if (outcome != SASL_CHALLENGE) {
        return outcome;
    }
    if (!append_final(s, without_proof)) {
        return SASL_MALFORMED; /* an AuthMessage longer than any honest one */
    }
    s->step = SASL_STEP_SCRAM_PROOF;
    s->proof = (struct smtp_auth_proof){s->setup.mechanism, buf_span(&s->name), buf_span(&s->transcript),
                                        (struct span){s->proof_octets, len}};
    return SASL_ASK_PROOF;
}

enum sasl_outcome sasl_signature(struct sasl *s, struct span signature)
{
    char encoded[BASE64_ENCODED_LEN(SASL_SALT_MAX)];
    if (s->step != SASL_STEP_SCRAM_PROOF || signature.len == 0 || signature.len > SASL_SALT_MAX) {
        return SASL_MEMORY;
    }
    size_t len = base64_encode(signature, encoded);
    buf_clear(&s->challenge);
    bool kept = buf_append_str(&s->challenge, "v=") == 0 && buf_append(&s->challenge, encoded, len) == 0;
    s->step = kept ? SASL_STEP_SCRAM_ACK : SASL_STEP_ENDED;
    return kept ? SASL_CHALLENGE : SASL_MEMORY;
}

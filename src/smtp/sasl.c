#include "smtp/sasl.h"

#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "smtp/sasl_int.h"

struct sasl *sasl_new(const struct sasl_setup *setup)
{
    struct sasl *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    s->setup = *setup;
    size_t nonce_len = setup->nonce.len < SASL_NONCE_MAX ? setup->nonce.len : SASL_NONCE_MAX;
    if (nonce_len > 0) {
        memcpy(s->own_nonce, setup->nonce.ptr, nonce_len);
    }
    s->setup.nonce = (struct span){(const uint8_t *)s->own_nonce, nonce_len};
    buf_init(&s->challenge, SASL_MESSAGE_MAX);
    buf_init(&s->name, SASL_NAME_MAX);
    buf_init(&s->gs2, SASL_MESSAGE_MAX);
    buf_init(&s->transcript, SASL_MESSAGE_MAX);
    buf_init(&s->nonce, SASL_MESSAGE_MAX);
    return s;
}

void sasl_free(struct sasl **s)
{
    if (*s == NULL) {
        return;
    }
    buf_wipe(&(*s)->challenge);
    buf_wipe(&(*s)->name);
    buf_wipe(&(*s)->gs2);
    buf_wipe(&(*s)->transcript);
    buf_wipe(&(*s)->nonce);
    explicit_bzero(*s, sizeof(**s));
    free(*s);
    *s = NULL;
}

static bool is_text(struct span s, size_t max)
{
    return s.len > 0 && s.len <= max && memchr(s.ptr, '\0', s.len) == NULL && utf8_valid(s);
}

enum sasl_outcome sasl_set_name(struct sasl *s, struct span name)
{
    buf_clear(&s->name);
    if (!is_text(name, SASL_NAME_MAX)) {
        return SASL_MALFORMED;
    }
    return buf_append(&s->name, name.ptr, name.len) < 0 ? SASL_MEMORY : SASL_CHALLENGE;
}

static enum sasl_outcome ask_password(struct sasl *s, struct span password)
{
    if (password.len == 0 || password.len > SASL_PASSWORD_MAX || memchr(password.ptr, '\0', password.len) != NULL) {
        return SASL_MALFORMED;
    }
    s->password = (struct smtp_auth_password){s->setup.mechanism, buf_span(&s->name), password};
    return SASL_ASK_PASSWORD;
}

static enum sasl_outcome give(struct sasl *s, enum sasl_step_name next, const char *challenge)
{
    s->step = next;
    buf_clear(&s->challenge);
    return buf_append_str(&s->challenge, challenge) < 0 ? SASL_MEMORY : SASL_CHALLENGE;
}

/* The octets before the next NUL, which is taken; or all that is left when last. */
static bool until_nul(struct span *rest, struct span *ret)
{
    const uint8_t *nul = rest->len > 0 ? memchr(rest->ptr, '\0', rest->len) : NULL;
    if (nul == NULL) {
        return false;
    }
    *ret = (struct span){rest->ptr, (size_t)(nul - rest->ptr)};
    rest->ptr += ret->len + 1;
    rest->len -= ret->len + 1;
    return true;
}

/* RFC 4616 section 2: [authzid] NUL authcid NUL passwd. */
static enum sasl_outcome plain(struct sasl *s, struct span message)
{
    struct span authzid, name;
    if (!until_nul(&message, &authzid) || !until_nul(&message, &name)) {
        return SASL_MALFORMED;
    }
    enum sasl_outcome outcome = sasl_set_name(s, name);
    if (outcome != SASL_CHALLENGE) {
        return outcome;
    }
    if (authzid.len > 0 && !span_eq(authzid, name)) {
        return SASL_AUTHZID;
    }
    return ask_password(s, message);
}

static enum sasl_outcome login_name(struct sasl *s, struct span message)
{
    enum sasl_outcome outcome = sasl_set_name(s, message);
    return outcome == SASL_CHALLENGE ? give(s, SASL_STEP_LOGIN_PASSWORD, "Password:") : outcome;
}

static enum sasl_outcome external(struct sasl *s, struct span message)
{
    if (message.len == 0) {
        return SASL_ASK_EXTERNAL;
    }
    enum sasl_outcome outcome = sasl_set_name(s, message);
    return outcome == SASL_CHALLENGE ? SASL_ASK_EXTERNAL : outcome;
}

static enum sasl_outcome first_message(struct sasl *s, struct span message)
{
    switch (s->setup.mechanism) {
    case SMTP_MECHANISM_PLAIN:
        return plain(s, message);
    case SMTP_MECHANISM_LOGIN:
        return login_name(s, message);
    case SMTP_MECHANISM_EXTERNAL:
        return external(s, message);
    default:
        return sasl_scram_first(s, message);
    }
}

enum sasl_outcome sasl_start(struct sasl *s, const struct span *initial)
{
    if (initial != NULL) {
        return sasl_step(s, *initial);
    }
    return give(s, SASL_STEP_START, s->setup.mechanism == SMTP_MECHANISM_LOGIN ? "Username:" : "");
}

static enum sasl_outcome step(struct sasl *s, struct span response)
{
    switch (s->step) {
    case SASL_STEP_START:
        return first_message(s, response);
    case SASL_STEP_LOGIN_PASSWORD:
        return ask_password(s, response);
    case SASL_STEP_SCRAM_FINAL:
        return sasl_scram_final(s, response);
    case SASL_STEP_SCRAM_ACK:
        return response.len == 0 ? SASL_DONE : SASL_MALFORMED;
    default:
        return SASL_MALFORMED;
    }
}

enum sasl_outcome sasl_step(struct sasl *s, struct span response)
{
    enum sasl_outcome outcome = response.len > SASL_MESSAGE_MAX ? SASL_MALFORMED : step(s, response);
    if (outcome >= SASL_DONE || outcome == SASL_ASK_PASSWORD || outcome == SASL_ASK_EXTERNAL) {
        s->step = SASL_STEP_ENDED;
    }
    return outcome;
}

struct span sasl_challenge(const struct sasl *s)
{
    return buf_span(&s->challenge);
}

enum smtp_mechanism sasl_mechanism(const struct sasl *s)
{
    return s->setup.mechanism;
}

struct span sasl_name(const struct sasl *s)
{
    return buf_span(&s->name);
}

const struct smtp_auth_password *sasl_password(const struct sasl *s)
{
    return &s->password;
}

const struct smtp_auth_proof *sasl_proof(const struct sasl *s)
{
    return &s->proof;
}

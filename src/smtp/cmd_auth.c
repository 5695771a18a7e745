/* AUTH (RFC 4954): base64 lines round the messages of sasl.h, and the questions to the owner. */
#include <stdio.h>
#include <string.h>

#include "smtp/base64.h"
#include "smtp/server_int.h"

static const enum smtp_mechanism all_mechanisms[] = {
    SMTP_MECHANISM_PLAIN,         SMTP_MECHANISM_LOGIN,
    SMTP_MECHANISM_SCRAM_SHA_1,   SMTP_MECHANISM_SCRAM_SHA_1_PLUS,
    SMTP_MECHANISM_SCRAM_SHA_256, SMTP_MECHANISM_SCRAM_SHA_256_PLUS,
    SMTP_MECHANISM_EXTERNAL,
};

unsigned server_mechanisms(const struct smtp_server *s)
{
    unsigned m = s->config->mechanisms;
    if (!s->tls) {
        return 0; /* never in clear text (RFC 8314 section 3) */
    }
    if (!s->binding || s->ops->channel_binding == NULL) {
        m &= ~(unsigned)(SMTP_MECHANISM_SCRAM_SHA_1_PLUS | SMTP_MECHANISM_SCRAM_SHA_256_PLUS);
    }
    return s->client_certificate ? m : m & ~(unsigned)SMTP_MECHANISM_EXTERNAL;
}

void server_auth_drop(struct smtp_server *s)
{
    sasl_free(&s->sasl);
    s->sasl_over = false;
}

static enum smtp_mechanism find_mechanism(struct span name)
{
    for (size_t i = 0; i < sizeof(all_mechanisms) / sizeof(all_mechanisms[0]); i++) {
        if (span_eq_nocase(name, span_str(smtp_mechanism_name(all_mechanisms[i])))) {
            return all_mechanisms[i];
        }
    }
    return 0;
}

static enum reply check_offer(const struct smtp_server *s)
{
    if (s->authenticated) {
        return REPLY_AUTH_ALREADY;
    }
    if (s->config->mechanisms == 0 || (!s->tls && s->config->tls == SMTP_SERVER_CLEAR)) {
        return REPLY_AUTH_NOT_OFFERED;
    }
    return s->tls ? REPLY_NONE : REPLY_TLS_FIRST_AUTH;
}

enum reply check_auth(const struct smtp_server *s, struct span argument, union server_parsed *ret)
{
    struct server_auth *auth = &ret->auth;
    enum reply why = check_offer(s);
    if (why != REPLY_NONE) {
        return why;
    }
    const uint8_t *space = memchr(argument.ptr, ' ', argument.len);
    size_t name_len = space != NULL ? (size_t)(space - argument.ptr) : argument.len;
    *auth = (struct server_auth){.mechanism = find_mechanism((struct span){argument.ptr, name_len})};
    auth->initial = server_trim((struct span){argument.ptr + name_len, argument.len - name_len});
    auth->has_initial = auth->initial.len > 0;
    return (auth->mechanism & server_mechanisms(s)) != 0 ? REPLY_NONE : REPLY_AUTH_MECHANISM;
}

/* The exchange is over. What it holds is freed when no callback can look at it any more. */
static void over(struct smtp_server *s)
{
    s->sasl_over = true;
    server_expect(s, INPUT_COMMAND);
}

static void fail(struct smtp_server *s, enum reply why)
{
    over(s);
    server_refuse(s, why);
}

/* A login that was judged and found wrong. */
static void count_failure(struct smtp_server *s)
{
    if (++s->auth_failures >= s->config->limits.auth_failures_max && !server_ended(s)) {
        server_event(s, SMTP_EVENT_AUTH_FAILURES_MAX);
        server_reply(s, REPLY_AUTH_FAILURES_MAX);
    }
}

static void reject(struct smtp_server *s, enum smtp_event event, enum reply why)
{
    over(s);
    server_event(s, event);
    server_reply(s, why);
    count_failure(s);
}

static void challenge(struct smtp_server *s)
{
    char text[BASE64_ENCODED_LEN(SASL_MESSAGE_MAX) + 6];
    memcpy(text, "334 ", 4);
    size_t len = 4 + base64_encode(sasl_challenge(s->sasl), text + 4);
    text[len++] = '\r';
    text[len++] = '\n';
    server_expect(s, INPUT_AUTH);
    server_raw(s, (struct span){(const uint8_t *)text, len});
}

static void success(struct smtp_server *s)
{
    over(s);
    s->authenticated = true;
    server_reply(s, REPLY_AUTH_OK);
}

/* Acts on what the mechanism made of a message. */
static void proceed(struct smtp_server *s, enum sasl_outcome outcome)
{
    server_expect(s, INPUT_COMMAND);
    switch (outcome) {
    case SASL_CHALLENGE:
        challenge(s);
        break;
    case SASL_ASK_PASSWORD:
        s->wait = WAIT_VERDICT;
        s->ops->auth_password(s->arg, sasl_password(s->sasl));
        break;
    case SASL_ASK_EXTERNAL:
        s->wait = WAIT_VERDICT;
        s->ops->auth_external(s->arg, sasl_name(s->sasl));
        break;
    case SASL_ASK_SALT: {
        const struct smtp_auth_salt question = {sasl_mechanism(s->sasl), sasl_name(s->sasl)};
        s->wait = WAIT_SALT;
        s->ops->auth_salt(s->arg, &question);
        break;
    }
    case SASL_ASK_PROOF:
        s->wait = WAIT_VERDICT;
        s->ops->auth_proof(s->arg, sasl_proof(s->sasl));
        break;
    case SASL_DONE:
        success(s);
        break;
    case SASL_MALFORMED:
        fail(s, REPLY_AUTH_SYNTAX);
        break;
    case SASL_BINDING:
        reject(s, SMTP_EVENT_AUTH_BINDING, REPLY_AUTH_BINDING);
        break;
    case SASL_AUTHZID:
        reject(s, SMTP_EVENT_AUTH_AUTHZID, REPLY_AUTH_AUTHZID);
        break;
    case SASL_MEMORY:
        server_out_of_memory(s);
        break;
    }
}

/* Base64 of a message, or "=" for an empty one where it is an initial response. */
static void take_message(struct smtp_server *s, struct span text, bool initial)
{
    uint8_t octets[SASL_MESSAGE_MAX];
    struct span message = {octets, 0};
    bool empty = initial && span_eq(text, SPAN_LIT("="));
    int r = empty ? 0 : base64_decode(text, octets, sizeof(octets), &message.len);
    if (r < 0) {
        fail(s, REPLY_AUTH_BASE64);
    } else {
        proceed(s, initial ? sasl_start(s->sasl, &message) : sasl_step(s->sasl, message));
    }
    explicit_bzero(octets, sizeof(octets));
}

/* Fresh for each exchange of the session: 144 bits of the owner's, and a count. */
static size_t make_nonce(struct smtp_server *s, char out[static SASL_NONCE_MAX])
{
    size_t len = base64_encode((struct span){s->random, sizeof(s->random)}, out);
    int n = snprintf(out + len, SASL_NONCE_MAX - len, ".%x", (unsigned)s->auth_tries++);
    return len + (n > 0 ? (size_t)n : 0);
}

void proceed_auth(struct smtp_server *s, const union server_parsed *parsed)
{
    const struct server_auth *auth = &parsed->auth;
    char nonce[SASL_NONCE_MAX];
    unsigned plus = auth->mechanism == SMTP_MECHANISM_SCRAM_SHA_1     ? SMTP_MECHANISM_SCRAM_SHA_1_PLUS
                    : auth->mechanism == SMTP_MECHANISM_SCRAM_SHA_256 ? SMTP_MECHANISM_SCRAM_SHA_256_PLUS
                                                                      : 0;
    const struct sasl_setup setup = {.mechanism = auth->mechanism,
                                     .plus_offered = (server_mechanisms(s) & plus) != 0,
                                     .nonce = {(const uint8_t *)nonce, make_nonce(s, nonce)},
                                     .binding = s->ops->channel_binding,
                                     .arg = s->arg};
    server_auth_drop(s);
    s->sasl = sasl_new(&setup);
    if (s->sasl == NULL) {
        server_out_of_memory(s);
    } else if (auth->has_initial) {
        take_message(s, auth->initial, true);
    } else {
        proceed(s, sasl_start(s->sasl, NULL));
    }
}

static void run_response(struct smtp_server *s, struct span line)
{
    enum smtp_line_fault fault = smtp_line_check(line);
    if (fault != SMTP_LINE_OK) {
        fail(s, fault == SMTP_LINE_NUL ? REPLY_LINE_NUL : REPLY_LINE_BARE_CR);
    } else if (span_eq(line, SPAN_LIT("*"))) {
        fail(s, REPLY_AUTH_CANCELLED);
    } else {
        take_message(s, line, false);
    }
}

static void skip_rest(struct smtp_server *s, bool cr, enum reply why)
{
    over(s);
    server_expect(s, INPUT_SKIP_LINE);
    s->skip_cr = cr;
    server_refuse(s, why);
}

size_t server_take_auth(struct smtp_server *s, struct span in)
{
    size_t used;
    struct span line;
    switch (smtp_line_take(&s->line, s->config->limits.auth_line_max, in, &used, &line)) {
    case SMTP_LINE_MORE:
        return used;
    case SMTP_LINE_READY:
        run_response(s, line);
        break;
    case SMTP_LINE_TOO_LONG:
        skip_rest(s, used > 0 && in.ptr[used - 1] == '\r', REPLY_AUTH_LONG);
        break;
    case SMTP_LINE_ENDS_BARE_LF:
        skip_rest(s, false, REPLY_LINE_BARE_LF);
        break;
    case SMTP_LINE_NO_MEMORY:
        server_out_of_memory(s);
        break;
    }
    buf_wipe(&s->line);
    return used;
}

static bool is_scram(enum smtp_mechanism m)
{
    return (m & (SMTP_MECHANISM_SCRAM_SHA_1 | SMTP_MECHANISM_SCRAM_SHA_1_PLUS | SMTP_MECHANISM_SCRAM_SHA_256 |
                 SMTP_MECHANISM_SCRAM_SHA_256_PLUS)) != 0;
}

static void refuse_with(struct smtp_server *s, enum reply words, struct span text)
{
    const struct reply_words *w = reply_words(words);
    struct smtp_decision d = {w->code, {w->enhanced[0], w->enhanced[1], w->enhanced[2]}, text};
    if (text.len == 0) {
        d.text = span_str(w->text);
    }
    over(s);
    (void)server_reply_decision(s, &d, REPLY_NONE);
}

void server_auth_verdict(struct smtp_server *s, enum smtp_auth_verdict verdict, struct span text, struct span signature)
{
    switch (verdict) {
    case SMTP_AUTH_OK:
        if (is_scram(sasl_mechanism(s->sasl))) {
            proceed(s, sasl_signature(s->sasl, signature));
        } else {
            success(s);
        }
        break;
    case SMTP_AUTH_BAD_CREDENTIALS:
    case SMTP_AUTH_SUSPENDED:
        refuse_with(s, REPLY_AUTH_BAD, text);
        count_failure(s);
        break;
    case SMTP_AUTH_UNAVAILABLE:
        refuse_with(s, REPLY_AUTH_UNAVAILABLE, text);
        break;
    }
}

void server_auth_salt(struct smtp_server *s, enum smtp_auth_verdict verdict, struct span salt, uint32_t iterations)
{
    if (verdict == SMTP_AUTH_OK) {
        proceed(s, sasl_salt(s->sasl, salt, iterations));
    } else {
        server_auth_verdict(s, verdict, (struct span){NULL, 0}, (struct span){NULL, 0});
    }
}

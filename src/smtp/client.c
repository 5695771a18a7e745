/* The session up to READY: greeting, EHLO, STARTTLS, AUTH; and what ends it. */
#include <stdlib.h>
#include <string.h>

#include "smtp/base64.h"
#include "smtp/client_int.h"

#define AUTH_COMMAND_MAX 510U /* octets of a command that every host takes (RFC 5321 section 4.5.3.1.4) */
#define SECRET_MAX       4096U

static const struct {
    const char *name;
    uint32_t timeout_ms;
} phases[SMTP_CLIENT_PHASE_COUNT] = {
    [SMTP_CLIENT_GREETING] = {"greeting", 300000}, [SMTP_CLIENT_HELLO] = {"EHLO", 300000},
    [SMTP_CLIENT_TLS] = {"STARTTLS", 120000},      [SMTP_CLIENT_AUTH] = {"AUTH", 120000},
    [SMTP_CLIENT_IDLE] = {"idle", 300000},         [SMTP_CLIENT_RSET] = {"RSET", 20000},
    [SMTP_CLIENT_MAIL] = {"MAIL", 300000},         [SMTP_CLIENT_RCPT] = {"RCPT", 300000},
    [SMTP_CLIENT_DATA] = {"DATA", 120000},         [SMTP_CLIENT_BODY] = {"message", 180000},
    [SMTP_CLIENT_DOT] = {"end of data", 600000},   [SMTP_CLIENT_QUIT] = {"QUIT", 10000},
};

const char *smtp_client_phase_name(enum smtp_client_phase phase)
{
    return phase < SMTP_CLIENT_PHASE_COUNT ? phases[phase].name : "";
}

uint32_t smtp_client_timeout_ms(enum smtp_client_phase phase)
{
    return phase < SMTP_CLIENT_PHASE_COUNT ? phases[phase].timeout_ms : 0;
}

/* Results and ends. */

struct smtp_client_result client_result_of_reply(const struct smtp_client *c)
{
    const struct client_reply *r = &c->reply;
    struct smtp_client_result result = {
        .class = r->code / 100 == 2   ? SMTP_CLIENT_DELIVERED
                 : r->code / 100 == 5 ? SMTP_CLIENT_PERMANENT
                                      : SMTP_CLIENT_TEMPORARY,
        .phase = c->phase,
        .code = r->code,
        .text = {(const uint8_t *)r->text, r->text_len},
    };
    memcpy(result.enhanced, r->enhanced, sizeof(result.enhanced));
    return result;
}

struct smtp_client_result client_result_own(const struct smtp_client *c, enum smtp_client_class class, uint8_t subject,
                                            uint8_t detail, const char *text)
{
    uint8_t first = class == SMTP_CLIENT_PERMANENT ? 5 : class == SMTP_CLIENT_TEMPORARY ? 4 : 2;
    return (struct smtp_client_result){
        .class = class, .phase = c->phase, .enhanced = {first, subject, detail}, .text = span_str(text)};
}

void client_over(struct smtp_client *c, const struct smtp_client_result *result)
{
    if (c->state == SMTP_CLIENT_OVER) {
        return;
    }
    c->failure = *result;
    c->failed = true;
    size_t len = result->text.len < SMTP_CLIENT_TEXT_MAX ? result->text.len : SMTP_CLIENT_TEXT_MAX;
    if (len > 0) {
        memmove(c->failure_text, result->text.ptr, len);
    }
    c->failure_text[len] = '\0';
    c->failure.text = (struct span){(const uint8_t *)c->failure_text, len};
    c->state = SMTP_CLIENT_OVER;
    client_transaction_settle(c, &c->failure);
    buf_wipe(&c->out);
    buf_init(&c->out, CLIENT_OUT_MAX);
}

void client_broken(struct smtp_client *c, const char *how)
{
    struct smtp_client_result r = client_result_own(c, SMTP_CLIENT_TEMPORARY, 5, 0, how);
    client_over(c, &r);
}

/* The host's own words, but never worse than temporary: the user's mail is not at fault. */
static void over_temporarily(struct smtp_client *c)
{
    struct smtp_client_result r = client_result_of_reply(c);
    r.class = SMTP_CLIENT_TEMPORARY;
    r.enhanced[0] = 4;
    client_over(c, &r);
}

static void over_by_reply(struct smtp_client *c)
{
    struct smtp_client_result r = client_result_of_reply(c);
    client_over(c, &r);
}

static void over_by_policy(struct smtp_client *c, uint8_t detail, const char *text)
{
    struct smtp_client_result r = client_result_own(c, SMTP_CLIENT_TEMPORARY, 7, detail, text);
    client_over(c, &r);
}

static void say(struct smtp_client *c, enum smtp_client_phase phase, const char *verb, const char *argument)
{
    c->phase = phase;
    if (buf_printf(&c->out, "%s%s%s\r\n", verb, argument[0] != '\0' ? " " : "", argument) < 0) {
        client_broken(c, "Out of memory");
    }
}

static void ready(struct smtp_client *c)
{
    c->state = SMTP_CLIENT_READY;
    c->phase = SMTP_CLIENT_IDLE;
}

/* EHLO's answer (RFC 5321 section 4.1.1.1). */

static bool take_keyword(struct span *words, struct span *ret)
{
    while (words->len > 0 && words->ptr[0] == ' ') {
        *words = (struct span){words->ptr + 1, words->len - 1};
    }
    const uint8_t *space = words->len > 0 ? memchr(words->ptr, ' ', words->len) : NULL;
    *ret = (struct span){words->ptr, space != NULL ? (size_t)(space - words->ptr) : words->len};
    *words = (struct span){words->ptr + ret->len, words->len - ret->len};
    return ret->len > 0;
}

/* Decimal; 0 for what is none or too large: no limit told. */
static uint64_t number(struct span s)
{
    uint64_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9' || n > (UINT64_MAX - 9) / 10) {
            return 0;
        }
        n = n * 10 + (uint64_t)(s.ptr[i] - '0');
    }
    return n;
}

static void take_mechanisms(struct smtp_client_capabilities *caps, struct span words)
{
    struct span name;
    while (take_keyword(&words, &name)) {
        if (span_eq_nocase(name, SPAN_LIT("PLAIN"))) {
            caps->flags |= SMTP_CLIENT_CAP_AUTH_PLAIN;
        } else if (span_eq_nocase(name, SPAN_LIT("LOGIN"))) {
            caps->flags |= SMTP_CLIENT_CAP_AUTH_LOGIN;
        }
    }
}

static bool take_limit(struct span parameter, struct span name, uint32_t *limit)
{
    if (parameter.len <= name.len || !span_eq_nocase((struct span){parameter.ptr, name.len}, name)) {
        return false;
    }
    uint64_t n = number((struct span){parameter.ptr + name.len, parameter.len - name.len});
    *limit = n <= UINT32_MAX ? (uint32_t)n : 0;
    return true;
}

static void take_limits(struct smtp_client_capabilities *caps, struct span words)
{
    struct span parameter;
    while (take_keyword(&words, &parameter)) {
        (void)(take_limit(parameter, SPAN_LIT("MAILMAX="), &caps->messages_max) ||
               take_limit(parameter, SPAN_LIT("RCPTMAX="), &caps->recipients_max));
    }
}

static void take_size(struct smtp_client_capabilities *caps, struct span words)
{
    struct span value;
    caps->size_max = take_keyword(&words, &value) ? number(value) : 0;
}

static const struct {
    struct span keyword;
    unsigned flag;
    void (*parameters)(struct smtp_client_capabilities *caps, struct span words);
} extensions[] = {
    {SPAN_LIT("PIPELINING"), SMTP_CLIENT_CAP_PIPELINING, NULL},
    {SPAN_LIT("8BITMIME"), SMTP_CLIENT_CAP_8BITMIME, NULL},
    {SPAN_LIT("SMTPUTF8"), SMTP_CLIENT_CAP_SMTPUTF8, NULL},
    {SPAN_LIT("DSN"), SMTP_CLIENT_CAP_DSN, NULL},
    {SPAN_LIT("SIZE"), SMTP_CLIENT_CAP_SIZE, take_size},
    {SPAN_LIT("STARTTLS"), SMTP_CLIENT_CAP_STARTTLS, NULL},
    {SPAN_LIT("AUTH"), 0, take_mechanisms},
    {SPAN_LIT("ENHANCEDSTATUSCODES"), SMTP_CLIENT_CAP_ENHANCED, NULL},
    {SPAN_LIT("CHUNKING"), SMTP_CLIENT_CAP_CHUNKING, NULL},
    {SPAN_LIT("REQUIRETLS"), SMTP_CLIENT_CAP_REQUIRETLS, NULL},
    {SPAN_LIT("LIMITS"), 0, take_limits},
};

/* Every line of every reply comes by; only those of EHLO's, behind the first, name extensions. */
static void on_line(void *arg, size_t index, struct span words)
{
    struct smtp_client *c = arg;
    struct span keyword;
    if (c->phase != SMTP_CLIENT_HELLO || !c->extended || c->reply.code != 250 || index == 0 ||
        !take_keyword(&words, &keyword)) {
        return;
    }
    if (keyword.len > 5 && span_eq_nocase((struct span){keyword.ptr, 5}, SPAN_LIT("AUTH="))) {
        /* the form before RFC 2554, which some hosts still send beside the new one */
        take_mechanisms(&c->capabilities, (struct span){keyword.ptr + 5, keyword.len - 5});
        take_mechanisms(&c->capabilities, words);
        return;
    }
    for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++) {
        if (span_eq_nocase(keyword, extensions[i].keyword)) {
            c->capabilities.flags |= extensions[i].flag;
            if (extensions[i].parameters != NULL) {
                extensions[i].parameters(&c->capabilities, words);
            }
        }
    }
}

static void say_hello(struct smtp_client *c, bool extended)
{
    c->extended = extended;
    c->capabilities = (struct smtp_client_capabilities){0};
    say(c, SMTP_CLIENT_HELLO, c->config.lmtp ? "LHLO" : extended ? "EHLO" : "HELO", c->config.hostname);
}

/* AUTH (RFC 4954, RFC 4616). */

/* The parts with NULs between, in base64, behind a verb that may be empty. Room first: a buffer that grows leaves a
 * copy behind. */
static int put_secret(struct smtp_client *c, struct span encoded, const char *verb)
{
    uint8_t *room = NULL;
    c->out_secret = true;
    int r = buf_reserve(&c->out, strlen(verb) + encoded.len + 3, &room);
    r = r < 0 ? r : buf_append_str(&c->out, verb);
    r = r < 0 || verb[0] == '\0' ? r : buf_append_byte(&c->out, ' ');
    r = r < 0 ? r : buf_append(&c->out, encoded.ptr, encoded.len);
    return r < 0 ? r : buf_append_str(&c->out, "\r\n");
}

static void say_secret(struct smtp_client *c, const char *verb, const char *const parts[], size_t count)
{
    uint8_t plain[SECRET_MAX];
    char encoded[BASE64_ENCODED_LEN(SECRET_MAX)];
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        size_t part = strlen(parts[i]);
        if (part + 1 > sizeof(plain) - len) {
            over_by_policy(c, 0, "The name or the password for the next host is too long");
            explicit_bzero(plain, sizeof(plain));
            return;
        }
        memcpy(plain + len, parts[i], part + 1);
        len += part + (i + 1 < count ? 1 : 0);
    }
    struct span secret = {(const uint8_t *)encoded, base64_encode((struct span){plain, len}, encoded)};
    c->phase = SMTP_CLIENT_AUTH;
    if (verb[0] != '\0' && strlen(verb) + 1 + secret.len > AUTH_COMMAND_MAX) {
        say(c, SMTP_CLIENT_AUTH, verb, ""); /* the host asks for it with 334 */
    } else {
        c->auth_step++;
        if (put_secret(c, secret, verb) < 0) {
            client_broken(c, "Out of memory");
        }
    }
    explicit_bzero(plain, sizeof(plain));
    explicit_bzero(encoded, sizeof(encoded));
}

static void say_plain(struct smtp_client *c, const char *verb)
{
    const char *parts[] = {"", c->config.user, c->config.password};
    say_secret(c, verb, parts, 3);
}

static void start_auth(struct smtp_client *c)
{
    unsigned flags = c->capabilities.flags;
    c->auth_step = 0;
    if (c->config.user == NULL) {
        ready(c);
    } else if (!c->tls_active && !c->config.auth_in_clear) {
        over_by_policy(c, 11, "A password is set for the next host, and the connection to it is not encrypted");
    } else if ((flags & SMTP_CLIENT_CAP_AUTH_PLAIN) != 0) {
        c->auth_plain = true;
        say_plain(c, "AUTH PLAIN");
    } else if ((flags & SMTP_CLIENT_CAP_AUTH_LOGIN) != 0) {
        c->auth_plain = false;
        say(c, SMTP_CLIENT_AUTH, "AUTH LOGIN", "");
    } else {
        over_by_policy(c, 0, "A password is set for the next host, and it offers neither AUTH PLAIN nor LOGIN");
    }
}

/* 334: the host wants the next part. */
static void continue_auth(struct smtp_client *c)
{
    unsigned step = c->auth_step;
    if (c->auth_plain && step == 0) {
        say_plain(c, "");
    } else if (!c->auth_plain && step < 2) {
        say_secret(c, "", step == 0 ? &c->config.user : &c->config.password, 1);
    } else {
        client_broken(c, "The host wanted more from AUTH than it has");
    }
}

/* A reply in each phase. */

static void on_greeting(struct smtp_client *c)
{
    if (c->reply.code == 220) {
        say_hello(c, true);
    } else if (c->reply.code >= 400) {
        over_by_reply(c);
    } else {
        client_broken(c, "The host's greeting is neither 220 nor a refusal");
    }
}

static void after_hello(struct smtp_client *c)
{
    bool wanted = !c->tls_active && c->config.tls != SMTP_CLIENT_TLS_NONE;
    if (wanted && (c->capabilities.flags & SMTP_CLIENT_CAP_STARTTLS) != 0) {
        say(c, SMTP_CLIENT_TLS, "STARTTLS", "");
    } else if (wanted && c->config.tls == SMTP_CLIENT_TLS_MUST) {
        over_by_policy(c, 4, "TLS is required, and the host does not offer it");
    } else {
        start_auth(c);
    }
}

static void on_hello(struct smtp_client *c)
{
    uint16_t code = c->reply.code;
    if (code == 250) {
        c->capabilities.flags |= c->extended ? SMTP_CLIENT_CAP_EXTENDED : 0;
        after_hello(c);
    } else if (code >= 500 && c->extended && !c->config.lmtp) {
        say_hello(c, false); /* RFC 5321 section 3.2 */
    } else if (code >= 400) {
        over_by_reply(c);
    } else {
        client_broken(c, "The host's answer to the hello is neither 250 nor a refusal");
    }
}

static void on_starttls(struct smtp_client *c)
{
    if (c->reply.code == 220) {
        c->state = SMTP_CLIENT_STARTTLS;
    } else if (c->config.tls == SMTP_CLIENT_TLS_MUST) {
        over_temporarily(c);
    } else if (c->reply.code >= 400) {
        start_auth(c);
    } else {
        client_broken(c, "The host's answer to STARTTLS is neither 220 nor a refusal");
    }
}

static void on_auth(struct smtp_client *c)
{
    if (c->reply.code == 235) {
        ready(c);
    } else if (c->reply.code == 334) {
        continue_auth(c);
    } else if (c->reply.code >= 400) {
        over_temporarily(c);
    } else {
        client_broken(c, "The host's answer to AUTH is none");
    }
}

static void on_idle(struct smtp_client *c)
{
    client_broken(c, "The host sent a reply that nobody had asked for");
}

static void on_quit(struct smtp_client *c)
{
    c->state = SMTP_CLIENT_OVER;
}

static void (*const on_reply[SMTP_CLIENT_PHASE_COUNT])(struct smtp_client *c) = {
    [SMTP_CLIENT_GREETING] = on_greeting,
    [SMTP_CLIENT_HELLO] = on_hello,
    [SMTP_CLIENT_TLS] = on_starttls,
    [SMTP_CLIENT_AUTH] = on_auth,
    [SMTP_CLIENT_IDLE] = on_idle,
    [SMTP_CLIENT_RSET] = client_transaction_reply,
    [SMTP_CLIENT_MAIL] = client_transaction_reply,
    [SMTP_CLIENT_RCPT] = client_transaction_reply,
    [SMTP_CLIENT_DATA] = client_transaction_reply,
    [SMTP_CLIENT_BODY] = client_transaction_reply,
    [SMTP_CLIENT_DOT] = client_transaction_reply,
    [SMTP_CLIENT_QUIT] = on_quit,
};

/* The owner's calls. */

struct smtp_client *smtp_client_new(const struct smtp_client_config *config)
{
    struct smtp_client *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    c->config = *config;
    c->tls_active = config->tls_active;
    buf_init(&c->out, CLIENT_OUT_MAX);
    client_reply_init(&c->reply, on_line, c);
    return c;
}

void smtp_client_free(struct smtp_client **c)
{
    if (*c == NULL) {
        return;
    }
    smtp_client_fail(*c, "The connection was given up");
    buf_wipe(&(*c)->out);
    free((*c)->recipients);
    free(*c);
    *c = NULL;
}

void smtp_client_feed(struct smtp_client *c, const uint8_t *octets, size_t len)
{
    while (len > 0 && (c->state == SMTP_CLIENT_BUSY || c->state == SMTP_CLIENT_READY)) {
        size_t used = 0;
        int r = client_reply_feed(&c->reply, octets, len, &used);
        octets += used;
        len -= used;
        if (r < 0) {
            client_broken(c, c->reply.broken);
        } else if (r > 0 && c->reply.code == 421 && c->phase != SMTP_CLIENT_QUIT) {
            over_by_reply(c); /* the host closes, wherever it is (RFC 5321 section 3.8) */
        } else if (r > 0) {
            on_reply[c->phase](c);
        }
    }
}

struct span smtp_client_output(struct smtp_client *c)
{
    if (c->state != SMTP_CLIENT_OVER && c->in_transaction) {
        client_transaction_fill(c);
    }
    struct span out = buf_span(&c->out);
    if (out.len > 0 || c->state == SMTP_CLIENT_OVER || c->phase != SMTP_CLIENT_BODY) {
        return out;
    }
    const struct smtp_client_transaction *t = &c->transaction;
    int r = client_body_next(&c->body, t->body_next, t->arg, &out);
    if (r < 0) {
        struct smtp_client_result lost =
            client_result_own(c, SMTP_CLIENT_TEMPORARY, 3, 0, "The message could not be read");
        client_over(c, &lost);
        return (struct span){0};
    }
    return out;
}

void smtp_client_written(struct smtp_client *c, size_t len)
{
    if (c->out.len > 0) {
        len = len < c->out.len ? len : c->out.len;
        if (c->out_secret) {
            explicit_bzero(c->out.data, len);
        }
        buf_consume(&c->out, len);
        c->out_secret = c->out_secret && c->out.len > 0;
    } else if (c->phase == SMTP_CLIENT_BODY) {
        client_body_written(&c->body, len);
        if (c->body.ended && c->body.view.len == 0) {
            c->phase = SMTP_CLIENT_DOT;
        }
    }
}

enum smtp_client_state smtp_client_state(const struct smtp_client *c)
{
    return c->state;
}

enum smtp_client_phase smtp_client_phase(const struct smtp_client *c)
{
    return c->phase;
}

const struct smtp_client_capabilities *smtp_client_capabilities(const struct smtp_client *c)
{
    return &c->capabilities;
}

bool smtp_client_tls_active(const struct smtp_client *c)
{
    return c->tls_active;
}

bool smtp_client_reusable(const struct smtp_client *c)
{
    uint32_t max = c->capabilities.messages_max;
    return c->state == SMTP_CLIENT_READY && (max == 0 || c->messages < max);
}

void smtp_client_tls_started(struct smtp_client *c)
{
    if (c->state != SMTP_CLIENT_STARTTLS) {
        return;
    }
    c->state = SMTP_CLIENT_BUSY;
    c->tls_active = true;
    client_reply_init(&c->reply, on_line, c);
    say_hello(c, true); /* what was told in clear text is forgotten (RFC 3207 section 4.2) */
}

void smtp_client_quit(struct smtp_client *c)
{
    if (c->state == SMTP_CLIENT_READY) {
        c->state = SMTP_CLIENT_BUSY;
        say(c, SMTP_CLIENT_QUIT, "QUIT", "");
    }
}

void smtp_client_fail(struct smtp_client *c, const char *words)
{
    if (c->phase == SMTP_CLIENT_QUIT) {
        c->state = SMTP_CLIENT_OVER;
        return;
    }
    struct smtp_client_result r = client_result_own(c, SMTP_CLIENT_TEMPORARY, 4, 2, words);
    client_over(c, &r);
}

const struct smtp_client_result *smtp_client_failure(const struct smtp_client *c)
{
    return c->failed ? &c->failure : NULL;
}

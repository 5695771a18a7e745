/* Life of a session, the loop that feeds it, its replies and its ends. The verbs are in cmd_*.c. */
#include "smtp/server.h"

#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "smtp/server_int.h"

#define OUT_MAX (64U * 1024U)
#define OUT_HIGH                                                                                                       \
    (8U * 1024U) /* no more input until the replies have left: a client that does not read costs this much */
#define DEFERRED_MAX  4096U
#define DEFAULT_GREET "ESMTP Kidoban"

const struct smtp_server_limits smtp_server_limits_default = {
    .size_max = UINT64_C(50) * 1024 * 1024,
    .recipients_max = 1000,
    .messages_max = 0,
    .command_line_max = 2048,
    .auth_line_max = 12288,
    .text_line_max = 998,
    .header_max = 128U * 1024U,
    .commands_max = 5000,
    .bad_commands_max = 20,
    .auth_failures_max = 5,
    .bdat_small = 1024,
    .bdat_small_max = 64,
};

const char *smtp_mechanism_name(enum smtp_mechanism mechanism)
{
    switch (mechanism) {
    case SMTP_MECHANISM_PLAIN:
        return "PLAIN";
    case SMTP_MECHANISM_LOGIN:
        return "LOGIN";
    case SMTP_MECHANISM_SCRAM_SHA_1:
        return "SCRAM-SHA-1";
    case SMTP_MECHANISM_SCRAM_SHA_1_PLUS:
        return "SCRAM-SHA-1-PLUS";
    case SMTP_MECHANISM_SCRAM_SHA_256:
        return "SCRAM-SHA-256";
    case SMTP_MECHANISM_SCRAM_SHA_256_PLUS:
        return "SCRAM-SHA-256-PLUS";
    case SMTP_MECHANISM_EXTERNAL:
        return "EXTERNAL";
    }
    return "";
}

const char *smtp_event_name(enum smtp_event event)
{
    static const char *const names[SMTP_EVENT_COUNT] = {
        [SMTP_EVENT_COMMAND_UNKNOWN] = "smtp-command-unknown",
        [SMTP_EVENT_COMMAND_SYNTAX] = "smtp-command-syntax",
        [SMTP_EVENT_COMMAND_ORDER] = "smtp-command-order",
        [SMTP_EVENT_COMMAND_LINE_MAX] = "smtp-command-line-max",
        [SMTP_EVENT_COMMAND_OCTETS] = "smtp-command-octets",
        [SMTP_EVENT_COMMANDS_MAX] = "smtp-commands-max",
        [SMTP_EVENT_BAD_COMMANDS_MAX] = "smtp-bad-commands-max",
        [SMTP_EVENT_AUTH_FAILURES_MAX] = "smtp-auth-failures-max",
        [SMTP_EVENT_MESSAGES_MAX] = "smtp-messages-max",
        [SMTP_EVENT_RECIPIENTS_MAX] = "smtp-recipients-max",
        [SMTP_EVENT_SIZE_MAX] = "smtp-size-max",
        [SMTP_EVENT_HEADER_MAX] = "smtp-header-max",
        [SMTP_EVENT_TEXT_LINE_MAX] = "smtp-text-line-max",
        [SMTP_EVENT_BDAT_SMALL_MAX] = "smtp-bdat-small-max",
        [SMTP_EVENT_BARE_CR] = "smtp-bare-cr",
        [SMTP_EVENT_BARE_LF] = "smtp-bare-lf",
        [SMTP_EVENT_NUL] = "smtp-nul",
        [SMTP_EVENT_SMUGGLING] = "smtp-smuggling",
        [SMTP_EVENT_BARE_LF_REPAIRED] = "smtp-bare-lf-repaired",
        [SMTP_EVENT_STARTTLS_PIPELINED] = "smtp-starttls-pipelined",
        [SMTP_EVENT_DATA_PIPELINED] = "smtp-data-pipelined",
        [SMTP_EVENT_TLS_REQUIRED] = "smtp-tls-required",
        [SMTP_EVENT_AUTH_REQUIRED] = "smtp-auth-required",
        [SMTP_EVENT_AUTH_MALFORMED] = "smtp-auth-malformed",
        [SMTP_EVENT_AUTH_CANCELLED] = "smtp-auth-cancelled",
        [SMTP_EVENT_AUTH_BINDING] = "smtp-auth-binding",
        [SMTP_EVENT_AUTH_AUTHZID] = "smtp-auth-authzid",
        [SMTP_EVENT_MEMORY] = "smtp-memory",
    };
    return names[event];
}

/* --- life --- */

struct smtp_server *smtp_server_new(const struct smtp_server_config *config, const struct smtp_server_ops *ops,
                                    void *arg, const struct smtp_server_start *start)
{
    struct smtp_server *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    s->config = config;
    s->ops = ops;
    s->arg = arg;
    s->session = start->session;
    s->may_relay = start->may_relay;
    memcpy(s->random, start->random, sizeof(s->random));
    size_t line_max = config->limits.command_line_max;
    buf_init(&s->line, line_max > config->limits.auth_line_max ? line_max : config->limits.auth_line_max);
    buf_init(&s->out, OUT_MAX);
    buf_init(&s->deferred, DEFERRED_MAX);
    smtp_text_init(&s->text);
    return s;
}

size_t smtp_server_size(void)
{
    return sizeof(struct smtp_server);
}

void smtp_server_free(struct smtp_server **s)
{
    if (*s == NULL) {
        return;
    }
    server_end(*s);
    server_auth_drop(*s);
    buf_wipe(&(*s)->line);
    buf_fini(&(*s)->out);
    buf_fini(&(*s)->deferred);
    explicit_bzero(*s, sizeof(**s));
    free(*s);
    *s = NULL;
}

void smtp_server_greet(struct smtp_server *s)
{
    const char *words = s->config->greeting != NULL ? s->config->greeting : DEFAULT_GREET;
    if (s->greeted || server_ended(s)) {
        return;
    }
    s->greeted = true;
    if (buf_printf(&s->out, "220 %.255s %.200s\r\n", s->config->hostname, words) < 0) {
        server_out_of_memory(s);
    }
}

bool server_ended(const struct smtp_server *s)
{
    return s->input == INPUT_ENDED;
}

void server_expect(struct smtp_server *s, enum server_input input)
{
    if (!server_ended(s)) {
        s->input = (uint8_t)input;
    }
}

void server_end(struct smtp_server *s)
{
    if (server_ended(s)) {
        return;
    }
    s->input = INPUT_ENDED;
    s->wait = WAIT_NONE;
    s->sasl_over = true;
    server_transaction_reset(s);
}

void smtp_server_close(struct smtp_server *s, const struct smtp_decision *reply)
{
    if (server_ended(s)) {
        return;
    }
    if (s->input != INPUT_TLS) {
        const struct smtp_decision down = {421, {4, 3, 2}, SPAN_LIT("Service closes")};
        (void)server_reply_decision(s, reply->code >= 400 ? reply : &down, REPLY_NONE);
    }
    server_end(s);
    if (!s->feeding) {
        server_auth_drop(s);
    }
}

void server_transaction_reset(struct smtp_server *s)
{
    bool begun = s->begun, in_mail = s->in_mail;
    s->begun = s->in_mail = false;
    s->mail_utf8 = s->mail_8bit = false;
    s->data_behind = s->chunk_last = false;
    s->recipients = s->small_chunks = 0;
    s->declared = s->dropped = 0;
    if (s->state > STATE_READY) {
        s->state = STATE_READY;
    }
    smtp_text_init(&s->text);
    buf_fini(&s->deferred);
    if (begun) {
        s->ops->abort(s->arg);
    }
    if (in_mail) {
        s->ops->transaction_end(s->arg);
    }
}

/* --- replies --- */

void server_event(struct smtp_server *s, enum smtp_event event)
{
    s->ops->event(s->arg, event);
}

void server_out_of_memory(struct smtp_server *s)
{
    if (!server_ended(s)) {
        const struct reply_words *w = reply_words(REPLY_MEMORY);
        server_event(s, SMTP_EVENT_MEMORY);
        (void)reply_append(&s->out, w->code, w->enhanced, span_str(w->text), NULL);
        server_end(s);
    }
}

static int append_words(const struct smtp_server *s, struct buf *to, enum reply reply)
{
    const struct reply_words *w = reply_words(reply);
    const struct reply_tail tail = {s->config->help_url, s->session};
    return reply_append(to, w->code, w->enhanced, span_str(w->text), w->help ? &tail : NULL);
}

void server_reply(struct smtp_server *s, enum reply reply)
{
    if (server_ended(s)) {
        return;
    }
    if (append_words(s, &s->out, reply) < 0) {
        server_out_of_memory(s);
    } else if (reply_words(reply)->code == 421) {
        server_end(s);
    }
}

/* A decision that is no reply becomes one: 451 4.3.0. A class that disagrees is mended. */
static struct smtp_decision mended(const struct smtp_decision *decision)
{
    struct smtp_decision d = *decision;
    unsigned class = d.code / 100;
    if (d.code > 599 || (class != 2 && class != 4 && class != 5)) {
        return (struct smtp_decision){451, {4, 3, 0}, SPAN_LIT("Local error; try again later")};
    }
    if (d.enhanced[0] != class) {
        d.enhanced[0] = (uint8_t) class;
        d.enhanced[1] = d.enhanced[2] = 0;
    }
    if (d.text.len == 0) {
        d.text = class == 2 ? SPAN_LIT("OK") : SPAN_LIT("Refused");
    }
    return d;
}

static int append_decision(const struct smtp_server *s, struct buf *to, const struct smtp_decision *d)
{
    const struct reply_tail tail = {s->config->help_url, s->session};
    return reply_append(to, d->code, d->enhanced, d->text, d->code >= 400 ? &tail : NULL);
}

bool server_reply_decision(struct smtp_server *s, const struct smtp_decision *decision, enum reply accepted)
{
    if (server_ended(s)) {
        return false;
    }
    if (decision->code == 0) {
        server_reply(s, accepted);
        return !server_ended(s);
    }
    struct smtp_decision d = mended(decision);
    if (append_decision(s, &s->out, &d) < 0) {
        server_out_of_memory(s);
    } else if (d.code == 421) {
        server_end(s);
    }
    return d.code < 300 && !server_ended(s);
}

void server_defer(struct smtp_server *s, enum reply reply)
{
    buf_clear(&s->deferred);
    if (append_words(s, &s->deferred, reply) < 0) {
        server_out_of_memory(s);
    }
}

void server_defer_decision(struct smtp_server *s, const struct smtp_decision *refusal)
{
    struct smtp_decision d = mended(refusal);
    if (d.code < 400) {
        d = mended(&(struct smtp_decision){.code = 451});
    }
    buf_clear(&s->deferred);
    if (append_decision(s, &s->deferred, &d) < 0) {
        server_out_of_memory(s);
    }
}

void server_raw(struct smtp_server *s, struct span octets)
{
    if (!server_ended(s) && buf_append(&s->out, octets.ptr, octets.len) < 0) {
        server_out_of_memory(s);
    }
}

void server_send_deferred(struct smtp_server *s)
{
    bool closes = s->deferred.len >= 3 && memcmp(s->deferred.data, "421", 3) == 0;
    server_raw(s, buf_span(&s->deferred));
    buf_fini(&s->deferred);
    if (closes) {
        server_end(s);
    }
}

/* What a refusal is to the counters. */
static enum smtp_event refusal_event(enum reply why)
{
    switch (why) {
    case REPLY_UNKNOWN:
        return SMTP_EVENT_COMMAND_UNKNOWN;
    case REPLY_LINE_LONG:
    case REPLY_AUTH_LONG:
        return SMTP_EVENT_COMMAND_LINE_MAX;
    case REPLY_LINE_BARE_CR:
    case REPLY_LINE_BARE_LF:
    case REPLY_LINE_NUL:
    case REPLY_LINE_8BIT:
        return SMTP_EVENT_COMMAND_OCTETS;
    case REPLY_TLS_FIRST_AUTH:
    case REPLY_TLS_FIRST_MAIL:
        return SMTP_EVENT_TLS_REQUIRED;
    case REPLY_AUTH_REQUIRED:
        return SMTP_EVENT_AUTH_REQUIRED;
    case REPLY_AUTH_BASE64:
    case REPLY_AUTH_SYNTAX:
        return SMTP_EVENT_AUTH_MALFORMED;
    case REPLY_AUTH_CANCELLED:
        return SMTP_EVENT_AUTH_CANCELLED;
    case REPLY_SIZE_DECLARED:
    case REPLY_BDAT_HUGE:
        return SMTP_EVENT_SIZE_MAX;
    case REPLY_RECIPIENTS_MAX:
        return SMTP_EVENT_RECIPIENTS_MAX;
    case REPLY_MESSAGES_MAX:
        return SMTP_EVENT_MESSAGES_MAX;
    default:
        return reply_words(why)->code == 503 ? SMTP_EVENT_COMMAND_ORDER : SMTP_EVENT_COMMAND_SYNTAX;
    }
}

/* An honest client, too, may meet these again and again. */
static bool refusal_is_innocent(enum reply why)
{
    switch (why) {
    case REPLY_SIZE_DECLARED:
    case REPLY_RECIPIENTS_MAX:
    case REPLY_MESSAGES_MAX:
    case REPLY_MAIL_WAS_REFUSED:
    case REPLY_SENDER_NEEDS_UTF8:
    case REPLY_RCPT_NEEDS_UTF8:
    case REPLY_AUTH_CANCELLED:
        return true;
    default:
        return false;
    }
}

bool server_count_bad(struct smtp_server *s, enum reply why)
{
    server_event(s, refusal_event(why));
    if (refusal_is_innocent(why) || ++s->bad_commands <= s->config->limits.bad_commands_max) {
        return server_ended(s);
    }
    server_event(s, SMTP_EVENT_BAD_COMMANDS_MAX);
    server_reply(s, REPLY_BAD_COMMANDS_MAX);
    return true;
}

void server_refuse(struct smtp_server *s, enum reply why)
{
    if (!server_count_bad(s, why)) {
        server_reply(s, why);
    }
}

/* --- input --- */

static enum reply line_fault_reply(enum smtp_line_fault fault)
{
    return fault == SMTP_LINE_NUL ? REPLY_LINE_NUL : REPLY_LINE_BARE_CR;
}

static void skip_line(struct smtp_server *s, bool cr)
{
    server_expect(s, INPUT_SKIP_LINE);
    s->skip_cr = cr;
}

/* The limit of the line that begins here: AUTH may carry an initial response (RFC 4954 section 4). */
static size_t line_max(const struct smtp_server *s, struct span in)
{
    uint8_t head[5];
    size_t have = s->line.len < sizeof(head) ? s->line.len : sizeof(head);
    size_t more = in.len < sizeof(head) - have ? in.len : sizeof(head) - have;
    if (have > 0) {
        memcpy(head, s->line.data, have);
    }
    memcpy(head + have, in.ptr, more);
    bool auth = span_eq_nocase((struct span){head, have + more}, SPAN_LIT("AUTH "));
    return auth ? s->config->limits.auth_line_max : s->config->limits.command_line_max;
}

static void run_line(struct smtp_server *s, struct span line)
{
    enum smtp_line_fault fault = smtp_line_check(line);
    if (++s->commands > s->config->limits.commands_max) {
        server_event(s, SMTP_EVENT_COMMANDS_MAX);
        server_reply(s, REPLY_COMMANDS_MAX);
    } else if (fault != SMTP_LINE_OK) {
        server_refuse(s, line_fault_reply(fault));
    } else if (!utf8_valid(line)) {
        server_refuse(s, REPLY_LINE_8BIT);
    } else {
        server_command_run(s, line);
    }
}

static size_t take_command(struct smtp_server *s, struct span in)
{
    size_t used;
    struct span line;
    switch (smtp_line_take(&s->line, line_max(s, in), in, &used, &line)) {
    case SMTP_LINE_MORE:
        return used;
    case SMTP_LINE_READY:
        s->behind = in.len - used;
        run_line(s, line);
        break;
    case SMTP_LINE_TOO_LONG:
        skip_line(s, used > 0 && in.ptr[used - 1] == '\r');
        server_refuse(s, REPLY_LINE_LONG);
        break;
    case SMTP_LINE_ENDS_BARE_LF:
        skip_line(s, false);
        server_refuse(s, REPLY_LINE_BARE_LF);
        break;
    case SMTP_LINE_NO_MEMORY:
        server_out_of_memory(s);
        break;
    }
    buf_wipe(&s->line);
    return used;
}

static size_t take_skip_line(struct smtp_server *s, struct span in)
{
    bool found, cr = s->skip_cr;
    size_t used = smtp_line_skip(in, &cr, &found);
    s->skip_cr = cr;
    if (found) {
        server_expect(s, INPUT_COMMAND);
    }
    return used;
}

static size_t take_tls(struct smtp_server *s, struct span in)
{
    server_event(s, SMTP_EVENT_STARTTLS_PIPELINED);
    server_reply(s, REPLY_TLS_PIPELINED);
    server_end(s);
    return in.len;
}

static size_t take(struct smtp_server *s, struct span in)
{
    switch ((enum server_input)s->input) {
    case INPUT_COMMAND:
        return take_command(s, in);
    case INPUT_SKIP_LINE:
        return take_skip_line(s, in);
    case INPUT_AUTH:
        return server_take_auth(s, in);
    case INPUT_DATA:
        return server_take_data(s, in);
    case INPUT_CHUNK:
        return server_take_chunk(s, in);
    case INPUT_TLS:
        return take_tls(s, in);
    case INPUT_ENDED:
        break;
    }
    return in.len;
}

static bool can_take(const struct smtp_server *s)
{
    return s->greeted && s->wait == WAIT_NONE && s->out.len < OUT_HIGH;
}

/* What is due without further octets. */
static void settle(struct smtp_server *s)
{
    if (s->chunk_done && s->wait == WAIT_NONE && !server_ended(s)) {
        s->chunk_done = false;
        server_chunk_finish(s);
    }
    if (s->sasl_over) {
        server_auth_drop(s);
    }
}

size_t smtp_server_feed(struct smtp_server *s, const uint8_t *octets, size_t len)
{
    size_t i = 0;
    s->feeding = true;
    while (i < len && !server_ended(s) && can_take(s)) {
        i += take(s, (struct span){octets + i, len - i});
        settle(s);
    }
    s->feeding = false;
    return server_ended(s) ? len : i;
}

/* An answer was given: what it made due is done by the loop of feed when it was given within a callback. */
static void answered(struct smtp_server *s)
{
    if (!s->feeding) {
        s->feeding = true;
        settle(s);
        s->feeding = false;
    }
}

/* --- answers --- */

void smtp_server_auth_result(struct smtp_server *s, enum smtp_auth_verdict verdict, struct span text,
                             struct span server_signature)
{
    if (s->wait == WAIT_VERDICT || (s->wait == WAIT_SALT && verdict != SMTP_AUTH_OK)) {
        s->wait = WAIT_NONE;
        server_auth_verdict(s, verdict, text, server_signature);
        answered(s);
    }
}

void smtp_server_auth_salt(struct smtp_server *s, enum smtp_auth_verdict verdict, struct span salt, uint32_t iterations)
{
    if (s->wait == WAIT_SALT) {
        s->wait = WAIT_NONE;
        server_auth_salt(s, verdict, salt, iterations);
        answered(s);
    }
}

void smtp_server_data_go(struct smtp_server *s)
{
    if (s->wait == WAIT_DATA) {
        s->wait = WAIT_NONE;
        server_message_go(s);
        answered(s);
    }
}

void smtp_server_data_refuse(struct smtp_server *s, const struct smtp_decision *refusal)
{
    if (s->wait == WAIT_DATA) {
        s->wait = WAIT_NONE;
        server_message_no_go(s, refusal);
        answered(s);
    }
}

void smtp_server_resume(struct smtp_server *s)
{
    if (s->wait == WAIT_BODY) {
        s->wait = WAIT_NONE;
        answered(s);
    }
}

void smtp_server_message_refuse(struct smtp_server *s, const struct smtp_decision *refusal)
{
    if (s->begun && s->wait != WAIT_DATA && s->wait != WAIT_RESULT) {
        s->wait = WAIT_NONE;
        server_message_give_up(s, refusal);
        answered(s);
    }
}

void smtp_server_message_result(struct smtp_server *s, const struct smtp_decision *result)
{
    if (s->wait == WAIT_RESULT) {
        s->wait = WAIT_NONE;
        server_message_settle(s, result);
        answered(s);
    }
}

/* --- what the owner may ask --- */

struct span smtp_server_output(const struct smtp_server *s)
{
    return buf_span(&s->out);
}

void smtp_server_written(struct smtp_server *s, size_t len)
{
    buf_consume(&s->out, len);
    if (s->out.len == 0) {
        buf_fini(&s->out);
    }
}

bool smtp_server_wants_close(const struct smtp_server *s)
{
    return server_ended(s);
}

bool smtp_server_waiting(const struct smtp_server *s)
{
    return s->wait != WAIT_NONE || s->input == INPUT_TLS;
}

bool smtp_server_in_message(const struct smtp_server *s)
{
    return s->input == INPUT_DATA || s->input == INPUT_CHUNK;
}

bool smtp_server_in_transaction(const struct smtp_server *s)
{
    return s->in_mail;
}

bool smtp_server_authenticated(const struct smtp_server *s)
{
    return s->authenticated;
}

bool smtp_server_extended(const struct smtp_server *s)
{
    return s->extended;
}

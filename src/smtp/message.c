/* A message between MAIL and its result, whether it comes by DATA or by BDAT. */
#include "smtp/server_int.h"

/* How much more than size_max is read and dropped from a client that goes on sending a lost message. */
#define DROP_FACTOR 4
#define DROP_EXTRA  65536

void server_text_rules(const struct smtp_server *s, struct smtp_text_rules *ret)
{
    const struct smtp_server_limits *limits = &s->config->limits;
    *ret = (struct smtp_text_rules){.size_max = limits->size_max,
                                    .line_max = limits->text_line_max,
                                    .header_max = limits->header_max,
                                    .repair_bare_lf = s->config->repair_bare_lf,
                                    .dots = s->input == INPUT_DATA};
}

void server_message_begin(struct smtp_server *s, uint64_t declared)
{
    const struct smtp_data_begin begin = {.size = declared, .recipients = s->recipients};
    smtp_text_init(&s->text);
    s->begun = true;
    s->wait = WAIT_DATA;
    s->ops->data_begin(s->arg, &begin);
}

void server_message_go(struct smtp_server *s)
{
    if (s->state == STATE_CHUNK) {
        server_expect(s, INPUT_CHUNK);
        s->chunk_done = s->chunk_left == 0;
    } else {
        server_expect(s, INPUT_DATA);
        server_reply(s, REPLY_DATA_GO);
    }
}

/* What stands behind a refused DATA is most likely the message: it must not run as commands. */
static void refuse_data(struct smtp_server *s, const struct smtp_decision *refusal)
{
    bool behind = s->data_behind;
    struct smtp_decision no = {451, {4, 3, 0}, {NULL, 0}};
    (void)server_reply_decision(s, refusal->code >= 400 ? refusal : &no, REPLY_OK);
    server_transaction_reset(s);
    if (behind && !server_ended(s)) {
        server_event(s, SMTP_EVENT_DATA_PIPELINED);
        server_reply(s, REPLY_DATA_PIPELINED);
    }
}

void server_message_no_go(struct smtp_server *s, const struct smtp_decision *refusal)
{
    s->begun = false; /* the owner knows: no abort() */
    if (s->state != STATE_CHUNK) {
        refuse_data(s, refusal);
        return;
    }
    server_transaction_reset(s);
    server_defer_decision(s, refusal);
    s->chunk_dropped = true;
    server_expect(s, INPUT_CHUNK);
    s->chunk_done = s->chunk_left == 0;
}

static enum smtp_event fault_event(enum smtp_line_fault fault)
{
    static const enum smtp_event events[SMTP_LINE_FAULT_COUNT] = {
        [SMTP_LINE_BARE_CR] = SMTP_EVENT_BARE_CR,
        [SMTP_LINE_BARE_LF] = SMTP_EVENT_BARE_LF,
        [SMTP_LINE_NUL] = SMTP_EVENT_NUL,
        [SMTP_LINE_SMUGGLING] = SMTP_EVENT_SMUGGLING,
        [SMTP_LINE_LONG] = SMTP_EVENT_TEXT_LINE_MAX,
        [SMTP_LINE_HEADER_MAX] = SMTP_EVENT_HEADER_MAX,
        [SMTP_LINE_SIZE_MAX] = SMTP_EVENT_SIZE_MAX,
    };
    return events[fault];
}

enum reply server_fault_reply(const struct smtp_text *text)
{
    static const enum reply replies[SMTP_LINE_FAULT_COUNT] = {
        [SMTP_LINE_BARE_CR] = REPLY_TEXT_BARE_CR,   [SMTP_LINE_BARE_LF] = REPLY_TEXT_BARE_LF,
        [SMTP_LINE_NUL] = REPLY_TEXT_NUL,           [SMTP_LINE_SMUGGLING] = REPLY_TEXT_SMUGGLING,
        [SMTP_LINE_LONG] = REPLY_TEXT_LINE_LONG,    [SMTP_LINE_HEADER_MAX] = REPLY_TEXT_HEADER_MAX,
        [SMTP_LINE_SIZE_MAX] = REPLY_TEXT_SIZE_MAX,
    };
    return text->lookalike ? REPLY_TEXT_SMUGGLING : replies[text->fault];
}

bool server_message_lost(const struct smtp_server *s)
{
    return s->text.fault != SMTP_LINE_OK;
}

/* The message will not come to be: the owner is told at once, the client when it has sent the rest. */
void server_message_lose(struct smtp_server *s, enum smtp_line_fault fault)
{
    s->text.fault = (uint8_t)fault;
    server_event(s, fault_event(fault));
    if (s->begun && !server_ended(s)) {
        s->begun = false;
        s->ops->abort(s->arg);
    }
}

void server_message_give_up(struct smtp_server *s, const struct smtp_decision *refusal)
{
    s->begun = false;
    s->text.fault = SMTP_LINE_REFUSED;
    server_defer_decision(s, refusal);
}

static void give_body(struct smtp_server *s, struct span run)
{
    if (run.len > 0 && s->ops->body(s->arg, run) == SMTP_BODY_PAUSE && !server_ended(s) && !server_message_lost(s)) {
        s->wait = WAIT_BODY;
    }
}

/* A client that never ends a lost message is not read for ever. */
static bool drop_exhausted(struct smtp_server *s, size_t used)
{
    uint64_t limit = s->config->limits.size_max;
    limit = limit > (UINT64_MAX - DROP_EXTRA) / DROP_FACTOR ? UINT64_MAX : limit * DROP_FACTOR + DROP_EXTRA;
    s->dropped += used;
    return s->dropped > limit;
}

size_t server_message_text(struct smtp_server *s, struct span in, bool *ret_end)
{
    struct smtp_text_rules rules;
    struct span run;
    bool was_lost = server_message_lost(s);
    server_text_rules(s, &rules);
    size_t used = smtp_text_next(&s->text, &rules, in, &run, ret_end);
    if (!was_lost && server_message_lost(s)) {
        server_message_lose(s, (enum smtp_line_fault)s->text.fault);
    } else if (was_lost && drop_exhausted(s, used)) {
        *ret_end = false;
        server_message_end(s);
        server_end(s);
    } else {
        give_body(s, run);
    }
    return used;
}

void server_message_pad(struct smtp_server *s)
{
    struct smtp_text_rules rules;
    struct span run;
    bool was_lost = server_message_lost(s);
    server_text_rules(s, &rules);
    smtp_text_finish(&s->text, &rules, &run);
    if (!was_lost && server_message_lost(s)) {
        server_message_lose(s, (enum smtp_line_fault)s->text.fault);
    } else if (run.len > 0) {
        (void)s->ops->body(s->arg, run); /* the last: a pause would mean nothing */
    }
}

static void end_lost(struct smtp_server *s)
{
    if (s->text.lookalike && s->text.fault != SMTP_LINE_SMUGGLING) {
        server_event(s, SMTP_EVENT_SMUGGLING);
    }
    if (s->text.fault == SMTP_LINE_REFUSED) {
        server_send_deferred(s);
    } else {
        server_reply(s, server_fault_reply(&s->text));
    }
    server_transaction_reset(s);
}

void server_message_end(struct smtp_server *s)
{
    server_expect(s, INPUT_COMMAND);
    if (server_message_lost(s)) {
        end_lost(s);
        return;
    }
    const struct smtp_body_end end = {.octets = s->text.octets,
                                      .has_8bit = s->text.has_8bit || s->mail_8bit,
                                      .smtputf8 = s->mail_utf8,
                                      .bdat = s->state == STATE_CHUNK,
                                      .repaired_lf = s->text.repaired};
    if (end.repaired_lf > 0) {
        server_event(s, SMTP_EVENT_BARE_LF_REPAIRED);
    }
    if (server_ended(s)) { /* the owner closed the session within the last callback */
        return;
    }
    s->begun = false; /* from here the owner answers for it, whatever becomes of the connection */
    s->wait = WAIT_RESULT;
    s->ops->body_end(s->arg, &end);
}

void server_message_settle(struct smtp_server *s, const struct smtp_decision *result)
{
    if (server_reply_decision(s, result, REPLY_MESSAGE_OK)) {
        s->messages++;
        s->commands = 0;
    }
    server_transaction_reset(s);
}

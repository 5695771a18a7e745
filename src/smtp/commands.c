/* The command table: what may be said when, who reads it, who does it. */
#include <string.h>

#include "common/utf8.h"
#include "smtp/server_int.h"

const struct server_command server_commands[VERB_COUNT] = {
    [VERB_HELO] = {.name = "HELO", .argument = ARGUMENT_WANTED, .check = check_helo, .proceed = proceed_helo},
    [VERB_EHLO] = {.name = "EHLO", .argument = ARGUMENT_WANTED, .check = check_helo, .proceed = proceed_ehlo},
    [VERB_STARTTLS] = {.name = "STARTTLS",
                       .state_reply = {[STATE_MAIL] = REPLY_IN_TRANSACTION,
                                       [STATE_RCPT] = REPLY_IN_TRANSACTION,
                                       [STATE_CHUNK] = REPLY_IN_TRANSACTION},
                       .argument = ARGUMENT_NONE,
                       .check = check_starttls,
                       .proceed = proceed_starttls},
    [VERB_AUTH] = {.name = "AUTH",
                   .state_reply = {[STATE_CONNECTED] = REPLY_EHLO_FIRST,
                                   [STATE_MAIL] = REPLY_IN_TRANSACTION,
                                   [STATE_RCPT] = REPLY_IN_TRANSACTION,
                                   [STATE_CHUNK] = REPLY_IN_TRANSACTION},
                   .argument = ARGUMENT_WANTED,
                   .esmtp = true,
                   .check = check_auth,
                   .proceed = proceed_auth},
    [VERB_MAIL] = {.name = "MAIL",
                   .state_reply = {[STATE_CONNECTED] = REPLY_EHLO_FIRST,
                                   [STATE_MAIL] = REPLY_MAIL_NESTED,
                                   [STATE_RCPT] = REPLY_MAIL_NESTED,
                                   [STATE_CHUNK] = REPLY_BDAT_BEGUN},
                   .check = check_mail,
                   .proceed = proceed_mail,
                   .refuse = refuse_mail},
    [VERB_RCPT] =
        {.name = "RCPT",
         .state_reply =
             {[STATE_CONNECTED] = REPLY_EHLO_FIRST, [STATE_READY] = REPLY_MAIL_FIRST, [STATE_CHUNK] = REPLY_BDAT_BEGUN},
         .check = check_rcpt,
         .proceed = proceed_rcpt},
    [VERB_DATA] = {.name = "DATA",
                   .state_reply = {[STATE_CONNECTED] = REPLY_EHLO_FIRST,
                                   [STATE_READY] = REPLY_MAIL_FIRST,
                                   [STATE_MAIL] = REPLY_RCPT_FIRST,
                                   [STATE_CHUNK] = REPLY_BDAT_BEGUN},
                   .argument = ARGUMENT_NONE,
                   .proceed = proceed_data},
    [VERB_BDAT] =
        {.name = "BDAT",
         .state_reply =
             {[STATE_CONNECTED] = REPLY_EHLO_FIRST, [STATE_READY] = REPLY_MAIL_FIRST, [STATE_MAIL] = REPLY_RCPT_FIRST},
         .esmtp = true,
         .check = check_bdat,
         .proceed = proceed_bdat,
         .refuse = refuse_bdat},
    [VERB_RSET] = {.name = "RSET", .argument = ARGUMENT_NONE, .proceed = proceed_rset},
    [VERB_NOOP] = {.name = "NOOP", .proceed = proceed_noop},
    [VERB_QUIT] = {.name = "QUIT", .argument = ARGUMENT_NONE, .proceed = proceed_quit},
    [VERB_HELP] = {.name = "HELP", .proceed = proceed_help},
    [VERB_VRFY] = {.name = "VRFY", .argument = ARGUMENT_WANTED, .proceed = proceed_vrfy},
    [VERB_EXPN] = {.name = "EXPN", .argument = ARGUMENT_WANTED, .proceed = proceed_expn},
};

static const struct server_command *find_command(struct span name)
{
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (span_eq_nocase(name, span_str(server_commands[i].name))) {
            return &server_commands[i];
        }
    }
    return NULL;
}

static enum reply check_state(const struct smtp_server *s, const struct server_command *c)
{
    enum reply why = c->state_reply[s->state];
    if (why == REPLY_MAIL_FIRST && s->mail_refused) {
        return REPLY_MAIL_WAS_REFUSED;
    }
    return why == REPLY_NONE && c->esmtp && !s->extended ? REPLY_ESMTP_ONLY : why;
}

static enum reply check_argument(const struct smtp_server *s, const struct server_command *c, struct span argument,
                                 union server_parsed *ret)
{
    if (c->argument == ARGUMENT_NONE && argument.len > 0) {
        return REPLY_NO_ARGUMENT;
    }
    if (c->argument == ARGUMENT_WANTED && argument.len == 0) {
        return c->check == check_helo ? REPLY_HELO_NAME : REPLY_ARGUMENT_WANTED;
    }
    return c->check != NULL ? c->check(s, argument, ret) : REPLY_NONE;
}

void server_command_run(struct smtp_server *s, struct span line)
{
    const uint8_t *space = line.len > 0 ? memchr(line.ptr, ' ', line.len) : NULL;
    size_t name_len = space != NULL ? (size_t)(space - line.ptr) : line.len;
    const struct server_command *c = find_command((struct span){line.ptr, name_len});
    if (c == NULL) {
        server_refuse(s, REPLY_UNKNOWN);
        return;
    }
    struct span argument = server_trim((struct span){line.ptr + name_len, line.len - name_len});
    union server_parsed parsed;
    enum reply why = check_state(s, c);
    if (why == REPLY_NONE) {
        why = check_argument(s, c, argument, &parsed);
    }
    if (why == REPLY_NONE) {
        c->proceed(s, &parsed);
    } else if (c->refuse != NULL) {
        c->refuse(s, argument, why);
    } else {
        server_refuse(s, why);
    }
}

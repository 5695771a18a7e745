/* Command lines, and the arguments of MAIL and RCPT. */
#include "smtp/server_dialogue.h"

static void no_utf8(struct fake *f)
{
    f->start.may_relay = true;
    f->config.smtputf8 = false;
}

static const struct dialogue dialogues[] = {
    /* --- command lines --- */
    {"unknown",
     NULL,
     {C("ETRN x\r\nGET / HTTP/1.1\r\n\r\nXYZZY\r\n", "500 5.5.1|500|500|500"), ALIVE},
     .event = SMTP_EVENT_COMMAND_UNKNOWN},
    {"bare lf",
     NULL,
     {C("NOOP\nMAIL FROM:<a@b>\nQUIT\r\n", "500 5.5.2 A bare LF"), ALIVE},
     .event = SMTP_EVENT_COMMAND_OCTETS},
    {"bare cr", NULL, {C("NOOP\rQUIT\r\n", "500 5.5.2 A bare CR"), ALIVE}, .event = SMTP_EVENT_COMMAND_OCTETS},
    {"cr cr lf", NULL, {C("NOOP\r\r\n", "500 5.5.2 A bare CR"), ALIVE}},
    {"nul", NULL, {C("NOOP\0\r\n", "500 5.5.2 A NUL"), ALIVE}, .event = SMTP_EVENT_COMMAND_OCTETS},
    {"not utf-8", NULL, {C("NOOP \xff\r\n", "500 5.5.2 Octets"), ALIVE}},
    {"too long",
     NULL,
     {C("NOOP " X100("xxxxxxxxxxxxxxxxxxxxxxxxxx") "\r\n", "500 5.5.2 Command line"), ALIVE},
     .event = SMTP_EVENT_COMMAND_LINE_MAX},
    {"exactly as long as may be",
     short_lines,
     {C("NOOP "
        "xxxxxxxxxxxxxxxxxxxxxxxxx"
        "\r\n",
        "250"),
      C("NOOP "
        "xxxxxxxxxxxxxxxxxxxxxxxxxx"
        "\r\n",
        "500"),
      C("NOOP "
        "xxxxxxxxxxxxxxxxxxxxxxxxxx"
        "\r\rx\r\n",
        "500"),
      ALIVE}},
    {"trailing spaces", NULL, {C("NOOP  \r\nRSET \r\nEHLO x \r\n", "250|250|250")}},
    {"too many bad ones",
     few,
     {C("A\r\nB\r\nC\r\nNOOP\r\n", "500|500|421 4.7.0")},
     .closed = true,
     .event = SMTP_EVENT_BAD_COMMANDS_MAX},
    {"too many",
     few,
     {C("NOOP\r\nNOOP\r\nNOOP\r\nNOOP\r\nNOOP\r\nNOOP\r\nNOOP\r\nNOOP\r\n", "250|250|250|250|250|250|421 4.7.0")},
     .closed = true,
     .event = SMTP_EVENT_COMMANDS_MAX},
    {"ehlo without name", NULL, {C("EHLO\r\nHELO \r\n", "501 5.5.4|501 5.5.4")}},
    {"ehlo with two names", NULL, {C("EHLO a b\r\n", "501 5.5.4")}},
    {"quit with argument", NULL, {C("QUIT now\r\n", "501 5.5.4"), ALIVE}},

    /* --- MAIL and RCPT --- */
    {"mail syntax",
     relay,
     {HELLO, C("MAIL\r\nMAIL <a@b>\r\nMAIL FROM <a@b>\r\nMAIL FROM:a@b\r\nMAIL FROM:<a@b\r\nMAIL FROM:<a@b>x\r\nMAIL "
               "TO:<a@b>\r\n",
               "501 5.1.7|501|501|501|501|501|501")},
     .event = SMTP_EVENT_COMMAND_SYNTAX},
    {"null sender", relay, {HELLO, C("MAIL FROM:<>\r\nRCPT TO:<postmaster>\r\n", "250|250")}},
    {"null recipient", relay, {HELLO, C("MAIL FROM:<a@b>\r\nRCPT TO:<>\r\n", "250|501 5.1.3")}},
    {"source route", relay, {HELLO, C("MAIL FROM:<@x,@y:a@b>\r\n", "250")}},
    {"space behind the colon", relay, {HELLO, C("MAIL FROM: <a@b>\r\nRCPT TO: <c@d>\r\n", "250|250")}},
    {"nested",
     relay,
     {TRANSACTION, C("MAIL FROM:<x@y>\r\n", "503 5.5.1 The sender")},
     .event = SMTP_EVENT_COMMAND_ORDER},
    {"refused sender",
     relay,
     {HELLO, C("MAIL FROM:<no@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nMAIL FROM:<later@b>\r\n", "550 5.1.1|503|503|450 4.2.1")}},
    {"all recipients refused",
     relay,
     {HELLO,
      C("MAIL FROM:<a@b>\r\nRCPT TO:<no@b>\r\nRCPT TO:<later@b>\r\nDATA\r\n", "250|550|450|503 5.5.1 No recipient"),
      ALIVE}},
    {"size",
     relay_small,
     {HELLO, C("MAIL FROM:<a@b> SIZE=21\r\nMAIL FROM:<a@b> SIZE=99999999999999999999\r\nMAIL FROM:<a@b> SIZE=\r\nMAIL "
               "FROM:<a@b> SIZE=x\r\nMAIL FROM:<a@b> SIZE=-1\r\nMAIL FROM:<a@b> SIZE=20\r\n",
               "552 5.3.4|552 5.3.4|501|501|501|250")},
     .event = SMTP_EVENT_SIZE_MAX},
    {"mail parameters refused",
     relay,
     {HELLO, C("MAIL FROM:<a@b> SIZE=1 SIZE=1\r\nMAIL FROM:<a@b> FOO\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\nMAIL "
               "FROM:<a@b> RET=x\r\nMAIL FROM:<a@b> ENVID=+00\r\nMAIL FROM:<a@b> SMTPUTF8=1\r\nMAIL FROM:<a@b> "
               "ENVID=a=b\r\nMAIL FROM:<a@b> -X=1\r\n",
               "501 5.5.4|555 5.5.4|504 5.5.4|501|501|501|501|501")}},
    {"more mail parameters refused",
     relay,
     {HELLO, C("MAIL FROM:<a@b> ENVID=+0D+0A\r\nMAIL FROM:<a@b> AUTH=+00\r\nMAIL FROM:<a@b> AUTH=\r\nMAIL FROM:<a@b> "
               "ENVID\r\n",
               "501|501|501|501")}},
    {"parameters after helo", relay, {C("HELO x\r\nMAIL FROM:<a@b> SIZE=1\r\n", "250|555 5.5.4")}},
    {"rcpt parameters refused",
     relay,
     {HELLO, C("MAIL FROM:<a@b>\r\n", "250"),
      C("RCPT TO:<c@d> NOTIFY=NEVER,DELAY\r\nRCPT TO:<c@d> NOTIFY=\r\nRCPT TO:<c@d> NOTIFY=,\r\nRCPT TO:<c@d> "
        "ORCPT=x\r\nRCPT TO:<c@d> ORCPT=rfc822;+00\r\nRCPT TO:<c@d> ORCPT=rfc822;\r\nRCPT TO:<c@d> SIZE=1\r\n",
        "501|501|501|501|501|501|555"),
      ALIVE}},
    {"too many recipients",
     relay_small,
     {HELLO, C("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nRCPT TO:<g@h>\r\n", "250|250|250|452 4.5.3")},
     .event = SMTP_EVENT_RECIPIENTS_MAX},
    {"utf-8 without smtputf8",
     relay,
     {HELLO, C("MAIL FROM:<\xc3\xa9@b>\r\n", "553 5.6.7"),
      C("MAIL FROM:<a@b>\r\nRCPT TO:<\xc3\xa9@b>\r\n", "250|553 5.6.7")}},
    {"utf-8 with smtputf8",
     relay,
     {HELLO,
      C("MAIL FROM:<\xc3\xa9@b\xc3\xbc.example> SMTPUTF8\r\nRCPT TO:<\xe6\x9c\xa8@b> ORCPT=utf-8;\xe6\x9c\xa8@b\r\n",
        "250|250")}},
    {"utf-8 not offered",
     no_utf8,
     {HELLO, C("MAIL FROM:<a@b> SMTPUTF8\r\nMAIL FROM:<\xc3\xa9@b>\r\n", "555|553 5.6.7")}},
    {"rset forgets", relay, {TRANSACTION, C("RSET\r\nDATA\r\nRCPT TO:<a@b>\r\n", "250|503|503")}},
    {"ehlo forgets", relay, {TRANSACTION, HELLO, C("DATA\r\n", "503")}},
    {"before ehlo",
     relay,
     {C("MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\nRSET\r\n", "503 5.5.1 Say EHLO|503|503|250")}},
    {"messages_max",
     relay_small,
     {DATA_RELAY, C("x\r\n.\r\n", "250"), C("MAIL FROM:<a@b>\r\n", "421 4.7.0")},
     "x\r\n",
     true,
     SMTP_EVENT_MESSAGES_MAX},
};

int main(void)
{
    return dialogues_main(dialogues, sizeof(dialogues) / sizeof(dialogues[0]));
}

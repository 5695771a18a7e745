/* Dialogues: what a client sends, the replies it must get. Each runs whole, octet by octet, and cut at random, answered
 * at once and later; the replies must be the same octets each time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/server_fake.h"
#include "smtp/server_int.h"

#define STEPS_MAX 16

struct step {
    const char *send;
    size_t len;
    const char *expect; /* beginnings of the replies, divided by '|'; of a reply in several lines the last counts */
};
#define C(s, e)                                                                                                        \
    {                                                                                                                  \
        (s), sizeof(s) - 1, (e)                                                                                        \
    }

struct dialogue {
    const char *name;
    void (*setup)(struct fake *f);
    struct step steps[STEPS_MAX];
    const char *message; /* the last accepted one; NULL: none was */
    bool closed;
    int event; /* must have been seen; 0: see event_unknown */
};

#define USER_PASS "AHVzZXIAcGFzcw==" /* NUL user NUL pass */
#define HELLO     C("EHLO client.example\r\n", "250 HELP")
#define SECURE    HELLO, C("STARTTLS\r\n", "220 2.0.0"), HELLO
#define LOGIN     SECURE, C("AUTH PLAIN " USER_PASS "\r\n", "235 2.7.0")
#define ENVELOPE  C("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n", "250 2.1.0|250 2.1.5")
#define DATA_OPEN LOGIN, ENVELOPE, C("DATA\r\n", "354 ")
#define QUIT      C("QUIT\r\n", "221 2.0.0")
#define ALIVE     C("NOOP\r\n", "250 2.0.0")
#define X10(s)    s s s s s s s s s s
#define X100(s)   X10(X10(s))

static void implicit(struct fake *f)
{
    f->config.tls = SMTP_SERVER_IMPLICIT;
}

static void relay(struct fake *f)
{
    f->start.may_relay = true;
}

static void relay_repair(struct fake *f)
{
    f->start.may_relay = true;
    f->config.repair_bare_lf = true;
}

static void relay_small(struct fake *f)
{
    f->start.may_relay = true;
    f->config.limits.size_max = 20;
    f->config.limits.recipients_max = 2;
    f->config.limits.text_line_max = 10;
    f->config.limits.messages_max = 1;
}

static void relay_header(struct fake *f)
{
    f->start.may_relay = true;
    f->config.limits.header_max = 12;
}

static void relay_refuse_begin(struct fake *f)
{
    f->start.may_relay = true;
    f->refuse_begin = true;
}

static void relay_refuse_result(struct fake *f)
{
    f->start.may_relay = true;
    f->refuse_result = true;
}

static void relay_refuse_body(struct fake *f)
{
    f->start.may_relay = true;
    f->refuse_after = 3;
}

static void relay_bdat(struct fake *f)
{
    f->start.may_relay = true;
    f->config.limits.bdat_small = 4;
    f->config.limits.bdat_small_max = 2;
    f->config.limits.size_max = 20;
}

static void few(struct fake *f)
{
    f->config.limits.bad_commands_max = 2;
    f->config.limits.commands_max = 6;
    f->config.limits.auth_failures_max = 2;
}

static void short_lines(struct fake *f)
{
    f->config.limits.command_line_max = 32;
    f->config.limits.auth_line_max = 64;
}

static void certificate(struct fake *f)
{
    f->config.tls = SMTP_SERVER_IMPLICIT;
    f->certificate = true;
}

static void no_binding(struct fake *f)
{
    f->config.tls = SMTP_SERVER_IMPLICIT;
    f->no_binding = true;
}

static void clear(struct fake *f)
{
    f->config.tls = SMTP_SERVER_CLEAR;
}

static void no_utf8(struct fake *f)
{
    f->start.may_relay = true;
    f->config.smtputf8 = false;
}

#define TRANSACTION HELLO, ENVELOPE
#define DATA_RELAY  TRANSACTION, C("DATA\r\n", "354 ")

static const struct dialogue dialogues[] = {
    /* --- the way it should be --- */
    {"submission",
     NULL,
     {DATA_OPEN, C("Subject: x\r\n\r\nhello\r\n.\r\n", "250 2.0.0"), QUIT},
     "Subject: x\r\n\r\nhello\r\n",
     true},
    {"implicit tls",
     implicit,
     {HELLO, C("AUTH PLAIN " USER_PASS "\r\n", "235 2.7.0"), ENVELOPE, C("DATA\r\n", "354"),
      C("x\r\n.\r\n", "250 2.0.0")},
     "x\r\n"},
    {"two messages",
     relay,
     {DATA_RELAY, C("one\r\n.\r\n", "250"), ENVELOPE, C("DATA\r\n", "354"), C("two\r\n.\r\n", "250")},
     "two\r\n"},
    {"dots are undone", relay, {DATA_RELAY, C("..\r\n...x\r\na.\r\n.b\r\n.\r\n", "250")}, ".\r\n..x\r\na.\r\nb\r\n"},
    {"empty message", relay, {DATA_RELAY, C(".\r\n", "250")}, ""},
    {"empty lines", relay, {DATA_RELAY, C("\r\n\r\n\r\n.\r\n", "250")}, "\r\n\r\n\r\n"},
    {"pipelined behind the end of data",
     relay,
     {DATA_RELAY, C("x\r\n.\r\nNOOP\r\nQUIT\r\n", "250|250|221")},
     "x\r\n",
     true},
    {"pipelined envelope and data",
     relay,
     {HELLO, C("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<no@d>\r\nDATA\r\n", "250|250|550 5.1.1|354"),
      C("x\r\n.\r\n", "250")},
     "x\r\n"},
    {"helo",
     relay,
     {C("HELO me\r\n", "250 mail.example.net"), ENVELOPE, C("DATA\r\n", "354"), C("x\r\n.\r\n", "250")},
     "x\r\n"},
    {"verbs are not case-sensitive",
     relay,
     {C("ehlo me\r\nmail from:<a@b>\r\nrcpt to:<C@D>\r\nrSeT\r\n", "250|250|250|250")}},
    {"chunks",
     relay,
     {TRANSACTION, C("BDAT 5\r\na\r\nb\r", "250 2.0.0 5"), C("BDAT 4 LAST\r\n\n.\r\n", "250 2.0.0")},
     "a\r\nb\r\n.\r\n"},
    {"one chunk", relay, {TRANSACTION, C("BDAT 5 LAST\r\n.\r\nx\r", "550 5.6.11")}},
    {"chunks pipelined",
     relay,
     {HELLO,
      C("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\r\nBDAT 3 last\r\nb\r\nNOOP\r\n", "250|250|250|250|250")},
     "a\r\nb\r\n"},
    {"chunk without its last line end", relay, {TRANSACTION, C("BDAT 3 LAST\r\nabc", "250")}, "abc\r\n"},
    {"chunk of nothing, last", relay, {TRANSACTION, C("BDAT 3\r\na\r\n", "250"), C("BDAT 0 LAST\r\n", "250")}, "a\r\n"},
    {"only a chunk of nothing", relay, {TRANSACTION, C("BDAT 0 LAST\r\n", "250"), ALIVE}, ""},
    {"parameters",
     relay,
     {HELLO, C("MAIL FROM:<a@b> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=abc+2B SMTPUTF8 AUTH=<>\r\n", "250"),
      C("RCPT TO:<c@d> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c+2Bx@d\r\n", "250")}},
    {"help, vrfy, expn, noop",
     NULL,
     {C("HELP\r\nHELP x\r\nVRFY x\r\nEXPN x\r\nNOOP x\r\n", "214 2.0.0|214|252 2.0.0|502 5.5.1|250")}},

    /* --- rights --- */
    {"mail before tls",
     NULL,
     {HELLO, C("MAIL FROM:<a@b>\r\n", "530 5.7.0 Must issue a STARTTLS")},
     .event = SMTP_EVENT_TLS_REQUIRED},
    {"auth before tls",
     NULL,
     {HELLO, C("AUTH PLAIN " USER_PASS "\r\n", "538 5.7.11")},
     .event = SMTP_EVENT_TLS_REQUIRED},
    {"mail before auth", NULL, {SECURE, C("MAIL FROM:<a@b>\r\n", "530 5.7.0 Auth")}, .event = SMTP_EVENT_AUTH_REQUIRED},
    {"mail before auth, the rest pipelined",
     NULL,
     {SECURE, C("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "530|503 5.5.1 MAIL was|503 5.5.1 MAIL was"), ALIVE}},
    {"clear listener has no auth",
     clear,
     {HELLO, C("AUTH PLAIN " USER_PASS "\r\n", "502 5.5.1"), C("STARTTLS\r\n", "502 5.5.1"),
      C("MAIL FROM:<a@b>\r\n", "530 5.7.0")}},

    /* --- STARTTLS --- */
    {"starttls with argument", NULL, {HELLO, C("STARTTLS x\r\n", "501 5.5.4")}},
    {"starttls before ehlo", NULL, {C("STARTTLS\r\n", "220"), HELLO, C("AUTH PLAIN " USER_PASS "\r\n", "235 2.7.0")}},
    {"starttls after helo",
     NULL,
     {C("HELO x\r\nSTARTTLS\r\n", "250|220"), C("MAIL FROM:<a@b>\r\n", "503 5.5.1 Say EHLO")}},
    {"starttls twice", NULL, {SECURE, C("STARTTLS\r\n", "503 5.5.1 TLS")}},
    {"starttls on implicit", implicit, {HELLO, C("STARTTLS\r\n", "503 5.5.1 TLS")}},
    {"starttls in a transaction", relay, {TRANSACTION, C("STARTTLS\r\n", "503 5.5.1")}},
    {"ehlo is forgotten", NULL, {HELLO, C("STARTTLS\r\n", "220"), C("MAIL FROM:<a@b>\r\n", "503 5.5.1 Say EHLO")}},

    /* --- AUTH --- */
    {"plain without initial response", implicit, {HELLO, C("AUTH PLAIN\r\n", "334 "), C(USER_PASS "\r\n", "235")}},
    {"plain with equal authzid", implicit, {HELLO, C("AUTH PLAIN dXNlcgB1c2VyAHBhc3M=\r\n", "235")}},
    {"plain with another authzid",
     implicit,
     {HELLO, C("AUTH PLAIN cm9vdAB1c2VyAHBhc3M=\r\n", "535 5.7.8 Acting"), ALIVE},
     .event = SMTP_EVENT_AUTH_AUTHZID},
    {"plain, wrong",
     implicit,
     {HELLO, C("AUTH PLAIN AHVzZXIAbm8=\r\n", "535 5.7.8"), C("AUTH PLAIN " USER_PASS "\r\n", "235")}},
    {"plain, password of one octet", implicit, {HELLO, C("AUTH PLAIN AHVzZXIAeA==\r\n", "535 5.7.8")}},
    {"plain, no password",
     implicit,
     {HELLO, C("AUTH PLAIN AHVzZXIA\r\n", "501 5.5.2")},
     .event = SMTP_EVENT_AUTH_MALFORMED},
    {"plain, no name", implicit, {HELLO, C("AUTH PLAIN AABwYXNz\r\n", "501 5.5.2")}},
    {"plain, one NUL", implicit, {HELLO, C("AUTH PLAIN dXNlcgBwYXNz\r\n", "501 5.5.2")}},
    {"plain, three NULs", implicit, {HELLO, C("AUTH PLAIN AHVzZXIAcGFzcwA=\r\n", "501 5.5.2")}},
    {"plain, empty", implicit, {HELLO, C("AUTH PLAIN =\r\n", "501 5.5.2")}},
    {"plain, bad base64",
     implicit,
     {HELLO, C("AUTH PLAIN AHVzZXIAcGFzcw=\r\n", "501 5.5.2"), C("AUTH PLAIN !!!!\r\n", "501 5.5.2"),
      C("AUTH PLAIN AHVz ZXIA\r\n", "501 5.5.2"), ALIVE}},
    {"plain, name not utf-8", implicit, {HELLO, C("AUTH PLAIN AP//AHBhc3M=\r\n", "501 5.5.2")}},
    {"login",
     implicit,
     {HELLO, C("AUTH LOGIN\r\n", "334 VXNlcm5hbWU6"), C("dXNlcg==\r\n", "334 UGFzc3dvcmQ6"), C("cGFzcw==\r\n", "235")}},
    {"login with initial response",
     implicit,
     {HELLO, C("AUTH login dXNlcg==\r\n", "334 UGFz"), C("cGFzcw==\r\n", "235")}},
    {"login pipelined", implicit, {HELLO, C("AUTH LOGIN\r\ndXNlcg==\r\ncGFzcw==\r\nNOOP\r\n", "334|334|235|250")}},
    {"login cancelled",
     implicit,
     {HELLO, C("AUTH LOGIN\r\n", "334"), C("*\r\n", "501 5.7.0"), ALIVE},
     .event = SMTP_EVENT_AUTH_CANCELLED},
    {"login, bad base64", implicit, {HELLO, C("AUTH LOGIN\r\n", "334"), C("d\r\n", "501 5.5.2"), ALIVE}},
    {"login, empty name", implicit, {HELLO, C("AUTH LOGIN\r\n", "334"), C("\r\n", "501 5.5.2"), ALIVE}},
    {"store cannot answer", implicit, {HELLO, C("AUTH PLAIN AGRvd24AcGFzcw==\r\n", "454 4.7.0"), ALIVE}},
    {"suspended", implicit, {HELLO, C("AUTH PLAIN AGdvbmUAcGFzcw==\r\n", "535 5.7.8"), ALIVE}},
    {"second auth",
     implicit,
     {HELLO, C("AUTH PLAIN " USER_PASS "\r\n", "235"), C("AUTH PLAIN " USER_PASS "\r\n", "503 5.5.1 Already"), HELLO,
      C("AUTH LOGIN\r\n", "503")}},
    {"auth in a transaction",
     implicit,
     {HELLO, C("AUTH PLAIN " USER_PASS "\r\n", "235"), ENVELOPE,
      C("AUTH PLAIN " USER_PASS "\r\n", "503 5.5.1 Not within")}},
    {"auth before ehlo", implicit, {C("AUTH PLAIN " USER_PASS "\r\n", "503 5.5.1 Say EHLO")}},
    {"auth after helo", implicit, {C("HELO x\r\nAUTH PLAIN " USER_PASS "\r\n", "250|503 5.5.1 Say EHLO")}},
    {"auth without argument", implicit, {HELLO, C("AUTH\r\n", "501 5.5.4")}},
    {"unknown mechanism",
     implicit,
     {HELLO, C("AUTH CRAM-MD5\r\n", "504 5.5.4"), C("AUTH PLAINX\r\n", "504 5.5.4"), ALIVE}},
    {"external without certificate", implicit, {HELLO, C("AUTH EXTERNAL =\r\n", "504 5.5.4")}},
    {"external", certificate, {HELLO, C("AUTH EXTERNAL =\r\n", "235")}},
    {"external, asked", certificate, {HELLO, C("AUTH EXTERNAL\r\n", "334 "), C("\r\n", "235")}},
    {"external as", certificate, {HELLO, C("AUTH EXTERNAL dXNlcg==\r\n", "235")}},
    {"external as another", certificate, {HELLO, C("AUTH EXTERNAL cm9vdA==\r\n", "535")}},
    {"plus without binding",
     no_binding,
     {HELLO, C("AUTH SCRAM-SHA-256-PLUS\r\n", "504"), C("AUTH SCRAM-SHA-256 eSwsbj11c2VyLHI9YWJj\r\n", "334"),
      C("*\r\n", "501")}},
    {"binding downgraded",
     implicit,
     {HELLO, C("AUTH SCRAM-SHA-256 eSwsbj11c2VyLHI9YWJj\r\n", "535 5.7.8 Channel")},
     .event = SMTP_EVENT_AUTH_BINDING},
    {"scram, malformed", implicit, {HELLO, C("AUTH SCRAM-SHA-256 bixuPXVzZXIscj1hYmM=\r\n", "501 5.5.2")}},
    {"scram, store cannot answer",
     implicit,
     {HELLO, C("AUTH SCRAM-SHA-256 biwsbj1kb3duLHI9YWJj\r\n", "454 4.7.0"), ALIVE}},
    {"too many failures",
     few,
     {SECURE, C("AUTH PLAIN AHVzZXIAbm8=\r\n", "535"), C("AUTH PLAIN AHVzZXIAbm8=\r\n", "535|421 4.7.0")},
     .closed = true,
     .event = SMTP_EVENT_AUTH_FAILURES_MAX},
    {"auth line too long",
     short_lines,
     {C("EHLO x\r\nSTARTTLS\r\n", "250|220"), C("EHLO x\r\n", "250"), C("AUTH PLAIN\r\n", "334"),
      C(X10("AAAAAAAA") "\r\n", "500 5.5.6"), ALIVE},
     .event = SMTP_EVENT_COMMAND_LINE_MAX},
    {"auth command longer than a command",
     short_lines,
     {C("EHLO x\r\nSTARTTLS\r\n", "250|220"), C("EHLO x\r\n", "250"),
      C("AUTH PLAIN " USER_PASS USER_PASS "\r\n", "501 5.5.2"), C("AUTH PLAIN " X10("AAAAAAAA") "\r\n", "500 5.5.2"),
      ALIVE}},
    {"bare lf in a response",
     implicit,
     {HELLO, C("AUTH LOGIN\r\n", "334"), C("dXNlcg==\nNOOP\r\n", "500 5.5.2"), ALIVE}},

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

    /* --- the message: line ends and smuggling --- */
    {"bare lf in the text", relay, {DATA_RELAY, C("a\nb\r\n.\r\n", "550 5.6.11"), ALIVE}, .event = SMTP_EVENT_BARE_LF},
    {"bare cr in the text", relay, {DATA_RELAY, C("a\rb\r\n.\r\n", "550 5.6.11"), ALIVE}, .event = SMTP_EVENT_BARE_CR},
    {"nul in the text", relay, {DATA_RELAY, C("a\0b\r\n.\r\n", "550 5.6.11"), ALIVE}, .event = SMTP_EVENT_NUL},
    {"lf dot lf",
     relay,
     {DATA_RELAY, C("a\n.\nMAIL FROM:<x@y>\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_SMUGGLING},
    {"lf dot crlf",
     relay,
     {DATA_RELAY, C("a\n.\r\nMAIL FROM:<x@y>\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_SMUGGLING},
    {"crlf dot lf",
     relay,
     {DATA_RELAY, C("a\r\n.\nMAIL FROM:<x@y>\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_SMUGGLING},
    {"crlf dot cr",
     relay,
     {DATA_RELAY, C("a\r\n.\rMAIL FROM:<x@y>\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_BARE_CR},
    {"cr dot cr",
     relay,
     {DATA_RELAY, C("a\r.\rMAIL FROM:<x@y>\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_BARE_CR},
    {"cr dot crlf",
     relay,
     {DATA_RELAY, C("a\r.\r\nMAIL FROM:<x@y>\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_BARE_CR},
    {"crlf dot cr cr lf",
     relay,
     {DATA_RELAY, C("a\r\n.\r\r\nMAIL FROM:<x@y>\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_BARE_CR},
    {"crlf dot nul crlf",
     relay,
     {DATA_RELAY, C("a\r\n.\0\r\nMAIL FROM:<x@y>\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_NUL},
    {"crlf nul dot crlf",
     relay,
     {DATA_RELAY, C("a\r\n\0.\r\nMAIL FROM:<x@y>\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_NUL},
    {"cr nul lf", relay, {DATA_RELAY, C("a\r\0\n.\r\nx\r\n.\r\n", "550 5.6.11"), ALIVE}},
    {"lf first", relay, {DATA_RELAY, C("\n.\r\n.\r\n", "550 5.6.11"), ALIVE}},
    {"dot lf first", relay, {DATA_RELAY, C(".\nx\r\n.\r\n", "550 5.6.11"), ALIVE}, .event = SMTP_EVENT_SMUGGLING},
    {"lf cr dot lf cr", relay, {DATA_RELAY, C("a\n\r.\n\rb\r\n.\r\n", "550 5.6.11"), ALIVE}},
    {"the first fault counts",
     relay,
     {DATA_RELAY, C("a\0b\nc\rd\r\n.\r\n", "550 5.6.11 The message holds a NUL"), ALIVE}},
    {"line-like octets are text",
     relay,
     {DATA_RELAY, C("a\x0b\x0c\xc2\x85.\xe2\x80\xa8.\r\n.\r\n", "250")},
     "a\x0b\x0c\xc2\x85.\xe2\x80\xa8.\r\n"},
    {"repaired",
     relay_repair,
     {DATA_RELAY, C("a\nb\n\nc\r\n\n..d\n.\x65\r\n.\r\n", "250")},
     "a\r\nb\r\n\r\nc\r\n\r\n.d\r\ne\r\n",
     .event = SMTP_EVENT_BARE_LF_REPAIRED},
    {"not repaired: lf dot lf",
     relay_repair,
     {DATA_RELAY, C("a\n.\nb\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_SMUGGLING},
    {"not repaired: lf dot crlf",
     relay_repair,
     {DATA_RELAY, C("a\n.\r\nb\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_SMUGGLING},
    {"not repaired: crlf dot lf",
     relay_repair,
     {DATA_RELAY, C("a\r\n.\nb\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_SMUGGLING},
    {"not repaired: cr",
     relay_repair,
     {DATA_RELAY, C("a\rb\r\n.\r\n", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_BARE_CR},
    {"8-bit", relay, {DATA_RELAY, C("\xe9\r\n.\r\n", "250")}, "\xe9\r\n"},

    /* --- the message: limits --- */
    {"line of the limit", relay_small, {DATA_RELAY, C("0123456789\r\n.\r\n", "250")}, "0123456789\r\n"},
    {"line over the limit",
     relay_small,
     {DATA_RELAY, C("01234567890\r\n.\r\n", "550 5.6.0"), ALIVE},
     .event = SMTP_EVENT_TEXT_LINE_MAX},
    {"size of the limit",
     relay_small,
     {DATA_RELAY, C("01234567\r\n01234567\r\n.\r\n", "250")},
     "01234567\r\n01234567\r\n"},
    {"size over the limit",
     relay_small,
     {DATA_RELAY, C("01234567\r\n012345678\r\n.\r\n", "552 5.3.4"), ALIVE},
     .event = SMTP_EVENT_SIZE_MAX},
    {"size over the limit, a NUL behind",
     relay_small,
     {DATA_RELAY, C("01234567\r\n0123456789\r\n\0\r\n.\r\n", "552 5.3.4"), ALIVE},
     .event = SMTP_EVENT_SIZE_MAX},
    {"header of the limit",
     relay_header,
     {DATA_RELAY, C("A: b\r\nC: d\r\n\r\nbody body body\r\n.\r\n", "250")},
     "A: b\r\nC: d\r\n\r\nbody body body\r\n"},
    {"header over the limit",
     relay_header,
     {DATA_RELAY, C("A: b\r\nC: de\r\n\r\nbody\r\n.\r\n", "552 5.3.4"), ALIVE},
     .event = SMTP_EVENT_HEADER_MAX},

    /* --- the owner says no --- */
    {"refused before data", relay_refuse_begin, {TRANSACTION, C("DATA\r\n", "450 4.7.1"), C("DATA\r\n", "503"), ALIVE}},
    {"refused before chunks",
     relay_refuse_begin,
     {TRANSACTION, C("BDAT 4\r\nQUITBDAT 4 LAST\r\nQUIT", "450 4.7.1|503"), ALIVE}},
    {"refused before an empty chunk", relay_refuse_begin, {TRANSACTION, C("BDAT 0 LAST\r\n", "450 4.7.1"), ALIVE}},
    {"refused at the end",
     relay_refuse_result,
     {DATA_RELAY, C("x\r\n.\r\n", "451 4.3.0"), C("DATA\r\nRCPT TO:<c@d>\r\n", "503|503")}},
    {"refused at the end of chunks",
     relay_refuse_result,
     {TRANSACTION, C("BDAT 3 LAST\r\nx\r\n", "451 4.3.0"), C("BDAT 3 LAST\r\nx\r\n", "503"), C("DATA\r\n", "503")}},
    {"refused amid data", relay_refuse_body, {DATA_RELAY, C("abc\r\ndef\r\n.\r\n", "450 4.7.1"), ALIVE}},
    {"refused amid a chunk",
     relay_refuse_body,
     {TRANSACTION, C("BDAT 8\r\nabc\r\nefgBDAT 3 LAST\r\nabc", "450 4.7.1|503"), ALIVE}},

    /* --- BDAT --- */
    {"without mail", relay, {HELLO, C("BDAT 4\r\nQUITBDAT 6 LAST\r\nQUIT\r\n", "503 5.5.1|503 5.5.1"), ALIVE}},
    {"before ehlo: chunk", relay, {C("BDAT 4\r\nQUIT", "503 5.5.1 Say EHLO"), ALIVE}},
    {"without recipients",
     relay,
     {HELLO, C("MAIL FROM:<a@b>\r\nRCPT TO:<no@b>\r\nBDAT 4 LAST\r\nQUIT", "250|550|503 5.5.1 No rec"), ALIVE}},
    {"after helo", relay, {C("HELO x\r\n", "250"), ENVELOPE, C("BDAT 4 LAST\r\nQUIT", "503"), ALIVE}},
    {"data after a chunk",
     relay,
     {TRANSACTION, C("BDAT 3\r\na\r\nDATA\r\n", "250|503 5.5.1 The message was begun"), C("BDAT 0 LAST\r\n", "250")},
     "a\r\n"},
    {"mail and rcpt after a chunk",
     relay,
     {TRANSACTION, C("BDAT 3\r\na\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nNOOP\r\n", "250|503|503|250")}},
    {"rset after a chunk",
     relay,
     {TRANSACTION, C("BDAT 3\r\na\r\nRSET\r\nBDAT 3 LAST\r\na\r\n", "250|250|503"), ALIVE}},
    {"ehlo after a chunk", relay, {TRANSACTION, C("BDAT 3\r\na\r\nEHLO x\r\nDATA\r\n", "250|250|503")}},
    {"quit after a chunk", relay, {TRANSACTION, C("BDAT 3\r\na\r\nQUIT\r\n", "250|221")}, .closed = true},
    {"a fault ends it all",
     relay,
     {TRANSACTION, C("BDAT 3\r\na\nbBDAT 3 LAST\r\na\r\nDATA\r\nRCPT TO:<c@d>\r\n", "550 5.6.11|503|503|503"), ALIVE},
     .event = SMTP_EVENT_BARE_LF},
    {"cr at the very end",
     relay,
     {TRANSACTION, C("BDAT 2 LAST\r\na\r", "550 5.6.11"), ALIVE},
     .event = SMTP_EVENT_BARE_CR},
    {"cr at the end of a chunk, no lf",
     relay,
     {TRANSACTION, C("BDAT 2\r\na\rBDAT 1 LAST\r\nx", "250|550 5.6.11"), ALIVE}},
    {"nul in a chunk", relay, {TRANSACTION, C("BDAT 3 LAST\r\na\0b", "550 5.6.11"), ALIVE}},
    {"a lone dot in a chunk is text", relay, {TRANSACTION, C("BDAT 6 LAST\r\na\r\n.\r\n", "250")}, "a\r\n.\r\n"},
    {"chunk syntax ends the session", relay, {TRANSACTION, C("BDAT x\r\nQUIT\r\n", "501 5.5.4")}, .closed = true},
    {"chunk without number", relay, {TRANSACTION, C("BDAT\r\n", "501 5.5.4")}, .closed = true},
    {"chunk with a sign", relay, {TRANSACTION, C("BDAT -1 LAST\r\n", "501 5.5.4")}, .closed = true},
    {"chunk with a wrong word", relay, {TRANSACTION, C("BDAT 3 FIRST\r\n", "501 5.5.4")}, .closed = true},
    {"chunk past 64 bits", relay, {TRANSACTION, C("BDAT 18446744073709551616 LAST\r\n", "552 5.3.4")}, .closed = true},
    {"chunk over the size",
     relay_bdat,
     {TRANSACTION, C("BDAT 21 LAST\r\n0123456789\r\n012345678", "552 5.3.4"), ALIVE},
     .event = SMTP_EVENT_SIZE_MAX},
    {"chunks over the size",
     relay_bdat,
     {TRANSACTION, C("BDAT 11\r\n0123456789aBDAT 10 LAST\r\n0123456789", "250|552 5.3.4"), ALIVE},
     .event = SMTP_EVENT_SIZE_MAX},
    {"no room for the last line end",
     relay_bdat,
     {TRANSACTION, C("BDAT 19 LAST\r\n0123456789012345678", "552 5.3.4"), ALIVE}},
    {"small chunks",
     relay_bdat,
     {TRANSACTION, C("BDAT 1\r\naBDAT 1\r\nbBDAT 1\r\nc", "250|250|421 4.7.0")},
     .closed = true,
     .event = SMTP_EVENT_BDAT_SMALL_MAX},
    {"empty chunks",
     relay_bdat,
     {TRANSACTION, C("BDAT 0\r\nBDAT 0\r\nBDAT 0\r\n", "250|250|421 4.7.0")},
     .closed = true},
};

/* --- running them --- */

/* The next whole reply in *out; its last line. */
static struct span next_reply(struct span *out)
{
    for (;;) {
        const uint8_t *lf = out->len > 0 ? memchr(out->ptr, '\n', out->len) : NULL;
        if (lf == NULL) {
            return (struct span){NULL, 0};
        }
        struct span line = {out->ptr, (size_t)(lf - out->ptr) + 1};
        out->ptr += line.len;
        out->len -= line.len;
        if (line.ptr[3] == ' ') {
            return line;
        }
    }
}

static void check_replies(const char *name, struct span out, const char *expect)
{
    for (const char *at = expect; *at != '\0';) {
        size_t len = strcspn(at, "|");
        struct span reply = next_reply(&out);
        if (reply.len < len || memcmp(reply.ptr, at, len) != 0) {
            fail_msg("%s: expected '%.*s', got '%.*s'", name, (int)len, at, (int)reply.len, (const char *)reply.ptr);
        }
        at += len + (at[len] == '|');
    }
    if (out.len > 0) {
        fail_msg("%s: unexpected '%.*s'", name, (int)out.len, (const char *)out.ptr);
    }
}

static void check_classes(const char *name, struct span out)
{
    while (out.len > 0) {
        const uint8_t *lf = memchr(out.ptr, '\n', out.len);
        if (out.ptr[0] != '3' && out.ptr[5] == '.' && out.ptr[4] != out.ptr[0]) {
            fail_msg("%s: classes disagree: %.*s", name, (int)(lf - out.ptr), (const char *)out.ptr);
        }
        out.len -= (size_t)(lf - out.ptr) + 1;
        out.ptr = lf + 1;
    }
}

struct way {
    bool later;
    size_t step; /* 0: whole; SIZE_MAX: random */
    unsigned pause_every;
};

static void send_randomly(struct fake *f, struct span octets, unsigned *seed)
{
    while (octets.len > 0) {
        size_t n = (size_t)(rand_r(seed) % 7) + 1;
        n = n < octets.len ? n : octets.len;
        fake_send(f, (struct span){octets.ptr, n}, 0);
        octets.ptr += n;
        octets.len -= n;
    }
}

static void run(const struct dialogue *d, const struct way *way, struct fake *f)
{
    unsigned seed = 1;
    fake_init(f);
    if (d->setup != NULL) {
        d->setup(f);
    }
    f->later = way->later;
    f->pause_every = way->pause_every;
    fake_open(f);
    check_replies(d->name, buf_span(&f->out), "220 mail.example.net");
    for (size_t i = 0; i < STEPS_MAX && d->steps[i].send != NULL; i++) {
        size_t before = f->out.len;
        struct span octets = {(const uint8_t *)d->steps[i].send, d->steps[i].len};
        if (way->step == SIZE_MAX) {
            send_randomly(f, octets, &seed);
        } else {
            fake_send(f, octets, way->step);
        }
        check_replies(d->name, (struct span){f->out.data + before, f->out.len - before}, d->steps[i].expect);
        if (f->tls_wanted) {
            fake_tls(f);
        }
    }
    check_classes(d->name, buf_span(&f->out));
}

static void check_outcome(const struct dialogue *d, const struct fake *f)
{
    if (d->message != NULL && !span_eq(buf_span(&f->message), span_str(d->message))) {
        fail_msg("%s: message is '%.*s'", d->name, (int)f->message.len, (const char *)f->message.data);
    }
    if ((d->message != NULL) != (f->messages > 0)) {
        fail_msg("%s: %u messages", d->name, f->messages);
    }
    if (d->closed != smtp_server_wants_close(f->s)) {
        fail_msg("%s: closed is %d", d->name, !d->closed);
    }
    if (d->event != 0 && f->events[d->event] == 0) {
        fail_msg("%s: no event %s", d->name, smtp_event_name((enum smtp_event)d->event));
    }
    if (f->begins != f->messages + f->aborts && !f->open && !f->refuse_begin && !f->refuse_result &&
        f->refuse_after == 0) {
        fail_msg("%s: %u begun, %u whole, %u aborted", d->name, f->begins, f->messages, f->aborts);
    }
}

static void dialogues_run_alike(void **state)
{
    static const struct way ways[] = {{false, 0, 0}, {true, 0, 1},         {false, 1, 0},      {true, 1, 1},
                                      {true, 2, 2},  {false, SIZE_MAX, 0}, {true, SIZE_MAX, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof(dialogues) / sizeof(dialogues[0]); i++) {
        struct fake first;
        run(&dialogues[i], &ways[0], &first);
        check_outcome(&dialogues[i], &first);
        for (size_t w = 1; w < sizeof(ways) / sizeof(ways[0]); w++) {
            struct fake other;
            run(&dialogues[i], &ways[w], &other);
            check_outcome(&dialogues[i], &other);
            if (!span_eq(buf_span(&first.out), buf_span(&other.out))) {
                fail_msg("%s: way %zu differs: %.*s", dialogues[i].name, w, (int)other.out.len,
                         (const char *)other.out.data);
            }
            assert_memory_equal(first.events, other.events, sizeof(first.events));
            fake_fini(&other);
        }
        fake_fini(&first);
    }
}

/* --- what time decides, so that it cannot be cut at will --- */

static void start(struct fake *f, void (*setup)(struct fake *f))
{
    fake_init(f);
    if (setup != NULL) {
        setup(f);
    }
    fake_open(f);
}

static void send_text(struct fake *f, const char *text)
{
    buf_clear(&f->out);
    fake_send(f, span_str(text), 0);
}

static void starttls_pipelined(void **state)
{
    static const char *const behind[] = {"STARTTLS\r\nEHLO x\r\n", "STARTTLS\r\n\x16\x03\x01", "STARTTLS\r\n\r\n"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fake f;
        start(&f, NULL);
        send_text(&f, "EHLO x\r\n");
        send_text(&f, behind[i]);
        check_replies("pipelined", buf_span(&f.out), "503 5.5.1 Octets stood behind STARTTLS");
        assert_true(smtp_server_wants_close(f.s));
        assert_false(f.tls_wanted);
        assert_int_equal(f.events[SMTP_EVENT_STARTTLS_PIPELINED], 1);
        fake_fini(&f);
    }
}

/* In clear text after 220 but before the handshake. */
static void starttls_then_clear(void **state)
{
    struct fake f;
    (void)state;
    start(&f, NULL);
    send_text(&f, "EHLO x\r\n");
    send_text(&f, "STARTTLS\r\n");
    assert_true(smtp_server_waiting(f.s));
    send_text(&f, "EHLO x\r\n");
    check_replies("clear", buf_span(&f.out), "503 5.5.1");
    assert_true(smtp_server_wants_close(f.s));
    fake_fini(&f);
}

static void starttls_partial_line_before(void **state)
{
    struct fake f;
    (void)state;
    start(&f, NULL);
    send_text(&f, "EHLO x\r\nSTART");
    send_text(&f, "TLS\r\nNO");
    assert_true(smtp_server_wants_close(f.s));
    fake_fini(&f);
}

static void data_pipelined_and_refused(void **state)
{
    struct fake f;
    (void)state;
    start(&f, relay_refuse_begin);
    send_text(&f, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    send_text(&f, "DATA\r\nMAIL FROM:<evil@b>\r\n.\r\n");
    check_replies("pipelined", buf_span(&f.out), "450 4.7.1|421 4.5.0");
    assert_true(smtp_server_wants_close(f.s));
    assert_int_equal(f.events[SMTP_EVENT_DATA_PIPELINED], 1);
    fake_fini(&f);
}

static void ehlo_offers(void **state)
{
    struct fake f;
    (void)state;
    start(&f, NULL);
    send_text(&f, "EHLO x\r\n");
    buf_append_byte(&f.out, 0);
    assert_non_null(strstr((char *)f.out.data, "250-mail.example.net\r\n"));
    assert_non_null(strstr((char *)f.out.data, "250-STARTTLS\r\n"));
    assert_non_null(strstr((char *)f.out.data, "250-SIZE 52428800\r\n"));
    assert_non_null(strstr((char *)f.out.data, "250-LIMITS RCPTMAX=1000\r\n"));
    assert_null(strstr((char *)f.out.data, "AUTH"));
    send_text(&f, "STARTTLS\r\n");
    fake_tls(&f);
    send_text(&f, "EHLO x\r\n");
    buf_append_byte(&f.out, 0);
    assert_null(strstr((char *)f.out.data, "STARTTLS"));
    assert_non_null(strstr((char *)f.out.data, "250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1-PLUS SCRAM-SHA-1 "
                                               "LOGIN PLAIN\r\n"));
    for (size_t i = 0; i < 5; i++) {
        static const char *const words[] = {"PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING"};
        assert_non_null(strstr((char *)f.out.data, words[i]));
    }
    assert_non_null(strstr((char *)f.out.data, "250-DSN\r\n"));
    fake_fini(&f);
}

static void refusals_end_with_url_and_session(void **state)
{
    struct fake f;
    (void)state;
    start(&f, implicit);
    send_text(&f, "EHLO x\r\n");
    send_text(&f, "MAIL FROM:<a@b>\r\n");
    buf_append_byte(&f.out, 0);
    assert_non_null(strstr((char *)f.out.data, ". See https://help.example.net/ (0000000000001)\r\n"));
    fake_fini(&f);
}

static void close_from_outside(void **state)
{
    static const char *const until[] = {"",
                                        "EHLO x\r\n",
                                        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n",
                                        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nabc",
                                        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 9\r\nabc",
                                        "NOO"};
    const struct smtp_decision late = {421, {4, 4, 2}, SPAN_LIT("Time is up")};
    (void)state;
    for (size_t i = 0; i < sizeof(until) / sizeof(until[0]); i++) {
        struct fake f;
        start(&f, relay);
        send_text(&f, until[i]);
        buf_clear(&f.out);
        smtp_server_close(f.s, &late);
        fake_collect(&f);
        check_replies(until[i], buf_span(&f.out), "421 4.4.2 Time is up");
        assert_true(smtp_server_wants_close(f.s));
        assert_false(f.open);
        assert_false(f.in_mail);
        smtp_server_close(f.s, &late);
        assert_int_equal(smtp_server_feed(f.s, (const uint8_t *)"NOOP\r\n", 6), 6);
        assert_int_equal(smtp_server_output(f.s).len, 0);
        fake_fini(&f);
    }
}

static void close_while_asked(void **state)
{
    static const char *const until[] = {"DATA\r\n", "BDAT 3 LAST\r\na\r\n", "BDAT 0 LAST\r\n"};
    const struct smtp_decision gone = {421, {4, 3, 2}, SPAN_LIT("Going down")};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fake f;
        start(&f, relay);
        send_text(&f, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        f.later = true;
        size_t len = strlen(until[i]);
        (void)smtp_server_feed(f.s, (const uint8_t *)until[i], len);
        assert_true(smtp_server_waiting(f.s));
        smtp_server_close(f.s, &gone);
        assert_false(f.open);
        smtp_server_data_go(f.s); /* too late: dropped */
        smtp_server_message_result(f.s, &gone);
        fake_collect(&f);
        fake_fini(&f);
    }
}

/* Whatever the owner is told or asked, it may close the session there and then. */
static void close_within_any_callback(void **state)
{
    static const char *const texts[] = {
        "EHLO x\r\nAUTH PLAIN " USER_PASS "\r\nAUTH PLAIN\r\n",
        "EHLO x\r\nAUTH LOGIN\r\nbm8=\r\nbm8=\r\nAUTH SCRAM-SHA-256 biwsbj11c2VyLHI9YWJj\r\n*\r\n",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\n.\n\r\n.\r\nNOOP\r\n",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\r\nBDAT 1 LAST\r\nb",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 0 LAST\r\nBDAT 3 LAST\r\nabc",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\nbRSET\r\nXYZZY\r\n",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\r\nRSET\r\n",
        "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\na\nb\r\n.\r\nNOOP\r\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        for (unsigned how = 0; how < 4; how++) {
            bool closed = true;
            for (unsigned at = 1; closed; at++) {
                struct fake f;
                start(&f, implicit);
                f.s->may_relay = true;
                f.later = (how & 1) != 0;
                f.config.repair_bare_lf = (how & 2) != 0;
                f.close_at = at;
                send_text(&f, texts[i]);
                closed = f.callbacks >= at;
                assert_int_equal(smtp_server_wants_close(f.s), closed);
                assert_false(smtp_server_waiting(f.s));
                if (closed) {
                    assert_false(f.open);
                    assert_false(f.in_mail);
                }
                fake_fini(&f);
            }
        }
    }
}

/* A client that does not read its replies stops being read. */
static void output_is_bounded(void **state)
{
    static const char line[] = "HELP\r\n";
    struct fake f;
    size_t taken = 0;
    (void)state;
    fake_init(&f);
    f.config.limits.commands_max = 100000;
    fake_open(&f);
    for (unsigned i = 0; i < 10000; i++) {
        taken += smtp_server_feed(f.s, (const uint8_t *)line, sizeof(line) - 1);
    }
    assert_true(taken < 1000);
    assert_true(smtp_server_output(f.s).len < 9000);
    fake_collect(&f);
    assert_int_equal(smtp_server_feed(f.s, (const uint8_t *)line, sizeof(line) - 1), sizeof(line) - 1);
    fake_fini(&f);
}

/* A message that is lost and never ends is not read for ever. */
static void lost_message_is_bounded(void **state)
{
    struct fake f;
    unsigned pieces = 0;
    (void)state;
    start(&f, relay_small);
    send_text(&f, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    send_text(&f, "DATA\r\n");
    while (!smtp_server_wants_close(f.s) && pieces++ < 10000) {
        send_text(&f, X100("0123456789"));
    }
    check_replies("lost", buf_span(&f.out), "550 5.6.0");
    assert_in_range(pieces, 60, 80);
    fake_fini(&f);
}

static void idle_is_small(void **state)
{
    (void)state;
    assert_true(smtp_server_size() < 1024);
}

static void reply_text_is_tamed(void **state)
{
    struct fake f;
    struct smtp_decision d = {550, {2, 0, 0}, SPAN_LIT("bad\r\n250 evil\x1b[2J\xff")};
    (void)state;
    start(&f, NULL);
    buf_clear(&f.out);
    smtp_server_close(f.s, &d);
    fake_collect(&f);
    check_replies("tamed", buf_span(&f.out), "550 5.0.0 bad??250 evil?[2J?");
    fake_fini(&f);
}

static void body_end_tells(void **state)
{
    struct fake f;
    (void)state;
    start(&f, relay_repair);
    send_text(&f, "EHLO x\r\nMAIL FROM:<a@b> SMTPUTF8\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    send_text(&f, "a\nb\xc3\xa9\r\n.\r\n");
    assert_int_equal(f.end.octets, 8);
    assert_true(f.end.has_8bit && f.end.smtputf8 && !f.end.bdat);
    assert_int_equal(f.end.repaired_lf, 1);
    send_text(&f, "MAIL FROM:<a@b> BODY=8BITMIME\r\nRCPT TO:<c@d>\r\nBDAT 1 LAST\r\na");
    assert_true(f.end.has_8bit && !f.end.smtputf8 && f.end.bdat);
    assert_string_equal("a@b>c@d", (buf_append_byte(&f.senders, 0), (char *)f.senders.data));
    fake_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dialogues_run_alike),
        cmocka_unit_test(starttls_pipelined),
        cmocka_unit_test(starttls_then_clear),
        cmocka_unit_test(starttls_partial_line_before),
        cmocka_unit_test(data_pipelined_and_refused),
        cmocka_unit_test(ehlo_offers),
        cmocka_unit_test(refusals_end_with_url_and_session),
        cmocka_unit_test(close_from_outside),
        cmocka_unit_test(close_while_asked),
        cmocka_unit_test(close_within_any_callback),
        cmocka_unit_test(output_is_bounded),
        cmocka_unit_test(lost_message_is_bounded),
        cmocka_unit_test(idle_is_small),
        cmocka_unit_test(reply_text_is_tamed),
        cmocka_unit_test(body_end_tells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* AUTH (RFC 4954): who gets in, and every other way an exchange can end. */
#include "smtp/server_dialogue.h"

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

static const struct dialogue dialogues[] = {
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
};

int main(void)
{
    return dialogues_main(dialogues, sizeof(dialogues) / sizeof(dialogues[0]));
}

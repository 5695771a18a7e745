/*
 * Dialogues as data. A row is a script of lines:
 *   "S ..."   the host says this line (CRLF is added)
 *   "C ..."   the client must have written exactly these lines since the last S or !
 *   "R n class code e.e.e text"   recipient n must have got this result, in this order
 *   "F class code e.e.e text"   and so must the session have failed
 *   "!begin" "!tls" "!quit" "!fail" "!free"   what the owner does; "!bytes HEX" the host sends raw octets
 *   "= STATE PHASE"   what state and phase are
 * Each row runs with octets fed whole and one by one, and output taken whole and one by one: the same must come out.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/client_int.h"

enum row_flag {
    ROW_LMTP = 1,
    ROW_TLS_MAY = 2,
    ROW_TLS_MUST = 4,
    ROW_TLS_ACTIVE = 8,
    ROW_AUTH = 16,
    ROW_AUTH_IN_CLEAR = 32,
    ROW_8BIT = 64,
    ROW_UTF8 = 128,
    ROW_DSN = 256,
    ROW_DAMAGED = 512, /* the message cannot be read to its end */
    ROW_NULL_SENDER = 1024,
    ROW_NO_PIPELINING = 2048,
    ROW_LONG_PASSWORD = 4096,
};

struct row {
    const char *name;
    unsigned flags;
    size_t recipients;
    const char *body; /* spans divided by "|"; NULL: "x\r\n" */
    const char *script;
};

#define HELLO                                                                                                          \
    "S 220 mx ready\n"                                                                                                 \
    "C EHLO client.example\n"                                                                                          \
    "S 250 mx\n"                                                                                                       \
    "= READY idle\n"
#define PIPELINING                                                                                                     \
    "S 220 mx ready\n"                                                                                                 \
    "C EHLO client.example\n"                                                                                          \
    "S 250-mx\n"                                                                                                       \
    "S 250 PIPELINING\n"                                                                                               \
    "= READY idle\n"

static const struct row rows[] = {
    {"one message", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\n= BUSY MAIL\nS 250 2.1.0 ok\nC RCPT TO:<r0@example.org>\n"
           "= BUSY RCPT\nS 250 ok\nC DATA\n= BUSY DATA\nS 354 go\nC x\nC .\n= BUSY end of data\n"
           "S 250 2.0.0 queued as 1\nR 0 1 250 2.0.0 queued as 1\n= READY idle\n!quit\nC QUIT\n= BUSY QUIT\nS 221 bye\n"
           "= OVER QUIT\n"},
    {"two messages, one connection", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\nC DATA\nS 354 go\n"
           "C x\nC .\nS 250 one\nR 0 1 250 2.0.0 one\n= READY idle\n"
           "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\nC DATA\nS 354 go\n"
           "C x\nC .\nS 250 two\nR 0 1 250 2.0.0 two\n= READY idle\n"},
    {"null sender", ROW_NULL_SENDER, 1, NULL, HELLO "!begin\nC MAIL FROM:<>\n"},
    {"recipients differ", 0, 3, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 550 5.1.1 no such user\n"
           "R 0 3 550 5.1.1 no such user\nC RCPT TO:<r1@example.org>\nS 250 ok\nC RCPT TO:<r2@example.org>\n"
           "S 450 4.2.0 greylisted\nR 2 2 450 4.2.0 greylisted\nC DATA\nS 354 go\nC x\nC .\nS 250 ok\n"
           "R 1 1 250 2.0.0 ok\n= READY idle\n"},
    {"every recipient refused, then another message", 0, 2, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 550 no\nR 0 3 550 5.0.0 no\n"
           "C RCPT TO:<r1@example.org>\nS 551 gone\nR 1 3 551 5.0.0 gone\n= READY idle\n"
           "!begin\nC RSET\n= BUSY RSET\nS 250 ok\nC MAIL FROM:<s@example.net>\nS 250 ok\n"
           "C RCPT TO:<r0@example.org>\n"},
    {"RSET refused", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 550 no\nR 0 3 550 5.0.0 no\n"
           "!begin\nC RSET\nS 500 what\nR 0 2 0 4.5.0 The host refused RSET\n= OVER RSET\n"},
    {"MAIL refused", 0, 2, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 550 5.7.1 not you\nR 0 3 550 5.7.1 not you\n"
           "R 1 3 550 5.7.1 not you\n= READY idle\n!begin\nC MAIL FROM:<s@example.net>\n"},
    {"MAIL deferred", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 451 later\nR 0 2 451 4.0.0 later\n= READY idle\n"},
    {"DATA refused", 0, 2, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\n"
           "C RCPT TO:<r1@example.org>\nS 251 will forward\nC DATA\nS 554 no\nR 0 3 554 5.0.0 no\n"
           "R 1 3 554 5.0.0 no\n= READY idle\n!begin\nC RSET\n"},
    {"message refused", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\nC DATA\nS 354 go\n"
           "C x\nC .\nS 550-5.7.1 spam\nS 550 5.7.1 see https://x.example\n"
           "R 0 3 550 5.7.1 spam see https://x.example\n= READY idle\n!begin\nC MAIL FROM:<s@example.net>\n"},
    {"552 to RCPT is temporary", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 552 5.5.3 too many\n"
           "R 0 2 552 4.5.3 too many\n"},

    /* pipelining */
    {"pipelined", 0, 2, NULL,
     PIPELINING "!begin\nC MAIL FROM:<s@example.net>\nC RCPT TO:<r0@example.org>\nC RCPT TO:<r1@example.org>\nC DATA\n"
                "= BUSY MAIL\nS 250 ok\n= BUSY RCPT\nS 250 ok\nS 550 no\nR 1 3 550 5.0.0 no\n= BUSY DATA\nS 354 go\n"
                "C x\nC .\nS 250 ok\nR 0 1 250 2.0.0 ok\n= READY idle\n"},
    {"pipelined, MAIL refused, DATA refused", 0, 2, NULL,
     PIPELINING "!begin\nC MAIL FROM:<s@example.net>\nC RCPT TO:<r0@example.org>\nC RCPT TO:<r1@example.org>\nC DATA\n"
                "S 550 no\nR 0 3 550 5.0.0 no\nR 1 3 550 5.0.0 no\n= BUSY RCPT\nS 503 x\nS 503 x\nS 503 x\n"
                "= READY idle\n!begin\nC MAIL FROM:<s@example.net>\nC RCPT TO:<r0@example.org>\n"
                "C RCPT TO:<r1@example.org>\nC DATA\n"},
    {"pipelined, MAIL refused, the rest taken all the same", 0, 1, NULL,
     PIPELINING "!begin\nC MAIL FROM:<s@example.net>\nC RCPT TO:<r0@example.org>\nC DATA\nS 550 no\n"
                "R 0 3 550 5.0.0 no\nS 250 ok\nS 354 go\nC .\n= BUSY end of data\nS 250 ok\n= READY idle\n"},
    {"pipelined, every RCPT refused, DATA taken: a lone dot", 0, 2, NULL,
     PIPELINING "!begin\nC MAIL FROM:<s@example.net>\nC RCPT TO:<r0@example.org>\nC RCPT TO:<r1@example.org>\nC DATA\n"
                "S 250 ok\nS 550 no\nR 0 3 550 5.0.0 no\nS 450 no\nR 1 2 450 4.0.0 no\nS 354 go\nC .\n"
                "S 554 no valid recipients\n= READY idle\n!begin\nC MAIL FROM:<s@example.net>\n"
                "C RCPT TO:<r0@example.org>\nC RCPT TO:<r1@example.org>\nC DATA\n"},
    {"pipelined, every RCPT refused, DATA refused", 0, 1, NULL,
     PIPELINING "!begin\nC MAIL FROM:<s@example.net>\nC RCPT TO:<r0@example.org>\nC DATA\nS 250 ok\nS 550 no\n"
                "R 0 3 550 5.0.0 no\nS 503 x\n= READY idle\n!begin\nC RSET\nC MAIL FROM:<s@example.net>\n"
                "C RCPT TO:<r0@example.org>\nC DATA\nS 250 reset\nS 250 ok\nS 250 ok\nS 354 go\nC x\nC .\nS 250 ok\n"
                "R 0 1 250 2.0.0 ok\n"},
    {"pipelining not wanted", ROW_NO_PIPELINING, 1, NULL, PIPELINING "!begin\nC MAIL FROM:<s@example.net>\n"},

    /* dots */
    {"dots", 0, 1, ".\r\n..\r\n.a\r\nb.c\r\n\r\n.\r\n",
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\nC DATA\nS 354 go\n"
           "C ..\nC ...\nC ..a\nC b.c\nC \nC ..\nC .\n"},
    {"dots where spans meet", 0, 1, ".|.\r|\n|.a\r\n|.|\r\n|a|.b",
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\nC DATA\nS 354 go\n"
           "C ...\nC ..a\nC ..\nC a.b\nC .\n"},
    {"no message", 0, 1, "",
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\nC DATA\nS 354 go\n"
           "C .\n"},
    {"no line end at its end", 0, 1, "a\r\nb",
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\nC DATA\nS 354 go\n"
           "C a\nC b\nC .\n"},
    {"the message cannot be read", ROW_DAMAGED, 2, "a\r\n",
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\n"
           "C RCPT TO:<r1@example.org>\nS 250 ok\nC DATA\nS 354 go\nC a\n"
           "R 0 2 0 4.3.0 The message could not be read\nR 1 2 0 4.3.0 The message could not be read\n"
           "= OVER message\n"},

    /* what is offered is used, what is not is not */
    {"everything offered", ROW_8BIT | ROW_UTF8 | ROW_DSN, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx hello\nS 250-size 1000\nS 250-8bitmime\nS 250-SMTPUTF8\nS 250 DSN\n"
     "!begin\nC MAIL FROM:<s@example.net> SIZE=3 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e+2Bid\nS 250 ok\n"
     "C RCPT TO:<r0@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o@example.org\n"},
    {"nothing offered", ROW_8BIT | ROW_DSN, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\n"},
    {"SMTPUTF8 needed and not offered", ROW_UTF8, 2, NULL,
     HELLO "!begin\nR 0 3 0 5.6.7 The message needs SMTPUTF8, and the next host does not offer it\n"
           "R 1 3 0 5.6.7 The message needs SMTPUTF8, and the next host does not offer it\n= READY idle\n"},
    {"too large for the host", 0, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 SIZE 2\n!begin\n"
     "R 0 3 0 5.3.4 The message is larger than the next host takes\n= READY idle\n"},
    {"odd sizes are no limit", 0, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250-SIZE 99999999999999999999999\nS 250 SIZE x\n!begin\n"
     "C MAIL FROM:<s@example.net> SIZE=3\n"},

    /* greeting and hello */
    {"many greeting lines", 0, 1, NULL,
     "S 220-a\nS 220-b\nS 220 c\nC EHLO client.example\n= BUSY EHLO\nS 250 ok\n= READY idle\n"},
    {"greeting 554", 0, 1, NULL, "S 554 5.7.1 go away\n= OVER greeting\nF 3 554 5.7.1 go away\n"},
    {"greeting 521", 0, 1, NULL, "S 521 no mail here\n= OVER greeting\nF 3 521 5.0.0 no mail here\n"},
    {"greeting 421", 0, 1, NULL, "S 421 busy\n= OVER greeting\nF 2 421 4.0.0 busy\n"},
    {"greeting 250", 0, 1, NULL,
     "S 250 hi\n= OVER greeting\nF 2 0 4.5.0 The host's greeting is neither 220 nor a refusal\n"},
    {"HELO where EHLO is not known", 0, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 500 what\nC HELO client.example\nS 250-mx\nS 250 PIPELINING\n!begin\n"
     "C MAIL FROM:<s@example.net>\n"},
    {"neither", 0, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 550 no\nC HELO client.example\nS 550 no\n= OVER EHLO\nF 3 550 5.0.0 no\n"},
    {"EHLO deferred", 0, 1, NULL, "S 220 mx\nC EHLO client.example\nS 450 no\n= OVER EHLO\nF 2 450 4.0.0 no\n"},
    {"LMTP has no HELO", ROW_LMTP, 1, NULL,
     "S 220 mx\nC LHLO client.example\nS 500 what\n= OVER EHLO\nF 3 500 5.0.0 what\n"},

    /* STARTTLS */
    {"STARTTLS", ROW_TLS_MAY, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250-PIPELINING\nS 250 STARTTLS\nC STARTTLS\n= BUSY STARTTLS\n"
     "S 220 go\n= STARTTLS STARTTLS\n!tls\nC EHLO client.example\nS 250-mx\nS 250 STARTTLS\n= READY idle\n!begin\n"
     "C MAIL FROM:<s@example.net>\n"},
    {"octets behind the 220 of STARTTLS", ROW_TLS_MAY, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 STARTTLS\nC STARTTLS\n"
     "!bytes 32323020676f0d0a323530204576696c0d0a32353020\n= STARTTLS STARTTLS\n!tls\nC EHLO client.example\n"
     "= BUSY EHLO\nS 250 mx\n= READY idle\n"},
    {"STARTTLS not offered, may", ROW_TLS_MAY, 1, NULL, HELLO},
    {"STARTTLS not offered, must", ROW_TLS_MUST, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250 mx\n= OVER EHLO\n"
     "F 2 0 4.7.4 TLS is required, and the host does not offer it\n"},
    {"STARTTLS refused, may", ROW_TLS_MAY, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 STARTTLS\nC STARTTLS\nS 454 not now\n= READY idle\n"},
    {"STARTTLS refused, must", ROW_TLS_MUST, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 STARTTLS\nC STARTTLS\nS 554 no\n= OVER STARTTLS\n"
     "F 2 554 4.0.0 no\n"},
    {"HELO only, must", ROW_TLS_MUST, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 500 x\nC HELO client.example\nS 250 mx\n= OVER EHLO\n"
     "F 2 0 4.7.4 TLS is required, and the host does not offer it\n"},
    {"the handshake fails", ROW_TLS_MAY, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 STARTTLS\nC STARTTLS\nS 220 go\n!fail\n= OVER STARTTLS\n"
     "F 2 0 4.4.2 The connection was lost\n"},
    {"TLS already", ROW_TLS_MUST | ROW_TLS_ACTIVE, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 STARTTLS\n= READY idle\n"},

    /* AUTH */
    {"AUTH PLAIN", ROW_TLS_ACTIVE | ROW_AUTH, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 AUTH LOGIN PLAIN\nC AUTH PLAIN AHVzZXIAcGFzcw==\n= BUSY AUTH\n"
     "S 235 ok\n= READY idle\n"},
    {"AUTH LOGIN", ROW_TLS_ACTIVE | ROW_AUTH, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 AUTH=CRAM-MD5 LOGIN\nC AUTH LOGIN\nS 334 VXNlcm5hbWU6\n"
     "C dXNlcg==\nS 334 UGFzc3dvcmQ6\nC cGFzcw==\nS 235 ok\n= READY idle\n"},
    {"AUTH refused is temporary", ROW_TLS_ACTIVE | ROW_AUTH, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 AUTH PLAIN\nC AUTH PLAIN AHVzZXIAcGFzcw==\n"
     "S 535 5.7.8 no\n= OVER AUTH\nF 2 535 4.7.8 no\n"},
    {"AUTH PLAIN wants more", ROW_TLS_ACTIVE | ROW_AUTH, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 AUTH PLAIN\nC AUTH PLAIN AHVzZXIAcGFzcw==\nS 334 \n"
     "= OVER AUTH\nF 2 0 4.5.0 The host wanted more from AUTH than it has\n"},
    {"AUTH LOGIN wants more", ROW_TLS_ACTIVE | ROW_AUTH, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 AUTH LOGIN\nC AUTH LOGIN\nS 334 a\nC dXNlcg==\nS 334 b\n"
     "C cGFzcw==\nS 334 c\n= OVER AUTH\nF 2 0 4.5.0 The host wanted more from AUTH than it has\n"},
    {"AUTH not offered", ROW_TLS_ACTIVE | ROW_AUTH, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250 mx\n= OVER EHLO\n"
     "F 2 0 4.7.0 A password is set for the next host, and it offers neither AUTH PLAIN nor LOGIN\n"},
    {"no AUTH in clear", ROW_AUTH | ROW_TLS_MAY, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 AUTH PLAIN\n= OVER EHLO\n"
     "F 2 0 4.7.11 A password is set for the next host, and the connection to it is not encrypted\n"},
    {"AUTH in clear by wish", ROW_AUTH | ROW_AUTH_IN_CLEAR, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 AUTH PLAIN\nC AUTH PLAIN AHVzZXIAcGFzcw==\nS 235 ok\n"},
    {"AUTH offered before TLS only", ROW_AUTH | ROW_TLS_MAY, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250-AUTH PLAIN\nS 250 STARTTLS\nC STARTTLS\nS 220 go\n!tls\n"
     "C EHLO client.example\nS 250 mx\n= OVER EHLO\n"
     "F 2 0 4.7.0 A password is set for the next host, and it offers neither AUTH PLAIN nor LOGIN\n"},

    /* LMTP */
    {"LMTP answers for each", ROW_LMTP, 3, NULL,
     "S 220 mx\nC LHLO client.example\nS 250-mx\nS 250 PIPELINING\n!begin\nC MAIL FROM:<s@example.net>\n"
     "C RCPT TO:<r0@example.org>\nC RCPT TO:<r1@example.org>\nC RCPT TO:<r2@example.org>\nC DATA\nS 250 ok\nS 250 ok\n"
     "S 550 no\nR 1 3 550 5.0.0 no\nS 250 ok\nS 354 go\nC x\nC .\nS 250 2.0.0 saved\nR 0 1 250 2.0.0 saved\n"
     "= BUSY end of data\nS 452 4.2.2 full\nR 2 2 452 4.2.2 full\n= READY idle\n"},
    {"LMTP closes between answers", ROW_LMTP, 2, NULL,
     "S 220 mx\nC LHLO client.example\nS 250 mx\n!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\n"
     "C RCPT TO:<r0@example.org>\nS 250 ok\nC RCPT TO:<r1@example.org>\nS 250 ok\nC DATA\nS 354 go\nC x\nC .\n"
     "S 250 saved\nR 0 1 250 2.0.0 saved\n!fail\nR 1 2 0 4.4.2 The connection was lost\n= OVER end of data\n"},
    {"LMTP takes DATA without a recipient", ROW_LMTP, 1, NULL,
     "S 220 mx\nC LHLO client.example\nS 250-mx\nS 250 PIPELINING\n!begin\nC MAIL FROM:<s@example.net>\n"
     "C RCPT TO:<r0@example.org>\nC DATA\nS 250 ok\nS 550 no\nR 0 3 550 5.0.0 no\nS 354 go\n= OVER end of data\n"},

    /* ends */
    {"421 to MAIL", 0, 2, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 421 4.3.2 closing\nR 0 2 421 4.3.2 closing\n"
           "R 1 2 421 4.3.2 closing\n= OVER MAIL\n"},
    {"421 to the second RCPT", 0, 3, NULL,
     HELLO
     "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 550 no\nR 0 3 550 5.0.0 no\n"
     "C RCPT TO:<r1@example.org>\nS 421 closing\nR 1 2 421 4.0.0 closing\nR 2 2 421 4.0.0 closing\n= OVER RCPT\n"},
    {"421 to the end of data", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\nC DATA\nS 354 go\n"
           "C x\nC .\nS 421 closing\nR 0 2 421 4.0.0 closing\n= OVER end of data\n"},
    {"421 while idle", 0, 1, NULL, HELLO "S 421 bye\n= OVER idle\nF 2 421 4.0.0 bye\n"},
    {"a reply while idle", 0, 1, NULL,
     HELLO "S 250 ok\n= OVER idle\nF 2 0 4.5.0 The host sent a reply that nobody had asked for\n"},
    {"the end after the end of data", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\nC DATA\nS 354 go\n"
           "C x\nC .\n!fail\nR 0 2 0 4.4.2 The connection was lost\n= OVER end of data\n"},
    {"the end in a transaction", 0, 2, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\n!fail\n"
           "R 0 2 0 4.4.2 The connection was lost\nR 1 2 0 4.4.2 The connection was lost\n= OVER RCPT\n"},
    {"freed in a transaction", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\n!free\nR 0 2 0 4.4.2 The connection was given up\n"},
    {"the end after QUIT", 0, 1, NULL, HELLO "!quit\nC QUIT\n!fail\n= OVER QUIT\n"},
    {"421 to QUIT", 0, 1, NULL, HELLO "!quit\nC QUIT\nS 421 x\n= OVER QUIT\n"},

    /* hosts that break the protocol */
    {"354 to MAIL", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 354 go\n"
           "R 0 2 0 4.5.0 The host's answer to MAIL is neither 2xx nor a refusal\n= OVER MAIL\n"},
    {"354 to RCPT", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 354 go\n"
           "R 0 2 0 4.5.0 The host's answer to RCPT is neither 2xx nor a refusal\n= OVER RCPT\n"},
    {"250 to DATA", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\nC DATA\nS 250 ok\n"
           "R 0 2 0 4.5.0 The host's answer to DATA is neither 354 nor a refusal\n= OVER DATA\n"},
    {"354 to the end of data", 0, 1, NULL,
     HELLO "!begin\nC MAIL FROM:<s@example.net>\nS 250 ok\nC RCPT TO:<r0@example.org>\nS 250 ok\nC DATA\nS 354 go\n"
           "C x\nC .\nS 354 go\nR 0 2 0 4.5.0 The host's answer to the end of data is neither 2xx nor a refusal\n"},
    {"different codes in one reply", 0, 1, NULL,
     "S 220-mx\nS 250 mx\n= OVER greeting\nF 2 0 4.5.0 the lines of a reply have different codes\n"},
    {"no code", 0, 1, NULL, "S hello\n= OVER greeting\nF 2 0 4.5.0 a reply line does not begin with a reply code\n"},
    {"code 120", 0, 1, NULL,
     "S 120 wait\n= OVER greeting\nF 2 0 4.5.0 a reply line does not begin with a reply code\n"},
    {"code 620", 0, 1, NULL, "S 620 x\n= OVER greeting\nF 2 0 4.5.0 a reply line does not begin with a reply code\n"},
    {"code without a space", 0, 1, NULL,
     "S 220mx\n= OVER greeting\nF 2 0 4.5.0 a reply line does not begin with a reply code\n"},
    {"an empty line", 0, 1, NULL, "S \n= OVER greeting\nF 2 0 4.5.0 a reply line does not begin with a reply code\n"},
    {"a code alone", 0, 1, NULL, "S 220\nC EHLO client.example\nS 250\n= READY idle\n"},
    {"bare LF in replies", 0, 1, NULL,
     "!bytes 323230206d780a\nC EHLO client.example\n!bytes 3235302d6d780a32353020504950454c494e494e470a\n= READY idle\n"
     "!begin\nC MAIL FROM:<s@example.net>\nC RCPT TO:<r0@example.org>\nC DATA\n"},
    {"words are made printable", 0, 1, NULL,
     "!bytes 35353420351b5b324a0062610d64e69ca80d0a\n= OVER greeting\nF 3 554 5.0.0 5?[2J?ba?d???\n"},
    {"enhanced code of another class", 0, 1, NULL, "S 554 4.7.1 x\n= OVER greeting\nF 3 554 5.0.0 4.7.1 x\n"},
    {"enhanced code too large", 0, 1, NULL, "S 554 5.7.509 x\n= OVER greeting\nF 3 554 5.0.0 5.7.509 x\n"},
    {"no enhanced code", 0, 1, NULL, "S 554 5.7.1x\n= OVER greeting\nF 3 554 5.0.0 5.7.1x\n"},
    {"enhanced code alone", 0, 1, NULL, "S 554 5.7.1\n= OVER greeting\nF 3 554 5.7.1 \n"},
    {"AUTH is wiped when it cannot be sent", ROW_TLS_ACTIVE | ROW_AUTH | ROW_LONG_PASSWORD, 1, NULL,
     "S 220 mx\nC EHLO client.example\nS 250-mx\nS 250 AUTH PLAIN\n= OVER EHLO\n"
     "F 2 0 4.7.0 The name or the password for the next host is too long\n"},
};

#define RECIPIENTS_MAX 3

struct run {
    const struct row *row;
    bool one_in, one_out;
    struct smtp_client *c;
    struct buf written;
    struct buf results; /* lines as of R */
    const char *body;
    char long_password[8192];
};

static int next_octets(void *arg, struct span *ret)
{
    struct run *t = arg;
    if (*t->body == '\0') {
        return (t->row->flags & ROW_DAMAGED) != 0 ? -EIO : 0;
    }
    size_t len = strcspn(t->body, "|");
    *ret = (struct span){(const uint8_t *)t->body, len};
    t->body += len + (t->body[len] == '|' ? 1 : 0);
    return 1;
}

static void put_result(struct buf *b, const struct smtp_client_result *r)
{
    assert_true(r->enhanced[0] == (r->class == SMTP_CLIENT_DELIVERED ? 2 : r->class == SMTP_CLIENT_TEMPORARY ? 4 : 5));
    assert_int_equal(buf_printf(b, "%d %u %u.%u.%u %.*s\n", (int)r->class, r->code, r->enhanced[0], r->enhanced[1],
                                r->enhanced[2], (int)r->text.len, (const char *)r->text.ptr),
                     0);
}

static void on_recipient(void *arg, size_t index, const struct smtp_client_result *result)
{
    struct run *t = arg;
    assert_int_equal(buf_printf(&t->results, "%zu ", index), 0);
    put_result(&t->results, result);
}

static void drain(struct run *t)
{
    struct span out;
    while (t->c != NULL && (out = smtp_client_output(t->c), out.len > 0)) {
        size_t len = t->one_out ? 1 : out.len;
        assert_int_equal(buf_append(&t->written, out.ptr, len), 0);
        smtp_client_written(t->c, len);
    }
}

static void feed(struct run *t, struct span s)
{
    for (size_t at = 0; at < s.len;) {
        size_t len = t->one_in ? 1 : s.len - at;
        smtp_client_feed(t->c, s.ptr + at, len);
        drain(t);
        at += len;
    }
}

static void begin(struct run *t)
{
    static const char *const addresses[RECIPIENTS_MAX] = {"r0@example.org", "r1@example.org", "r2@example.org"};
    static struct smtp_client_recipient recipients[RECIPIENTS_MAX];
    unsigned flags = t->row->flags;
    for (size_t i = 0; i < RECIPIENTS_MAX; i++) {
        recipients[i] = (struct smtp_client_recipient){.address = span_str(addresses[i])};
        if ((flags & ROW_DSN) != 0) {
            recipients[i].notify = 6;
            recipients[i].orcpt = SPAN_LIT("rfc822;o@example.org");
        }
    }
    t->body = t->row->body != NULL ? t->row->body : "x\r\n";
    struct smtp_client_transaction transaction = {
        .sender = (flags & ROW_NULL_SENDER) != 0 ? (struct span){0} : SPAN_LIT("s@example.net"),
        .size = strlen(t->body),
        .body_8bit = (flags & ROW_8BIT) != 0,
        .smtputf8 = (flags & ROW_UTF8) != 0,
        .ret = (flags & ROW_DSN) != 0 ? SMTP_CLIENT_RET_HDRS : SMTP_CLIENT_RET_NONE,
        .envid = (flags & ROW_DSN) != 0 ? SPAN_LIT("e+2Bid") : (struct span){0},
        .recipients = recipients,
        .recipients_count = t->row->recipients,
        .arg = t,
        .body_next = next_octets,
        .recipient = on_recipient,
    };
    assert_int_equal(smtp_client_begin(t->c, &transaction), 0);
}

static void feed_hex(struct run *t, const char *hex, size_t len)
{
    uint8_t octets[256];
    assert_true(len / 2 <= sizeof(octets));
    for (size_t i = 0; i < len / 2; i++) {
        char two[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        octets[i] = (uint8_t)strtoul(two, NULL, 16);
    }
    feed(t, (struct span){octets, len / 2});
}

static void act(struct run *t, const char *what, size_t len)
{
    if (len > 6 && memcmp(what, "bytes ", 6) == 0) {
        feed_hex(t, what + 6, len - 6);
    } else if (what[0] == 'b') {
        begin(t);
    } else if (what[0] == 't') {
        smtp_client_tls_started(t->c);
        assert_true(smtp_client_tls_active(t->c));
    } else if (what[0] == 'q') {
        smtp_client_quit(t->c);
    } else if (what[1] == 'a') {
        smtp_client_fail(t->c, "The connection was lost");
    } else {
        smtp_client_free(&t->c);
    }
    drain(t);
}

static void host_says(struct run *t, const char *text, size_t len)
{
    struct buf line;
    buf_init(&line, 8192);
    assert_int_equal(buf_append(&line, text, len), 0);
    assert_int_equal(buf_append_str(&line, "\r\n"), 0);
    feed(t, buf_span(&line));
    buf_fini(&line);
}

/* The next len octets of b, with what ends them, must be these. */
static void expect(struct run *t, struct buf *b, const char *want, size_t len, const char *end)
{
    size_t whole = len + strlen(end);
    bool good = b->len >= whole && memcmp(b->data, want, len) == 0 && memcmp(b->data + len, end, strlen(end)) == 0;
    if (!good) {
        print_error("%s: wanted \"%.*s\", there is \"%.*s\"\n", t->row->name, (int)len, want, (int)b->len,
                    b->data != NULL ? (const char *)b->data : "");
    }
    assert_true(good);
    buf_consume(b, whole);
}

static void expect_state(struct run *t, const char *want, size_t len)
{
    static const char *const states[] = {"BUSY", "STARTTLS", "READY", "OVER"};
    struct buf b;
    buf_init(&b, 100);
    assert_int_equal(
        buf_printf(&b, "%s %s", states[smtp_client_state(t->c)], smtp_client_phase_name(smtp_client_phase(t->c))), 0);
    expect(t, &b, want, len, "");
    assert_int_equal(b.len, 0);
    buf_fini(&b);
}

static void expect_failure(struct run *t, const char *want, size_t len)
{
    struct buf b;
    buf_init(&b, 2048);
    assert_non_null(smtp_client_failure(t->c));
    put_result(&b, smtp_client_failure(t->c));
    expect(t, &b, want, len, "\n");
    buf_fini(&b);
}

static void line(struct run *t, const char *text, size_t len)
{
    const char *rest = len > 2 ? text + 2 : "";
    size_t rest_len = len > 2 ? len - 2 : 0;
    if (text[0] == 'S' || text[0] == '!' || text[0] == '=') { /* nothing was written but what the row says */
        if (t->written.len > 0) {
            print_error("%s: also wrote \"%.*s\"\n", t->row->name, (int)t->written.len, (const char *)t->written.data);
        }
        assert_int_equal(t->written.len, 0);
    }
    switch (text[0]) {
    case 'S':
        host_says(t, rest, rest_len);
        break;
    case 'C':
        expect(t, &t->written, rest, rest_len, "\r\n");
        break;
    case 'R':
        expect(t, &t->results, rest, rest_len, "\n");
        break;
    case '=':
        expect_state(t, rest, rest_len);
        break;
    case 'F':
        expect_failure(t, rest, rest_len);
        break;
    default:
        act(t, text + 1, len - 1);
        break;
    }
}

static void run_row(const struct row *row, bool one_in, bool one_out)
{
    struct run t = {.row = row, .one_in = one_in, .one_out = one_out};
    memset(t.long_password, 'p', sizeof(t.long_password) - 1);
    const struct smtp_client_config config = {
        .hostname = "client.example",
        .lmtp = (row->flags & ROW_LMTP) != 0,
        .tls = (row->flags & ROW_TLS_MUST) != 0  ? SMTP_CLIENT_TLS_MUST
               : (row->flags & ROW_TLS_MAY) != 0 ? SMTP_CLIENT_TLS_MAY
                                                 : SMTP_CLIENT_TLS_NONE,
        .tls_active = (row->flags & ROW_TLS_ACTIVE) != 0,
        .user = (row->flags & ROW_AUTH) != 0 ? "user" : NULL,
        .password = (row->flags & ROW_LONG_PASSWORD) != 0 ? t.long_password : "pass",
        .auth_in_clear = (row->flags & ROW_AUTH_IN_CLEAR) != 0,
        .no_pipelining = (row->flags & ROW_NO_PIPELINING) != 0,
    };
    t.c = smtp_client_new(&config);
    assert_non_null(t.c);
    buf_init(&t.written, 65536);
    buf_init(&t.results, 65536);
    for (const char *p = row->script; *p != '\0';) {
        size_t len = strcspn(p, "\n");
        line(&t, p, len);
        p += len + 1;
    }
    assert_int_equal(t.results.len, 0);
    assert_int_equal(t.written.len, 0);
    smtp_client_free(&t.c);
    buf_fini(&t.written);
    buf_fini(&t.results);
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (unsigned way = 0; way < 4; way++) {
            run_row(&rows[i], (way & 1) != 0, (way & 2) != 0);
        }
    }
}

/* Replies, apart from any dialogue. */

static int feed_reply(struct client_reply *r, const char *before, size_t times, const char *after)
{
    int result = 0;
    size_t used = 0;
    for (size_t i = 0; i < times && result == 0; i++) {
        result = client_reply_feed(r, (const uint8_t *)before, strlen(before), &used);
    }
    return result != 0 ? result : client_reply_feed(r, (const uint8_t *)after, strlen(after), &used);
}

static void test_reply_limits(void **state)
{
    (void)state;
    struct client_reply r;
    client_reply_init(&r, NULL, NULL);
    assert_int_equal(feed_reply(&r, "250-x\r\n", CLIENT_LINES_MAX - 1, "250 y\r\n"), 1);
    assert_int_equal(r.lines, CLIENT_LINES_MAX);
    assert_true(r.text_len < SMTP_CLIENT_TEXT_MAX);
    assert_int_equal(feed_reply(&r, "250-x\r\n", CLIENT_LINES_MAX, "250 y\r\n"), -1);
    client_reply_init(&r, NULL, NULL);
    assert_int_equal(feed_reply(&r, "250 x", 1, ""), 0);
    assert_int_equal(feed_reply(&r, "xxxxxxxxxx", 5000, "\r\n"), 1); /* a long line is cut */
    assert_int_equal(r.text_len, SMTP_CLIENT_TEXT_MAX);
    assert_int_equal(feed_reply(&r, "xxxxxxxxxx", 1000000, "\r\n"), -1); /* an endless one is not read for ever */
}

/* Nothing in an envelope can become a command or a parameter. */
static void test_envelope(void **state)
{
    (void)state;
    static const struct {
        const char *sender, *recipient, *envid, *orcpt;
        bool good;
    } envelopes[] = {
        {"a@b", "c@d", "", "", true},
        {"", "c@d", "e", "rfc822;x", true},
        {"\"a b\"@c", "\"<>\"@d", "", "", true},
        {"\"a\\\"b\"@c", "c@d", "", "", true},
        {"a@b", "", "", "", false},
        {"a b@c", "c@d", "", "", false},
        {"a>@c", "c@d", "", "", false},
        {"a@b\r\nRSET", "c@d", "", "", false},
        {"a@b", "c@d> NOTIFY=NEVER", "", "", false},
        {"a@b", "\"c@d", "", "", false},
        {"a@b", "\"c\\", "", "", false},
        {"a@b", "\"c\\\n\"@d", "", "", false},
        {"a@b", "\"c\\\"@d> x", "", "", false},
        {"a@b", "c@d", "e\r\n", "", false},
        {"a@b", "c@d", "e f", "", false},
        {"a@b", "c@d", "\xc3\xa4", "", false},
        {"a@b", "c@d", "", "rfc822;x y", false},
        {"a@b", "c@d", "", "rfc822;x\n", false},
    };
    for (size_t i = 0; i < sizeof(envelopes) / sizeof(envelopes[0]); i++) {
        struct run t = {.row = &rows[0], .body = ""};
        const struct smtp_client_config config = {.hostname = "client.example"};
        struct smtp_client_recipient recipient = {.address = span_str(envelopes[i].recipient),
                                                  .orcpt = span_str(envelopes[i].orcpt)};
        struct smtp_client_transaction transaction = {.sender = span_str(envelopes[i].sender),
                                                      .envid = span_str(envelopes[i].envid),
                                                      .recipients = &recipient,
                                                      .recipients_count = 1,
                                                      .arg = &t,
                                                      .body_next = next_octets,
                                                      .recipient = on_recipient};
        t.c = smtp_client_new(&config);
        buf_init(&t.written, 65536);
        buf_init(&t.results, 65536);
        assert_int_equal(smtp_client_begin(t.c, &transaction), -EINVAL); /* not READY */
        host_says(&t, "220 mx", 6);
        host_says(&t, "250 mx", 6);
        assert_int_equal(smtp_client_begin(t.c, &transaction), envelopes[i].good ? 0 : -EINVAL);
        transaction.recipients_count = 0;
        assert_int_equal(smtp_client_begin(t.c, &transaction), -EINVAL);
        smtp_client_free(&t.c);
        buf_fini(&t.written);
        buf_fini(&t.results);
    }
}

/* A thousand recipients go out in turns, not in one heap of memory. */
static void test_many(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    static struct smtp_client_recipient recipients[MANY];
    struct run t = {.row = &rows[0], .body = "x\r\n"};
    const struct smtp_client_config config = {.hostname = "client.example"};
    struct smtp_client_transaction transaction = {.recipients = recipients,
                                                  .recipients_count = MANY,
                                                  .arg = &t,
                                                  .body_next = next_octets,
                                                  .recipient = on_recipient};
    char longest[1001];
    memset(longest, 'r', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    for (size_t i = 0; i < MANY; i++) {
        recipients[i].address = span_str(longest);
    }
    t.c = smtp_client_new(&config);
    buf_init(&t.written, 4U * 1024U * 1024U);
    buf_init(&t.results, 4U * 1024U * 1024U);
    host_says(&t, "220 mx", 6);
    host_says(&t, "250-mx", 6);
    host_says(&t, "250 PIPELINING", 14);
    buf_clear(&t.written);
    assert_int_equal(smtp_client_begin(t.c, &transaction), 0);
    assert_true(smtp_client_output(t.c).len < CLIENT_OUT_FULL + 2048);
    drain(&t);
    for (size_t i = 0; i < MANY + 1; i++) {
        host_says(&t, "250 ok", 6);
    }
    host_says(&t, "354 go", 6);
    host_says(&t, "250 done", 8);
    assert_int_equal(smtp_client_state(t.c), SMTP_CLIENT_READY);
    assert_int_equal(t.results.len, 10 * 19 + 90 * 20 + 900 * 21);
    smtp_client_free(&t.c);
    buf_fini(&t.written);
    buf_fini(&t.results);
}

static void test_limits_extension(void **state)
{
    (void)state;
    struct run t = {.row = &rows[0]};
    const struct smtp_client_config config = {.hostname = "client.example"};
    t.c = smtp_client_new(&config);
    buf_init(&t.written, 65536);
    host_says(&t, "220 mx", 6);
    host_says(&t, "250-mx", 6);
    static const char limits[] = "250 LIMITS RCPTMAX=7 x= MAILMAX=1 RCPTDOMAINMAX=3";
    host_says(&t, limits, sizeof(limits) - 1);
    const struct smtp_client_capabilities *caps = smtp_client_capabilities(t.c);
    assert_int_equal(caps->recipients_max, 7);
    assert_int_equal(caps->messages_max, 1);
    assert_true(smtp_client_reusable(t.c));
    t.c->messages = 1;
    assert_false(smtp_client_reusable(t.c));
    smtp_client_free(&t.c);
    buf_fini(&t.written);
}

static void test_long_auth(void **state)
{
    (void)state;
    struct run t = {.row = &rows[0]};
    memset(t.long_password, 'p', 600);
    const struct smtp_client_config config = {
        .hostname = "client.example", .tls_active = true, .user = "user", .password = t.long_password};
    t.c = smtp_client_new(&config);
    buf_init(&t.written, 65536);
    host_says(&t, "220 mx", 6);
    host_says(&t, "250-mx", 6);
    buf_clear(&t.written);
    host_says(&t, "250 AUTH PLAIN", 14);
    assert_true(span_eq(buf_span(&t.written), SPAN_LIT("AUTH PLAIN\r\n"))); /* not over 512 octets */
    buf_clear(&t.written);
    host_says(&t, "334 ", 4);
    assert_int_equal(t.written.len, (606 + 2) / 3 * 4 + 2);
    host_says(&t, "235 ok", 6);
    assert_int_equal(smtp_client_state(t.c), SMTP_CLIENT_READY);
    smtp_client_free(&t.c);
    buf_fini(&t.written);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows), cmocka_unit_test(test_reply_limits),     cmocka_unit_test(test_envelope),
        cmocka_unit_test(test_many), cmocka_unit_test(test_limits_extension), cmocka_unit_test(test_long_auth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

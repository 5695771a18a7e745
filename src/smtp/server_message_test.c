/* The message: line ends and smuggling, limits, refusals of the owner, BDAT (RFC 3030). */
#include "smtp/server_dialogue.h"

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

static const struct dialogue dialogues[] = {
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

int main(void)
{
    return dialogues_main(dialogues, sizeof(dialogues) / sizeof(dialogues[0]));
}

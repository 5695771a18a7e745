/*
 * A notification about hostile things: the octets, cut at each 0xfe, are the address, ORCPT, remote, diagnostic, ENVID,
 * sender and the message. Whatever they are, the notification has its own delimiters and no others, its own fields
 * once, lines that end with CRLF, and a size that they bound.
 */
#include <assert.h>
#include <string.h>

#include "message/dsn.h"
#include "message/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct span cut(struct span *rest)
{
    const uint8_t *end = rest->len > 0 ? memchr(rest->ptr, 0xfe, rest->len) : NULL;
    struct span part = {rest->ptr, end != NULL ? (size_t)(end - rest->ptr) : rest->len};
    size_t used = part.len + (end != NULL ? 1 : 0);
    *rest = (struct span){rest->ptr + used, rest->len - used};
    return part;
}

static size_t count_of(struct span s, const char *needle)
{
    size_t count = 0, len = strlen(needle);
    const uint8_t *hit;
    while ((hit = memmem(s.ptr, s.len, needle, len)) != NULL) {
        count++;
        s.len -= (size_t)(hit - s.ptr) + 1;
        s.ptr = hit + 1;
    }
    return count;
}

static struct span after(struct span s, const char *needle)
{
    const uint8_t *hit = memmem(s.ptr, s.len, needle, strlen(needle));
    assert(hit != NULL);
    hit += strlen(needle);
    return (struct span){hit, s.len - (size_t)(hit - s.ptr)};
}

/* Only a line of our own can begin with the field's name; the sender's address may well say "boundary". */
static void find_delimiter(struct span out, char delimiter[64])
{
    struct span name = after(after(out, "\r\nContent-Type: multipart/report;"), "boundary=\"");
    size_t len = strlen("kidoban-000000000000z-00");
    assert(name.len > len);
    memset(delimiter, 0, 64);
    memcpy(delimiter, "\r\n--", 4);
    memcpy(delimiter + 4, name.ptr, len);
}

static void check(struct span out, struct span message)
{
    struct message_header h;
    char delimiter[64];
    find_delimiter(out, delimiter);
    size_t delimiters = count_of(out, delimiter);
    assert(delimiters == 3 || (delimiters == 4 && message.len > 0));
    message_header_scan(out, &h);
    assert(h.malformed == 0 && h.fields >= 8 && h.fields <= 11);
    assert(h.count[MESSAGE_FIELD_FROM] == 1 && h.count[MESSAGE_FIELD_TO] == 1 && h.count[MESSAGE_FIELD_SUBJECT] == 1);
}

static void check_lines(struct span s)
{
    size_t column = 0;
    for (size_t i = 0; i < s.len; i++) {
        assert(s.ptr[i] != '\0');
        assert(s.ptr[i] != '\n' || (i > 0 && s.ptr[i - 1] == '\r'));
        column = s.ptr[i] == '\n' ? 0 : column + 1;
        assert(column <= 999);
    }
}

/* The part for programs. The part for people may well say "Action: " in a stranger's words. */
static void check_report(struct span out)
{
    char delimiter[64];
    find_delimiter(out, delimiter);
    struct span report = after(after(out, delimiter), delimiter);
    assert(count_of(report, "\r\nAction: ") == 1 && count_of(report, "\r\nStatus: ") == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct span rest = {data + 1, size - 1};
    struct message_dsn_recipient r = {.action = (enum message_dsn_action)((data[0] & 7) % MESSAGE_DSN_ACTION_COUNT),
                                      .status = {5, 7, 1},
                                      .code = (data[0] & 8) != 0 ? 550 : 0};
    r.address = cut(&rest);
    r.orcpt = cut(&rest);
    r.remote = cut(&rest);
    r.diagnostic = cut(&rest);
    struct message_dsn dsn = {.hostname = SPAN_LIT("mail.example.net"),
                              .help_url = SPAN_LIT("https://help.example.net/"),
                              .id = 31,
                              .original_id = 32,
                              .now = 1795522218,
                              .smtputf8 = (data[0] & 16) != 0,
                              .message_full = (data[0] & 32) != 0,
                              .recipients = &r,
                              .recipients_count = 1};
    dsn.envid = cut(&rest);
    dsn.sender = cut(&rest);
    dsn.message = rest;
    struct message_dsn_result result;
    struct buf out;
    buf_init(&out, 16U * 1024U * 1024U);
    assert(message_dsn_compose(&dsn, &out, &result) == 0);
    assert(out.len < 16384 + 8 * size);
    check(buf_span(&out), rest);
    out.len = 0;
    dsn.message.len = 0;
    assert(message_dsn_compose(&dsn, &out, &result) == 0);
    check_lines(buf_span(&out));
    check_report(buf_span(&out));
    buf_fini(&out);
    return 0;
}

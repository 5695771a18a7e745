#include <string.h>
#include <unistr.h>

#include "message/header.h"

static const char *const field_names[MESSAGE_FIELD_COUNT] = {
    [MESSAGE_FIELD_OTHER] = "",
    [MESSAGE_FIELD_FROM] = "From",
    [MESSAGE_FIELD_SENDER] = "Sender",
    [MESSAGE_FIELD_REPLY_TO] = "Reply-To",
    [MESSAGE_FIELD_TO] = "To",
    [MESSAGE_FIELD_CC] = "Cc",
    [MESSAGE_FIELD_BCC] = "Bcc",
    [MESSAGE_FIELD_DATE] = "Date",
    [MESSAGE_FIELD_SUBJECT] = "Subject",
    [MESSAGE_FIELD_MESSAGE_ID] = "Message-ID",
    [MESSAGE_FIELD_IN_REPLY_TO] = "In-Reply-To",
    [MESSAGE_FIELD_REFERENCES] = "References",
    [MESSAGE_FIELD_RECEIVED] = "Received",
    [MESSAGE_FIELD_RETURN_PATH] = "Return-Path",
    [MESSAGE_FIELD_RESENT_FROM] = "Resent-From",
    [MESSAGE_FIELD_RESENT_SENDER] = "Resent-Sender",
    [MESSAGE_FIELD_RESENT_BCC] = "Resent-Bcc",
    [MESSAGE_FIELD_AUTO_SUBMITTED] = "Auto-Submitted",
};

const char *message_field_name(enum message_field_id id)
{
    return id < MESSAGE_FIELD_COUNT ? field_names[id] : "";
}

static enum message_field_id field_id(struct span name)
{
    for (size_t i = MESSAGE_FIELD_OTHER + 1; i < MESSAGE_FIELD_COUNT; i++) {
        if (span_eq_nocase(name, span_str(field_names[i]))) {
            return (enum message_field_id)i;
        }
    }
    return MESSAGE_FIELD_OTHER;
}

static bool is_wsp(uint8_t c)
{
    return c == ' ' || c == '\t';
}

/* The line at the start of rest, with its LF. *clean stays as it is or becomes false: no CRLF at its end, or a bare CR
 * or a NUL in it. */
static size_t line_length(struct span rest, bool *clean)
{
    const uint8_t *lf = memchr(rest.ptr, '\n', rest.len);
    size_t len = lf != NULL ? (size_t)(lf - rest.ptr) + 1 : rest.len;
    if (lf == NULL || len < 2 || memchr(rest.ptr, '\r', len) != lf - 1 || memchr(rest.ptr, '\0', len) != NULL) {
        *clean = false;
    }
    return len;
}

/* RFC 5322 section 3.6.8: printable US-ASCII without the colon; section 4.5 lets white space stand before it. */
static bool split_name(struct message_field *f)
{
    const uint8_t *p = f->whole.ptr;
    size_t name = 0;
    while (name < f->whole.len && p[name] > 32 && p[name] < 127 && p[name] != ':') {
        name++;
    }
    size_t colon = name;
    while (colon < f->whole.len && is_wsp(p[colon])) {
        colon++;
    }
    if (name == 0 || colon == f->whole.len || p[colon] != ':') {
        return false;
    }
    f->name = (struct span){p, name};
    f->value = (struct span){p + colon + 1, f->whole.len - colon - 1 - 2};
    return true;
}

int message_header_next(struct span *rest, struct message_field *ret)
{
    *ret = (struct message_field){0};
    if (rest->len == 0) {
        return 0;
    }
    if (rest->len >= 2 && rest->ptr[0] == '\r' && rest->ptr[1] == '\n') {
        *rest = (struct span){rest->ptr + 2, rest->len - 2};
        return 0;
    }
    bool clean = true;
    bool orphan = is_wsp(rest->ptr[0]);
    size_t len = line_length(*rest, &clean);
    while (!orphan && len < rest->len && is_wsp(rest->ptr[len])) {
        len += line_length((struct span){rest->ptr + len, rest->len - len}, &clean);
    }
    ret->whole = (struct span){rest->ptr, len};
    *rest = (struct span){rest->ptr + len, rest->len - len};
    if (orphan || !clean || !split_name(ret)) {
        return -1;
    }
    ret->id = field_id(ret->name);
    return 1;
}

size_t message_header_length(struct span octets)
{
    if (octets.len >= 2 && memcmp(octets.ptr, "\r\n", 2) == 0) {
        return 2;
    }
    const uint8_t *hit = octets.len >= 4 ? memmem(octets.ptr, octets.len, "\r\n\r\n", 4) : NULL;
    return hit != NULL ? (size_t)(hit - octets.ptr) + 4 : 0;
}

static bool has_8bit(struct span s)
{
    uint8_t seen = 0;
    for (size_t i = 0; i < s.len; i++) {
        seen |= s.ptr[i];
    }
    return seen >= 0x80;
}

static void count_field(struct message_header *h, const struct message_field *f)
{
    if (h->count[f->id] == 0) {
        h->first[f->id] = *f;
    }
    if (h->count[f->id] < UINT16_MAX) {
        h->count[f->id]++;
    }
}

void message_header_scan(struct span header, struct message_header *ret)
{
    *ret = (struct message_header){.too_large = header.len > MESSAGE_HEADER_MAX};
    if (ret->too_large) {
        return;
    }
    struct span rest = header;
    struct message_field f;
    int r;
    while ((r = message_header_next(&rest, &f)) != 0) {
        ret->fields_len = header.len - rest.len;
        if (++ret->fields > MESSAGE_HEADER_FIELD_MAX) {
            ret->too_large = true;
            return;
        }
        if (r > 0) {
            count_field(ret, &f);
        } else if (ret->malformed++ == 0) {
            ret->malformed_first = f.whole;
        }
    }
    struct span seen = {header.ptr, ret->fields_len};
    ret->has_8bit = has_8bit(seen);
    ret->invalid_utf8 = ret->has_8bit && u8_check(seen.ptr, seen.len) != NULL;
}

size_t message_field_text(struct span value, char *text, size_t room)
{
    size_t len = 0, kept = 0;
    for (size_t i = 0; i < value.len && len + 1 < room; i++) {
        uint8_t c = value.ptr[i];
        if (c == '\r' || c == '\n' || (len == 0 && is_wsp(c))) {
            continue;
        }
        text[len++] = (char)(is_wsp(c) ? ' ' : c > 32 && c < 127 ? c : '?');
        kept = is_wsp(c) ? kept : len;
    }
    text[kept] = '\0';
    return kept;
}

struct span message_field_message_id(struct span value)
{
    const uint8_t *open = value.len > 0 ? memchr(value.ptr, '<', value.len) : NULL;
    if (open == NULL) {
        return (struct span){0};
    }
    size_t behind = value.len - (size_t)(open - value.ptr) - 1;
    const uint8_t *close = behind > 0 ? memchr(open + 1, '>', behind) : NULL;
    return close != NULL ? (struct span){open + 1, (size_t)(close - open) - 1} : (struct span){0};
}

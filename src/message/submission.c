#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/id.h"
#include "message/date.h"
#include "message/header.h"
#include "message/identity.h"
#include "message/submission.h"

#define QUOTED_MAX 78 /* octets of a client's line in a refusal */

static bool refusal(struct message_submission_result *ret, uint16_t code, uint8_t subject, uint8_t detail,
                    const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* Always true: something was wrong. */
static bool refusal(struct message_submission_result *ret, uint16_t code, uint8_t subject, uint8_t detail,
                    const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    ret->code = code;
    ret->enhanced[0] = (uint8_t)(code / 100);
    ret->enhanced[1] = subject;
    ret->enhanced[2] = detail;
    (void)vsnprintf(ret->text, sizeof(ret->text), fmt, args);
    va_end(args);
    return true;
}

/* The message's form. */
static bool form_is_wrong(const struct message_header *h, const struct message_submission *m,
                          struct message_submission_result *ret)
{
    char line[QUOTED_MAX + 1];
    if (h->too_large) {
        return refusal(ret, 552, 3, 4, "The header section is too large: at most %u octets and %u fields",
                       MESSAGE_HEADER_MAX, MESSAGE_HEADER_FIELD_MAX);
    }
    if (h->malformed > 0) {
        (void)message_field_text(h->malformed_first, line, sizeof(line));
        return refusal(ret, 550, 6, 0, "A line of the header section is no header field (RFC 5322 section 2.2): \"%s\"",
                       line);
    }
    if (h->has_8bit && !m->smtputf8) {
        return refusal(ret, 550, 6, 7,
                       "The header section has 8-bit octets, and MAIL did not say SMTPUTF8: encode "
                       "them (RFC 2047), or send with SMTPUTF8");
    }
    if (h->invalid_utf8) {
        return refusal(ret, 550, 6, 7, "The header section has 8-bit octets that are not UTF-8 (RFC 6532)");
    }
    if (h->count[MESSAGE_FIELD_RECEIVED] > MESSAGE_RECEIVED_MAX) {
        return refusal(ret, 554, 4, 6, "Too many Received fields: the message goes round in a loop");
    }
    return false;
}

static bool mailbox_is_foreign(const struct message_mailbox *mailbox, const char *name, bool resent,
                               const struct message_submission *m, struct message_submission_result *ret)
{
    struct span address = {(const uint8_t *)mailbox->address, mailbox->address_len};
    if (!m->check_identities ||
        message_identity_matches_any(address, m->identities, m->identities_count, m->plus_addressing)) {
        return false;
    }
    memcpy(ret->address, mailbox->address, mailbox->address_len + 1);
    if (resent) {
        return refusal(ret, 550, 7, 1,
                       "This account may not send as <%s>, which the field %s names; to pass on a message of somebody "
                       "else's, forward it instead of sending it again",
                       ret->address, name);
    }
    return refusal(ret, 550, 7, 1,
                   "This account may not send as <%s>, which the field %s names; use one of its own addresses, or ask "
                   "for this one to be added",
                   ret->address, name);
}

static bool field_is_wrong(const struct message_header *h, enum message_field_id id, const struct message_submission *m,
                           struct message_submission_result *ret)
{
    const char *name = message_field_name(id);
    bool resent = h->count[MESSAGE_FIELD_RESENT_FROM] > 0;
    struct message_address_list list;
    struct message_mailbox mailbox;
    size_t mailboxes = 0;
    int r;
    message_address_list_init(&list, h->first[id].value);
    while ((r = message_address_next(&list, &mailbox)) > 0) {
        mailboxes++;
        if (mailbox_is_foreign(&mailbox, name, resent, m, ret)) {
            return true;
        }
    }
    if (r < 0) {
        return refusal(ret, 550, 6, 0,
                       "The field %s is no list of addresses (RFC 5322 section 3.4); a display name "
                       "with \"@\", \",\" or the like must stand in quotes",
                       name);
    }
    return mailboxes == 0 && refusal(ret, 550, 6, 0, "The field %s has no address", name);
}

/* Who the message says it is from. */
static bool author_is_wrong(const struct message_header *h, const struct message_submission *m,
                            struct message_submission_result *ret)
{
    if (h->count[MESSAGE_FIELD_FROM] == 0) {
        return refusal(ret, 550, 6, 0, "The message has no From field (RFC 5322 section 3.6)");
    }
    if (h->count[MESSAGE_FIELD_FROM] > 1 || h->count[MESSAGE_FIELD_SENDER] > 1) {
        return refusal(ret, 550, 6, 0, "The message has more than one %s field (RFC 5322 section 3.6)",
                       h->count[MESSAGE_FIELD_FROM] > 1 ? "From" : "Sender");
    }
    static const enum message_field_id checked[] = {MESSAGE_FIELD_FROM, MESSAGE_FIELD_SENDER, MESSAGE_FIELD_RESENT_FROM,
                                                    MESSAGE_FIELD_RESENT_SENDER};
    for (size_t i = 0; i < sizeof(checked) / sizeof(checked[0]); i++) {
        if (h->count[checked[i]] > 0 && field_is_wrong(h, checked[i], m, ret)) {
            return true;
        }
    }
    return false;
}

/* Received. */

static const char *protocol(const struct message_submission *m)
{
    static const char *const keywords[2][4] = {{"ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"},
                                               {"UTF8SMTP", "UTF8SMTPA", "UTF8SMTPS", "UTF8SMTPSA"}};
    if (!m->extended) {
        return "SMTP";
    }
    return keywords[m->smtputf8][(m->tls.len > 0 ? 2 : 0) + (m->authenticated ? 1 : 0)];
}

/* What can stand in Received without quotes: names and literals. EHLO may have brought anything. */
static bool is_token(struct span s, bool utf8)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
                    c == '-' || c == '_' || c == ':' || c == '[' || c == ']' || (utf8 && c >= 0x80);
        if (!good) {
            return false;
        }
    }
    return s.len > 0 && s.len <= 255;
}

static int put_span(struct buf *out, struct span s)
{
    return buf_append(out, s.ptr, s.len);
}

/* "from name ([address])" with "IPv6:" where RFC 5321 section 4.1.3 wants it. */
static int put_client(struct buf *out, const struct message_submission *m)
{
    struct span name = is_token(m->client_name, m->smtputf8) ? m->client_name : SPAN_LIT("unknown");
    struct span address = is_token(m->client_address, false) ? m->client_address : (struct span){0};
    int r = buf_append_str(out, "from ");
    r = r < 0 ? r : put_span(out, name);
    if (address.len > 0) {
        bool ipv6 = memchr(address.ptr, ':', address.len) != NULL;
        r = r < 0 ? r : buf_append_str(out, ipv6 ? " ([IPv6:" : " ([");
        r = r < 0 ? r : put_span(out, address);
        r = r < 0 ? r : buf_append_str(out, "])");
    }
    return r < 0 ? r : buf_append_str(out, "\r\n\t");
}

/* "(TLSv1.3 TLS_AES_256_GCM_SHA384)": a comment; what cannot stand in one is left out. */
static int put_tls(struct buf *out, struct span tls)
{
    int r = buf_append_str(out, " (");
    for (size_t i = 0; i < tls.len && i < 128 && r == 0; i++) {
        uint8_t c = tls.ptr[i];
        if (c >= ' ' && c < 127 && c != '(' && c != ')' && c != '\\') {
            r = buf_append_byte(out, c);
        }
    }
    return r < 0 ? r : buf_append_byte(out, ')');
}

static int put_received(struct buf *out, const struct message_submission *m)
{
    char id[ID_TEXT_LEN + 1], date[MESSAGE_DATE_LEN + 1];
    id_format(m->id, id);
    message_date_format(m->now, m->utc_offset_min, date);
    int r = buf_append_str(out, "Received: ");
    r = r < 0 || m->hide_client ? r : put_client(out, m);
    r = r < 0 ? r : buf_append_str(out, "by ");
    r = r < 0 ? r : put_span(out, m->hostname);
    r = r < 0 ? r : buf_printf(out, " (Kidoban) with %s", protocol(m));
    r = r < 0 || m->tls.len == 0 ? r : put_tls(out, m->tls);
    return r < 0 ? r : buf_printf(out, "\r\n\tid %s; %s\r\n", id, date);
}

/* The user's fields. */

/* All but Bcc and Resent-Bcc; fields next to each other go in one piece. */
static int put_fields(struct buf *out, struct span fields, const struct message_header *h)
{
    if (h->count[MESSAGE_FIELD_BCC] == 0 && h->count[MESSAGE_FIELD_RESENT_BCC] == 0) {
        return put_span(out, fields);
    }
    struct span rest = fields, kept = {fields.ptr, 0};
    struct message_field f;
    int r = 0;
    while (r == 0 && message_header_next(&rest, &f) > 0) {
        if (f.id == MESSAGE_FIELD_BCC || f.id == MESSAGE_FIELD_RESENT_BCC) {
            r = put_span(out, kept);
            kept = (struct span){rest.ptr, 0};
        } else {
            kept.len += f.whole.len;
        }
    }
    return r < 0 ? r : put_span(out, kept);
}

static int put_missing(struct buf *out, const struct message_header *h, const struct message_submission *m,
                       const char *message_id)
{
    char date[MESSAGE_DATE_LEN + 1];
    int r = 0;
    if (h->count[MESSAGE_FIELD_DATE] == 0) {
        message_date_format(m->now, m->utc_offset_min, date);
        r = buf_printf(out, "Date: %s\r\n", date);
    }
    if (r == 0 && h->count[MESSAGE_FIELD_MESSAGE_ID] == 0) {
        r = buf_printf(out, "Message-ID: <%s>\r\n", message_id);
    }
    return r;
}

/* The user's, or the one that will be added. */
static void find_message_id(const struct message_header *h, const struct message_submission *m,
                            struct message_submission_result *ret)
{
    if (h->count[MESSAGE_FIELD_MESSAGE_ID] > 0) {
        struct span found = message_field_message_id(h->first[MESSAGE_FIELD_MESSAGE_ID].value);
        (void)message_field_text(found, ret->message_id, sizeof(ret->message_id));
        return;
    }
    char id[ID_TEXT_LEN + 1];
    id_format(m->id, id);
    int host = m->hostname.len < 200 ? (int)m->hostname.len : 200;
    (void)snprintf(ret->message_id, sizeof(ret->message_id), "%s@%.*s", id, host, (const char *)m->hostname.ptr);
}

int message_submission_prepare(struct span header, const struct message_submission *m, struct buf *out,
                               struct message_submission_result *ret)
{
    struct message_header h;
    memset(ret, 0, sizeof(*ret));
    header = header.len > 0 ? header : SPAN_LIT("");
    message_header_scan(header, &h);
    find_message_id(&h, m, ret);
    if (form_is_wrong(&h, m, ret)) {
        return 0;
    }
    if (author_is_wrong(&h, m, ret)) {
        if (m->enforce) {
            return 0;
        }
        ret->code = 0;
        ret->reported = true;
    }
    size_t before = out->len;
    struct span fields = {header.ptr, h.fields_len};
    struct span end = {header.ptr + h.fields_len, header.len - h.fields_len};
    int r = put_received(out, m);
    r = r < 0 ? r : put_fields(out, fields, &h);
    r = r < 0 ? r : put_missing(out, &h, m, ret->message_id);
    r = r < 0 ? r : put_span(out, end);
    if (r < 0) {
        out->len = before;
    }
    return r;
}

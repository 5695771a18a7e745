/*
 * A header section, scanned, and prepared as a submission. The first octet is the facts. What must hold: the fields
 * make up the section; what is prepared is the section less Bcc, between Received and what was missing; and when the
 * result is prepared again, nothing is missing and nothing is left to take out.
 */
#include <assert.h>
#include <string.h>

#include "message/header.h"
#include "message/submission.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void scan(struct span header, struct message_header *h)
{
    struct span rest = header;
    struct message_field f;
    size_t fields = 0, octets = 0, malformed = 0;
    int r;
    message_header_scan(header, h);
    while ((r = message_header_next(&rest, &f)) != 0 && fields < MESSAGE_HEADER_FIELD_MAX) {
        char text[20];
        fields++;
        malformed += r < 0 ? 1 : 0;
        assert(f.whole.ptr == header.ptr + octets && f.whole.len > 0);
        octets += f.whole.len;
        (void)message_field_message_id(f.value);
        assert(message_field_text(f.value, text, sizeof(text)) < sizeof(text));
    }
    assert(h->too_large || (h->fields == fields && h->malformed == malformed && h->fields_len == octets));
}

static int prepare(struct span header, uint8_t facts, struct buf *out, struct message_submission_result *result)
{
    const struct span identities[] = {SPAN_LIT("a@example.net"), SPAN_LIT("@example.org")};
    const struct message_submission m = {
        .hostname = SPAN_LIT("mail.example.net"),
        .id = 31,
        .client_name = SPAN_LIT("client"),
        .client_address = SPAN_LIT("2001:db8::1"),
        .hide_client = (facts & 1) != 0,
        .tls = SPAN_LIT("TLSv1.3 X"),
        .extended = true,
        .authenticated = true,
        .smtputf8 = (facts & 2) != 0,
        .now = 1795522218,
        .identities = identities,
        .identities_count = 2,
        .check_identities = (facts & 4) != 0,
        .enforce = (facts & 8) != 0,
        .plus_addressing = (facts & 16) != 0,
    };
    return message_submission_prepare(header, &m, out, result);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct span header = {data + 1, size - 1};
    size_t len = message_header_length(header);
    header.len = len > 0 ? len : header.len;
    struct message_header before, after;
    struct message_submission_result result;
    struct buf out;
    scan(header, &before);
    buf_init(&out, 4U * 1024U * 1024U);
    assert(prepare(header, data[0], &out, &result) == 0);
    if (result.code == 0) {
        assert(out.len <= header.len + MESSAGE_SUBMISSION_ADDED);
        scan(buf_span(&out), &after);
        assert(after.malformed == 0 && after.count[MESSAGE_FIELD_BCC] == 0 &&
               after.count[MESSAGE_FIELD_RESENT_BCC] == 0);
        assert(after.count[MESSAGE_FIELD_DATE] > 0 && after.count[MESSAGE_FIELD_MESSAGE_ID] > 0);
        assert(after.count[MESSAGE_FIELD_RECEIVED] == before.count[MESSAGE_FIELD_RECEIVED] + 1);
        assert(after.count[MESSAGE_FIELD_FROM] == before.count[MESSAGE_FIELD_FROM]);
        assert((message_header_length(buf_span(&out)) > 0) == (len > 0));
    } else {
        assert(out.len == 0 && result.text[0] != '\0' && result.enhanced[0] == result.code / 100);
    }
    buf_fini(&out);
    return 0;
}

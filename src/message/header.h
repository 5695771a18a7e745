/*
 * header.h: a complete header section, read field by field (RFC 5322 section 2.2, RFC 6532).
 *
 * The octets are a stranger's. Nothing is copied or changed: every span is a view into the section. One pass, no
 * memory. Lines end with CRLF (the SMTP engine saw to it); a bare CR, a bare LF or a NUL makes a field malformed.
 */
#ifndef KIDOBAN_MESSAGE_HEADER_H
#define KIDOBAN_MESSAGE_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define MESSAGE_HEADER_MAX       (1024U * 1024U) /* octets of a header section that is looked at */
#define MESSAGE_HEADER_FIELD_MAX 10000U          /* fields in it */

enum message_field_id {
    MESSAGE_FIELD_OTHER,
    MESSAGE_FIELD_FROM,
    MESSAGE_FIELD_SENDER,
    MESSAGE_FIELD_REPLY_TO,
    MESSAGE_FIELD_TO,
    MESSAGE_FIELD_CC,
    MESSAGE_FIELD_BCC,
    MESSAGE_FIELD_DATE,
    MESSAGE_FIELD_SUBJECT,
    MESSAGE_FIELD_MESSAGE_ID,
    MESSAGE_FIELD_IN_REPLY_TO,
    MESSAGE_FIELD_REFERENCES,
    MESSAGE_FIELD_RECEIVED,
    MESSAGE_FIELD_RETURN_PATH,
    MESSAGE_FIELD_RESENT_FROM,
    MESSAGE_FIELD_RESENT_SENDER,
    MESSAGE_FIELD_RESENT_BCC,
    MESSAGE_FIELD_AUTO_SUBMITTED,
    MESSAGE_FIELD_COUNT
};
const char *message_field_name(enum message_field_id id); /* "From"; "" for OTHER */

struct message_field {
    enum message_field_id id;
    struct span name;  /* without the white space that old syntax allows before the colon */
    struct span value; /* behind the colon, folds in it, without the last CRLF */
    struct span whole; /* all lines of the field, with CRLF: what is left out when the field is */
};

/*
 * The field at the start of *rest, which moves behind it.
 *   1  a field
 *   0  no more: the empty line or the end; *rest is what is behind the empty line
 *  -1  the line is none: no colon, an empty or odd name, white space with nothing to continue, a bare CR or LF, a
 *      NUL, or no CRLF. ret->whole is it; *rest is behind it, so a caller may go on.
 */
int message_header_next(struct span *rest, struct message_field *ret);

/* Octets of the header section with its empty line, or 0 when the empty line is not in octets. */
size_t message_header_length(struct span octets);

struct message_header {
    size_t fields;
    size_t fields_len;                   /* octets of them: where the empty line is, if there is one */
    size_t malformed;                    /* lines that are no field */
    struct span malformed_first;         /* the first of them; empty when none */
    uint16_t count[MESSAGE_FIELD_COUNT]; /* of each kind; stops at 65535 */
    struct message_field first[MESSAGE_FIELD_COUNT];
    bool has_8bit;     /* some octet over 0x7f: needs SMTPUTF8 */
    bool invalid_utf8; /* ... and is not UTF-8 (RFC 6532 section 3.1) */
    bool too_large;    /* over MESSAGE_HEADER_MAX or _FIELD_MAX: the rest was not looked at */
};
void message_header_scan(struct span header, struct message_header *ret);

/* The value without folds and white space round it, NUL-terminated; cut to fit room (at least 1). Octets that are not
 * printable become '?'. Returns its length. */
size_t message_field_text(struct span value, char *text, size_t room);
/* What stands between "<" and ">" in a Message-ID value, or an empty span. */
struct span message_field_message_id(struct span value);

#endif

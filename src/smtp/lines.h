/*
 * lines.h: line ends, dots and NULs are settled here and nowhere else, for commands and for messages.
 *
 * Only CRLF ends a line; only CRLF "." CRLF ends DATA. A bare CR, a bare LF or a NUL is a fault: of the command, or of
 * the message, which is then read to its true end and dropped. Nothing behind this file sees a line end that is not
 * CRLF, so nothing can take one for another (SMTP smuggling, CVE-2023-51764 to 51766).
 */
#ifndef KIDOBAN_SMTP_LINES_H
#define KIDOBAN_SMTP_LINES_H

#include <stdbool.h>

#include "common/buf.h"

enum smtp_line_fault {
    SMTP_LINE_OK,
    SMTP_LINE_BARE_CR,
    SMTP_LINE_BARE_LF,
    SMTP_LINE_NUL,
    SMTP_LINE_SMUGGLING,  /* a line that is a lone dot to a reader of bare LF */
    SMTP_LINE_LONG,       /* a text line over line_max */
    SMTP_LINE_HEADER_MAX, /* octets before the first empty line over header_max */
    SMTP_LINE_SIZE_MAX,
    SMTP_LINE_REFUSED, /* set by the owner of a struct smtp_text: it wants no more of it */
    SMTP_LINE_FAULT_COUNT
};

/* --- a command line --- */

enum smtp_line_state {
    SMTP_LINE_MORE,         /* all of in was taken, the line has not ended */
    SMTP_LINE_READY,        /* *ret_line: without CRLF, a view into in or pending, until either changes */
    SMTP_LINE_TOO_LONG,     /* max octets and no LF: skip to CRLF */
    SMTP_LINE_ENDS_BARE_LF, /* skip to CRLF: what follows must not be read as a line of its own */
    SMTP_LINE_NO_MEMORY,
};

/* Reads one line of at most max octets with CRLF. A line that stands whole in `in` is not copied; one that comes in
 * pieces gathers in pending, which the caller clears after the line. The answer does not depend on how it was cut. */
enum smtp_line_state smtp_line_take(struct buf *pending, size_t max, struct span in, size_t *ret_used,
                                    struct span *ret_line);
/* Octets within a line that has an end: a bare CR or a NUL is a fault. */
enum smtp_line_fault smtp_line_check(struct span line);
/* Drops up to and with the next CRLF: octets dropped; *ret_found when CRLF was among them. *cr: the last octet dropped
 * was a CR; kept between calls. */
size_t smtp_line_skip(struct span in, bool *cr, bool *ret_found);

/* --- a message --- */

struct smtp_text_rules {
    uint64_t size_max;
    uint32_t line_max; /* without CRLF; 0: no limit */
    uint32_t header_max;
    bool repair_bare_lf;
    bool dots; /* DATA: undo dot-stuffing, find the end. Not set: BDAT */
};

struct smtp_text {
    uint64_t octets;   /* given out so far */
    uint32_t column;   /* octets of this line so far */
    uint32_t header;   /* octets before this line, while the header lasts */
    uint32_t repaired; /* bare LFs */
    uint8_t at;        /* where in a line */
    uint8_t fault;     /* enum smtp_line_fault; the first one, by place in the message */
    bool true_start;   /* this line began behind CRLF, not behind a bare LF */
    bool in_body;      /* the empty line was seen */
    bool held_cr;      /* the CR before was not given out yet */
    bool has_8bit;
    bool lookalike; /* a smuggling form was seen, whatever the first fault was */
};

void smtp_text_init(struct smtp_text *t);

/*
 * Takes octets of a message: returns how many; 0 only when it has just set t->fault. *ret_run: octets to hand on, a
 * view into in or a constant; may be empty. *ret_end: CRLF "." CRLF was the last thing taken (rules->dots). Once
 * t->fault is set, runs are empty and what is left of the message is only searched for its end. The result does not
 * depend on how a message is cut into calls.
 */
size_t smtp_text_next(struct smtp_text *t, const struct smtp_text_rules *rules, struct span in, struct span *ret_run,
                      bool *ret_end);
/* BDAT: no octets follow. *ret_run: what is missing to a last CRLF, to hand on; may set t->fault. */
void smtp_text_finish(struct smtp_text *t, const struct smtp_text_rules *rules, struct span *ret_run);

#endif

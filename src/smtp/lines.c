#include "smtp/lines.h"

#include <string.h>

#include "common/utf8.h"

/* Places in a line of a message. The name says what stands directly before the next octet. */
enum place {
    AT_START,  /* a line end, or nothing */
    AT_TEXT,   /* an octet of text */
    AT_CR,     /* a CR that may become a line end */
    AT_DOT,    /* a dot at the start of a line (dots only) */
    AT_DOT_CR, /* such a dot and a CR */
};

static const uint8_t crlf[2] = {'\r', '\n'};

enum smtp_line_state smtp_line_take(struct buf *pending, size_t max, struct span in, size_t *ret_used,
                                    struct span *ret_line)
{
    size_t room = max - pending->len;
    size_t window = in.len < room ? in.len : room;
    const uint8_t *lf = window > 0 ? memchr(in.ptr, '\n', window) : NULL;
    size_t n = lf != NULL ? (size_t)(lf - in.ptr) + 1 : window;
    *ret_used = n;
    if (lf == NULL && window == room) {
        return SMTP_LINE_TOO_LONG;
    }
    struct span whole = {in.ptr, n};
    if (lf == NULL || pending->len > 0) {
        if (buf_append(pending, in.ptr, n) < 0) {
            return SMTP_LINE_NO_MEMORY;
        }
        whole = buf_span(pending);
    }
    if (lf == NULL) {
        return SMTP_LINE_MORE;
    }
    if (whole.len < 2 || whole.ptr[whole.len - 2] != '\r') {
        return SMTP_LINE_ENDS_BARE_LF;
    }
    *ret_line = (struct span){whole.ptr, whole.len - 2};
    return SMTP_LINE_READY;
}

enum smtp_line_fault smtp_line_check(struct span line)
{
    if (line.len == 0) {
        return SMTP_LINE_OK;
    }
    if (memchr(line.ptr, '\0', line.len) != NULL) {
        return SMTP_LINE_NUL;
    }
    return memchr(line.ptr, '\r', line.len) != NULL ? SMTP_LINE_BARE_CR : SMTP_LINE_OK;
}

size_t smtp_line_skip(struct span in, bool *cr, bool *ret_found)
{
    *ret_found = false;
    for (size_t i = 0; i < in.len;) {
        const uint8_t *lf = memchr(in.ptr + i, '\n', in.len - i);
        if (lf == NULL) {
            break;
        }
        size_t at = (size_t)(lf - in.ptr);
        bool before = at > 0 ? in.ptr[at - 1] == '\r' : *cr;
        if (before) {
            *cr = false;
            *ret_found = true;
            return at + 1;
        }
        i = at + 1;
    }
    *cr = in.len > 0 ? in.ptr[in.len - 1] == '\r' : *cr;
    return in.len;
}

void smtp_text_init(struct smtp_text *t)
{
    *t = (struct smtp_text){.at = AT_START, .true_start = true};
}

/* --- while there is no fault --- */

/* One pass over the input; [start, run_end) is what will be handed on, i is how far it was read. */
struct scan {
    struct smtp_text *t;
    const struct smtp_text_rules *rules;
    const uint8_t *p;
    size_t len, i, start, run_end;
    bool stop;     /* what follows is not contiguous with the run, or there is a fault */
    bool constant; /* the run is the CRLF that does not stand in the input as such */
    bool end;
};

static void set_fault(struct scan *s, enum smtp_line_fault fault)
{
    s->t->fault = (uint8_t)fault;
    s->stop = true;
}

/* Takes n octets of text; only those before a limit when one is met, and sets the fault. */
static void take_text(struct scan *s, size_t n)
{
    struct smtp_text *t = s->t;
    size_t line_room = s->rules->line_max > 0 ? s->rules->line_max - t->column : n;
    size_t header_room = t->in_body ? n : s->rules->header_max - t->header - t->column;
    if (n > line_room && line_room <= header_room) {
        set_fault(s, SMTP_LINE_LONG);
        n = line_room;
    } else if (n > header_room) {
        set_fault(s, SMTP_LINE_HEADER_MAX);
        n = header_room;
    }
    t->column += (uint32_t)n;
    s->i += n;
    s->run_end = s->i;
}

/* A line end was read; with_crlf: on the wire, else a repaired LF. False: its two octets are over header_max. */
static bool end_line(struct scan *s, bool with_crlf)
{
    struct smtp_text *t = s->t;
    t->at = AT_START;
    t->true_start = with_crlf;
    if (!t->in_body) {
        t->in_body = t->column == 0;
        uint32_t room = s->rules->header_max - t->header - t->column;
        if (!t->in_body && room < 2) {
            set_fault(s, SMTP_LINE_HEADER_MAX);
            return false;
        }
        t->header += t->column + 2;
    }
    t->column = 0;
    return true;
}

static void give_crlf(struct scan *s)
{
    s->constant = true;
    s->stop = true;
}

/* p[i] is an LF without a CR before it. */
static void step_bare_lf(struct scan *s)
{
    if (!s->rules->repair_bare_lf) {
        s->t->at = AT_START;
        s->t->true_start = false;
        s->i++;
        set_fault(s, SMTP_LINE_BARE_LF);
        return;
    }
    if (s->run_end > s->start) {
        s->stop = true; /* the text first; the LF is met again */
        return;
    }
    s->i++;
    s->t->repaired++;
    if (end_line(s, false)) {
        give_crlf(s);
    }
}

static void step_start(struct scan *s)
{
    if (s->p[s->i] != '.' || !s->rules->dots) {
        s->t->at = AT_TEXT;
    } else if (s->run_end > s->start) {
        s->stop = true; /* the dot is not handed on: what comes before it goes first */
    } else {
        s->t->at = AT_DOT;
        s->start = s->run_end = ++s->i;
    }
}

static void step_text(struct scan *s)
{
    const uint8_t *p = s->p + s->i;
    size_t left = s->len - s->i;
    const uint8_t *lf = memchr(p, '\n', left);
    size_t line = lf != NULL ? (size_t)(lf - p) : left;
    const uint8_t *cr = line > 0 ? memchr(p, '\r', line) : NULL;
    take_text(s, cr != NULL ? (size_t)(cr - p) : line);
    if (s->stop) {
        return;
    }
    if (cr != NULL) {
        s->t->at = AT_CR;
        s->t->held_cr = false;
        s->i++;
    } else if (lf != NULL) {
        step_bare_lf(s);
    }
}

static void step_cr(struct scan *s)
{
    if (s->p[s->i] != '\n') {
        set_fault(s, SMTP_LINE_BARE_CR);
        return;
    }
    s->i++;
    if (!end_line(s, true)) {
        return;
    }
    if (s->t->held_cr) {
        give_crlf(s);
    } else {
        s->run_end = s->i;
    }
}

static void step_dot(struct scan *s)
{
    uint8_t c = s->p[s->i];
    if (c == '\r') {
        s->t->at = AT_DOT_CR;
        s->start = s->run_end = ++s->i;
    } else if (c == '\n') {
        s->t->at = AT_START;
        s->t->true_start = false;
        s->t->lookalike = true;
        s->i++;
        set_fault(s, SMTP_LINE_SMUGGLING);
    } else {
        s->t->at = AT_TEXT;
    }
}

static void step_dot_cr(struct scan *s)
{
    struct smtp_text *t = s->t;
    if (s->p[s->i] != '\n') {
        t->at = AT_CR;
        t->lookalike = true;
        set_fault(s, SMTP_LINE_BARE_CR);
        return;
    }
    s->i++;
    t->at = AT_START;
    if (t->true_start) {
        s->end = s->stop = true;
        return;
    }
    t->true_start = true;
    t->lookalike = true;
    set_fault(s, SMTP_LINE_SMUGGLING);
}

static void scan(struct scan *s)
{
    while (!s->stop && s->i < s->len) {
        switch ((enum place)s->t->at) {
        case AT_START:
            step_start(s);
            break;
        case AT_TEXT:
            step_text(s);
            break;
        case AT_CR:
            step_cr(s);
            break;
        case AT_DOT:
            step_dot(s);
            break;
        case AT_DOT_CR:
            step_dot_cr(s);
            break;
        }
    }
}

/* What is true of a run as a whole. The fault that stands first in the message wins, however it was cut. */
static void settle(struct smtp_text *t, const struct smtp_text_rules *rules, struct span *run)
{
    size_t room = (size_t)(rules->size_max - t->octets < run->len ? rules->size_max - t->octets : run->len);
    if (room > 0 && memchr(run->ptr, '\0', room) != NULL) {
        t->fault = SMTP_LINE_NUL;
    } else if (room < run->len) {
        t->fault = SMTP_LINE_SIZE_MAX;
    }
    if (t->fault != SMTP_LINE_OK) {
        run->len = 0;
        return;
    }
    t->octets += run->len;
    t->has_8bit = t->has_8bit || utf8_has_8bit(*run);
}

/* --- after a fault: only the true end matters --- */

static size_t drop_text(struct smtp_text *t, struct span in, size_t i)
{
    const uint8_t *lf = memchr(in.ptr + i, '\n', in.len - i);
    if (lf == NULL) {
        t->at = in.ptr[in.len - 1] == '\r' ? AT_CR : AT_TEXT;
        return in.len;
    }
    size_t at = (size_t)(lf - in.ptr);
    t->true_start = at > i && in.ptr[at - 1] == '\r';
    t->at = AT_START;
    return at + 1;
}

static size_t drop_cr(struct smtp_text *t, uint8_t c, size_t i)
{
    if (c == '\n') {
        t->at = AT_START;
        t->true_start = true;
        return i + 1;
    }
    t->at = c == '\r' ? AT_CR : AT_TEXT;
    return c == '\r' ? i + 1 : i;
}

static size_t drop_start(struct smtp_text *t, const struct smtp_text_rules *rules, uint8_t c, size_t i)
{
    t->at = c == '.' && rules->dots ? AT_DOT : c == '\r' ? AT_CR : AT_TEXT;
    return t->at == AT_TEXT ? i : i + 1;
}

static size_t drop_dot(struct smtp_text *t, uint8_t c, size_t i)
{
    if (c == '\n') {
        t->lookalike = true;
        t->true_start = false;
        t->at = AT_START;
        return i + 1;
    }
    t->at = c == '\r' ? AT_DOT_CR : AT_TEXT;
    return c == '\r' ? i + 1 : i;
}

static size_t drop_dot_cr(struct smtp_text *t, uint8_t c, size_t i, bool *ret_end)
{
    *ret_end = c == '\n' && t->true_start;
    t->lookalike = t->lookalike || !*ret_end;
    return drop_cr(t, c, i);
}

static size_t drop(struct smtp_text *t, const struct smtp_text_rules *rules, struct span in, bool *ret_end)
{
    size_t i = 0;
    while (i < in.len && !*ret_end) {
        uint8_t c = in.ptr[i];
        switch ((enum place)t->at) {
        case AT_START:
            i = drop_start(t, rules, c, i);
            break;
        case AT_TEXT:
            i = drop_text(t, in, i);
            break;
        case AT_CR:
            i = drop_cr(t, c, i);
            break;
        case AT_DOT:
            i = drop_dot(t, c, i);
            break;
        case AT_DOT_CR:
            i = drop_dot_cr(t, c, i, ret_end);
            break;
        }
    }
    return i;
}

size_t smtp_text_next(struct smtp_text *t, const struct smtp_text_rules *rules, struct span in, struct span *ret_run,
                      bool *ret_end)
{
    *ret_run = (struct span){in.ptr, 0};
    *ret_end = false;
    if (t->fault != SMTP_LINE_OK) {
        return drop(t, rules, in, ret_end);
    }
    struct scan s = {.t = t, .rules = rules, .p = in.ptr, .len = in.len};
    scan(&s);
    *ret_run = s.constant ? (struct span){crlf, 2} : (struct span){in.ptr + s.start, s.run_end - s.start};
    *ret_end = s.end;
    t->held_cr = t->at == AT_CR;
    settle(t, rules, ret_run);
    return s.i;
}

void smtp_text_finish(struct smtp_text *t, const struct smtp_text_rules *rules, struct span *ret_run)
{
    *ret_run = (struct span){crlf, 0};
    if (t->fault == SMTP_LINE_OK && t->at == AT_CR) {
        t->fault = SMTP_LINE_BARE_CR;
    } else if (t->fault == SMTP_LINE_OK && t->at != AT_START) {
        ret_run->len = 2;
        settle(t, rules, ret_run);
        t->at = AT_START;
    }
}

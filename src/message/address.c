#include <string.h>
#include <unistr.h>

#include "message/address.h"

struct cursor {
    const uint8_t *p, *end;
    bool plain; /* no white space, no comments: an SMTP mailbox */
};

static bool is_atext(uint8_t c)
{
    static const char others[] = "!#$%&'*+-/=?^_`{|}~";
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c >= 0x80 ||
           (c != '\0' && strchr(others, c) != NULL);
}

/* Host names, the underscore that some use, and U-labels. */
static bool is_domain_octet(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c >= 0x80;
}

static bool at(const struct cursor *c, uint8_t octet)
{
    return c->p < c->end && *c->p == octet;
}

static bool take(struct cursor *c, uint8_t octet)
{
    if (!at(c, octet)) {
        return false;
    }
    c->p++;
    return true;
}

/* Inside a comment, p behind the "(". Nesting is counted, not recursed into. */
static int skip_comment(struct cursor *c)
{
    size_t depth = 1;
    while (c->p < c->end) {
        uint8_t octet = *c->p++;
        if (octet == '\\') {
            if (c->p == c->end) {
                return -1;
            }
            c->p++;
        } else if (octet == '(' && ++depth > MESSAGE_COMMENT_DEPTH) {
            return -1;
        } else if (octet == ')' && --depth == 0) {
            return 0;
        }
    }
    return -1;
}

/* CFWS of RFC 5322 section 3.2.2. A value has CRLF only where a fold is. */
static int skip_cfws(struct cursor *c)
{
    while (!c->plain && c->p < c->end) {
        uint8_t octet = *c->p;
        if (octet == ' ' || octet == '\t' || octet == '\r' || octet == '\n') {
            c->p++;
        } else if (octet == '(') {
            c->p++;
            if (skip_comment(c) < 0) {
                return -1;
            }
        } else {
            break;
        }
    }
    return 0;
}

/*
 * Words and dots up to a special: a display name, or a local part, which only what follows tells. While it could be a
 * local part its content gathers in ret->local.
 */
struct words {
    size_t count; /* words and dots */
    bool dot_first;
    bool local;     /* word *("." word) so far, and it fits */
    bool want_word; /* the last was a dot, or nothing was */
};

static void local_put(struct words *w, struct message_mailbox *ret, uint8_t octet)
{
    if (ret->local_len == MESSAGE_LOCAL_MAX) {
        w->local = false;
    } else {
        ret->local[ret->local_len++] = (char)octet;
    }
}

/* p behind the opening quote. */
static int take_quoted(struct cursor *c, struct words *w, struct message_mailbox *ret)
{
    while (c->p < c->end) {
        uint8_t octet = *c->p++;
        if (octet == '"') {
            return 0;
        }
        if (octet == '\r' || octet == '\n') {
            if (c->plain) {
                return -1;
            }
            continue;
        }
        if (octet == '\\') {
            if (c->p == c->end) {
                return -1;
            }
            octet = *c->p++;
        }
        if ((octet < 32 && octet != '\t') || octet == 127) {
            return -1;
        }
        local_put(w, ret, octet);
    }
    return -1;
}

static int take_word(struct cursor *c, struct words *w, struct message_mailbox *ret)
{
    w->local = w->local && w->want_word;
    w->want_word = false;
    w->count++;
    if (take(c, '"')) {
        return take_quoted(c, w, ret);
    }
    while (c->p < c->end && is_atext(*c->p)) {
        local_put(w, ret, *c->p++);
    }
    return 0;
}

static int take_words(struct cursor *c, struct words *w, struct message_mailbox *ret)
{
    *w = (struct words){.local = true, .want_word = true};
    ret->local_len = 0;
    while (skip_cfws(c) == 0) {
        if (at(c, '"') || (c->p < c->end && is_atext(*c->p))) {
            if (take_word(c, w, ret) < 0) {
                return -1;
            }
        } else if (take(c, '.')) {
            w->dot_first = w->dot_first || w->count == 0;
            w->local = w->local && !w->want_word;
            w->want_word = true;
            w->count++;
            local_put(w, ret, '.');
        } else {
            return 0;
        }
    }
    return -1;
}

static void address_put(struct message_mailbox *ret, uint8_t octet)
{
    ret->address[ret->address_len++] = (char)octet; /* MESSAGE_ADDRESS_MAX holds the longest parts, quoted */
}

static bool is_dot_atom(const char *s, size_t len)
{
    bool after_dot = true;
    for (size_t i = 0; i < len; i++) {
        bool dot = s[i] == '.';
        if (dot ? after_dot : !is_atext((uint8_t)s[i])) {
            return false;
        }
        after_dot = dot;
    }
    return !after_dot;
}

static void put_local(struct message_mailbox *ret)
{
    bool bare = is_dot_atom(ret->local, ret->local_len);
    ret->local[ret->local_len] = '\0';
    ret->address_len = 0;
    if (!bare) {
        address_put(ret, '"');
    }
    for (size_t i = 0; i < ret->local_len; i++) {
        if (ret->local[i] == '"' || ret->local[i] == '\\') {
            address_put(ret, '\\');
        }
        address_put(ret, (uint8_t)ret->local[i]);
    }
    if (!bare) {
        address_put(ret, '"');
    }
    address_put(ret, '@');
}

static bool domain_put(struct message_mailbox *ret, size_t start, uint8_t octet)
{
    if (ret->address_len - start == MESSAGE_DOMAIN_MAX) {
        return false;
    }
    address_put(ret, octet);
    return true;
}

static int take_literal(struct cursor *c, struct message_mailbox *ret, size_t start)
{
    if (!take(c, '[') || !domain_put(ret, start, '[')) {
        return -1;
    }
    while (c->p<c->end && * c->p> 32 && *c->p < 127 && *c->p != '[' && *c->p != ']' && *c->p != '\\') {
        if (!domain_put(ret, start, *c->p++)) {
            return -1;
        }
    }
    return take(c, ']') && domain_put(ret, start, ']') ? 0 : -1;
}

static int take_labels(struct cursor *c, struct message_mailbox *ret, size_t start)
{
    for (;;) {
        const uint8_t *label = c->p;
        while (c->p < c->end && is_domain_octet(*c->p)) {
            if (!domain_put(ret, start, *c->p++)) {
                return -1;
            }
        }
        if (c->p == label || skip_cfws(c) < 0) {
            return -1;
        }
        if (!take(c, '.')) {
            return 0;
        }
        if (!domain_put(ret, start, '.') || skip_cfws(c) < 0) {
            return -1;
        }
    }
}

/* Behind the "@". */
static int take_domain(struct cursor *c, struct message_mailbox *ret)
{
    size_t start = ret->address_len;
    if (skip_cfws(c) < 0 || (at(c, '[') ? take_literal(c, ret, start) : take_labels(c, ret, start)) < 0) {
        return -1;
    }
    ret->address[ret->address_len] = '\0';
    ret->domain = (struct span){(const uint8_t *)ret->address + start, ret->address_len - start};
    ret->utf8 = false;
    for (size_t i = 0; i < ret->address_len; i++) {
        ret->utf8 = ret->utf8 || (uint8_t)ret->address[i] >= 0x80;
    }
    if (ret->utf8 && u8_check((const uint8_t *)ret->address, ret->address_len) != NULL) {
        return -1;
    }
    return skip_cfws(c);
}

/* After words that must be a local part: "@" domain. */
static int take_at_domain(struct cursor *c, const struct words *w, struct message_mailbox *ret)
{
    if (!w->local || w->want_word || !take(c, '@')) {
        return -1;
    }
    put_local(ret);
    return take_domain(c, ret);
}

/* "@a,@b:" of RFC 5322 section 4.4, dropped. ret is room to parse into. */
static int skip_route(struct cursor *c, struct message_mailbox *ret)
{
    while (at(c, '@') || at(c, ',')) {
        if (take(c, '@')) {
            ret->address_len = 0;
            if (take_domain(c, ret) < 0) {
                return -1;
            }
        } else {
            c->p++;
        }
        if (skip_cfws(c) < 0) {
            return -1;
        }
        if (take(c, ':')) {
            return 0;
        }
    }
    return -1;
}

/* Behind the "<". */
static int take_angle(struct cursor *c, struct message_mailbox *ret)
{
    struct words w;
    if (skip_cfws(c) < 0 || ((at(c, '@') || at(c, ',')) && skip_route(c, ret) < 0)) {
        return -1;
    }
    if (take_words(c, &w, ret) < 0 || take_at_domain(c, &w, ret) < 0 || !take(c, '>')) {
        return -1;
    }
    return skip_cfws(c);
}

/* What may stand behind a mailbox; the comma is left for the next call, which skips it. */
static bool at_end_of_mailbox(const struct cursor *c, bool in_group)
{
    return c->p == c->end || at(c, ',') || (in_group && at(c, ';'));
}

void message_address_list_init(struct message_address_list *list, struct span value)
{
    *list = (struct message_address_list){.rest = value};
}

/* 1 a mailbox, 0 a separator, a group's begin or end was taken, or the end of the list, -1. */
static int take_element(struct cursor *c, bool *in_group, struct message_mailbox *ret)
{
    struct words w;
    if (take_words(c, &w, ret) < 0 || w.dot_first) {
        return -1;
    }
    if (w.count == 0) {
        if (take(c, ',')) {
            return 0;
        }
        if (*in_group && take(c, ';')) {
            *in_group = false;
            return skip_cfws(c) < 0 || !(c->p == c->end || at(c, ',')) ? -1 : 0;
        }
    } else if (!*in_group && take(c, ':')) {
        *in_group = true;
        return 0;
    }
    if (w.count == 0 && c->p == c->end) {
        return 0;
    }
    int r = take(c, '<') ? take_angle(c, ret) : take_at_domain(c, &w, ret);
    return r == 0 && at_end_of_mailbox(c, *in_group) ? 1 : -1;
}

int message_address_next(struct message_address_list *list, struct message_mailbox *ret)
{
    int r = 0;
    while (r == 0 && list->rest.len > 0) {
        struct cursor c = {.p = list->rest.ptr, .end = list->rest.ptr + list->rest.len};
        r = take_element(&c, &list->in_group, ret);
        list->rest = (struct span){c.p, (size_t)(c.end - c.p)};
    }
    if (r < 0 || (r == 0 && list->in_group)) { /* malformed stays malformed */
        list->rest.len = 0;
        list->in_group = true;
        return -1;
    }
    return r;
}

int message_mailbox_parse(struct span text, struct message_mailbox *ret)
{
    if (text.len == 0) {
        return -1;
    }
    struct cursor c = {.p = text.ptr, .end = text.ptr + text.len, .plain = true};
    struct words w;
    if (take_words(&c, &w, ret) < 0 || take_at_domain(&c, &w, ret) < 0) {
        return -1;
    }
    return c.p == c.end ? 0 : -1;
}

#include "smtp/address.h"

#include <arpa/inet.h>
#include <string.h>

#include "common/utf8.h"

#define LABEL_MAX 63

/* A reading head over the input; a failed reader leaves it where it is of no more use. */
struct cursor {
    const uint8_t *at, *end;
};

static int peek(const struct cursor *c)
{
    return c->at < c->end ? *c->at : -1;
}

static bool take(struct cursor *c, uint8_t octet)
{
    bool same = peek(c) == octet;
    c->at += same;
    return same;
}

static struct span since(const struct cursor *c, const uint8_t *start)
{
    return (struct span){start, (size_t)(c->at - start)};
}

static bool is_alnum(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* RFC 5322 section 3.2.3; octets over 0x7f were checked to be UTF-8 before (RFC 6531 section 3.3). */
static bool is_atext(int c)
{
    return is_alnum(c) || c >= 0x80 || (c > 0 && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

static bool read_dot_string(struct cursor *c)
{
    do {
        const uint8_t *start = c->at;
        while (is_atext(peek(c))) {
            c->at++;
        }
        if (c->at == start) {
            return false;
        }
    } while (take(c, '.'));
    return true;
}

static bool read_quoted_string(struct cursor *c)
{
    if (!take(c, '"')) {
        return false;
    }
    while (!take(c, '"')) {
        (void)take(c, '\\'); /* quoted-pairSMTP: any of 32..126; the test below is the narrower for UTF-8 only */
        int octet = peek(c);
        if (octet < 32 || octet == 127 || (octet >= 0x80 && c->at[-1] == '\\')) {
            return false;
        }
        c->at++;
    }
    return true;
}

static enum smtp_path_error read_local(struct cursor *c, struct span *ret)
{
    const uint8_t *start = c->at;
    bool good = peek(c) == '"' ? read_quoted_string(c) : read_dot_string(c);
    *ret = since(c, start);
    if (!good) {
        return SMTP_PATH_LOCAL;
    }
    return ret->len > SMTP_LOCAL_MAX ? SMTP_PATH_LONG : SMTP_PATH_OK;
}

static bool is_label_octet(int c)
{
    return is_alnum(c) || c == '-' || c >= 0x80;
}

/* One sub-domain: letters, digits, inner hyphens, or a U-label. */
static bool read_label(struct cursor *c)
{
    const uint8_t *start = c->at;
    while (is_label_octet(peek(c))) {
        c->at++;
    }
    size_t len = (size_t)(c->at - start);
    return len > 0 && len <= LABEL_MAX && start[0] != '-' && c->at[-1] != '-';
}

static bool read_name(struct cursor *c)
{
    do {
        if (!read_label(c)) {
            return false;
        }
    } while (take(c, '.'));
    return true;
}

static bool is_ip(struct span text, int family)
{
    char copy[INET6_ADDRSTRLEN];
    uint8_t octets[16];
    if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len) != NULL) {
        return false;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return inet_pton(family, copy, octets) == 1;
}

/* inside: between the brackets. RFC 5321 section 4.1.3. */
static enum smtp_domain_kind literal_kind(struct span inside)
{
    static const struct span ipv6 = {(const uint8_t *)"IPv6:", 5};
    const uint8_t *colon = inside.len > 0 ? memchr(inside.ptr, ':', inside.len) : NULL;
    if (colon == NULL) {
        return is_ip(inside, AF_INET) ? SMTP_DOMAIN_IPV4 : SMTP_DOMAIN_NONE;
    }
    struct span tag = {inside.ptr, (size_t)(colon - inside.ptr) + 1};
    struct span text = {colon + 1, inside.len - tag.len};
    if (span_eq_nocase(tag, ipv6)) {
        return is_ip(text, AF_INET6) ? SMTP_DOMAIN_IPV6 : SMTP_DOMAIN_NONE;
    }
    for (size_t i = 0; i + 1 < tag.len; i++) {
        if (!is_alnum(tag.ptr[i]) && tag.ptr[i] != '-') {
            return SMTP_DOMAIN_NONE;
        }
    }
    bool good = tag.len > 1 && tag.ptr[tag.len - 2] != '-' && text.len > 0;
    return good ? SMTP_DOMAIN_GENERAL : SMTP_DOMAIN_NONE;
}

static enum smtp_domain_kind read_literal(struct cursor *c)
{
    const uint8_t *start = c->at + 1;
    c->at++;
    while (peek(c) >= 33 && peek(c) <= 126 && peek(c) != '[' && peek(c) != ']' && peek(c) != '\\') {
        c->at++;
    }
    struct span inside = since(c, start);
    return take(c, ']') ? literal_kind(inside) : SMTP_DOMAIN_NONE;
}

static enum smtp_path_error read_domain(struct cursor *c, struct span *ret, enum smtp_domain_kind *ret_kind)
{
    const uint8_t *start = c->at;
    if (peek(c) == '[') {
        *ret_kind = read_literal(c);
    } else {
        *ret_kind = read_name(c) ? SMTP_DOMAIN_NAME : SMTP_DOMAIN_NONE;
    }
    *ret = since(c, start);
    if (ret->len > SMTP_DOMAIN_MAX) {
        return SMTP_PATH_LONG;
    }
    return *ret_kind == SMTP_DOMAIN_NONE ? SMTP_PATH_DOMAIN : SMTP_PATH_OK;
}

/* RFC 5321 appendix C: a source route is accepted and ignored. */
static bool skip_route(struct cursor *c)
{
    struct span domain;
    enum smtp_domain_kind kind;
    while (take(c, '@')) {
        if (read_domain(c, &domain, &kind) != SMTP_PATH_OK) {
            return false;
        }
        if (take(c, ':')) {
            return true;
        }
        if (!take(c, ',')) {
            return false;
        }
    }
    return false;
}

static bool domain_may_be_missing(const struct cursor *c, unsigned flags, struct span local)
{
    return (flags & SMTP_PATH_POSTMASTER) != 0 && peek(c) == '>' && span_eq_nocase(local, SPAN_LIT("postmaster"));
}

static enum smtp_path_error read_mailbox(struct cursor *c, unsigned flags, struct smtp_path *ret)
{
    const uint8_t *start = c->at;
    enum smtp_path_error error = read_local(c, &ret->local);
    if (error != SMTP_PATH_OK) {
        return error;
    }
    if (take(c, '@')) {
        error = read_domain(c, &ret->domain, &ret->kind);
    } else if (!domain_may_be_missing(c, flags, ret->local)) {
        error = peek(c) == '>' || peek(c) < 0 ? SMTP_PATH_DOMAIN : SMTP_PATH_LOCAL;
    }
    ret->mailbox = since(c, start);
    ret->utf8 = utf8_has_8bit(ret->mailbox);
    if (error == SMTP_PATH_OK && ret->mailbox.len + 2 > SMTP_PATH_MAX) {
        error = SMTP_PATH_LONG;
    }
    return error;
}

/* 8-bit octets anywhere in it are judged first, so that the reply names the real reason. */
static enum smtp_path_error check_octets(struct span text, unsigned flags)
{
    if (!utf8_has_8bit(text)) {
        return SMTP_PATH_OK;
    }
    if ((flags & SMTP_PATH_UTF8) == 0) {
        return SMTP_PATH_NEEDS_UTF8;
    }
    return utf8_valid(text) ? SMTP_PATH_OK : SMTP_PATH_INVALID_UTF8;
}

enum smtp_path_error smtp_path_parse(struct span in, unsigned flags, struct smtp_path *ret, size_t *ret_used)
{
    struct cursor c = {in.ptr, in.ptr + in.len};
    *ret = (struct smtp_path){0};
    if (!take(&c, '<')) {
        return SMTP_PATH_NO_BRACKETS;
    }
    if (take(&c, '>')) {
        ret->null = true;
        *ret_used = 2;
        return (flags & SMTP_PATH_NULL) != 0 ? SMTP_PATH_OK : SMTP_PATH_NULL_REFUSED;
    }
    if (peek(&c) == '@' && !skip_route(&c)) {
        return SMTP_PATH_SYNTAX;
    }
    enum smtp_path_error error = read_mailbox(&c, flags, ret);
    if (error == SMTP_PATH_OK && !take(&c, '>')) {
        error = SMTP_PATH_DOMAIN;
    }
    enum smtp_path_error octets = check_octets(since(&c, in.ptr), flags);
    *ret_used = since(&c, in.ptr).len;
    return octets != SMTP_PATH_OK ? octets : error;
}

enum smtp_path_error smtp_mailbox_parse(struct span in, unsigned flags, struct smtp_path *ret)
{
    struct cursor c = {in.ptr, in.ptr + in.len};
    *ret = (struct smtp_path){0};
    enum smtp_path_error error = check_octets(in, flags);
    if (error == SMTP_PATH_OK) {
        error = read_mailbox(&c, flags & ~(unsigned)SMTP_PATH_POSTMASTER, ret);
    }
    return error == SMTP_PATH_OK && c.at != c.end ? SMTP_PATH_DOMAIN : error;
}

enum smtp_domain_kind smtp_domain_parse(struct span in, bool utf8)
{
    struct cursor c = {in.ptr, in.ptr + in.len};
    struct span domain;
    enum smtp_domain_kind kind;
    if (check_octets(in, utf8 ? SMTP_PATH_UTF8 : 0) != SMTP_PATH_OK ||
        read_domain(&c, &domain, &kind) != SMTP_PATH_OK || c.at != c.end) {
        return SMTP_DOMAIN_NONE;
    }
    return kind;
}

#include <string.h>

#include "smtp/client_int.h"

void client_reply_init(struct client_reply *r, void (*each)(void *, size_t, struct span), void *arg)
{
    memset(r, 0, sizeof(*r));
    r->each = each;
    r->arg = arg;
}

static int broken(struct client_reply *r, const char *how)
{
    r->broken = how;
    return -1;
}

static void begin(struct client_reply *r)
{
    r->code = 0;
    memset(r->enhanced, 0, sizeof(r->enhanced));
    r->has_enhanced = false;
    r->lines = 0;
    r->octets = 0;
    r->text_len = 0;
    r->text[0] = '\0';
    r->began = true;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* 1 to 3 digits without leading zeros at *at; false: none. */
static bool take_number(struct span s, size_t *at, unsigned *ret)
{
    size_t start = *at;
    unsigned n = 0;
    while (*at < s.len && *at - start < 3 && is_digit(s.ptr[*at])) {
        n = n * 10 + (unsigned)(s.ptr[(*at)++] - '0');
    }
    *ret = n;
    return *at > start && (s.ptr[start] != '0' || *at == start + 1) && n <= UINT8_MAX;
}

/* "5.1.1 " of RFC 2034 at the start of words, when it is of the code's class. Returns its length, 0: none. */
static size_t enhanced_length(struct span words, uint16_t code, uint8_t ret[3])
{
    size_t at = 0;
    unsigned n[3];
    for (size_t i = 0; i < 3; i++) {
        if (!take_number(words, &at, &n[i])) {
            return 0;
        }
        if (i < 2 && (at == words.len || words.ptr[at++] != '.')) {
            return 0;
        }
    }
    if (n[0] != code / 100U || (at < words.len && words.ptr[at] != ' ')) {
        return 0;
    }
    for (size_t i = 0; i < 3; i++) {
        ret[i] = (uint8_t)n[i];
    }
    return at < words.len ? at + 1 : at;
}

/* Only printable ASCII is kept; white space runs become one space, the rest '?'. */
static void put_text(struct client_reply *r, struct span words)
{
    if (r->text_len > 0 && r->text_len < SMTP_CLIENT_TEXT_MAX && words.len > 0) {
        r->text[r->text_len++] = ' ';
    }
    for (size_t i = 0; i < words.len && r->text_len < SMTP_CLIENT_TEXT_MAX; i++) {
        uint8_t c = words.ptr[i];
        bool space = c == ' ' || c == '\t';
        if (space && (r->text_len == 0 || r->text[r->text_len - 1] == ' ')) {
            continue;
        }
        r->text[r->text_len++] = (char)(space ? ' ' : c > 32 && c < 127 ? c : '?');
    }
    r->text[r->text_len] = '\0';
}

static void put_words(struct client_reply *r, struct span words)
{
    uint8_t enhanced[3];
    size_t skip = enhanced_length(words, r->code, enhanced);
    if (skip > 0 && !r->has_enhanced) {
        memcpy(r->enhanced, enhanced, sizeof(enhanced));
        r->has_enhanced = true;
    }
    put_text(r, (struct span){words.ptr + skip, words.len - skip});
}

/* r->line is a whole line without its end. */
static int take_line(struct client_reply *r)
{
    const uint8_t *p = r->line;
    if (r->line_len < 3 || p[0] < '2' || p[0] > '5' || !is_digit(p[1]) || !is_digit(p[2]) ||
        (r->line_len > 3 && p[3] != ' ' && p[3] != '-')) {
        return broken(r, "a reply line does not begin with a reply code");
    }
    uint16_t code = (uint16_t)((p[0] - '0') * 100 + (p[1] - '0') * 10 + (p[2] - '0'));
    if (r->lines > 0 && code != r->code) {
        return broken(r, "the lines of a reply have different codes");
    }
    r->code = code;
    size_t skip = r->line_len > 3 ? 4 : 3;
    struct span words = {p + skip, r->line_len - skip};
    if (r->each != NULL) {
        r->each(r->arg, r->lines, words);
    }
    put_words(r, words);
    if (++r->lines > CLIENT_LINES_MAX) {
        return broken(r, "a reply has too many lines");
    }
    if (r->line_len > 3 && p[3] == '-') {
        return 0;
    }
    if (!r->has_enhanced) {
        r->enhanced[0] = (uint8_t)(code / 100);
    }
    return 1;
}

static void keep(struct client_reply *r, const uint8_t *octets, size_t len)
{
    size_t room = CLIENT_LINE_MAX - r->line_len;
    len = len < room ? len : room;
    memcpy(r->line + r->line_len, octets, len);
    r->line_len += len;
}

int client_reply_feed(struct client_reply *r, const uint8_t *octets, size_t len, size_t *ret_used)
{
    *ret_used = 0;
    while (*ret_used < len) {
        if (!r->began) {
            begin(r);
        }
        const uint8_t *from = octets + *ret_used;
        const uint8_t *lf = memchr(from, '\n', len - *ret_used);
        size_t part = lf != NULL ? (size_t)(lf - from) : len - *ret_used;
        *ret_used += part + (lf != NULL ? 1 : 0);
        keep(r, from, part);
        if (part > CLIENT_OCTETS_MAX - r->octets) {
            return broken(r, "a reply is too long");
        }
        r->octets += part;
        if (lf == NULL) {
            return 0;
        }
        if (r->line_len > 0 && r->line[r->line_len - 1] == '\r') {
            r->line_len--;
        }
        int done = take_line(r);
        r->line_len = 0;
        if (done != 0) {
            r->began = false;
            return done;
        }
    }
    return 0;
}

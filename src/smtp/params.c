/* ESMTP parameters and paths of MAIL and RCPT (RFC 5321 section 4.1.2). */
#include <string.h>

#include "smtp/server_int.h"

struct span server_trim(struct span s)
{
    while (s.len > 0 && s.ptr[0] == ' ') {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && s.ptr[s.len - 1] == ' ') {
        s.len--;
    }
    return s;
}

bool server_number_read(struct span digits, uint64_t *ret)
{
    uint64_t v = 0;
    if (digits.len == 0 || digits.len > 20) {
        return false;
    }
    for (size_t i = 0; i < digits.len; i++) {
        uint64_t d = (uint64_t)digits.ptr[i] - '0';
        if (d > 9) {
            return false;
        }
        v = v > (UINT64_MAX - d) / 10 ? UINT64_MAX : v * 10 + d;
    }
    *ret = v;
    return true;
}

static enum reply path_reply(enum smtp_path_error error, bool sender)
{
    unsigned base = sender ? REPLY_SENDER_BRACKETS : REPLY_RCPT_BRACKETS;
    return (enum reply)(base + (unsigned)error - SMTP_PATH_NO_BRACKETS);
}

enum reply server_path_read(struct span *rest, bool sender, unsigned flags, struct smtp_path *ret)
{
    struct span keyword = sender ? SPAN_LIT("FROM:") : SPAN_LIT("TO:");
    struct span head = {rest->ptr, keyword.len};
    if (rest->len < keyword.len || !span_eq_nocase(head, keyword)) {
        return sender ? REPLY_MAIL_SYNTAX : REPLY_RCPT_SYNTAX;
    }
    /* A space behind the colon is wrong, and harmless, and common. */
    struct span in = server_trim((struct span){rest->ptr + keyword.len, rest->len - keyword.len});
    size_t used;
    enum smtp_path_error error = smtp_path_parse(in, flags, ret, &used);
    if (error != SMTP_PATH_OK) {
        return path_reply(error, sender);
    }
    *rest = (struct span){in.ptr + used, in.len - used};
    return rest->len > 0 && rest->ptr[0] != ' ' ? path_reply(SMTP_PATH_SYNTAX, sender) : REPLY_NONE;
}

static bool is_key_octet(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

static bool is_value_octet(uint8_t c)
{
    return c >= 33 && c != '=' && c != 127; /* over 127: judged where a value may be UTF-8 (RFC 6533) */
}

/* One parameter from the start of rest. */
static bool next_param(struct span *rest, struct server_param *ret)
{
    size_t n = 0;
    while (n < rest->len && is_key_octet(rest->ptr[n])) {
        n++;
    }
    *ret = (struct server_param){.key = {rest->ptr, n}, .has_value = n < rest->len && rest->ptr[n] == '='};
    if (n == 0 || ret->key.ptr[0] == '-') {
        return false;
    }
    size_t at = n + ret->has_value, end = at;
    while (ret->has_value && end < rest->len && is_value_octet(rest->ptr[end])) {
        end++;
    }
    ret->value = (struct span){rest->ptr + at, end - at};
    if ((ret->has_value && ret->value.len == 0) || (end < rest->len && rest->ptr[end] != ' ')) {
        return false;
    }
    rest->ptr += end;
    rest->len -= end;
    return true;
}

enum reply server_params_read(const struct smtp_server *s, struct span rest, const struct server_param_rule *rules,
                              size_t rules_count, void *into)
{
    uint32_t seen = 0;
    for (rest = server_trim(rest); rest.len > 0; rest = server_trim(rest)) {
        struct server_param param;
        size_t i = 0;
        if (!s->extended) {
            return REPLY_PARAM_ESMTP;
        }
        if (!next_param(&rest, &param)) {
            return REPLY_PARAM_SYNTAX;
        }
        while (i < rules_count && !span_eq_nocase(param.key, span_str(rules[i].key))) {
            i++;
        }
        if (i == rules_count) {
            return REPLY_PARAM_UNKNOWN;
        }
        if ((seen & 1U << i) != 0) {
            return REPLY_PARAM_TWICE;
        }
        seen |= 1U << i;
        enum reply why = rules[i].read(s, &param, into);
        if (why != REPLY_NONE) {
            return why;
        }
    }
    return REPLY_NONE;
}

#include "deliver/dns.h"

#include <errno.h>
#include <idn2.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_MAX 63

static int host_octet(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') {
        return c + ('a' - 'A');
    }
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ? c : -1;
}

/* Appends a label, with a dot before all but the first. The new length, or -EBADMSG. */
static int label_append(char *text, size_t len, struct span label)
{
    if (len + (len > 0) + label.len > DNS_NAME_MAX) {
        return -EBADMSG;
    }
    if (len > 0) {
        text[len++] = '.';
    }
    for (size_t i = 0; i < label.len; i++) {
        int c = host_octet(label.ptr[i]);
        if (c < 0) {
            return -EBADMSG;
        }
        text[len++] = (char)c;
    }
    return (int)len;
}

int dns_name_parse(struct span in, char text[static DNS_NAME_MAX + 1])
{
    size_t at = 0, len = 0;
    for (;;) {
        if (at >= in.len) {
            return -EBADMSG;
        }
        size_t label = in.ptr[at++];
        if (label == 0) {
            text[len] = '\0';
            return (int)at;
        }
        if (label > LABEL_MAX || label > in.len - at) {
            return -EBADMSG; /* also a compression pointer: there is nothing that it could point into */
        }
        int r = label_append(text, len, (struct span){in.ptr + at, label});
        if (r < 0) {
            return r;
        }
        len = (size_t)r;
        at += label;
    }
}

int dns_mx_parse(struct span rdata, struct dns_mx *ret)
{
    if (rdata.len < 3) {
        return -EBADMSG;
    }
    ret->preference = (uint16_t)(rdata.ptr[0] << 8 | rdata.ptr[1]);
    int r = dns_name_parse((struct span){rdata.ptr + 2, rdata.len - 2}, ret->host);
    return r < 0 || (size_t)r != rdata.len - 2 ? -EBADMSG : 0;
}

static bool v4_usable(const uint8_t b[static 4])
{
    return b[0] != 0 && b[0] < 224; /* this network; multicast, reserved, broadcast */
}

static bool v6_usable(const uint8_t b[static 16])
{
    static const uint8_t zero[12];
    if (memcmp(b, zero, 12) == 0) { /* ::, and the IPv4-compatible form that nothing routes; ::1 is a host */
        return b[12] == 0 && b[13] == 0 && b[14] == 0 && b[15] == 1;
    }
    return b[0] != 0xff;
}

int dns_address_parse(enum dns_type type, struct span rdata, struct net_address *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (rdata.len != (type == DNS_TYPE_A ? 4U : 16U)) {
        return -EBADMSG;
    }
    if (type == DNS_TYPE_A) {
        ret->bytes[10] = ret->bytes[11] = 0xff;
        memcpy(ret->bytes + 12, rdata.ptr, 4);
    } else {
        memcpy(ret->bytes, rdata.ptr, 16);
    }
    bool usable = net_address_is_v4(ret) ? v4_usable(ret->bytes + 12) : v6_usable(ret->bytes);
    return usable ? 0 : -EADDRNOTAVAIL;
}

static size_t worst(const struct dns_mx_list *list)
{
    size_t w = 0;
    for (size_t i = 1; i < list->count; i++) {
        w = list->entries[i].preference > list->entries[w].preference ? i : w;
    }
    return w;
}

static void list_add(struct dns_mx_list *list, const struct dns_mx *mx)
{
    if (list->count < DNS_MX_MAX) {
        list->entries[list->count++] = *mx;
        return;
    }
    size_t w = worst(list);
    if (mx->preference < list->entries[w].preference) {
        list->entries[w] = *mx;
    }
}

static bool list_has(const struct dns_mx_list *list, const struct dns_mx *mx)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->entries[i].preference == mx->preference && strcmp(list->entries[i].host, mx->host) == 0) {
            return true;
        }
    }
    return false;
}

void dns_mx_list_build(struct dns_mx_list *list, const struct span *rdata, size_t count)
{
    bool root = false;
    list->count = 0;
    list->any = false;
    for (size_t i = 0; i < count && i < DNS_MX_READ_MAX; i++) {
        struct dns_mx mx;
        if (dns_mx_parse(rdata[i], &mx) < 0) {
            continue;
        }
        list->any = true;
        if (mx.host[0] == '\0') {
            root = true;
        } else if (!list_has(list, &mx)) {
            list_add(list, &mx);
        }
    }
    list->null_mx = root && list->count == 0;
}

static void mx_swap(struct dns_mx *a, struct dns_mx *b)
{
    struct dns_mx t = *a;
    *a = *b;
    *b = t;
}

void dns_mx_list_order(struct dns_mx_list *list, uint32_t (*random)(void *arg), void *arg)
{
    for (size_t i = list->count; i > 1; i--) { /* shuffle, then sort without disturbing equals */
        mx_swap(&list->entries[i - 1], &list->entries[random(arg) % i]);
    }
    for (size_t i = 1; i < list->count; i++) {
        for (size_t j = i; j > 0 && list->entries[j].preference < list->entries[j - 1].preference; j--) {
            mx_swap(&list->entries[j], &list->entries[j - 1]);
        }
    }
}

size_t dns_self_cut(const uint16_t *preference, size_t count, size_t self)
{
    size_t keep = 0;
    while (keep < count && preference[keep] < preference[self]) {
        keep++;
    }
    return keep;
}

size_t dns_interleave(const struct net_address *v6, size_t v6_count, const struct net_address *v4, size_t v4_count,
                      struct net_address *out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; n < max && (i < v6_count || i < v4_count); i++) {
        if (i < v6_count) {
            out[n++] = v6[i];
        }
        if (i < v4_count && n < max) {
            out[n++] = v4[i];
        }
    }
    return n;
}

int dns_literal_parse(struct span domain, struct net_address *ret)
{
    static const struct span tag = {(const uint8_t *)"IPv6:", 5};
    if (domain.len == 0 || domain.ptr[0] != '[') {
        return -ENOENT;
    }
    if (domain.len < 3 || domain.ptr[domain.len - 1] != ']') {
        return -EINVAL;
    }
    struct span inner = {domain.ptr + 1, domain.len - 2};
    bool v6 = inner.len > tag.len && span_eq_nocase((struct span){inner.ptr, tag.len}, tag);
    if (v6) {
        inner.ptr += tag.len;
        inner.len -= tag.len;
    }
    char text[NET_ADDRESS_TEXT];
    if (inner.len >= sizeof(text) || memchr(inner.ptr, '\0', inner.len) != NULL) {
        return -EINVAL;
    }
    memcpy(text, inner.ptr, inner.len);
    text[inner.len] = '\0';
    if (net_address_parse(text, ret) < 0 || v6 != (strchr(text, ':') != NULL)) {
        return -EINVAL;
    }
    bool usable = net_address_is_v4(ret) ? v4_usable(ret->bytes + 12) : v6_usable(ret->bytes);
    return usable ? 0 : -EINVAL;
}

/* Lower case, no final dot, sound labels. */
static int ascii_check(const char *name, char text[static DNS_NAME_MAX + 1])
{
    size_t len = 0, total = strlen(name), at = 0;
    total -= total > 0 && name[total - 1] == '.';
    if (total == 0) {
        return -EINVAL;
    }
    while (at <= total) {
        const char *dot = memchr(name + at, '.', total - at);
        size_t label = dot != NULL ? (size_t)(dot - (name + at)) : total - at;
        int r = label == 0 || label > LABEL_MAX
                    ? -EINVAL
                    : label_append(text, len, (struct span){(const uint8_t *)name + at, label});
        if (r < 0) {
            return -EINVAL;
        }
        len = (size_t)r;
        at += label + 1;
    }
    text[len] = '\0';
    return 0;
}

static bool is_ascii(struct span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

int dns_domain_to_ascii(struct span domain, char text[static DNS_NAME_MAX + 1])
{
    char in[4 * DNS_NAME_MAX + 1];
    if (domain.len == 0 || domain.len >= sizeof(in) || memchr(domain.ptr, '\0', domain.len) != NULL) {
        return -EINVAL;
    }
    memcpy(in, domain.ptr, domain.len);
    in[domain.len] = '\0';
    if (is_ascii(domain)) {
        return ascii_check(in, text);
    }
    char *out = NULL;
    int r =
        idn2_to_ascii_8z(in, &out, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) == IDN2_OK ? ascii_check(out, text) : -EINVAL;
    idn2_free(out);
    return r;
}

#include "smtp/proxy.h"

#include <string.h>

#define V1_MAX        107 /* with CRLF, for the longest pair of IPv6 addresses */
#define V2_HEADER_LEN 16
#define V1_PREFIX     "PROXY "

static const uint8_t v2_signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
static const uint8_t v4_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static int fail(const char **ret_error, const char *why)
{
    *ret_error = why;
    return -1;
}

/* The octets up to the next space or the end; *rest moves behind the space. */
static struct span next_word(struct span *rest)
{
    const uint8_t *space = rest->len > 0 ? memchr(rest->ptr, ' ', rest->len) : NULL;
    size_t len = space != NULL ? (size_t)(space - rest->ptr) : rest->len;
    struct span word = {rest->ptr, len};
    size_t skip = space != NULL ? len + 1 : len;
    rest->ptr += skip;
    rest->len -= skip;
    return word;
}

/* 0..65535 in decimal, no leading zero, no sign. */
static bool parse_port(struct span word, uint16_t *ret)
{
    uint32_t v = 0;
    if (word.len == 0 || word.len > 5 || (word.len > 1 && word.ptr[0] == '0')) {
        return false;
    }
    for (size_t i = 0; i < word.len; i++) {
        if (word.ptr[i] < '0' || word.ptr[i] > '9') {
            return false;
        }
        v = v * 10 + (uint32_t)(word.ptr[i] - '0');
    }
    *ret = (uint16_t)v;
    return v <= UINT16_MAX;
}

static bool parse_address(struct span word, bool v6, struct net_address *ret)
{
    char text[NET_ADDRESS_TEXT];
    if (word.len == 0 || word.len >= sizeof(text) || memchr(word.ptr, '\0', word.len) != NULL) {
        return false;
    }
    memcpy(text, word.ptr, word.len);
    text[word.len] = '\0';
    bool has_colon = memchr(word.ptr, ':', word.len) != NULL;
    return has_colon == v6 && net_address_parse(text, ret) == 0;
}

/* line: without CRLF, behind "PROXY ". */
static int parse_v1_line(struct span line, struct smtp_proxy *ret, const char **ret_error)
{
    struct span family = next_word(&line);
    *ret = (struct smtp_proxy){0};
    if (span_eq(family, SPAN_LIT("UNKNOWN"))) {
        return 1; /* whatever follows up to CRLF is to be ignored */
    }
    bool v6 = span_eq(family, SPAN_LIT("TCP6"));
    if (!v6 && !span_eq(family, SPAN_LIT("TCP4"))) {
        return fail(ret_error, "PROXY v1: the family is none of TCP4, TCP6, UNKNOWN");
    }
    struct span source = next_word(&line), destination = next_word(&line);
    struct span source_port = next_word(&line), destination_port = next_word(&line);
    if (!parse_address(source, v6, &ret->source) || !parse_address(destination, v6, &ret->destination)) {
        return fail(ret_error, "PROXY v1: malformed address");
    }
    if (!parse_port(source_port, &ret->source.port) || !parse_port(destination_port, &ret->destination.port) ||
        line.len > 0) {
        return fail(ret_error, "PROXY v1: malformed port");
    }
    ret->addresses = true;
    return 1;
}

static int parse_v1(struct span in, struct smtp_proxy *ret, size_t *ret_used, const char **ret_error)
{
    size_t limit = in.len < V1_MAX ? in.len : V1_MAX;
    const uint8_t *lf = memchr(in.ptr, '\n', limit);
    if (lf == NULL) {
        return in.len >= V1_MAX ? fail(ret_error, "PROXY v1: no line end within 107 octets") : 0;
    }
    size_t len = (size_t)(lf - in.ptr);
    if (len < sizeof(V1_PREFIX) || in.ptr[len - 1] != '\r') {
        return fail(ret_error, "PROXY v1: the line does not end with CRLF");
    }
    struct span line = {in.ptr + sizeof(V1_PREFIX) - 1, len - 1 - (sizeof(V1_PREFIX) - 1)};
    *ret_used = len + 1;
    return parse_v1_line(line, ret, ret_error);
}

static uint16_t get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void get_v4(const uint8_t *p, const uint8_t *port, struct net_address *ret)
{
    memcpy(ret->bytes, v4_mapped, sizeof(v4_mapped));
    memcpy(ret->bytes + sizeof(v4_mapped), p, 4);
    ret->port = get_u16(port);
}

static void get_v6(const uint8_t *p, const uint8_t *port, struct net_address *ret)
{
    memcpy(ret->bytes, p, 16);
    ret->port = get_u16(port);
}

/* p: the block behind the 16 octets, len octets of it. TLVs behind the addresses are ignored, as the text allows. */
static int parse_v2_block(uint8_t family, const uint8_t *p, size_t len, struct smtp_proxy *ret, const char **ret_error)
{
    switch (family) {
    case 0x11: /* TCP over IPv4 */
        if (len < 12) {
            return fail(ret_error, "PROXY v2: too short for IPv4 addresses");
        }
        get_v4(p, p + 8, &ret->source);
        get_v4(p + 4, p + 10, &ret->destination);
        ret->addresses = true;
        return 1;
    case 0x21: /* TCP over IPv6 */
        if (len < 36) {
            return fail(ret_error, "PROXY v2: too short for IPv6 addresses");
        }
        get_v6(p, p + 32, &ret->source);
        get_v6(p + 16, p + 34, &ret->destination);
        ret->addresses = true;
        return 1;
    case 0x00: /* UNSPEC */
    case 0x31: /* unix stream: nothing we can use */
        return 1;
    default:
        return fail(ret_error, "PROXY v2: the transport is not a stream over IPv4 or IPv6");
    }
}

static int parse_v2(struct span in, struct smtp_proxy *ret, size_t *ret_used, const char **ret_error)
{
    if (in.len < V2_HEADER_LEN) {
        return 0;
    }
    uint8_t version = in.ptr[12] >> 4, command = in.ptr[12] & 15;
    size_t len = get_u16(in.ptr + 14);
    if (version != 2 || command > 1) {
        return fail(ret_error, "PROXY v2: unknown version or command");
    }
    if (V2_HEADER_LEN + len > SMTP_PROXY_MAX) {
        return fail(ret_error, "PROXY v2: header longer than 4096 octets");
    }
    if (in.len < V2_HEADER_LEN + len) {
        return 0;
    }
    *ret = (struct smtp_proxy){.local = command == 0};
    *ret_used = V2_HEADER_LEN + len;
    return ret->local ? 1 : parse_v2_block(in.ptr[13], in.ptr + V2_HEADER_LEN, len, ret, ret_error);
}

/* Does in begin with signature, as far as both go? */
static bool prefix_agrees(struct span in, const void *signature, size_t len)
{
    size_t n = in.len < len ? in.len : len;
    return n == 0 || memcmp(in.ptr, signature, n) == 0;
}

int smtp_proxy_parse(struct span in, struct smtp_proxy *ret, size_t *ret_used, const char **ret_error)
{
    bool v1 = prefix_agrees(in, V1_PREFIX, sizeof(V1_PREFIX) - 1);
    bool v2 = prefix_agrees(in, v2_signature, sizeof(v2_signature));
    if (in.len == 0) {
        return 0;
    }
    if (v1) {
        return in.len < sizeof(V1_PREFIX) - 1 ? 0 : parse_v1(in, ret, ret_used, ret_error);
    }
    return v2 ? parse_v2(in, ret, ret_used, ret_error) : fail(ret_error, "no PROXY header");
}

#include "deliver/dns.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define WIRE(s)                                                                                                        \
    {                                                                                                                  \
        (const uint8_t *)(s), sizeof(s) - 1                                                                            \
    }

static const struct {
    const char *what;
    struct span in;
    int result;
    const char *text;
} names[] = {
    {"nothing", WIRE(""), -EBADMSG, NULL},
    {"the root", WIRE("\0"), 1, ""},
    {"two labels", WIRE("\2mx\7example\0"), 12, "mx.example"},
    {"upper case", WIRE("\2MX\1e\0rest"), 6, "mx.e"},
    {"no end", WIRE("\2mx"), -EBADMSG, NULL},
    {"label longer than the rest", WIRE("\7mx\0"), -EBADMSG, NULL},
    {"compression pointer", WIRE("\300\14"), -EBADMSG, NULL},
    {"extended label type", WIRE("\100x\0"), -EBADMSG, NULL},
    {"a dot within a label", WIRE("\3a.b\0"), -EBADMSG, NULL},
    {"a NUL within a label", WIRE("\3a\0b\0"), -EBADMSG, NULL},
    {"a space", WIRE("\3a b\0"), -EBADMSG, NULL},
    {"8 bit", WIRE("\2\303\251\0"), -EBADMSG, NULL},
    {"underscore", WIRE("\2_a\0"), 4, "_a"},
};

static void names_parse(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char text[DNS_NAME_MAX + 1];
        int r = dns_name_parse(names[i].in, text);
        if (r != names[i].result || (r > 0 && strcmp(text, names[i].text) != 0)) {
            fail_msg("%s: %d", names[i].what, r);
        }
    }
}

static void long_name(void **state)
{
    (void)state;
    uint8_t wire[300];
    char text[DNS_NAME_MAX + 1];
    size_t len = 0;
    for (int i = 0; i < 4; i++) { /* 63 + 1 + 63 + 1 + 63 + 1 + 61 = 253 */
        size_t label = i < 3 ? 63 : 61;
        wire[len++] = (uint8_t)label;
        memset(wire + len, 'a', label);
        len += label;
    }
    wire[len++] = 0;
    assert_int_equal(dns_name_parse((struct span){wire, len}, text), len);
    assert_int_equal(strlen(text), 253);
    wire[192] = 62;
    wire[len - 1] = 'a';
    wire[len++] = 0;
    assert_int_equal(dns_name_parse((struct span){wire, len}, text), -EBADMSG);
}

static const struct {
    const char *what;
    struct span in;
    int result;
    unsigned preference;
    const char *host;
} mxs[] = {
    {"empty", WIRE(""), -EBADMSG, 0, NULL},
    {"preference only", WIRE("\0\12"), -EBADMSG, 0, NULL},
    {"one octet", WIRE("\0"), -EBADMSG, 0, NULL},
    {"null MX", WIRE("\0\0\0"), 0, 0, ""},
    {"one", WIRE("\0\12\2mx\1e\0"), 0, 10, "mx.e"},
    {"most", WIRE("\377\377\1a\0"), 0, 65535, "a"},
    {"something behind", WIRE("\0\12\1a\0x"), -EBADMSG, 0, NULL},
};

static void mx_parse(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mxs) / sizeof(mxs[0]); i++) {
        struct dns_mx mx;
        int r = dns_mx_parse(mxs[i].in, &mx);
        if (r != mxs[i].result || (r == 0 && (mx.preference != mxs[i].preference || strcmp(mx.host, mxs[i].host)))) {
            fail_msg("%s: %d", mxs[i].what, r);
        }
    }
}

static const struct {
    const char *what;
    enum dns_type type;
    struct span in;
    int result;
    const char *text;
} addresses[] = {
    {"A", DNS_TYPE_A, WIRE("\300\0\2\1"), 0, "192.0.2.1"},
    {"short A", DNS_TYPE_A, WIRE("\300\0\2"), -EBADMSG, NULL},
    {"A of 16 octets", DNS_TYPE_A, WIRE("0123456789abcdef"), -EBADMSG, NULL},
    {"AAAA of 4 octets", DNS_TYPE_AAAA, WIRE("\300\0\2\1"), -EBADMSG, NULL},
    {"AAAA", DNS_TYPE_AAAA, WIRE("\40\1\15\270\0\0\0\0\0\0\0\0\0\0\0\1"), 0, "2001:db8::1"},
    {"this network", DNS_TYPE_A, WIRE("\0\0\0\0"), -EADDRNOTAVAIL, NULL},
    {"multicast", DNS_TYPE_A, WIRE("\340\0\0\1"), -EADDRNOTAVAIL, NULL},
    {"broadcast", DNS_TYPE_A, WIRE("\377\377\377\377"), -EADDRNOTAVAIL, NULL},
    {"unspecified", DNS_TYPE_AAAA, WIRE("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), -EADDRNOTAVAIL, NULL},
    {"loopback", DNS_TYPE_AAAA, WIRE("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"), 0, "::1"},
    {"multicast 6", DNS_TYPE_AAAA, WIRE("\377\2\0\0\0\0\0\0\0\0\0\0\0\0\0\1"), -EADDRNOTAVAIL, NULL},
    {"mapped this network", DNS_TYPE_AAAA, WIRE("\0\0\0\0\0\0\0\0\0\0\377\377\0\0\0\0"), -EADDRNOTAVAIL, NULL},
};

static void address_parse(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        struct net_address a;
        char text[NET_ADDRESS_TEXT];
        int r = dns_address_parse(addresses[i].type, addresses[i].in, &a);
        net_address_format(&a, text);
        if (r != addresses[i].result || (r == 0 && strcmp(text, addresses[i].text) != 0)) {
            fail_msg("%s: %d %s", addresses[i].what, r, text);
        }
    }
}

static uint32_t lcg(void *arg)
{
    uint32_t *seed = arg;
    *seed = *seed * 1664525U + 1013904223U;
    return *seed >> 8;
}

static void mx_order(void **state)
{
    (void)state;
    const struct span rdata[] = {WIRE("\0\24\1c\0"), WIRE("\0\12\1a\0"), WIRE("\0\12\1b\0"),
                                 WIRE("\0\12\1a\0"), WIRE("\0"),         WIRE("\0\1\0")};
    bool a_first = false, b_first = false;
    uint32_t seed = 7;
    for (int i = 0; i < 64; i++) {
        struct dns_mx_list list;
        dns_mx_list_build(&list, rdata, sizeof(rdata) / sizeof(rdata[0]));
        assert_int_equal(list.count, 3); /* twice the same counts once; the short one and the root are not there */
        assert_false(list.null_mx);
        dns_mx_list_order(&list, lcg, &seed);
        assert_string_equal(list.entries[2].host, "c");
        a_first |= list.entries[0].host[0] == 'a';
        b_first |= list.entries[0].host[0] == 'b';
    }
    assert_true(a_first && b_first);
}

static void mx_null(void **state)
{
    (void)state;
    const struct span rdata[] = {WIRE("\0\0\0")}, broken[] = {WIRE("\0\1\3x y\0")};
    struct dns_mx_list list;
    dns_mx_list_build(&list, rdata, 1);
    assert_true(list.null_mx && list.any && list.count == 0);
    dns_mx_list_build(&list, NULL, 0);
    assert_false(list.null_mx || list.any);
    dns_mx_list_build(&list, broken, 1);
    assert_false(list.null_mx || list.any);
}

static void mx_many(void **state)
{
    (void)state;
    uint8_t octets[300][5];
    struct span rdata[300];
    for (unsigned i = 0; i < 300; i++) {
        unsigned preference = 300 - i;
        memcpy(octets[i], (uint8_t[5]){(uint8_t)(preference >> 8), (uint8_t)preference, 1, 'a', 0}, 5);
        rdata[i] = (struct span){octets[i], 5};
    }
    struct dns_mx_list list;
    uint32_t seed = 1;
    dns_mx_list_build(&list, rdata, 300);
    dns_mx_list_order(&list, lcg, &seed);
    assert_int_equal(list.count, DNS_MX_MAX);
    assert_int_equal(list.entries[0].preference, 300 - DNS_MX_READ_MAX + 1);
    assert_int_equal(list.entries[15].preference, 300 - DNS_MX_READ_MAX + 16);
}

static void self_cut(void **state)
{
    (void)state;
    const uint16_t preference[] = {10, 10, 20, 30};
    assert_int_equal(dns_self_cut(preference, 4, 0), 0);
    assert_int_equal(dns_self_cut(preference, 4, 1), 0);
    assert_int_equal(dns_self_cut(preference, 4, 2), 2);
    assert_int_equal(dns_self_cut(preference, 4, 3), 3);
}

static void interleave(void **state)
{
    (void)state;
    struct net_address v6[3] = {{.port = 61}, {.port = 62}, {.port = 63}}, v4[1] = {{.port = 41}}, out[8];
    assert_int_equal(dns_interleave(v6, 3, v4, 1, out, 8), 4);
    assert_int_equal(out[0].port, 61);
    assert_int_equal(out[1].port, 41);
    assert_int_equal(out[2].port, 62);
    assert_int_equal(dns_interleave(v6, 3, v4, 1, out, 2), 2);
    assert_int_equal(out[1].port, 41);
    assert_int_equal(dns_interleave(NULL, 0, v4, 1, out, 8), 1);
    assert_int_equal(dns_interleave(NULL, 0, NULL, 0, out, 8), 0);
}

static const struct {
    const char *in;
    int result;
    const char *text;
} literals[] = {
    {"example.org", -ENOENT, NULL},
    {"", -ENOENT, NULL},
    {"[192.0.2.1]", 0, "192.0.2.1"},
    {"[192.0.2.1", -EINVAL, NULL},
    {"[]", -EINVAL, NULL},
    {"[IPv6:2001:db8::1]", 0, "2001:db8::1"},
    {"[ipv6:::1]", 0, "::1"},
    {"[2001:db8::1]", -EINVAL, NULL},
    {"[IPv6:192.0.2.1]", -EINVAL, NULL},
    {"[tag:x]", -EINVAL, NULL},
    {"[0.0.0.0]", -EINVAL, NULL},
    {"[IPv6:::]", -EINVAL, NULL},
};

static void literal_parse(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(literals) / sizeof(literals[0]); i++) {
        struct net_address a;
        char text[NET_ADDRESS_TEXT] = "";
        int r = dns_literal_parse(span_str(literals[i].in), &a);
        if (r == 0) {
            net_address_format(&a, text);
        }
        if (r != literals[i].result || (r == 0 && strcmp(text, literals[i].text) != 0)) {
            fail_msg("%s: %d %s", literals[i].in, r, text);
        }
    }
}

static const struct {
    const char *in;
    const char *out; /* NULL: refused */
} domains[] = {
    {"Example.ORG", "example.org"},
    {"example.org.", "example.org"},
    {"b\xc3\xbc"
     "cher.example",
     "xn--bcher-kva.example"},
    {"\xe4\xbe\x8b\xe3\x81\x88.jp", "xn--r8jz45g.jp"},
    {"", NULL},
    {".", NULL},
    {"a..b", NULL},
    {".a", NULL},
    {"a b.example", NULL},
    {"a\\.b", NULL},
    {"\xff\xfe.example", NULL},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example", NULL},
};

static void domain_to_ascii(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(domains) / sizeof(domains[0]); i++) {
        char text[DNS_NAME_MAX + 1];
        int r = dns_domain_to_ascii(span_str(domains[i].in), text);
        if (domains[i].out == NULL ? r != -EINVAL : r != 0 || strcmp(text, domains[i].out) != 0) {
            fail_msg("%s: %d %s", domains[i].in, r, r == 0 ? text : "");
        }
    }
    assert_int_equal(dns_domain_to_ascii((struct span)WIRE("a\0b"), (char[DNS_NAME_MAX + 1]){0}), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_parse),   cmocka_unit_test(long_name),       cmocka_unit_test(mx_parse),
        cmocka_unit_test(address_parse), cmocka_unit_test(mx_order),        cmocka_unit_test(mx_null),
        cmocka_unit_test(mx_many),       cmocka_unit_test(self_cut),        cmocka_unit_test(interleave),
        cmocka_unit_test(literal_parse), cmocka_unit_test(domain_to_ascii),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

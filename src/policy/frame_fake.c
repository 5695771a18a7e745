#include "policy/frame_fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS_MAX 128
#define WORDS_MAX  16

const struct frame_fake_name frame_fake_names[] = {
    {"deny", "198.51.100.1", "2001:db8:100::1"},
    {"fixed", "198.51.100.129", "2001:db8:180::1"},
    {"watched", "198.51.101.1", "2001:db8:201::1"},
    {"metered", "198.51.102.1", "2001:db8:202::1"},
    {"neighbour", "198.51.102.2", "2001:db8:202::2"}, /* of metered, in its /64 */
    {"scoped", "198.51.103.1", "2001:db8:203::1"},
    {"exempt", "198.51.100.7", "2001:db8:100::7"},
    {"lapsing", "198.51.100.8", "2001:db8:100::8"},
    {"unlisted", "203.0.113.77", "2001:db8:7777::1"},
    {"world", "203.0.113.80", "2001:db8:8080::1"},
    {"mx", "192.0.2.25", "2001:db8:25::25"},
    {"aftr", "192.0.2.9", "2001:db8:9::9"},
    {"dynamic", "203.0.114.1", "2001:db8:d000::1"},
    {"target", "203.0.115.1", "2001:db8:cc::1"},
    {"watched-scoped", "198.51.104.1", "2001:db8:204::1"},
    {"renewed", "198.51.100.200", "2001:db8:180::200"},
    {"mapped", "198.51.100.1", "::ffff:198.51.100.1"},
    {NULL, NULL, NULL},
};

struct layer {
    char *words[WORDS_MAX];
    size_t count;
};

static void bad(const char *what)
{
    (void)fprintf(stderr, "frame_fake: %s\n", what);
    abort();
}

/* The value behind "key=", or NULL. */
static const char *value(const struct layer *l, const char *key)
{
    size_t len = strlen(key);
    for (size_t i = 1; i < l->count; i++) {
        if (strncmp(l->words[i], key, len) == 0 && l->words[i][len] == '=') {
            return l->words[i] + len + 1;
        }
    }
    return NULL;
}

static unsigned number(const struct layer *l, const char *key, int base, unsigned otherwise)
{
    const char *v = value(l, key);
    return v != NULL ? (unsigned)strtoul(v, NULL, base) : otherwise;
}

static bool has(const struct layer *l, const char *word)
{
    for (size_t i = 1; i < l->count; i++) {
        if (strcmp(l->words[i], word) == 0) {
            return true;
        }
    }
    return false;
}

static bool is(const struct layer *l, const char *name)
{
    return l != NULL && strcmp(l->words[0], name) == 0;
}

static void put16(uint8_t *at, unsigned n)
{
    at[0] = (uint8_t)(n >> 8);
    at[1] = (uint8_t)n;
}

static size_t put_hex(uint8_t *at, const char *hex)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        char two[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        at[i] = (uint8_t)strtoul(two, NULL, 16);
    }
    return n;
}

static void put_address(uint8_t *at, const char *name, bool v6)
{
    struct policy_address a;
    for (const struct frame_fake_name *n = frame_fake_names; n->name != NULL; n++) {
        if (strcmp(n->name, name) == 0 && policy_address_parse(v6 ? n->v6 : n->v4, &a) == 0) {
            memcpy(at, a.bytes, v6 ? 16 : 4);
            return;
        }
    }
    bad(name);
}

/* What the layer before says of this one. */

static unsigned ethertype_of(const struct layer *next)
{
    return is(next, "tag")     ? number(next, "type", 16, 0x8100)
           : is(next, "ip4")   ? 0x0800
           : is(next, "ip6")   ? 0x86dd
           : is(next, "pppoe") ? 0x8864
                               : 0x0806;
}

static unsigned protocol_of(const struct layer *next)
{
    static const struct {
        const char *name;
        unsigned number;
    } all[] = {{"hbh", 0},  {"ip4", 4}, {"tcp", 6},  {"udp", 17},  {"ip6", 41},  {"rh", 43},    {"frag", 44},
               {"esp", 50}, {"ah", 51}, {"dst", 60}, {"mob", 135}, {"hip", 139}, {"shim6", 140}};
    for (size_t i = 0; next != NULL && i < sizeof(all) / sizeof(all[0]); i++) {
        if (is(next, all[i].name)) {
            return all[i].number;
        }
    }
    return next != NULL ? 6 : 59; /* data and hex stand for a piece of TCP */
}

/* One layer, without what follows, whose length is rest. Returns its length. */

static size_t put_ip4(const struct layer *l, const struct layer *next, uint8_t *at, size_t rest)
{
    const char *options = value(l, "opt");
    size_t len = 20 + (options != NULL ? put_hex(at + 20, options) : 0);
    at[0] = (uint8_t)(number(l, "ver", 10, 4) << 4 | number(l, "ihl", 10, (unsigned)(len + 3) / 4));
    len = (len + 3) / 4 * 4;
    put16(at + 2, number(l, "tot", 10, (unsigned)(len + rest)));
    put16(at + 6, (has(l, "mf") ? 0x2000U : 0) | number(l, "off", 10, 0));
    at[8] = 64;
    at[9] = (uint8_t)number(l, "proto", 10, protocol_of(next));
    put_address(at + 12, l->words[1], false);
    put_address(at + 16, l->words[2], false);
    return len;
}

static size_t put_ip6(const struct layer *l, const struct layer *next, uint8_t *at, size_t rest)
{
    at[0] = (uint8_t)(number(l, "ver", 10, 6) << 4);
    put16(at + 4, number(l, "plen", 10, (unsigned)rest));
    at[6] = (uint8_t)number(l, "nh", 10, protocol_of(next));
    at[7] = 64;
    put_address(at + 8, l->words[1], true);
    put_address(at + 24, l->words[2], true);
    return 40;
}

static size_t put_extension(const struct layer *l, const struct layer *next, uint8_t *at)
{
    bool ah = is(l, "ah");
    at[0] = (uint8_t)number(l, "nh", 10, protocol_of(next));
    if (is(l, "frag")) {
        put16(at + 2, number(l, "off", 10, 0) << 3 | (has(l, "m") ? 1 : 0));
        return 8;
    }
    at[1] = (uint8_t)number(l, "n", 10, ah ? 1 : 0);
    at[3] = is(l, "rh") ? (uint8_t)number(l, "left", 10, 0) : 0;
    return ah ? (at[1] + 2U) * 4U : (at[1] + 1U) * 8U;
}

static size_t put_pppoe(const struct layer *l, const struct layer *next, uint8_t *at, size_t rest)
{
    unsigned protocol = number(l, "proto", 16, is(next, "ip6") ? 0x57 : 0x21);
    size_t len = has(l, "short") ? 1 : 2;
    at[0] = (uint8_t)number(l, "vt", 16, 0x11);
    at[1] = (uint8_t)number(l, "code", 16, 0);
    put16(at + 2, 7);
    put16(at + 4, number(l, "plen", 10, (unsigned)(len + rest)));
    if (len == 1) {
        at[6] = (uint8_t)protocol;
    } else {
        put16(at + 6, protocol);
    }
    return 6 + len;
}

static size_t put_tcp(const struct layer *l, uint8_t *at)
{
    static const char flags[] = "FSRPA";
    put16(at, (unsigned)strtoul(l->words[1], NULL, 10));
    put16(at + 2, (unsigned)strtoul(l->words[2], NULL, 10));
    if (is(l, "udp")) {
        put16(at + 4, 8);
        return 8;
    }
    at[12] = 5 << 4;
    for (const char *f = l->count > 3 ? l->words[3] : ""; *f != '\0' && strchr(l->words[3], '=') == NULL; f++) {
        at[13] |= (uint8_t)(1U << (strchr(flags, *f) - flags));
    }
    return 20;
}

static size_t put_link(const struct layer *l, const struct layer *next, uint8_t *at)
{
    if (is(l, "tag")) {
        put16(at, 7);
        put16(at + 2, ethertype_of(next));
        return 4;
    }
    memset(at, 2, 12);
    put16(at + 12, number(l, "type", 16, ethertype_of(next)));
    return 14;
}

static size_t put(const struct layer *l, const struct layer *next, uint8_t *at, size_t rest)
{
    static const char *const extensions[] = {"hbh", "dst", "mob", "hip", "shim6", "rh", "ah", "frag"};
    for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++) {
        if (is(l, extensions[i])) {
            return put_extension(l, next, at);
        }
    }
    if (is(l, "eth") || is(l, "tag")) {
        return put_link(l, next, at);
    }
    if (is(l, "tcp") || is(l, "udp")) {
        return put_tcp(l, at);
    }
    if (is(l, "data") || is(l, "esp")) {
        return l->count > 1 ? strtoul(l->words[1], NULL, 10) : 8;
    }
    if (is(l, "hex")) {
        return put_hex(at, l->words[1]);
    }
    if (is(l, "pppoe")) {
        return put_pppoe(l, next, at, rest);
    }
    if (!is(l, "ip4") && !is(l, "ip6")) {
        bad(l->words[0]);
    }
    return is(l, "ip4") ? put_ip4(l, next, at, rest) : put_ip6(l, next, at, rest);
}

static size_t split(char *text, int family, struct layer *layers)
{
    size_t count = 0;
    char *at = text, *word;
    layers[count++] = (struct layer){0};
    while ((word = strsep(&at, " ")) != NULL) {
        struct layer *l = &layers[count - 1];
        if (strcmp(word, "/") == 0) {
            layers[count++] = (struct layer){0};
        } else if (word[0] != '\0') {
            l->words[l->count++] = word;
        }
        if (count == LAYERS_MAX || l->count == WORDS_MAX) {
            bad("too much");
        }
    }
    static char ip4[] = "ip4", ip6[] = "ip6";
    for (size_t i = 0; i < count; i++) {
        if (is(&layers[i], "ip")) {
            layers[i].words[0] = family == 6 ? ip6 : ip4;
        }
    }
    return count;
}

size_t frame_fake_build(const char *words, int family, uint8_t out[static FRAME_FAKE_MAX])
{
    struct layer layers[LAYERS_MAX];
    uint8_t rest[FRAME_FAKE_MAX];
    size_t len = 0;
    char *text = strdup(words);
    if (text == NULL) {
        abort();
    }
    size_t count = split(text, family, layers);
    for (size_t i = count; i-- > 0;) {
        uint8_t one[FRAME_FAKE_MAX] = {0};
        memcpy(rest, out, len);
        size_t own = put(&layers[i], i + 1 < count ? &layers[i + 1] : NULL, one, len);
        if (value(&layers[i], "keep") != NULL) {
            own = number(&layers[i], "keep", 10, 0);
            len = 0;
        }
        memcpy(out, one, own);
        memcpy(out + own, rest, len);
        len += own;
    }
    size_t pad = number(&layers[0], "pad", 10, 0);
    memset(out + len, 0, pad);
    len = len + pad - number(&layers[0], "cut", 10, 0);
    free(text);
    return len;
}

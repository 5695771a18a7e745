/*
 * The types of values: each reads one node into one field, or says what would be right.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <idn2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/schema.h"

#define SHOWN_MAX 120

static const char *value_of(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node)
{
    if (node == NULL) {
        return f->fallback;
    }
    if (node->kind != YAML_KIND_VALUE) {
        schema_complain(x, node->at, "\"%s\" is %s; it should be a value%s%s", f->key,
                        config_yaml_kind_name(node->kind), f->example != NULL ? ", like " : "",
                        f->example != NULL ? f->example : "");
        return NULL;
    }
    return node->text;
}

/* Whole UTF-8 characters only: the YAML reader has refused broken ones. */
int schema_shown(const char *text)
{
    size_t len = strnlen(text, SHOWN_MAX + 1);
    if (len > SHOWN_MAX) {
        for (len = SHOWN_MAX; len > 0 && ((unsigned char)text[len] & 0xC0) == 0x80;) {
            len--;
        }
    }
    return (int)len;
}

static void wrong(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                  const char *what)
{
    schema_complain(x, node->at, "\"%.*s\" is not %s; write it like %s", schema_shown(node->text), node->text, what,
                    f->example);
}

static void set_string(struct schema_context *x, char **target, char *take)
{
    if (take == NULL) {
        x->error = -ENOMEM;
    }
    free(*target);
    *target = take;
}

void schema_string(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    const char *text = value_of(x, f, node);
    if (text == NULL) {
        return;
    }
    if (node != NULL && text[0] == '\0') {
        schema_complain(x, node->at, "\"%s\" is empty; write it like %s", f->key, f->example);
        return;
    }
    for (const char *p = text; node != NULL && *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            schema_complain(x, node->at, "\"%s\" holds a control character", f->key);
            return;
        }
    }
    set_string(x, target, strdup(text));
}

void schema_bool(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    const char *text = value_of(x, f, node);
    if (text == NULL) {
        return;
    }
    bool yes = strcmp(text, "true") == 0 || strcmp(text, "yes") == 0 || strcmp(text, "on") == 0;
    bool no = strcmp(text, "false") == 0 || strcmp(text, "no") == 0 || strcmp(text, "off") == 0;
    if (!yes && !no) {
        schema_complain(x, node->at, "\"%s\" should be true or false, not \"%.*s\"", f->key, schema_shown(text), text);
        return;
    }
    *(bool *)target = yes;
}

/* Digits only: "15m" or "5_87" is not 15 or 5. */
bool schema_number(const char *text, uint64_t *ret)
{
    uint64_t n = 0;
    if (*text == '\0') {
        return false;
    }
    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || n > (UINT64_MAX - 9) / 10) {
            return false;
        }
        n = n * 10 + (uint64_t)(*p - '0');
    }
    *ret = n;
    return true;
}

void schema_uint(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    const char *text = value_of(x, f, node);
    uint64_t n = 0;
    if (text == NULL) {
        return;
    }
    if (!schema_number(text, &n)) {
        wrong(x, f, node, "a whole number");
    } else if (n < f->min || n > f->max) {
        schema_complain(x, node->at, "\"%s\" is %.*s; it should be from %llu to %llu", f->key, schema_shown(text), text,
                        (unsigned long long)f->min, (unsigned long long)f->max);
    } else {
        *(uint32_t *)target = (uint32_t)n;
    }
}

struct unit {
    const char *name;
    uint64_t factor;
};

/* number and unit, a space between them is taken. */
static bool parse_with_unit(const char *text, const struct unit *units, uint64_t *ret)
{
    char digits[24];
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n >= sizeof(digits)) {
        return false;
    }
    memcpy(digits, text, n);
    digits[n] = '\0';
    const char *unit = text + n + (text[n] == ' ' ? 1 : 0);
    uint64_t number;
    for (const struct unit *u = units; schema_number(digits, &number) && u->name != NULL; u++) {
        if (strcmp(u->name, unit) == 0 && (number == 0 || u->factor <= UINT64_MAX / number)) {
            *ret = number * u->factor;
            return true;
        }
    }
    return false;
}

/* With the largest unit that gives a whole number. */
static void format_with_unit(char text[static 32], uint64_t n, const struct unit *units)
{
    const struct unit *best = units;
    for (const struct unit *u = units; u->name != NULL; u++) {
        best = n % u->factor == 0 && (n > 0 || u->factor == 1000) && u->factor > best->factor ? u : best;
    }
    (void)snprintf(text, 32, "%llu%s", (unsigned long long)(n / best->factor), best->name);
}

static void with_unit(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                      void *target, const struct unit *units, const char *what)
{
    const char *text = value_of(x, f, node);
    uint64_t n = 0;
    if (text == NULL) {
        return;
    }
    if (!parse_with_unit(text, units, &n)) {
        wrong(x, f, node, what);
    } else if (n < f->min || n > f->max) {
        char least[32], most[32];
        format_with_unit(least, f->min, units);
        format_with_unit(most, f->max, units);
        schema_complain(x, node->at, "\"%s\" is %s; it should be from %s to %s", f->key, text, least, most);
    } else {
        *(uint64_t *)target = n;
    }
}

void schema_size(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    static const struct unit units[] = {
        {"", 1},           {"k", 1U << 10}, {"K", 1U << 10},   {"KiB", 1U << 10}, {"M", 1U << 20},
        {"MiB", 1U << 20}, {"G", 1U << 30}, {"GiB", 1U << 30}, {NULL, 0},
    };
    with_unit(x, f, node, target, units, "a size (octets, or with k, M, G)");
}

static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {NULL, 0},
};

bool schema_duration_parse(const char *text, uint64_t *ret_ms)
{
    return parse_with_unit(text, duration_units, ret_ms);
}

void schema_duration(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    with_unit(x, f, node, target, duration_units, "a time (a number with ms, s, m, h or d)");
}

void schema_choice(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    const char *text = value_of(x, f, node);
    if (text == NULL) {
        return;
    }
    for (int i = 0; f->words[i] != NULL; i++) {
        if (strcmp(f->words[i], text) == 0) {
            *(int *)target = i;
            return;
        }
    }
    struct buf b;
    buf_init(&b, 1024);
    for (int i = 0; f->words[i] != NULL; i++) {
        (void)buf_printf(&b, "%s%s", i == 0 ? "" : f->words[i + 1] == NULL ? " or " : ", ", f->words[i]);
    }
    schema_complain(x, node->at, "\"%s\" should be %.*s, not \"%.*s\"", f->key, (int)b.len, (const char *)b.data,
                    schema_shown(text), text);
    buf_fini(&b);
}

/* Letters, digits, hyphens and single dots within; the last label is not a number, as an address's would be. */
static bool is_domain(const char *text)
{
    size_t len = strlen(text);
    const char *last = strrchr(text, '.');
    last = last != NULL ? last + 1 : text;
    return len > 0 && len <= 253 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-.") == len &&
           strstr(text, "..") == NULL && text[0] != '.' && *last != '\0' && last[strspn(last, "0123456789")] != '\0';
}

/* Without IDN2_USE_STD3_ASCII_RULES, which takes "a b" and drops the space. */
char *schema_domain_normal(const char *text)
{
    char *ascii = NULL;
    if (idn2_to_ascii_8z(text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK) {
        return NULL;
    }
    for (char *p = ascii; *p != '\0'; p++) {
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
    }
    char *copy = is_domain(ascii) ? strdup(ascii) : NULL;
    idn2_free(ascii);
    return copy;
}

void schema_domain(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    const char *text = value_of(x, f, node);
    if (text == NULL) {
        return;
    }
    char *domain = schema_domain_normal(text);
    if (domain == NULL || strchr(domain, '.') == NULL) {
        free(domain);
        wrong(x, f, node, "a fully qualified domain name");
        return;
    }
    set_string(x, target, domain);
}

void schema_path(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    const char *text = value_of(x, f, node);
    if (text == NULL) {
        return;
    }
    if (text[0] != '/' || strlen(text) > 1024) {
        wrong(x, f, node, "a path from the root");
        return;
    }
    set_string(x, target, strdup(text));
}

void schema_url(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    const char *text = value_of(x, f, node);
    if (text == NULL) {
        return;
    }
    bool good = strncmp(text, "https://", 8) == 0 || strncmp(text, "http://", 7) == 0;
    for (const char *p = text; *p != '\0'; p++) {
        good = good && *p > 0x20 && *p < 0x7f;
    }
    if (!good || strlen(text) > 200) {
        wrong(x, f, node, "a URL of at most 200 ASCII characters");
        return;
    }
    set_string(x, target, strdup(text));
}

void schema_map(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    static const struct yaml_node none = {.kind = YAML_KIND_MAP};
    if (node == NULL && f->optional) {
        return;
    }
    if (node != NULL && node->kind != YAML_KIND_MAP) {
        schema_complain(x, node->at, "\"%s\" is %s; it should be a map of keys", f->key,
                        config_yaml_kind_name(node->kind));
        return;
    }
    schema_read_map(x, node != NULL ? node : &none, f->members, target);
}

size_t schema_list_count(const struct yaml_node *node)
{
    return node == NULL ? 0 : node->kind == YAML_KIND_LIST ? node->count : 1;
}

const struct yaml_node *schema_list_item(const struct yaml_node *node, size_t i)
{
    return node->kind == YAML_KIND_LIST ? &node->children[i] : node;
}

static void strings(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                    struct config_strings *target, char *(*normal)(const char *text), const char *what)
{
    size_t count = schema_list_count(node);
    target->list = calloc(count + 1, sizeof(char *));
    if (target->list == NULL) {
        x->error = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        const char *text = value_of(x, f, item);
        char *value = text != NULL ? normal(text) : NULL;
        if (value != NULL) {
            target->list[target->count++] = value;
        } else if (text != NULL) {
            wrong(x, f, item, what);
        }
    }
}

void schema_domains(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    strings(x, f, node, target, schema_domain_normal, "a domain name");
}

static char *address_normal(const char *text)
{
    struct net_address a;
    return net_address_parse(text, &a) == 0 ? strdup(text) : NULL;
}

void schema_addresses(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                      void *target)
{
    strings(x, f, node, target, address_normal, "an address");
}

static char *forwarder_normal(const char *text)
{
    char host[64];
    const char *at = strchr(text, '@');
    size_t len = at != NULL ? (size_t)(at - text) : strlen(text);
    struct net_address a;
    uint64_t port = 53;
    if (len >= sizeof(host) || (at != NULL && (!schema_number(at + 1, &port) || port == 0 || port > 65535))) {
        return NULL;
    }
    memcpy(host, text, len);
    host[len] = '\0';
    return net_address_parse(host, &a) == 0 ? strdup(text) : NULL;
}

void schema_forwarders(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                       void *target)
{
    strings(x, f, node, target, forwarder_normal, "a resolver's address");
}

static bool parse_prefix(const char *text, struct net_prefix *ret)
{
    char host[64];
    const char *slash = strchr(text, '/');
    size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
    struct net_address a;
    uint64_t bits;
    if (len >= sizeof(host)) {
        return false;
    }
    memcpy(host, text, len);
    host[len] = '\0';
    if (net_address_parse(host, &a) < 0) {
        return false;
    }
    uint64_t most = net_address_is_v4(&a) ? 32 : 128;
    bits = most;
    if (slash != NULL && (!schema_number(slash + 1, &bits) || bits > most)) {
        return false;
    }
    bits += 128 - most;
    memcpy(ret->bytes, a.bytes, sizeof(ret->bytes));
    ret->bits = (uint8_t)bits;
    for (unsigned bit = ret->bits; bit < 128; bit++) {
        if ((ret->bytes[bit / 8] & (0x80U >> bit % 8)) != 0) {
            return false; /* host bits: the operator meant something else */
        }
    }
    return true;
}

void schema_prefixes(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    struct config_prefixes *p = target;
    size_t count = schema_list_count(node);
    p->list = calloc(count + 1, sizeof(*p->list));
    if (p->list == NULL) {
        x->error = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        const char *text = value_of(x, f, item);
        if (text != NULL && parse_prefix(text, &p->list[p->count])) {
            p->count++;
        } else if (text != NULL) {
            wrong(x, f, item, "a prefix (address/length, no host bits set)");
        }
    }
    if (count == 0 && f->required) {
        schema_complain(x, node->at, "\"%s\" is empty; write it like %s", f->key, f->example);
    }
}

bool schema_endpoint(struct schema_context *x, struct config_place at, const char *text, struct net_address *ret)
{
    static const char right[] = "\"[::]:587\", \"192.0.2.1:465\" or \":587\"";
    char host[64] = "::";
    const char *colon = strrchr(text, ':');
    uint64_t port = 0;
    bool good = colon != NULL && schema_number(colon + 1, &port) && port > 0 && port < 65536;
    size_t len = good ? (size_t)(colon - text) : 0;
    if (good && len > 0) {
        bool brackets = text[0] == '[' && text[len - 1] == ']' && len > 2;
        good = len < sizeof(host) && (brackets || memchr(text, ':', len) == NULL);
        if (good) {
            memcpy(host, text + (brackets ? 1 : 0), len - (brackets ? 2 : 0));
            host[len - (brackets ? 2 : 0)] = '\0';
        }
    }
    if (!good || net_address_parse(host, ret) < 0) {
        schema_complain(x, at, "\"%.*s\" is not an address to listen on; write it like %s", schema_shown(text), text,
                        right);
        return false;
    }
    ret->port = (uint16_t)port;
    return true;
}

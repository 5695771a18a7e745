#include <idn2.h>
#include <stdlib.h>
#include <string.h>
#include <uninorm.h>

#include "message/address.h"
#include "message/identity.h"

/* A mailbox as it is compared. */
struct key {
    bool every;                        /* a pattern's "every mailbox of the domain" */
    char local[3 * MESSAGE_LOCAL_MAX]; /* NFC grows UTF-8 at most threefold */
    size_t local_len;
    char domain[MESSAGE_DOMAIN_MAX + 1];
    size_t domain_len;
};

static void lower(char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (s[i] >= 'A' && s[i] <= 'Z') {
            s[i] = (char)(s[i] + 32);
        }
    }
}

static bool has_8bit(struct span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] >= 0x80) {
            return true;
        }
    }
    return false;
}

static bool key_local(struct key *key, const char *local, size_t len)
{
    key->every = false;
    key->local_len = len;
    if (!has_8bit((struct span){(const uint8_t *)local, len})) {
        memcpy(key->local, local, len);
        lower(key->local, len);
        return true;
    }
    uint8_t *room = (uint8_t *)key->local;
    key->local_len = sizeof(key->local);
    uint8_t *nfc = u8_normalize(UNINORM_NFC, (const uint8_t *)local, len, room, &key->local_len);
    if (nfc != room) { /* out of memory, or it did not fit */
        free(nfc);
        return false;
    }
    lower(key->local, key->local_len);
    return true;
}

/* An A-label that an ASCII domain holds is taken as it is: it is compared, not looked up. */
static bool key_domain(struct key *key, struct span domain)
{
    char text[MESSAGE_DOMAIN_MAX + 1];
    if (domain.len == 0 || domain.len > MESSAGE_DOMAIN_MAX) {
        return false;
    }
    memcpy(text, domain.ptr, domain.len);
    text[domain.len] = '\0';
    if (!has_8bit(domain)) {
        memcpy(key->domain, text, domain.len + 1);
        key->domain_len = domain.len;
    } else {
        uint8_t *ascii = NULL;
        if (idn2_lookup_u8((const uint8_t *)text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK) {
            return false;
        }
        key->domain_len = strlen((const char *)ascii);
        bool fits = key->domain_len <= MESSAGE_DOMAIN_MAX;
        if (fits) {
            memcpy(key->domain, ascii, key->domain_len + 1);
        }
        idn2_free(ascii);
        if (!fits) {
            return false;
        }
    }
    lower(key->domain, key->domain_len);
    return true;
}

static bool key_of_mailbox(struct span mailbox, struct key *key)
{
    struct message_mailbox m;
    return message_mailbox_parse(mailbox, &m) == 0 && key_local(key, m.local, m.local_len) && key_domain(key, m.domain);
}

static bool key_of_pattern(struct span pattern, struct key *key)
{
    size_t star = pattern.len > 0 && pattern.ptr[0] == '*' ? 1 : 0;
    if (pattern.len <= star || pattern.ptr[star] != '@') {
        return key_of_mailbox(pattern, key);
    }
    /* The parser judges the domain, behind a local part of our own. */
    char text[MESSAGE_DOMAIN_MAX + 2] = "x";
    size_t len = pattern.len - star;
    struct message_mailbox m;
    if (len > sizeof(text) - 1) {
        return false;
    }
    memcpy(text + 1, pattern.ptr + star, len);
    key->every = true;
    key->local_len = 0;
    return message_mailbox_parse((struct span){(const uint8_t *)text, len + 1}, &m) == 0 && key_domain(key, m.domain);
}

static bool local_equal(const struct key *key, size_t len, const struct key *pattern)
{
    return len == pattern->local_len && memcmp(key->local, pattern->local, len) == 0;
}

static bool key_matches(const struct key *key, struct span pattern, bool plus_addressing)
{
    struct key p;
    if (!key_of_pattern(pattern, &p) || p.domain_len != key->domain_len ||
        memcmp(p.domain, key->domain, p.domain_len) != 0) {
        return false;
    }
    if (p.every || local_equal(key, key->local_len, &p)) {
        return true;
    }
    const char *plus = plus_addressing && key->local_len > 0 ? memchr(key->local, '+', key->local_len) : NULL;
    return plus != NULL && local_equal(key, (size_t)(plus - key->local), &p);
}

bool message_identity_matches_any(struct span mailbox, const struct span *patterns, size_t count, bool plus_addressing)
{
    struct key key;
    if (!key_of_mailbox(mailbox, &key)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (key_matches(&key, patterns[i], plus_addressing)) {
            return true;
        }
    }
    return false;
}

bool message_identity_matches(struct span mailbox, struct span pattern, bool plus_addressing)
{
    return message_identity_matches_any(mailbox, &pattern, 1, plus_addressing);
}

bool message_identity_valid(struct span text)
{
    struct key key;
    return key_of_pattern(text, &key);
}

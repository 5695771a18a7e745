#include "vault/password.h"

#include <argon2.h>
#include <crypt.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <stringprep.h>
#include <sys/mman.h>

#define ARGON_OPS     2U
#define ARGON_MEMORY  (19U * 1024U * 1024U)
#define ARGON_OPS_MAX 16UL
#define ARGON_KIB_MAX (256UL * 1024)
#define ROUNDS_MAX    1000000UL
#define BCRYPT_MAX    14UL

static const char app_alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";
static const char app_scheme[] = "$app$";

int password_prepare(struct span raw, struct password *ret)
{
    ret->len = 0;
    if (raw.len == 0 || raw.len > PASSWORD_TEXT_MAX || memchr(raw.ptr, '\0', raw.len) != NULL) {
        return -EINVAL;
    }
    memcpy(ret->text, raw.ptr, raw.len);
    ret->text[raw.len] = '\0';
    bool plain = true;
    for (size_t i = 0; i < raw.len; i++) {
        plain = plain && raw.ptr[i] >= 0x20 && raw.ptr[i] < 0x7f;
    }
    /* Code points newer than Unicode 3.2 pass as they are: people do use them in passwords. */
    if (!plain && stringprep(ret->text, sizeof(ret->text), 0, stringprep_saslprep) != STRINGPREP_OK) {
        return -EINVAL;
    }
    ret->len = strlen(ret->text);
    return ret->len > 0 ? 0 : -EINVAL;
}

void password_wipe(struct password *p)
{
    explicit_bzero(p, sizeof(*p));
}

int password_hash(const struct password *p, char ret_hash[static PASSWORD_HASH_MAX])
{
    _Static_assert(crypto_pwhash_STRBYTES <= PASSWORD_HASH_MAX, "room for an argon2id string");
    return crypto_pwhash_str(ret_hash, p->text, p->len, ARGON_OPS, ARGON_MEMORY) == 0 ? 0 : -ENOMEM;
}

static bool is_argon(const char *hash)
{
    return strncmp(hash, "$argon2id$", 10) == 0;
}

/* A decimal number after prefix, which must end at `end`; ULONG_MAX when there is none. */
static unsigned long number_after(const char *at, const char *prefix, char end)
{
    size_t len = strlen(prefix);
    char *stop;
    if (strncmp(at, prefix, len) != 0 || at[len] < '0' || at[len] > '9') {
        return ~0UL;
    }
    errno = 0;
    unsigned long n = strtoul(at + len, &stop, 10);
    return errno == 0 && *stop == end ? n : ~0UL;
}

/* What the thread's last check worked in, wiped by libargon2, for the next one. */
static _Thread_local struct {
    uint8_t *at;
    size_t octets;
} kept;

void password_rest(void)
{
    if (kept.at != NULL) {
        (void)munmap(kept.at, kept.octets);
        kept.at = NULL;
    }
}

/* In huge pages where the kernel has them, and kept from check to check: 19 MiB in small ones are 4,864 page faults a
 * guess, and as many pages given back; under 20 guesses a second every process of the machine felt it, and still did
 * when huge ones were zeroed and given back for each. Why libargon2, which asks for its memory here, and not
 * libsodium, which does not. */
static int argon_room(uint8_t **ret, size_t octets)
{
    if (kept.at != NULL && kept.octets == octets) {
        *ret = kept.at;
        kept.at = NULL;
        return ARGON2_OK;
    }
    void *room = mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED) {
        return ARGON2_MEMORY_ALLOCATION_ERROR;
    }
    (void)madvise(room, octets, MADV_HUGEPAGE);
    *ret = room;
    return ARGON2_OK;
}

static void argon_room_free(uint8_t *room, size_t octets)
{
    password_rest();
    kept.at = room;
    kept.octets = octets;
}

/* What stands between two $, in base64 without padding; octets, or 0 when it is none or too long. */
static size_t argon_part(const char *text, size_t len, uint8_t *ret, size_t room)
{
    size_t octets = 0;
    const char *end = NULL;
    bool good =
        sodium_base642bin(ret, room, text, len, NULL, &octets, &end, sodium_base64_VARIANT_ORIGINAL_NO_PADDING) == 0;
    return good && end == text + len ? octets : 0;
}

/* $argon2id$v=19$m=,t=,p=$salt$hash, already checked by check_argon(). */
static int verify_argon(const char *hash, const struct password *p)
{
    uint8_t salt[64], want[64], made[64];
    struct password copy = *p; /* its interface does not promise to leave it alone */
    const char *lanes = strstr(hash, ",p="), *salt_at = strchr(lanes, '$') + 1, *want_at = strchr(salt_at, '$');
    argon2_context c = {.out = made,
                        .pwd = (uint8_t *)copy.text,
                        .pwdlen = (uint32_t)copy.len,
                        .salt = salt,
                        .t_cost = (uint32_t)number_after(strstr(hash, ",t="), ",t=", ','),
                        .m_cost = (uint32_t)number_after(strstr(hash, "$m="), "$m=", ','),
                        .lanes = (uint32_t)number_after(lanes, ",p=", '$'),
                        .threads = 1,
                        .version = ARGON2_VERSION_13,
                        .allocate_cbk = argon_room,
                        .free_cbk = argon_room_free};
    int r = ARGON2_DECODING_FAIL;
    if (want_at != NULL) {
        c.saltlen = (uint32_t)argon_part(salt_at, (size_t)(want_at - salt_at), salt, sizeof(salt));
        c.outlen = (uint32_t)argon_part(want_at + 1, strlen(want_at + 1), want, sizeof(want));
        r = argon2id_ctx(&c);
    }
    bool same = r == ARGON2_OK && sodium_memcmp(made, want, c.outlen) == 0;
    explicit_bzero(&copy, sizeof(copy));
    explicit_bzero(made, sizeof(made));
    return r == ARGON2_MEMORY_ALLOCATION_ERROR ? -ENOMEM : same;
}

/* crypt_data is 32 KiB: on the heap, and wiped, for it holds the password. */
static int verify_crypt(const char *hash, const struct password *p)
{
    struct crypt_data *data = calloc(1, sizeof(*data));
    if (data == NULL) {
        return -ENOMEM;
    }
    errno = 0;
    const char *made = crypt_r(p->text, hash, data);
    int r = errno == ENOMEM ? -ENOMEM : 0;
    if (made != NULL && made[0] != '*') {
        size_t len = strlen(hash);
        r = strlen(made) == len && sodium_memcmp(made, hash, len) == 0;
    }
    explicit_bzero(data, sizeof(*data));
    free(data);
    return r;
}

int password_verify(const char *hash, const struct password *p)
{
    if (password_hash_check(hash) < 0) {
        return -EINVAL;
    }
    return is_argon(hash) ? verify_argon(hash, p) : verify_crypt(hash, p);
}

static int check_argon(const char *hash)
{
    const char *m = strstr(hash, "$m="), *t = strstr(hash, ",t="), *p = strstr(hash, ",p=");
    if (m == NULL || t == NULL || p == NULL || strlen(hash) >= crypto_pwhash_STRBYTES ||
        strncmp(hash, "$argon2id$v=19$m=", 17) != 0) {
        return -EINVAL;
    }
    unsigned long kib = number_after(m, "$m=", ','), ops = number_after(t, ",t=", ',');
    unsigned long lanes = number_after(p, ",p=", '$');
    if (kib == ~0UL || ops == ~0UL || lanes == ~0UL) {
        return -EINVAL;
    }
    return kib > ARGON_KIB_MAX || ops > ARGON_OPS_MAX || lanes > 16 ? -ERANGE : 0;
}

static int check_sha(const char *hash)
{
    if (strncmp(hash + 3, "rounds=", 7) != 0) {
        return 0;
    }
    unsigned long rounds = number_after(hash + 3, "rounds=", '$');
    return rounds == ~0UL ? -EINVAL : rounds > ROUNDS_MAX ? -ERANGE : 0;
}

static int check_bcrypt(const char *hash)
{
    unsigned long cost = strlen(hash) == 60 ? number_after(hash + 3, "$", '$') : ~0UL;
    return cost == ~0UL ? -EINVAL : cost > BCRYPT_MAX ? -ERANGE : 0;
}

/* The flavour, a letter for the memory and one for the block size; those that crypt_gensalt(3) makes at costs 1 to 7.
 */
static int check_yescrypt(const char *hash)
{
    if (hash[3] != 'j' || hash[4] == '\0' || hash[5] == '\0' || hash[6] != '$') {
        return -EINVAL;
    }
    return strchr("56789AB", hash[4]) == NULL || strchr("5T", hash[5]) == NULL ? -ERANGE : 0;
}

static int check_nothing(const char *hash)
{
    (void)hash;
    return 0;
}

static const struct {
    const char *prefix;
    int (*check)(const char *hash);
} schemes[] = {
    {"$argon2id$", check_argon}, {"$2b$", check_bcrypt}, {"$2a$", check_bcrypt},  {"$2y$", check_bcrypt},
    {"$5$", check_sha},          {"$6$", check_sha},     {"$y$", check_yescrypt}, {"$1$", check_nothing},
};

int password_hash_check(const char *hash)
{
    size_t len = strlen(hash);
    if (len >= PASSWORD_HASH_MAX) {
        return -EINVAL;
    }
    for (size_t i = 0; i < len; i++) {
        if (hash[i] <= 0x20 || hash[i] >= 0x7f || strchr(":;*!\\", hash[i]) != NULL) {
            return -EINVAL;
        }
    }
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        if (strncmp(hash, schemes[i].prefix, strlen(schemes[i].prefix)) == 0) {
            int r = schemes[i].check(hash);
            bool known = is_argon(hash) || crypt_checksalt(hash) == CRYPT_SALT_OK ||
                         crypt_checksalt(hash) == CRYPT_SALT_METHOD_LEGACY;
            return r < 0 ? r : known ? 0 : -EINVAL;
        }
    }
    return -EINVAL;
}

bool password_hash_is_weak(const char *hash)
{
    return strncmp(hash, "$1$", 3) == 0;
}

void app_password_make(char ret_text[static APP_PASSWORD_LEN + 1])
{
    uint8_t bytes[24];
    size_t at = 0;
    randombytes_buf(bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        if (i > 0 && i % 6 == 0) {
            ret_text[at++] = '-';
        }
        ret_text[at++] = app_alphabet[bytes[i] & 31];
    }
    ret_text[at] = '\0';
    explicit_bzero(bytes, sizeof(bytes));
}

/* Only the alphabet's letters, in lower case; false when it is not 24 of them. */
static bool app_letters(struct span raw, char letters[static 24])
{
    size_t n = 0;
    for (size_t i = 0; i < raw.len; i++) {
        char c = (char)raw.ptr[i];
        c = c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
        if (c == '-' || c == ' ') {
            continue;
        }
        if (c == '\0' || strchr(app_alphabet, c) == NULL || n == 24) {
            return false;
        }
        letters[n++] = c;
    }
    return n == 24;
}

bool app_password_hash(struct span raw, char ret_hash[static APP_HASH_LEN])
{
    char letters[24];
    uint8_t digest[32];
    bool ok = raw.len <= 64 && app_letters(raw, letters);
    if (ok) {
        (void)crypto_generichash(digest, sizeof(digest), (const uint8_t *)letters, sizeof(letters), NULL, 0);
        memcpy(ret_hash, app_scheme, sizeof(app_scheme) - 1);
        (void)sodium_bin2hex(ret_hash + sizeof(app_scheme) - 1, 2 * sizeof(digest) + 1, digest, sizeof(digest));
    }
    explicit_bzero(letters, sizeof(letters));
    explicit_bzero(digest, sizeof(digest));
    return ok;
}

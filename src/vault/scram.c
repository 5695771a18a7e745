#include "vault/scram.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sodium.h>
#include <string.h>

static const EVP_MD *digest_of(enum scram_hash h)
{
    return h == SCRAM_SHA1 ? EVP_sha1() : EVP_sha256();
}

size_t scram_key_len(enum scram_hash h)
{
    return h == SCRAM_SHA1 ? 20 : 32;
}

static bool hmac(enum scram_hash h, const uint8_t *key, struct span text, uint8_t *out)
{
    unsigned len = 0;
    return HMAC(digest_of(h), key, (int)scram_key_len(h), text.ptr, text.len, out, &len) != NULL;
}

int scram_derive(enum scram_hash h, struct span password, struct span salt, uint32_t iterations, struct scram_keys *ret)
{
    uint8_t salted[SCRAM_KEY_MAX], client[SCRAM_KEY_MAX];
    size_t len = scram_key_len(h);
    *ret = (struct scram_keys){0};
    bool ok = PKCS5_PBKDF2_HMAC((const char *)password.ptr, (int)password.len, salt.ptr, (int)salt.len, (int)iterations,
                                digest_of(h), (int)len, salted) == 1 &&
              hmac(h, salted, SPAN_LIT("Client Key"), client) && hmac(h, salted, SPAN_LIT("Server Key"), ret->server) &&
              EVP_Digest(client, len, ret->stored, NULL, digest_of(h), NULL) == 1;
    explicit_bzero(salted, sizeof(salted));
    explicit_bzero(client, sizeof(client));
    return ok ? 0 : -ENOMEM;
}

int scram_check(enum scram_hash h, const struct scram_keys *keys, struct span auth_message, struct span proof,
                uint8_t ret_signature[static SCRAM_KEY_MAX])
{
    uint8_t client[SCRAM_KEY_MAX], stored[SCRAM_KEY_MAX];
    size_t len = scram_key_len(h);
    if (proof.len != len) {
        return 0;
    }
    if (!hmac(h, keys->stored, auth_message, client) || !hmac(h, keys->server, auth_message, ret_signature)) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < len; i++) {
        client[i] ^= proof.ptr[i];
    }
    int r = EVP_Digest(client, len, stored, NULL, digest_of(h), NULL) == 1
                ? CRYPTO_memcmp(stored, keys->stored, len) == 0
                : -ENOMEM;
    if (r <= 0) {
        explicit_bzero(ret_signature, SCRAM_KEY_MAX);
    }
    explicit_bzero(client, sizeof(client));
    return r;
}

static void keyed(const uint8_t key[static 32], const char *what, struct span name, uint8_t *out, size_t len)
{
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, key, 32, len);
    (void)crypto_generichash_update(&state, (const uint8_t *)what, strlen(what) + 1);
    if (name.len > 0) {
        (void)crypto_generichash_update(&state, name.ptr, name.len);
    }
    (void)crypto_generichash_final(&state, out, len);
}

void scram_false_salt(const uint8_t key[static 32], struct span name, uint8_t ret_salt[static SCRAM_SALT_LEN])
{
    keyed(key, "salt", name, ret_salt, SCRAM_SALT_LEN);
}

void scram_false_keys(const uint8_t key[static 32], struct span name, struct scram_keys *ret)
{
    keyed(key, "stored", name, ret->stored, sizeof(ret->stored));
    keyed(key, "server", name, ret->server, sizeof(ret->server));
}

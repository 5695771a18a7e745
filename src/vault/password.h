/*
 * password.h: passwords as strangers type them, and the hashes that stand for them. Everything here is slow on purpose
 * and belongs on the pool's threads; any thread may call it. A thread keeps the memory of its last check for the next,
 * wiped, until password_rest(). Texts are wiped by who holds them.
 */
#ifndef KIDOBAN_VAULT_PASSWORD_H
#define KIDOBAN_VAULT_PASSWORD_H

#include "common/buf.h"

#define PASSWORD_TEXT_MAX 1024U
#define PASSWORD_HASH_MAX 256U

struct password {
    size_t len;
    char text[PASSWORD_TEXT_MAX + 1]; /* NUL-terminated, SASLprep done (RFC 4013) */
};

/* 0, or -EINVAL: empty, too long, not UTF-8, with control characters. *ret must be wiped also then. */
int password_prepare(struct span raw, struct password *ret);
void password_wipe(struct password *p);

/* argon2id, 19 MiB, two passes (RFC 9106's shape, OWASP's figures): about 40 ms. 0 or -ENOMEM. */
int password_hash(const struct password *p, char ret_hash[static PASSWORD_HASH_MAX]);
/* argon2id, or what crypt(3) knows of password_hash_check(). 1 it is the one, 0 it is not, -ENOMEM, -EINVAL: no hash.
 */
int password_verify(const char *hash, const struct password *p);
void password_rest(void); /* gives back the thread's memory: it has nothing to check for now, or ends */

/* May this hash be imported: $argon2id$, $2a$ $2b$ $2y$, $5$, $6$, $y$, $1$. 0; -EINVAL: no such hash; -ERANGE: it
 * would cost more than a login may. */
int password_hash_check(const char *hash);
/* True for what should be replaced at the next right password ($1$). */
bool password_hash_is_weak(const char *hash);

/* App passwords are made here, 120 bits of chance in four groups, so a fast hash holds them: no guessing finds one. */
#define APP_PASSWORD_LEN 27U
#define APP_HASH_LEN     72U
void app_password_make(char ret_text[static APP_PASSWORD_LEN + 1]);
/* false: this is no app password, whatever was typed. Hyphens, spaces and case do not count. */
bool app_password_hash(struct span raw, char ret_hash[static APP_HASH_LEN]);

#endif

#include "vault/account.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct account *account_new(void)
{
    struct account *a = calloc(1, sizeof(*a));
    if (a != NULL) {
        a->holders = 1;
    }
    return a;
}

struct account *account_hold(struct account *a)
{
    a->holders++;
    return a;
}

void account_drop(struct account **ap)
{
    struct account *a = *ap;
    *ap = NULL;
    if (a == NULL || --a->holders > 0) {
        return;
    }
    for (size_t i = 0; i < a->identities_count; i++) {
        free(a->identities[i]);
    }
    free(a->identities);
    if (a->secrets != NULL) {
        explicit_bzero(a->secrets, a->secrets_count * sizeof(a->secrets[0]));
    }
    free(a->secrets);
    free(a);
}

const struct secret *account_main(const struct account *a)
{
    for (size_t i = 0; i < a->secrets_count; i++) {
        if (a->secrets[i].kind == SECRET_MAIN && a->secrets[i].revoked_ms == 0) {
            return &a->secrets[i];
        }
    }
    return NULL;
}

int account_identity_normalise(struct span raw, char ret[static ACCOUNT_IDENTITY_MAX + 1])
{
    const uint8_t *at = raw.len > 0 ? memrchr(raw.ptr, '@', raw.len) : NULL;
    if (at == NULL || raw.len > ACCOUNT_IDENTITY_MAX) {
        return -EINVAL;
    }
    size_t local = (size_t)(at - raw.ptr);
    if (local == 0 || local > 64 || raw.len - local - 1 == 0 || raw.len - local - 1 > 255) {
        return -EINVAL;
    }
    for (size_t i = 0; i < raw.len; i++) {
        uint8_t c = raw.ptr[i];
        bool star = c == '*' && i == 0 && local == 1;
        if (c <= 0x20 || c == 0x7f || strchr("<>()[],;:\\\"", c) != NULL || (c == '*' && !star) ||
            (c == '@' && i != local)) {
            return -EINVAL;
        }
        ret[i] = (char)(c >= 'A' && c <= 'Z' && i > local ? c + ('a' - 'A') : c);
    }
    ret[raw.len] = '\0';
    return 0;
}

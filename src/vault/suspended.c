#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "vault/vault_int.h"

#define WORDS_MAX 512U

struct suspended {
    char account[ACCOUNT_NAME_MAX + 1];
    char words[WORDS_MAX + 1];
    bool stale; /* told before the guard began again */
    UT_hash_handle hh;
};

static struct suspended *find(const struct vault *v, const char *account)
{
    struct suspended *s;
    HASH_FIND_STR(v->suspended, account, s);
    return s;
}

static void drop(struct vault *v, struct suspended *s)
{
    HASH_DEL(v->suspended, s);
    free(s);
}

int suspended_set(struct vault *v, struct span account, struct span words)
{
    char name[ACCOUNT_NAME_MAX + 1];
    if (account_name_normalise(account, name) < 0) {
        return 0;
    }
    struct suspended *s = find(v, name);
    if (s == NULL) {
        s = calloc(1, sizeof(*s));
        if (s == NULL) {
            return -ENOMEM;
        }
        memcpy(s->account, name, sizeof(name));
        HASH_ADD_STR(v->suspended, account, s);
        if (!hash_added(s->hh)) {
            free(s);
            return -ENOMEM;
        }
    }
    size_t len = words.len < WORDS_MAX ? words.len : WORDS_MAX;
    if (len > 0) {
        memcpy(s->words, words.ptr, len);
    }
    s->words[len] = '\0';
    s->stale = false;
    return 0;
}

void suspended_unset(struct vault *v, struct span account)
{
    char name[ACCOUNT_NAME_MAX + 1];
    struct suspended *s = account_name_normalise(account, name) == 0 ? find(v, name) : NULL;
    if (s != NULL) {
        drop(v, s);
    }
}

const char *suspended_find(const struct vault *v, const char *account)
{
    const struct suspended *s = find(v, account);
    return s != NULL ? s->words : NULL;
}

void suspended_retell_begin(struct vault *v)
{
    for (struct suspended *s = v->suspended; s != NULL; s = s->hh.next) {
        s->stale = true;
    }
}

void suspended_retell_end(struct vault *v)
{
    struct suspended *s, *next;
    HASH_ITER(hh, v->suspended, s, next)
    {
        if (s->stale) {
            drop(v, s);
        }
    }
}

void suspended_free(struct vault *v)
{
    suspended_retell_begin(v);
    suspended_retell_end(v);
}

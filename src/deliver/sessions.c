#include "deliver/sessions.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

#include "common/hash.h"

struct session {
    uint8_t *octets;
    size_t len;
    uint64_t until_ms;
    bool once;
};

struct host {
    UT_hash_handle hh;
    size_t count;
    struct session list[SESSIONS_EACH_MAX]; /* the oldest first */
    uint8_t key[];
};

struct sessions {
    struct host *hosts; /* uthash keeps the order of insertion: the first is the oldest */
};

struct sessions *sessions_new(void)
{
    return calloc(1, sizeof(struct sessions));
}

static void session_drop(struct host *h, size_t i)
{
    explicit_bzero(h->list[i].octets, h->list[i].len);
    free(h->list[i].octets);
    memmove(&h->list[i], &h->list[i + 1], (h->count - i - 1) * sizeof(h->list[0]));
    h->count--;
}

static void host_free(struct sessions *s, struct host *h)
{
    while (h->count > 0) {
        session_drop(h, h->count - 1);
    }
    HASH_DEL(s->hosts, h);
    free(h);
}

void sessions_free(struct sessions **sp)
{
    struct sessions *s = *sp;
    *sp = NULL;
    while (s != NULL && s->hosts != NULL) {
        host_free(s, s->hosts);
    }
    free(s);
}

#define KEY_FIXED (sizeof(uint32_t) + 16 + sizeof(uint16_t))
#define KEY_MAX   (KEY_FIXED + 256)

static size_t key_make(const struct sessions_key *k, uint8_t out[static KEY_MAX])
{
    size_t len = strlen(k->name);
    len = len < KEY_MAX - KEY_FIXED ? len : KEY_MAX - KEY_FIXED;
    memcpy(out, &k->route, sizeof(k->route));
    memcpy(out + sizeof(k->route), k->address.bytes, 16);
    memcpy(out + sizeof(k->route) + 16, &k->address.port, sizeof(k->address.port));
    memcpy(out + KEY_FIXED, k->name, len);
    return KEY_FIXED + len;
}

static struct host *host_find(const struct sessions *s, const struct sessions_key *k)
{
    uint8_t key[KEY_MAX];
    size_t len = key_make(k, key);
    struct host *h;
    HASH_FIND(hh, s->hosts, key, len, h);
    return h;
}

static struct host *host_make(struct sessions *s, const struct sessions_key *k)
{
    uint8_t key[KEY_MAX];
    size_t len = key_make(k, key);
    struct host *h = host_find(s, k);
    if (h != NULL) {
        return h;
    }
    if (HASH_COUNT(s->hosts) >= SESSIONS_HOSTS_MAX) {
        host_free(s, s->hosts);
    }
    h = calloc(1, sizeof(*h) + len);
    if (h == NULL) {
        return NULL;
    }
    memcpy(h->key, key, len);
    HASH_ADD_KEYPTR(hh, s->hosts, h->key, len, h);
    if (h->hh.tbl == NULL) {
        free(h);
        return NULL;
    }
    return h;
}

void sessions_put(struct sessions *s, const struct sessions_key *key, struct span octets, bool once, uint64_t now_ms)
{
    struct host *h = octets.len <= SESSIONS_OCTETS ? host_make(s, key) : NULL;
    uint8_t *copy = h != NULL ? malloc(octets.len) : NULL;
    if (copy == NULL) {
        return; /* a host without a session is asked for a full handshake: no harm */
    }
    memcpy(copy, octets.ptr, octets.len);
    if (h->count == SESSIONS_EACH_MAX) {
        session_drop(h, 0);
    }
    h->list[h->count++] =
        (struct session){.octets = copy, .len = octets.len, .until_ms = now_ms + SESSIONS_AGE_MS, .once = once};
}

bool sessions_get(struct sessions *s, const struct sessions_key *key, struct buf *out, uint64_t now_ms)
{
    struct host *h = host_find(s, key);
    while (h != NULL && h->count > 0) {
        size_t last = h->count - 1;
        bool good = now_ms < h->list[last].until_ms && buf_append(out, h->list[last].octets, h->list[last].len) == 0;
        if (!good || h->list[last].once) {
            session_drop(h, last);
        }
        if (good) {
            return true;
        }
    }
    return false;
}

void sessions_forget(struct sessions *s, const struct sessions_key *key)
{
    struct host *h = host_find(s, key);
    if (h != NULL) {
        host_free(s, h);
    }
}

/* ---- OpenSSL's side ---- */

/* 0: OpenSSL keeps its reference. Called when a handshake is complete, by TLS 1.3 with each ticket. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    const struct sessions_use *use = SSL_get_app_data(ssl);
    uint8_t octets[SESSIONS_OCTETS], *end = octets;
    int len = use != NULL && SSL_SESSION_is_resumable(session) == 1 ? i2d_SSL_SESSION(session, NULL) : 0;
    if (len > 0 && (size_t)len <= sizeof(octets) && i2d_SSL_SESSION(session, &end) == len) {
        bool once = SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION;
        sessions_put(use->table, &use->key, (struct span){octets, (size_t)len}, once, clock_mono_ms());
    }
    explicit_bzero(octets, sizeof(octets));
    return 0;
}

void sessions_watch(SSL_CTX *ctx)
{
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
}

bool sessions_begin(struct sessions_use *use, SSL *ssl)
{
    struct buf octets;
    SSL_SESSION *session = NULL;
    buf_init(&octets, SESSIONS_OCTETS);
    SSL_set_app_data(ssl, use);
    if (sessions_get(use->table, &use->key, &octets, clock_mono_ms())) {
        const uint8_t *at = octets.data;
        session = d2i_SSL_SESSION(NULL, &at, (long)octets.len);
    }
    buf_wipe(&octets);
    bool offered = session != NULL && SSL_set_session(ssl, session) == 1;
    SSL_SESSION_free(session);
    return offered;
}

void sessions_end(SSL *ssl)
{
    if (ssl != NULL) {
        SSL_set_app_data(ssl, NULL);
    }
}

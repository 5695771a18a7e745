#include "deliver/route.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "deliver/sessions.h"

struct routes {
    const struct config *config;
    struct route *list; /* as in config, and one more: the default */
    size_t count;
    SSL_CTX *tls[TLS_VERIFY + 1]; /* by policy; those that are used */
};

void routes_free(struct routes **rp)
{
    struct routes *r = *rp;
    *rp = NULL;
    if (r == NULL) {
        return;
    }
    for (size_t i = 0; r->list != NULL && i < r->count; i++) {
        buf_wipe(&r->list[i].password);
    }
    for (size_t i = 0; i <= TLS_VERIFY; i++) {
        SSL_CTX_free(r->tls[i]);
    }
    free(r->list);
    free(r);
}

/* The file without its line end. 0 or -errno. */
static int read_password(const char *path, struct buf *out)
{
    uint8_t room[ROUTE_PASSWORD_MAX + 2];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    ssize_t n = read(fd, room, sizeof(room));
    int err = errno;
    (void)close(fd);
    size_t len = n > 0 ? (size_t)n : 0;
    while (len > 0 && (room[len - 1] == '\n' || room[len - 1] == '\r')) {
        len--;
    }
    bool good = len > 0 && len <= ROUTE_PASSWORD_MAX && memchr(room, '\0', len) == NULL;
    room[good ? len++ : 0] = '\0';
    int r = n < 0 ? -err : good ? buf_append(out, room, len) : -EINVAL;
    explicit_bzero(room, sizeof(room));
    return r;
}

/* What an older table knows of the same file. */
static int lend_password(const struct routes *old, const char *path, struct buf *out)
{
    for (size_t i = 0; old != NULL && i + 1 < old->count; i++) {
        const char *known = old->config->routes[i].password_file;
        if (known != NULL && strcmp(known, path) == 0) {
            return buf_append(out, old->list[i].password.data, old->list[i].password.len);
        }
    }
    return -ENOENT;
}

static int route_fill(struct route *route, const struct config_route *c, const struct routes *old)
{
    route->via = c->via;
    route->tls = c->tls;
    route->implicit_tls = c->implicit_tls;
    route->lookup_mx = c->via == VIA_MX || (c->via == VIA_SMARTHOST && c->lookup_mx);
    route->host = c->host;
    route->unix_path = c->unix_path;
    route->port = c->port != 0 ? c->port : 25;
    route->words = c->words;
    route->username = c->username;
    if (c->username == NULL || c->password_file == NULL) {
        return 0;
    }
    int r = read_password(c->password_file, &route->password);
    if (r < 0 && lend_password(old, c->password_file, &route->password) < 0) {
        log_error("delivery.route.password", LF_STR("file", c->password_file), LF_ERR(r));
        return r;
    }
    return 0;
}

/* RFC 9325: TLS 1.2 at least; what cannot do that gets clear text by `may` and nothing by `must`. */
static SSL_CTX *tls_make(enum config_tls policy)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    sessions_watch(ctx);
    if (policy != TLS_VERIFY) {
        SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
        return ctx;
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (SSL_CTX_load_verify_file(ctx, ROUTE_CA_FILE) != 1) {
        log_error("delivery.route.ca", LF_STR("file", ROUTE_CA_FILE),
                  LF_STR("what", ERR_reason_error_string(ERR_peek_last_error())));
        SSL_CTX_free(ctx);
        ctx = NULL;
    }
    ERR_clear_error();
    return ctx;
}

static int fill_all(struct routes *r, const struct routes *old)
{
    for (size_t i = 0; i < r->count; i++) {
        struct route *route = &r->list[i];
        route->number = (uint32_t)i;
        buf_init(&route->password, ROUTE_PASSWORD_MAX + 1);
        if (i + 1 == r->count) {
            *route = (struct route){
                .number = (uint32_t)i, .via = VIA_MX, .tls = r->config->delivery.tls, .lookup_mx = true, .port = 25};
            buf_init(&route->password, ROUTE_PASSWORD_MAX + 1);
        } else if (route_fill(route, &r->config->routes[i], old) < 0) {
            return -1;
        }
        if (route->tls != TLS_NONE && r->tls[route->tls] == NULL) {
            r->tls[route->tls] = tls_make(route->tls);
            if (r->tls[route->tls] == NULL) {
                return -1;
            }
        }
    }
    return 0;
}

struct routes *routes_new(const struct config *config, const struct routes *old)
{
    struct routes *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        return NULL;
    }
    r->config = config;
    r->count = config->routes_count + 1;
    r->list = calloc(r->count, sizeof(*r->list));
    if (r->list == NULL || fill_all(r, old) < 0) {
        routes_free(&r);
    }
    return r;
}

const struct route *routes_find(const struct routes *r, struct span domain, const char *ascii)
{
    const struct config_route *c = config_route_find(r->config, ascii != NULL ? span_str(ascii) : domain);
    return c != NULL ? &r->list[c - r->config->routes] : &r->list[r->count - 1];
}

SSL_CTX *routes_tls(const struct routes *r, const struct route *route)
{
    return r->tls[route->tls];
}

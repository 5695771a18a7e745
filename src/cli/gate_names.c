/*
 * Names of far ends. Who holds an address writes its PTR record and may write anything, so a name counts only when the
 * name has that address; then the domains above it are asked whether it is their mail host.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unbound.h>
#include <utlist.h>

#include "cli/gate_impact.h"
#include "common/clock.h"
#include "deliver/dns.h"

#define NAMES_MAX 300
#define CLASS_IN  1
#define TYPE_PTR  12

struct question;

struct asking {
    struct ub_ctx *ctx;
    struct question *open;
};

/* One question under way; what for is `seen`. */
struct question {
    struct asking *asking;
    struct question *prev, *next; /* of all that are open */
    struct far_name *far;
    char name[NAMES_TEXT];
    void (*seen)(struct question *q, const struct ub_result *result);
};

static void on_answer(void *arg, int error, struct ub_result *result)
{
    struct question *q = arg;
    DL_DELETE(q->asking->open, q);
    if (error == 0 && result != NULL && result->havedata && !result->bogus) {
        q->seen(q, result);
    }
    ub_resolve_free(result);
    free(q);
}

static void ask(struct asking *a, struct far_name *far, const char *name, int type,
                void (*seen)(struct question *q, const struct ub_result *result))
{
    struct question *q = calloc(1, sizeof(*q));
    if (q == NULL) {
        return;
    }
    *q = (struct question){.asking = a, .far = far, .seen = seen};
    (void)snprintf(q->name, sizeof(q->name), "%s", name);
    DL_APPEND(a->open, q);
    if (ub_resolve_async(a->ctx, q->name, type, CLASS_IN, q, on_answer, NULL) != 0) {
        DL_DELETE(a->open, q);
        free(q);
    }
}

static struct span rdata_of(const struct ub_result *r, int i)
{
    return (struct span){(const uint8_t *)r->data[i], (size_t)r->len[i]};
}

static void seen_mx(struct question *q, const struct ub_result *result)
{
    for (int i = 0; result->data[i] != NULL; i++) {
        struct dns_mx mx;
        if (dns_mx_parse(rdata_of(result, i), &mx) == 0 && strcmp(mx.host, q->far->host) == 0 &&
            q->far->mx_of[0] == '\0') {
            (void)snprintf(q->far->mx_of, sizeof(q->far->mx_of), "%s", q->name);
        }
    }
}

static bool is_of(const struct far_name *far, int type, struct span rdata)
{
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    bool mapped = memcmp(far->address, v4, sizeof(v4)) == 0;
    return type == DNS_TYPE_A ? mapped && rdata.len == 4 && memcmp(rdata.ptr, far->address + 12, 4) == 0
                              : rdata.len == 16 && memcmp(rdata.ptr, far->address, 16) == 0;
}

static void seen_address(struct question *q, const struct ub_result *result)
{
    for (int i = 0; result->data[i] != NULL && q->far->host[0] == '\0'; i++) {
        if (!is_of(q->far, result->qtype, rdata_of(result, i))) {
            continue;
        }
        (void)snprintf(q->far->host, sizeof(q->far->host), "%s", q->name);
        const char *registered = names_registered(q->far->host), *above = strchr(q->far->host, '.');
        ask(q->asking, q->far, registered, DNS_TYPE_MX, seen_mx);
        if (above != NULL && above + 1 < registered) {
            ask(q->asking, q->far, above + 1, DNS_TYPE_MX, seen_mx);
        }
    }
}

static void seen_ptr(struct question *q, const struct ub_result *result)
{
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    int type = memcmp(q->far->address, v4, sizeof(v4)) == 0 ? DNS_TYPE_A : DNS_TYPE_AAAA;
    for (int i = 0; i < 4 && result->data[i] != NULL; i++) {
        struct span rdata = rdata_of(result, i);
        char host[DNS_NAME_MAX + 1];
        int n = dns_name_parse(rdata, host);
        if (n > 0 && (size_t)n == rdata.len && strchr(host, '.') != NULL) {
            ask(q->asking, q->far, host, type, seen_address);
        }
    }
}

static void reverse_name(const uint8_t address[16], char text[static NAMES_TEXT])
{
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    size_t at = 0;
    if (memcmp(address, v4, sizeof(v4)) == 0) {
        (void)snprintf(text, NAMES_TEXT, "%u.%u.%u.%u.in-addr.arpa", address[15], address[14], address[13],
                       address[12]);
        return;
    }
    for (int i = 15; i >= 0; i--) {
        (void)snprintf(text + at, NAMES_TEXT - at, "%x.%x.", address[i] & 15, address[i] >> 4);
        at += 4;
    }
    (void)snprintf(text + at, NAMES_TEXT - at, "ip6.arpa");
}

const char *names_registered(const char *host)
{
    /* What countries commonly put between their own label and what is registered: "co.jp", "com.br". */
    static const char *const shared[] = {"ac",  "ad", "co", "com", "ed",  "edu", "go",
                                         "gov", "gr", "lg", "ne",  "net", "or",  "org"};
    const char *labels[4] = {host, host, host, host}; /* of the last four, where each begins */
    for (const char *p = host; *p != '\0'; p++) {
        if (p == host || p[-1] == '.') {
            memmove(labels, labels + 1, 3 * sizeof(labels[0]));
            labels[3] = p;
        }
    }
    bool country = strlen(labels[3]) == 2;
    for (size_t i = 0; country && i < sizeof(shared) / sizeof(shared[0]); i++) {
        size_t len = strlen(shared[i]);
        if ((size_t)(labels[3] - labels[2]) == len + 1 && memcmp(labels[2], shared[i], len) == 0) {
            return labels[1];
        }
    }
    return labels[2];
}

void names_want(struct names *n, const uint8_t address[16])
{
    struct far_name *f = NULL;
    HASH_FIND(hh, n->table, address, 16, f);
    if (f != NULL || n->count >= NAMES_MAX) {
        return;
    }
    f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return;
    }
    memcpy(f->address, address, 16);
    HASH_ADD(hh, n->table, address, 16, f);
    if (!hash_added(f->hh)) {
        free(f);
        return;
    }
    n->count++;
}

static struct ub_ctx *context_of(const struct config *config)
{
    const struct config_strings *forwarders = &config->delivery.forwarders;
    struct ub_ctx *ctx = ub_ctx_create();
    if (ctx == NULL) {
        return NULL;
    }
    (void)ub_ctx_async(ctx, 1);
    /* Whom is asked may know the operator's own, private addresses. */
    (void)ub_ctx_set_option(ctx, "unblock-lan-zones:", "yes");
    for (size_t i = 0; i < forwarders->count; i++) {
        (void)ub_ctx_set_fwd(ctx, forwarders->list[i]);
    }
    if (forwarders->count == 0) {
        (void)ub_ctx_resolvconf(ctx, NULL);
        (void)ub_ctx_hosts(ctx, NULL);
    }
    return ctx;
}

void names_look_up(struct names *n, const struct config *config, unsigned limit_ms)
{
    struct asking a = {.ctx = n->count > 0 ? context_of(config) : NULL};
    uint64_t end = clock_mono_ms() + limit_ms;
    if (a.ctx == NULL) {
        return;
    }
    for (struct far_name *f = n->table; f != NULL; f = f->hh.next) {
        char name[NAMES_TEXT];
        reverse_name(f->address, name);
        ask(&a, f, name, TYPE_PTR, seen_ptr);
    }
    for (uint64_t now; a.open != NULL && (now = clock_mono_ms()) < end;) {
        struct pollfd p = {.fd = ub_fd(a.ctx), .events = POLLIN};
        if (poll(&p, 1, (int)(end - now)) > 0 && ub_process(a.ctx) != 0) {
            break;
        }
    }
    ub_ctx_delete(a.ctx);
    for (struct question *q; (q = a.open) != NULL;) {
        DL_DELETE(a.open, q);
        free(q);
    }
}

const struct far_name *names_find(const struct names *n, const uint8_t address[16])
{
    struct far_name *f = NULL;
    HASH_FIND(hh, n->table, address, 16, f);
    return f != NULL && f->host[0] != '\0' ? f : NULL;
}

void names_fini(struct names *n)
{
    struct far_name *f, *next;
    HASH_ITER(hh, n->table, f, next)
    {
        HASH_DEL(n->table, f);
        free(f);
    }
    *n = (struct names){0};
}

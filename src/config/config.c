#include "config/config.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/schema.h"

void config_complaints_add(struct config_complaints *c, const char *file, size_t line, size_t column, const char *fmt,
                           ...)
{
    if (c->count >= CONFIG_COMPLAINTS_MAX) {
        c->left_out++;
        return;
    }
    struct config_complaint *grown = realloc(c->list, (c->count + 1) * sizeof(*grown));
    if (grown == NULL) {
        return;
    }
    c->list = grown;
    struct config_complaint *one = &c->list[c->count];
    *one = (struct config_complaint){.file = strdup(file), .line = line, .column = column};
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&one->text, fmt, ap) < 0) {
        one->text = NULL;
    }
    va_end(ap);
    for (char *p = one->text; p != NULL && *p != '\0'; p++) { /* a key may hold anything; a complaint is one line */
        *p = (unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p;
    }
    if (one->file == NULL || one->text == NULL) {
        free(one->file);
        free(one->text);
        return;
    }
    c->count++;
}

static int compare_places(const void *a, const void *b)
{
    const struct config_complaint *x = a, *y = b;
    if (x->line != y->line) {
        return x->line < y->line ? -1 : 1;
    }
    if (x->column != y->column) {
        return x->column < y->column ? -1 : 1;
    }
    return strcmp(x->text, y->text); /* the same output every time */
}

int config_complaints_format(const struct config_complaints *c, struct buf *out)
{
    int r = 0;
    if (c->count > 1) {
        qsort(c->list, c->count, sizeof(c->list[0]), compare_places);
    }
    for (size_t i = 0; i < c->count && r == 0; i++) {
        const struct config_complaint *one = &c->list[i];
        r = one->line > 0 ? buf_printf(out, "%s:%zu:%zu: %s\n", one->file, one->line, one->column, one->text)
                          : buf_printf(out, "%s: %s\n", one->file, one->text);
    }
    if (c->left_out > 0 && r == 0) {
        r = buf_printf(out, "and %zu more\n", c->left_out);
    }
    return r;
}

void config_complaints_fini(struct config_complaints *c)
{
    for (size_t i = 0; i < c->count; i++) {
        free(c->list[i].file);
        free(c->list[i].text);
    }
    free(c->list);
    *c = (struct config_complaints){0};
}

/* Where the value behind "spool.retry.first" stands; the nearest map above if it is not in the file. */
static struct config_place place_of(const struct yaml_node *root, const char *path)
{
    const struct yaml_node *at = root;
    for (const char *p = path; p != NULL;) {
        char key[64];
        const char *dot = strchrnul(p, '.');
        (void)snprintf(key, sizeof(key), "%.*s", (int)(dot - p), p);
        const struct yaml_node *next = config_yaml_member(at, key);
        at = next != NULL ? next : at;
        p = next != NULL && *dot == '.' ? dot + 1 : NULL;
    }
    return at->at;
}

static void check_order(struct schema_context *x, const struct yaml_node *root, uint64_t least, uint64_t most,
                        const char *least_path, const char *most_path)
{
    if (least > most) {
        schema_complain(x, place_of(root, least_path), "%s is longer than %s; make it shorter, or the other longer",
                        least_path, most_path);
    }
}

/* [::] takes IPv4 as well, and 0.0.0.0 all of IPv4. */
static bool overlap(const struct net_address *a, const struct net_address *b)
{
    static const struct net_address all = {0}, all_v4 = {.bytes = {[10] = 0xff, [11] = 0xff}};
    bool same = memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
    bool wide = memcmp(a->bytes, all.bytes, sizeof(a->bytes)) == 0 ||
                (memcmp(a->bytes, all_v4.bytes, sizeof(a->bytes)) == 0 && net_address_is_v4(b));
    return a->port == b->port && (same || wide);
}

static void check_listeners(struct schema_context *x, const struct config *c)
{
    const struct config_listen *l = c->submission.listen;
    for (size_t i = 0; i < c->submission.listen_count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (overlap(&l[i].address, &l[k].address) || overlap(&l[k].address, &l[i].address)) {
                schema_complain(x, l[i].at, "this address and port are taken by the one in line %zu; keep one of them",
                                l[k].at.line);
            }
        }
    }
}

static int compare_routes(const void *a, const void *b)
{
    const struct config_route *x = *(const struct config_route *const *)a, *y = *(const struct config_route *const *)b;
    int domains = strcmp(x->domain, y->domain);
    return domains != 0 ? domains : x < y ? -1 : x > y;
}

/* Sorted: an operator may have ten thousands. */
static void check_routes(struct schema_context *x, const struct config *c)
{
    const struct config_route **sorted = calloc(c->routes_count + 1, sizeof(*sorted));
    if (sorted == NULL) {
        x->error = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < c->routes_count; i++) {
        sorted[i] = &c->routes[i];
    }
    qsort(sorted, c->routes_count, sizeof(*sorted), compare_routes);
    for (size_t i = 1; i < c->routes_count; i++) {
        if (strcmp(sorted[i]->domain, sorted[i - 1]->domain) == 0) {
            schema_complain(x, sorted[i]->at, "there are two routes for \"%s\", the other in line %zu; keep one",
                            sorted[i]->domain, sorted[i - 1]->at.line);
        }
    }
    free(sorted);
}

/* What one key alone cannot tell. */
static void check_whole(struct schema_context *x, const struct yaml_node *root, const struct config *c)
{
    if (!c->submission.present && !c->gate.present) {
        schema_complain(x, root->at,
                        "neither \"submission\" nor \"gate\" is there; write one or both, like submission: {hostname: "
                        "mail.example.ne.jp, tls: {certificate: FILE, key: FILE}}");
    }
    if (c->gate.present) {
        schema_gate_check(x, &c->gate, config_yaml_member(root, "gate"));
    }
    check_order(x, root, c->spool.retry_first_ms, c->spool.retry_max_ms, "spool.retry.first", "spool.retry.max");
    check_order(x, root, c->spool.delay_warning_ms, c->spool.lifetime_ms, "spool.delay_warning", "spool.lifetime");
    check_order(x, root, c->accounts.guess_delay_first_ms, c->accounts.guess_delay_max_ms, "accounts.guess_delay",
                "accounts.guess_delay_max");
    check_listeners(x, c);
    check_routes(x, c);
}

static int default_directory(char **target, const char *base, const char *name)
{
    if (*target == NULL && base != NULL && asprintf(target, "%s/%s", base, name) < 0) {
        *target = NULL;
        return -ENOMEM;
    }
    return 0;
}

int config_load(struct span text, const char *file, struct config **ret, struct config_complaints *complaints)
{
    struct yaml_node *root = NULL;
    int r = config_yaml_read(text, file, &root, complaints);
    if (r < 0) {
        return r;
    }
    struct schema_context x = {.file = file, .complaints = complaints};
    struct config *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        config_yaml_free(&root);
        return -ENOMEM;
    }
    if (root->kind != YAML_KIND_MAP) {
        schema_complain(&x, root->at, "the file should be a map of sections (submission:, routes: ...)");
    } else {
        c->gate.present = config_yaml_member(root, "gate") != NULL;
        c->submission.present = config_yaml_member(root, "submission") != NULL;
        schema_read_map(&x, root, schema_root, c);
        if (!x.bad && x.error == 0) {
            check_whole(&x, root, c);
        }
    }
    config_yaml_free(&root);
    if (!x.bad && (default_directory(&c->processes.vault_directory, c->processes.state_directory, "vault") < 0 ||
                   default_directory(&c->processes.guard_directory, c->processes.state_directory, "guard") < 0 ||
                   default_directory(&c->processes.spool_directory, c->processes.state_directory, "spool") < 0 ||
                   default_directory(&c->processes.gate_directory, c->processes.state_directory, "gate") < 0)) {
        x.error = -ENOMEM;
    }
    if (x.bad || x.error != 0) {
        config_free(&c);
        return x.error != 0 ? x.error : -EINVAL;
    }
    *ret = c;
    return 0;
}

static void strings_fini(struct config_strings *s)
{
    for (size_t i = 0; i < s->count; i++) {
        free(s->list[i]);
    }
    free(s->list);
}

static void submission_fini(struct config *c)
{
    for (size_t i = 0; i < c->submission.tls.certificates_count; i++) {
        free(c->submission.tls.certificates[i].certificate);
        free(c->submission.tls.certificates[i].key);
    }
    for (size_t i = 0; i < c->submission.listen_count; i++) {
        free(c->submission.listen[i].proxy_from.list);
    }
    for (size_t i = 0; i < c->submission.relay_networks_count; i++) {
        free(c->submission.relay_networks[i].name);
        free(c->submission.relay_networks[i].prefixes.list);
    }
    free(c->submission.tls.certificates);
    free(c->submission.tls.client_ca);
    free(c->submission.listen);
    free(c->submission.relay_networks);
    free(c->submission.hostname);
}

void config_free(struct config **cp)
{
    struct config *c = *cp;
    *cp = NULL;
    if (c == NULL) {
        return;
    }
    submission_fini(c);
    schema_gate_fini(&c->gate);
    strings_fini(&c->operator_.domains);
    strings_fini(&c->delivery.source_addresses);
    strings_fini(&c->delivery.forwarders);
    for (size_t i = 0; i < c->limits_count; i++) {
        free(c->limits[i].name);
        free(c->limits[i].windows);
    }
    for (size_t i = 0; i < c->routes_count; i++) {
        struct config_route *r = &c->routes[i];
        char *all[] = {r->domain, r->host, r->unix_path, r->words, r->username, r->password_file};
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
            free(all[k]);
        }
    }
    free(c->limits);
    free(c->routes);
    char *rest[] = {c->operator_.name,
                    c->operator_.help_url,
                    c->processes.user_prefix,
                    c->processes.runtime_directory,
                    c->processes.state_directory,
                    c->processes.vault_directory,
                    c->processes.guard_directory,
                    c->processes.spool_directory,
                    c->processes.gate_directory,
                    c->processes.event_file};
    for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]); i++) {
        free(rest[i]);
    }
    free(c);
}

/* Files. */

static void complain_file(struct config_complaints *c, const char *file, struct config_place at, const char *path,
                          const char *what)
{
    config_complaints_add(c, file, at.line, at.column, "%s: %s", path, what);
}

static X509 *read_certificate_file(const char *path)
{
    FILE *f = fopen(path, "re");
    X509 *x = f != NULL ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
    int saved = errno;
    if (f != NULL) {
        (void)fclose(f);
        saved = 0;
    }
    ERR_clear_error();
    errno = saved;
    return x;
}

static EVP_PKEY *read_key_file(const char *path)
{
    FILE *f = fopen(path, "re");
    EVP_PKEY *key = f != NULL ? PEM_read_PrivateKey(f, NULL, NULL, (void *)"") : NULL;
    int saved = errno;
    if (f != NULL) {
        (void)fclose(f);
        saved = 0;
    }
    ERR_clear_error();
    errno = saved;
    return key;
}

static bool check_pair(const struct config_certificate *p, const char *file, struct config_complaints *complaints)
{
    X509 *x = read_certificate_file(p->certificate);
    const char *why = errno != 0 ? strerror(errno) : "there is no PEM certificate in it";
    if (x == NULL) {
        complain_file(complaints, file, p->certificate_at, p->certificate, why);
    }
    EVP_PKEY *key = read_key_file(p->key);
    why = errno != 0 ? strerror(errno) : "there is no PEM private key without passphrase in it";
    if (key == NULL) {
        complain_file(complaints, file, p->key_at, p->key, why);
    }
    bool good = x != NULL && key != NULL;
    if (good && X509_check_private_key(x, key) != 1) {
        complain_file(complaints, file, p->key_at, p->key, "this key does not belong to the certificate beside it");
        good = false;
    }
    ERR_clear_error();
    X509_free(x);
    EVP_PKEY_free(key);
    return good;
}

int config_check_files(const struct config *c, const char *file, struct config_complaints *complaints)
{
    bool good = schema_gate_check_files(c, file, complaints) == 0;
    for (size_t i = 0; i < c->submission.tls.certificates_count; i++) {
        good &= check_pair(&c->submission.tls.certificates[i], file, complaints);
    }
    if (c->submission.tls.client_ca != NULL) {
        X509 *x = read_certificate_file(c->submission.tls.client_ca);
        if (x == NULL) {
            complain_file(complaints, file, c->submission.tls.client_ca_at, c->submission.tls.client_ca,
                          errno != 0 ? strerror(errno) : "there is no PEM certificate in it");
            good = false;
        }
        X509_free(x);
    }
    for (size_t i = 0; i < c->routes_count; i++) {
        const char *path = c->routes[i].password_file;
        if (path != NULL && access(path, R_OK) != 0) {
            complain_file(complaints, file, c->routes[i].password_file_at, path, strerror(errno));
            good = false;
        }
    }
    return good ? 0 : -EINVAL;
}

/* Routes. */

static bool below(struct span domain, const char *suffix)
{
    size_t len = strlen(suffix);
    return domain.len > len && memcmp(domain.ptr + domain.len - len, suffix, len) == 0;
}

const struct config_route *config_route_find(const struct config *c, struct span domain)
{
    const struct config_route *best = NULL;
    size_t best_len = 0;
    for (size_t i = 0; i < c->routes_count; i++) {
        const struct config_route *r = &c->routes[i];
        if (span_eq(span_str(r->domain), domain)) {
            return r;
        }
        bool any = strcmp(r->domain, "*") == 0;
        size_t len = any ? 1 : strlen(r->domain) + 1;
        if ((any || (r->domain[0] == '.' && below(domain, r->domain))) && len > best_len) {
            best = r;
            best_len = len;
        }
    }
    return best;
}

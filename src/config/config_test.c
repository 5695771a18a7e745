/*
 * Good files: defaults, every section once, the lookup of routes, files beside the configuration. The bad ones are in
 * broken_test.c.
 */
#include "config/config.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/schema.h"

#define SMALLEST "submission: {hostname: mail.example.ne.jp, tls: {certificate: /c, key: /k}}\n"

/* Fails with the complaints if there are any. */
static struct config *load(const char *text)
{
    struct config *c = NULL;
    struct config_complaints complaints = {0};
    struct buf words;
    buf_init(&words, 65536);
    int r = config_load(span_str(text), "f", &c, &complaints);
    assert_int_equal(config_complaints_format(&complaints, &words), 0);
    assert_int_equal(buf_append(&words, "", 1), 0);
    assert_string_equal((const char *)words.data, "");
    assert_int_equal(r, 0);
    config_complaints_fini(&complaints);
    buf_fini(&words);
    return c;
}

static struct net_prefix prefix(const char *address, uint8_t bits)
{
    struct net_address a;
    struct net_prefix p = {.bits = bits};
    assert_int_equal(net_address_parse(address, &a), 0);
    memcpy(p.bytes, a.bytes, sizeof(p.bytes));
    return p;
}

static void check_address(const struct net_address *a, const char *text, uint16_t port)
{
    char is[NET_ADDRESS_TEXT];
    net_address_format(a, is);
    assert_string_equal(is, text);
    assert_int_equal(a->port, port);
}

static void test_default_submission(void **state)
{
    (void)state;
    struct config *c = load(SMALLEST);
    assert_string_equal(c->submission.hostname, "mail.example.ne.jp");
    assert_int_equal(c->submission.listen_count, 2);
    check_address(&c->submission.listen[0].address, "::", 587);
    check_address(&c->submission.listen[1].address, "::", 465);
    assert_false(c->submission.listen[0].implicit_tls);
    assert_true(c->submission.listen[1].implicit_tls);
    assert_false(c->submission.listen[0].repair_bare_lf);
    assert_int_equal(c->submission.listen[0].proxy_from.count, 0);
    assert_in_range(c->submission.workers, 1, 16);
    assert_int_equal(c->submission.tls.certificates_count, 1);
    assert_string_equal(c->submission.tls.certificates[0].certificate, "/c");
    assert_int_equal(c->submission.tls.certificates[0].key_at.line, 1);
    assert_null(c->submission.tls.client_ca);
    assert_false(c->submission.tls.tls_1_3_only);
    assert_true(c->submission.tls.session_tickets);
    assert_int_equal(c->submission.limits.message_size, 50 << 20);
    assert_int_equal(c->submission.limits.header_size, 128 << 10);
    assert_int_equal(c->submission.limits.line_length, 998);
    assert_int_equal(c->submission.limits.recipients, 100);
    assert_int_equal(c->submission.timeouts.handshake_ms, 30000);
    assert_int_equal(c->submission.timeouts.command_ms, 300000);
    assert_int_equal(c->submission.auth.mechanisms, CONFIG_MECHANISM_PLAIN | CONFIG_MECHANISM_LOGIN |
                                                        CONFIG_MECHANISM_SCRAM_SHA_1 | CONFIG_MECHANISM_SCRAM_SHA_256 |
                                                        CONFIG_MECHANISM_EXTERNAL);
    assert_true(c->submission.senders.enforce);
    assert_true(c->submission.senders.plus_addressing);
    assert_false(c->submission.senders.hide_client_address);
    assert_int_equal(c->submission.relay_networks_count, 0); /* promise 3: nobody without AUTH */
    config_free(&c);
    assert_null(c);
}

static void test_default_rest(void **state)
{
    (void)state;
    struct config *c = load(SMALLEST);
    assert_string_equal(c->operator_.name, "");
    assert_null(c->operator_.help_url);
    assert_int_equal(c->limits_count, 1);
    assert_string_equal(c->limits[0].name, "standard");
    assert_int_equal(c->limits[0].count, LIMIT_COUNT_RECIPIENTS);
    assert_int_equal(c->limits[0].windows_count, 2);
    assert_int_equal(c->limits[0].windows[1].limit, 2000);
    assert_int_equal(c->limits[0].windows[1].window_ms, 86400000);
    assert_int_equal(c->spool.reserve, 256 << 20);
    assert_int_equal(c->spool.lifetime_ms, 432000000);
    assert_int_equal(c->spool.retry_first_ms, 300000);
    assert_int_equal(c->delivery.workers, 1);
    assert_int_equal(c->delivery.tls, TLS_MAY);
    assert_true(c->delivery.dnssec);
    assert_int_equal(c->routes_count, 1);
    assert_string_equal(c->routes[0].domain, "*");
    assert_int_equal(c->routes[0].via, VIA_MX);
    assert_string_equal(c->processes.user_prefix, "kidoban-");
    assert_string_equal(c->processes.runtime_directory, "/run/kidoban");
    assert_string_equal(c->processes.vault_directory, "/var/lib/kidoban/vault");
    assert_string_equal(c->processes.guard_directory, "/var/lib/kidoban/guard");
    assert_string_equal(c->processes.spool_directory, "/var/lib/kidoban/spool");
    assert_true(c->processes.sandbox);
    assert_int_equal(c->processes.log_level, LOG_LEVEL_INFO);
    config_free(&c);
}

static void test_submission(void **state)
{
    (void)state;
    struct config *c = load("submission:\r\n" /* an editor of another system */
                            "  hostname: Mail.例え.jp\r\n"
                            "  listen:\r\n"
                            "    - '192.0.2.1:587'\r\n"
                            "    - {address: '[2001:db8::1]:2465', tls: implicit, repair_bare_lf: yes,\r\n"
                            "       proxy_protocol_from: [192.0.2.8, 2001:db8:1::/48]}\r\n"
                            "    - {address: '192.0.2.1:465', tls: starttls}\r\n"
                            "  workers: 3\r\n"
                            "  tls:\r\n"
                            "    certificate: /a\r\n"
                            "    key: /a.key\r\n"
                            "    certificates: [{certificate: /b, key: /b.key}, {certificate: /c, key: /c.key}]\r\n"
                            "    client_ca: /ca\r\n"
                            "    minimum_version: 1.3\r\n"
                            "    session_tickets: off\r\n"
                            "  limits: {message_size: 1 GiB, header_size: 4096, recipients: 1000}\r\n"
                            "  timeouts: {handshake: 100ms, command: 2 m, data: 1h}\r\n"
                            "  auth: {mechanisms: [PLAIN, SCRAM-SHA-256-PLUS]}\r\n"
                            "  senders: {mode: report, plus_addressing: no, hide_client_address: on}\r\n"
                            "  relay_networks: {name: web servers, prefixes: 192.0.2.16/28}\r\n");
    const struct config_listen *l = c->submission.listen;
    assert_string_equal(c->submission.hostname, "mail.xn--r8jz45g.jp");
    assert_int_equal(c->submission.listen_count, 3);
    check_address(&l[0].address, "192.0.2.1", 587);
    check_address(&l[1].address, "2001:db8::1", 2465);
    assert_true(l[1].implicit_tls && l[1].repair_bare_lf);
    assert_false(l[0].implicit_tls || l[2].implicit_tls);
    assert_int_equal(l[1].proxy_from.count, 2);
    struct net_prefix p = prefix("192.0.2.8", 128), q = prefix("2001:db8:1::", 48);
    assert_memory_equal(&l[1].proxy_from.list[0], &p, sizeof(p));
    assert_memory_equal(&l[1].proxy_from.list[1], &q, sizeof(q));
    assert_int_equal(l[1].at.line, 5);
    assert_int_equal(c->submission.workers, 3);
    assert_int_equal(c->submission.tls.certificates_count, 3);
    assert_string_equal(c->submission.tls.certificates[2].key, "/c.key");
    assert_string_equal(c->submission.tls.client_ca, "/ca");
    assert_true(c->submission.tls.tls_1_3_only);
    assert_false(c->submission.tls.session_tickets);
    assert_int_equal(c->submission.limits.message_size, 1 << 30);
    assert_int_equal(c->submission.limits.header_size, 4096);
    assert_int_equal(c->submission.timeouts.handshake_ms, 100);
    assert_int_equal(c->submission.timeouts.command_ms, 120000);
    assert_int_equal(c->submission.auth.mechanisms, CONFIG_MECHANISM_PLAIN | CONFIG_MECHANISM_SCRAM_SHA_256_PLUS);
    assert_false(c->submission.senders.enforce || c->submission.senders.plus_addressing);
    assert_true(c->submission.senders.hide_client_address);
    assert_int_equal(c->submission.relay_networks_count, 1);
    assert_string_equal(c->submission.relay_networks[0].name, "web servers");
    struct net_prefix n = prefix("192.0.2.16", 124);
    assert_memory_equal(&c->submission.relay_networks[0].prefixes.list[0], &n, sizeof(n));
    config_free(&c);
}

static void test_rest(void **state)
{
    (void)state;
    struct config *c = load(
        "\xEF\xBB\xBF" SMALLEST /* with a byte order mark */
        "operator: {name: '例 Internet', domains: [example.ne.jp, 例え.jp], help_url: 'https://mail.example.ne.jp/'}\n"
        "accounts: {store: sqlite, directory: /v, workers: 7, cache: 0s, guesses_free: 1, guess_delay: 1s}\n"
        "limits:\n"
        "  - {name: a, windows: 10/1m}\n"
        "  - {name: b, per: network, count: messages, action: hold, windows: [1/1s, 100000000/31d]}\n"
        "spool: {directory: /q, reserve: 0, lifetime: 2d, delay_warning: 1d, retry: {first: 1m, max: 1m}}\n"
        "delivery: {workers: 4, tls: must, source_addresses: [192.0.2.25, '2001:db8::25'],\n"
        "           timeouts: {idle: 0s}, resolver: {forward: [192.0.2.53, '127.0.0.1@5353'], dnssec: false}}\n"
        "processes: {state_directory: /s, user_prefix: k-, sandbox: false, log: {level: debug, events_kept: 2}}\n");
    assert_string_equal(c->operator_.name, "例 Internet");
    assert_int_equal(c->operator_.domains.count, 2);
    assert_string_equal(c->operator_.domains.list[1], "xn--r8jz45g.jp");
    assert_int_equal(c->accounts.workers, 7);
    assert_int_equal(c->accounts.cache_ms, 0);
    assert_int_equal(c->limits_count, 2);
    assert_int_equal(c->limits[0].per, LIMIT_PER_ACCOUNT);
    assert_int_equal(c->limits[0].action, LIMIT_DEFER);
    assert_int_equal(c->limits[1].per, LIMIT_PER_NETWORK);
    assert_int_equal(c->limits[1].count, LIMIT_COUNT_MESSAGES);
    assert_int_equal(c->limits[1].action, LIMIT_HOLD);
    assert_int_equal(c->limits[1].windows[1].limit, 100000000);
    assert_int_equal(c->spool.reserve, 0);
    assert_int_equal(c->spool.delay_warning_ms, 86400000);
    assert_int_equal(c->delivery.tls, TLS_MUST);
    assert_int_equal(c->delivery.source_addresses.count, 2);
    assert_int_equal(c->delivery.idle_ms, 0);
    assert_string_equal(c->delivery.forwarders.list[1], "127.0.0.1@5353");
    assert_false(c->delivery.dnssec || c->processes.sandbox);
    assert_string_equal(c->processes.vault_directory, "/v");
    assert_string_equal(c->processes.guard_directory, "/s/guard");
    assert_string_equal(c->processes.spool_directory, "/q");
    assert_int_equal(c->processes.log_level, LOG_LEVEL_DEBUG);
    assert_int_equal(c->routes[0].tls, TLS_MUST); /* what delivery says holds for the route that nobody wrote */
    config_free(&c);
}

static void test_empty_lists(void **state)
{
    (void)state;
    struct config *c = load(SMALLEST "limits: []\nroutes: []\noperator: {domains: []}\n");
    assert_int_equal(c->limits_count, 0);
    assert_int_equal(c->routes_count, 0);
    assert_null(config_route_find(c, span_str("example.org")));
    config_free(&c);
}

#define ROUTES                                                                                                         \
    "routes:\n"                                                                                                        \
    "  - {domain: '*', via: smarthost, to: '[2001:db8::9]:465', username: u, password_file: /p}\n"                     \
    "  - {domain: .example.org, via: mx, tls: verify}\n"                                                               \
    "  - {domain: example.org, via: lmtp, to: 'unix:/run/lmtp'}\n"                                                     \
    "  - {domain: .Deep.Example.org, via: lmtp, to: 192.0.2.3}\n"                                                      \
    "  - {domain: no.example.org, via: error, words: No mail here}\n"                                                  \
    "  - {domain: 例え.jp, via: smarthost, to: 'Relay.Example.NET:2525', lookup_mx: true, tls: none}\n"              \
    "  - {domain: six.example, via: lmtp, to: 2001:db8::3}\n"

static void test_routes(void **state)
{
    (void)state;
    struct config *c = load(SMALLEST ROUTES);
    const struct config_route *r = c->routes;
    assert_int_equal(c->routes_count, 7);
    assert_string_equal(r[0].host, "2001:db8::9");
    assert_int_equal(r[0].port, 465);
    assert_true(r[0].implicit_tls);
    assert_int_equal(r[0].tls, TLS_VERIFY); /* a password is at stake */
    assert_int_equal(r[1].tls, TLS_VERIFY);
    assert_null(r[1].host);
    assert_string_equal(r[2].unix_path, "/run/lmtp");
    assert_int_equal(r[2].tls, TLS_NONE);
    assert_string_equal(r[3].host, "192.0.2.3");
    assert_int_equal(r[3].port, 24);
    assert_string_equal(r[4].words, "No mail here");
    assert_string_equal(r[5].domain, "xn--r8jz45g.jp");
    assert_string_equal(r[5].host, "relay.example.net");
    assert_int_equal(r[5].port, 2525);
    assert_true(r[5].lookup_mx);
    assert_int_equal(r[5].tls, TLS_NONE);
    assert_string_equal(r[6].host, "2001:db8::3");
    assert_int_equal(r[6].at.line, 9);
    config_free(&c);
}

static void test_route_find(void **state)
{
    static const struct {
        const char *domain, *route;
    } rows[] = {
        {"example.org", "example.org"},
        {"a.example.org", ".example.org"},
        {"a.b.example.org", ".example.org"},
        {"no.example.org", "no.example.org"},
        {"a.no.example.org", ".example.org"},
        {"deep.example.org", ".example.org"},
        {"a.deep.example.org", ".deep.example.org"},
        {"a.b.deep.example.org", ".deep.example.org"},
        {"xdeep.example.org", ".example.org"},
        {"notexample.org", "*"},
        {"org", "*"},
        {"example.com", "*"},
        {"xn--r8jz45g.jp", "xn--r8jz45g.jp"},
        {"a.xn--r8jz45g.jp", "*"},
        {"", "*"},
    };
    (void)state;
    struct config *c = load(SMALLEST ROUTES);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_string_equal(config_route_find(c, span_str(rows[i].domain))->domain, rows[i].route);
    }
    config_free(&c);
    c = load(SMALLEST "routes: [{domain: .example.org, via: mx}]\n");
    assert_null(config_route_find(c, span_str("example.org")));
    assert_null(config_route_find(c, span_str("example.com")));
    assert_non_null(config_route_find(c, span_str("a.example.org")));
    config_free(&c);
}

struct walked {
    size_t count;
    char last[128];
};

/* A complaint without what would be right is of no help, and a default must be what the file could say. */
static void seen(void *arg, const char *path, const struct schema_field *f)
{
    struct walked *w = arg;
    w->count++;
    assert_true(strlen(path) < sizeof(w->last));
    (void)snprintf(w->last, sizeof(w->last), "%s", path);
    if (f->read == schema_uint || f->read == schema_size || f->read == schema_duration) {
        assert_non_null(f->example);
        assert_non_null(f->fallback);
        assert_true(f->max > f->min);
        struct config_complaints complaints = {0};
        struct schema_context x = {.file = "f", .complaints = &complaints};
        uint64_t value;
        struct yaml_node node = {.kind = YAML_KIND_VALUE, .text = (char *)f->fallback};
        f->read(&x, f, &node, &value);
        assert_false(x.bad);
        node.text = (char *)f->example;
        f->read(&x, f, &node, &value);
        assert_false(x.bad);
    }
    if (f->required) {
        assert_non_null(f->example);
    }
}

static void test_walk(void **state)
{
    (void)state;
    struct walked w = {0};
    config_schema_walk(seen, &w);
    assert_true(w.count > 80);
    assert_string_equal(w.last, "processes.log.events_kept");
}

/* Files. */

static char folder[64];

static EVP_PKEY *write_key(const char *name)
{
    char path[128];
    EVP_PKEY *key = EVP_EC_gen("P-256");
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(f), 0);
    return key;
}

static void write_certificate(const char *name, EVP_PKEY *key)
{
    char path[128];
    X509 *x = X509_new();
    assert_int_equal(X509_set_pubkey(x, key), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x), 0));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x), 3600));
    assert_int_equal(X509_sign(x, key, EVP_sha256()) > 0, 1);
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, x), 1);
    assert_int_equal(fclose(f), 0);
    X509_free(x);
}

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/config_test.XXXXXX");
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    EVP_PKEY *a = write_key("a.key"), *b = write_key("b.key");
    write_certificate("a.pem", a);
    write_certificate("b.pem", b);
    EVP_PKEY_free(a);
    EVP_PKEY_free(b);
    return 0;
}

static int remove_folder(void **state)
{
    static const char *const names[] = {"a.key", "b.key", "a.pem", "b.pem"};
    char path[128];
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    return rmdir(folder);
}

/* Each %s of text, at most three of them, is the folder. */
static void check_files(const char *certificate, const char *key, const char *rest, const char *complaints_wanted)
{
    struct config_complaints complaints = {0};
    struct buf text, words, wanted;
    buf_init(&text, 4096);
    buf_init(&words, 4096);
    buf_init(&wanted, 4096);
    assert_int_equal(
        buf_printf(&text, "submission:\n  hostname: a.example\n  tls:\n    certificate: %s/%s\n    key: %s/%s\n%s",
                   folder, certificate, folder, key, rest),
        0);
    assert_int_equal(buf_append(&text, "", 1), 0);
    struct config *c = load((const char *)text.data);
    for (const char *p = complaints_wanted; *p != '\0'; p++) {
        assert_int_equal(*p == '@' ? buf_append_str(&wanted, folder) : buf_append_byte(&wanted, (uint8_t)*p), 0);
    }
    assert_int_equal(buf_append(&wanted, "", 1), 0);
    assert_int_equal(config_check_files(c, "f", &complaints), complaints_wanted[0] == '\0' ? 0 : -EINVAL);
    assert_int_equal(config_complaints_format(&complaints, &words), 0);
    assert_int_equal(buf_append(&words, "", 1), 0);
    assert_string_equal((const char *)words.data, (const char *)wanted.data);
    config_complaints_fini(&complaints);
    config_free(&c);
    buf_fini(&text);
    buf_fini(&words);
    buf_fini(&wanted);
}

static void test_files(void **state)
{
    (void)state;
    check_files("a.pem", "a.key", "", "");
    check_files("c.pem", "a.key", "", "f:4:18: @/c.pem: No such file or directory\n");
    check_files("a.pem", "c.key", "", "f:5:10: @/c.key: No such file or directory\n");
    check_files("a.key", "a.key", "", "f:4:18: @/a.key: there is no PEM certificate in it\n");
    check_files("a.pem", "a.pem", "", "f:5:10: @/a.pem: there is no PEM private key without passphrase in it\n");
    check_files("a.pem", "b.key", "", "f:5:10: @/b.key: this key does not belong to the certificate beside it\n");
    check_files("c.pem", "c.key", "    client_ca: /nowhere/ca.pem\n",
                "f:4:18: @/c.pem: No such file or directory\nf:5:10: @/c.key: No such file or directory\n"
                "f:6:16: /nowhere/ca.pem: No such file or directory\n");
    check_files("a.pem", "a.key",
                "routes:\n"
                "  - {domain: '*', via: smarthost, to: s.example, username: u, password_file: /nowhere/p}\n",
                "f:7:78: /nowhere/p: No such file or directory\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_submission),
        cmocka_unit_test(test_default_rest),
        cmocka_unit_test(test_submission),
        cmocka_unit_test(test_rest),
        cmocka_unit_test(test_empty_lists),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_route_find),
        cmocka_unit_test(test_walk),
        cmocka_unit_test_setup_teardown(test_files, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The keys of the file, one row each: kidoban.yaml(5) says in words what stands here.
 */
#include "config/schema.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIB        UINT64_C(1024)
#define MIB        (1024 * KIB)
#define GIB        (1024 * MIB)
#define SECOND     UINT64_C(1000)
#define MINUTE     (60 * SECOND)
#define HOUR       (60 * MINUTE)
#define DAY        (24 * HOUR)
#define AT(member) offsetof(struct config, member)
#define END_OF_FIELDS                                                                                                  \
    {                                                                                                                  \
        .key = NULL                                                                                                    \
    }

static const char *const per_words[] = {"account", "network", NULL};
static const char *const count_words[] = {"messages", "recipients", NULL};
static const char *const action_words[] = {"defer", "reject", "hold", NULL};
static const char *const via_words[] = {"mx", "smarthost", "lmtp", "error", NULL};
static const char *const tls_words[] = {"none", "may", "must", "verify", NULL};
static const char *const senders_words[] = {"report", "enforce", NULL};
static const char *const level_words[] = {"debug", "info", "warn", "error", NULL};
static const char *const version_words[] = {"1.2", "1.3", NULL};
static const char *const store_words[] = {"sqlite", NULL};
static const char *const listen_tls_words[] = {"starttls", "implicit", NULL};

/* A choice that fills a bool: the second word is true. */
static void choice_bool(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                        void *target)
{
    int chosen = 0;
    schema_choice(x, f, node, &chosen);
    *(bool *)target = chosen == 1;
}

/* A choice of one: nothing to fill yet. */
static void choice_only(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                        void *target)
{
    int chosen = 0;
    (void)target;
    schema_choice(x, f, node, &chosen);
}

static void *list_room(struct schema_context *x, size_t count, size_t size)
{
    void *list = calloc(count > 0 ? count : 1, size);
    if (list == NULL) {
        x->error = -ENOMEM;
    }
    return list;
}

static bool want_map(struct schema_context *x, const struct schema_field *f, const struct yaml_node *item)
{
    if (item->kind != YAML_KIND_MAP) {
        schema_complain(x, item->at, "an element of \"%s\" should be a map, like %s", f->key, f->example);
        return false;
    }
    return true;
}

/* operator */

static const struct schema_field operator_fields[] = {
    {"name", schema_string, AT(operator_.name), "", .example = "Example Internet"},
    {"domains", schema_domains, AT(operator_.domains), .example = "[example.ne.jp]"},
    {"help_url", schema_url, AT(operator_.help_url), .example = "https://mail.example.ne.jp/"},
    END_OF_FIELDS,
};

/* submission.tls */

static void place_path(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                       char **target, struct config_place *at)
{
    if (node != NULL) {
        schema_path(x, f, node, target);
        *at = node->at;
    }
}

static void read_certificate(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                             void *target)
{
    struct config_certificate *c = target;
    place_path(x, f, node, &c->certificate, &c->certificate_at);
}

static void read_key(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    struct config_certificate *c = target;
    place_path(x, f, node, &c->key, &c->key_at);
}

static const struct schema_field certificate_fields[] = {
    {"certificate", read_certificate, 0, .required = true, .example = "/etc/kidoban/tls/fullchain.pem"},
    {"key", read_key, 0, .required = true, .example = "/etc/kidoban/tls/key.pem"},
    END_OF_FIELDS,
};

/* The pair in tls itself is the first of all. */
static struct config_certificate *default_certificate(struct schema_context *x, struct config *c)
{
    if (c->submission.tls.certificates == NULL) {
        c->submission.tls.certificates = list_room(x, 1, sizeof(struct config_certificate));
        c->submission.tls.certificates_count = c->submission.tls.certificates != NULL ? 1 : 0;
    }
    return c->submission.tls.certificates;
}

static void read_default_certificate(struct schema_context *x, const struct schema_field *f,
                                     const struct yaml_node *node, void *target)
{
    struct config_certificate *c = default_certificate(x, target);
    if (c != NULL) {
        read_certificate(x, f, node, c);
    }
}

static void read_default_key(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                             void *target)
{
    struct config_certificate *c = default_certificate(x, target);
    if (c != NULL) {
        read_key(x, f, node, c);
    }
}

static void read_more_certificates(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                                   void *target)
{
    struct config *c = target;
    size_t more = schema_list_count(node);
    if (more == 0 || default_certificate(x, c) == NULL) {
        return;
    }
    struct config_certificate *all = realloc(c->submission.tls.certificates, (1 + more) * sizeof(*all));
    if (all == NULL) {
        x->error = -ENOMEM;
        return;
    }
    c->submission.tls.certificates = all;
    for (size_t i = 0; i < more; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        struct config_certificate *one = &all[c->submission.tls.certificates_count++];
        *one = (struct config_certificate){0};
        if (want_map(x, f, item)) {
            schema_read_map(x, item, certificate_fields, one);
        }
    }
}

static void read_client_ca(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                           void *target)
{
    struct config *c = target;
    place_path(x, f, node, &c->submission.tls.client_ca, &c->submission.tls.client_ca_at);
}

static const struct schema_field tls_fields[] = {
    {"certificate", read_default_certificate, 0, .required = true, .example = "/etc/kidoban/tls/fullchain.pem"},
    {"key", read_default_key, 0, .required = true, .example = "/etc/kidoban/tls/key.pem"},
    {"certificates", read_more_certificates, 0, .members = certificate_fields,
     .example = "{certificate: /etc/kidoban/tls/b.pem, key: /etc/kidoban/tls/b.key}"},
    {"client_ca", read_client_ca, 0, .example = "/etc/kidoban/tls/clients.pem"},
    {"minimum_version", choice_bool, AT(submission.tls.tls_1_3_only), "1.2", .words = version_words},
    {"session_tickets", schema_bool, AT(submission.tls.session_tickets), "true"},
    END_OF_FIELDS,
};

/* submission.listen */

struct listen_reading {
    struct config_listen listen;
    char *address;
    struct config_place address_at;
    int tls; /* 0 starttls, 1 implicit, -1 by the port */
};

static void read_listen_address(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                                void *target)
{
    struct listen_reading *r = target;
    if (node != NULL) {
        schema_string(x, f, node, &r->address);
        r->address_at = node->at;
    }
}

static void read_listen_tls(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                            void *target)
{
    struct listen_reading *r = target;
    if (node != NULL) {
        schema_choice(x, f, node, &r->tls);
    }
}

static const struct schema_field listen_fields[] = {
    {"address", read_listen_address, 0, .required = true, .example = "\"[::]:587\""},
    {"tls", read_listen_tls, 0, .words = listen_tls_words},
    {"proxy_protocol_from", schema_prefixes, offsetof(struct listen_reading, listen.proxy_from),
     .example = "192.0.2.8/32"},
    {"repair_bare_lf", schema_bool, offsetof(struct listen_reading, listen.repair_bare_lf), "false"},
    END_OF_FIELDS,
};

static void read_one_listen(struct schema_context *x, const struct yaml_node *item, struct config_listen *ret)
{
    struct listen_reading r = {.tls = -1, .address_at = item->at};
    if (item->kind == YAML_KIND_MAP) {
        schema_read_map(x, item, listen_fields, &r);
    } else if (item->kind == YAML_KIND_VALUE) {
        r.address = strdup(item->text);
    } else {
        schema_complain(x, item->at, "an element of \"listen\" should be an address like \"[::]:587\", or a map");
    }
    if (r.address != NULL && schema_endpoint(x, r.address_at, r.address, &r.listen.address)) {
        r.listen.implicit_tls = r.tls == -1 ? r.listen.address.port == 465 : r.tls == 1;
    }
    r.listen.at = r.address_at;
    free(r.address);
    *ret = r.listen;
}

static void read_listen(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                        void *target)
{
    struct config *c = target;
    static const struct yaml_node standard[] = {{.kind = YAML_KIND_VALUE, .text = (char *)"[::]:587"},
                                                {.kind = YAML_KIND_VALUE, .text = (char *)"[::]:465"}};
    (void)f;
    size_t count = node != NULL ? schema_list_count(node) : 2;
    c->submission.listen = list_room(x, count, sizeof(*c->submission.listen));
    for (size_t i = 0; c->submission.listen != NULL && i < count; i++) {
        read_one_listen(x, node != NULL ? schema_list_item(node, i) : &standard[i], &c->submission.listen[i]);
        c->submission.listen_count++;
    }
    if (node != NULL && count == 0) {
        schema_complain(x, node->at, "\"listen\" is empty; leave it out for [\"[::]:587\", \"[::]:465\"]");
    }
}

/* submission.auth, senders, relay_networks */

static const struct {
    const char *name;
    unsigned bits;
} mechanisms[] = {
    {"PLAIN", CONFIG_MECHANISM_PLAIN},
    {"LOGIN", CONFIG_MECHANISM_LOGIN},
    {"SCRAM-SHA-1", CONFIG_MECHANISM_SCRAM_SHA_1},
    {"SCRAM-SHA-1-PLUS", CONFIG_MECHANISM_SCRAM_SHA_1_PLUS},
    {"SCRAM-SHA-256", CONFIG_MECHANISM_SCRAM_SHA_256},
    {"SCRAM-SHA-256-PLUS", CONFIG_MECHANISM_SCRAM_SHA_256_PLUS},
    {"EXTERNAL", CONFIG_MECHANISM_EXTERNAL},
};

static unsigned mechanism_bits(const char *name)
{
    for (size_t i = 0; i < sizeof(mechanisms) / sizeof(mechanisms[0]); i++) {
        if (strcmp(mechanisms[i].name, name) == 0) {
            return mechanisms[i].bits;
        }
    }
    return 0;
}

static void read_mechanisms(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                            void *target)
{
    unsigned *bits = target;
    (void)f;
    for (size_t i = 0; node == NULL && i < sizeof(mechanisms) / sizeof(mechanisms[0]); i++) {
        *bits |= mechanisms[i].bits;
    }
    for (size_t i = 0; i < schema_list_count(node); i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        unsigned one = item->kind == YAML_KIND_VALUE ? mechanism_bits(item->text) : 0;
        if (one == 0) {
            schema_complain(
                x, item->at,
                "not a mechanism we have; they are PLAIN, LOGIN, SCRAM-SHA-1, SCRAM-SHA-1-PLUS, SCRAM-SHA-256, "
                "SCRAM-SHA-256-PLUS, EXTERNAL");
        }
        *bits |= one;
    }
}

static const struct schema_field auth_fields[] = {
    {"mechanisms", read_mechanisms, AT(submission.auth.mechanisms)},
    END_OF_FIELDS,
};

static const struct schema_field senders_fields[] = {
    {"mode", choice_bool, AT(submission.senders.enforce), "enforce", .words = senders_words},
    {"plus_addressing", schema_bool, AT(submission.senders.plus_addressing), "true"},
    {"hide_client_address", schema_bool, AT(submission.senders.hide_client_address), "false"},
    END_OF_FIELDS,
};

static const struct schema_field relay_network_fields[] = {
    {"name", schema_string, offsetof(struct config_relay_network, name), .required = true, .example = "web servers"},
    {"prefixes", schema_prefixes, offsetof(struct config_relay_network, prefixes), .required = true,
     .example = "192.0.2.0/28"},
    END_OF_FIELDS,
};

static void read_relay_networks(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                                void *target)
{
    struct config *c = target;
    size_t count = schema_list_count(node);
    c->submission.relay_networks = list_room(x, count, sizeof(*c->submission.relay_networks));
    for (size_t i = 0; c->submission.relay_networks != NULL && i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        if (want_map(x, f, item)) {
            schema_read_map(x, item, relay_network_fields,
                            &c->submission.relay_networks[c->submission.relay_networks_count++]);
        }
    }
}

static const struct schema_field submission_limits_fields[] = {
    {"message_size", schema_size, AT(submission.limits.message_size), "50M", .min = 64 * KIB, .max = 4 * GIB,
     .example = "50M"},
    {"header_size", schema_size, AT(submission.limits.header_size), "128k", .min = 4 * KIB, .max = MIB,
     .example = "128k"},
    {"line_length", schema_uint, AT(submission.limits.line_length), "998", .min = 78, .max = 1000000, .example = "998"},
    {"recipients", schema_uint, AT(submission.limits.recipients), "100", .min = 1, .max = 1000, .example = "100"},
    {"session_messages", schema_uint, AT(submission.limits.session_messages), "1000", .min = 1, .max = 1000000,
     .example = "1000"},
    {"connections", schema_uint, AT(submission.limits.connections), "10000", .min = 1, .max = 1000000,
     .example = "10000"},
    {"connections_per_network", schema_uint, AT(submission.limits.connections_per_network), "50", .min = 1,
     .max = 1000000, .example = "50"},
    {"commands", schema_uint, AT(submission.limits.commands), "20000", .min = 10, .max = 10000000, .example = "20000"},
    {"bad_commands", schema_uint, AT(submission.limits.bad_commands), "20", .min = 1, .max = 10000, .example = "20"},
    {"auth_failures", schema_uint, AT(submission.limits.auth_failures), "5", .min = 1, .max = 1000, .example = "5"},
    END_OF_FIELDS,
};

static const struct schema_field submission_timeouts_fields[] = {
    {"handshake", schema_duration, AT(submission.timeouts.handshake_ms), "30s", .min = 100, .max = HOUR,
     .example = "30s"},
    {"command", schema_duration, AT(submission.timeouts.command_ms), "5m", .min = 100, .max = DAY, .example = "5m"},
    {"data", schema_duration, AT(submission.timeouts.data_ms), "3m", .min = 100, .max = DAY, .example = "3m"},
    END_OF_FIELDS,
};

/* 0 or left out: as many as the machine has processors. */
static void read_workers(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                         void *target)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    schema_uint(x, f, node, target);
    if (*(uint32_t *)target == 0) {
        *(uint32_t *)target = cores < 1 ? 1 : cores > 16 ? 16 : (uint32_t)cores;
    }
}

static const struct schema_field submission_fields[] = {
    {"hostname", schema_domain, AT(submission.hostname), .required = true, .example = "mail.example.ne.jp"},
    {"listen", read_listen, 0, .members = listen_fields},
    {"workers", read_workers, AT(submission.workers), "0", .max = 32, .example = "2"},
    {"tls", schema_map, 0, .required = true, .members = tls_fields},
    {"limits", schema_map, 0, .members = submission_limits_fields},
    {"timeouts", schema_map, 0, .members = submission_timeouts_fields},
    {"auth", schema_map, 0, .members = auth_fields},
    {"senders", schema_map, 0, .members = senders_fields},
    {"relay_networks", read_relay_networks, 0, .members = relay_network_fields,
     .example = "{name: web servers, prefixes: [192.0.2.0/28]}"},
    END_OF_FIELDS,
};

/* accounts */

static const struct schema_field accounts_fields[] = {
    {"store", choice_only, 0, "sqlite", .words = store_words},
    {"directory", schema_path, AT(processes.vault_directory), .example = "/var/lib/kidoban/vault"},
    {"workers", read_workers, AT(accounts.workers), "0", .max = 64, .example = "2"},
    {"cache", schema_duration, AT(accounts.cache_ms), "5m", .max = DAY, .example = "5m"},
    {"guesses_free", schema_uint, AT(accounts.guesses_free), "3", .min = 1, .max = 1000, .example = "3"},
    {"guess_delay", schema_duration, AT(accounts.guess_delay_first_ms), "2s", .max = MINUTE, .example = "2s"},
    {"guess_delay_max", schema_duration, AT(accounts.guess_delay_max_ms), "15s", .max = 5 * MINUTE, .example = "15s"},
    END_OF_FIELDS,
};

/* limits */

static bool parse_window(const char *text, struct config_window *ret)
{
    char number[24];
    const char *slash = strchr(text, '/');
    uint64_t limit;
    if (slash == NULL || (size_t)(slash - text) >= sizeof(number)) {
        return false;
    }
    memcpy(number, text, (size_t)(slash - text));
    number[slash - text] = '\0';
    if (!schema_number(number, &limit) || limit < 1 || limit > 100000000 ||
        !schema_duration_parse(slash + 1, &ret->window_ms) || ret->window_ms < SECOND || ret->window_ms > 31 * DAY) {
        return false;
    }
    ret->limit = (uint32_t)limit;
    return true;
}

static void read_windows(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                         void *target)
{
    struct config_limit *l = target;
    size_t count = schema_list_count(node);
    l->windows = list_room(x, count, sizeof(*l->windows));
    for (size_t i = 0; l->windows != NULL && i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        if (item->kind == YAML_KIND_VALUE && parse_window(item->text, &l->windows[l->windows_count])) {
            l->windows_count++;
        } else {
            schema_complain(x, item->at, "not a number in a time (at most 31d); write it like %s", f->example);
        }
    }
    if (node != NULL && count == 0) {
        schema_complain(x, node->at, "\"windows\" is empty; write it like %s", f->example);
    }
}

static const struct schema_field limit_fields[] = {
    {"name", schema_string, offsetof(struct config_limit, name), .required = true, .example = "hourly"},
    {"per", schema_choice, offsetof(struct config_limit, per), "account", .words = per_words},
    {"count", schema_choice, offsetof(struct config_limit, count), "recipients", .words = count_words},
    {"windows", read_windows, 0, .required = true, .example = "[200/1h, 1000/1d]"},
    {"action", schema_choice, offsetof(struct config_limit, action), "defer", .words = action_words},
    END_OF_FIELDS,
};

/* What a file without "limits" gets: enough for people and their newsletters, too little for a bot. */
static void standard_limits(struct schema_context *x, struct config *c)
{
    static const struct config_window windows[] = {{500, HOUR}, {2000, DAY}};
    c->limits = list_room(x, 1, sizeof(*c->limits));
    if (c->limits == NULL) {
        return;
    }
    c->limits_count = 1;
    c->limits[0].name = strdup("standard");
    c->limits[0].count = LIMIT_COUNT_RECIPIENTS;
    c->limits[0].windows = list_room(x, 2, sizeof(windows[0]));
    if (c->limits[0].windows != NULL) {
        memcpy(c->limits[0].windows, windows, sizeof(windows));
        c->limits[0].windows_count = 2;
    }
}

static void read_limits(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                        void *target)
{
    struct config *c = target;
    size_t count = schema_list_count(node);
    if (node == NULL) {
        standard_limits(x, c);
        return;
    }
    c->limits = list_room(x, count, sizeof(*c->limits));
    for (size_t i = 0; c->limits != NULL && i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        if (!want_map(x, f, item)) {
            continue;
        }
        struct config_limit *l = &c->limits[c->limits_count++];
        schema_read_map(x, item, limit_fields, l);
        for (size_t k = 0; l->name != NULL && k + 1 < c->limits_count; k++) {
            if (c->limits[k].name != NULL && strcmp(c->limits[k].name, l->name) == 0) {
                schema_complain(x, item->at, "two limits are called \"%s\"; each needs its own name", l->name);
            }
        }
    }
}

/* spool, delivery, routes */

static const struct schema_field retry_fields[] = {
    {"first", schema_duration, AT(spool.retry_first_ms), "5m", .min = 100, .max = DAY, .example = "5m"},
    {"max", schema_duration, AT(spool.retry_max_ms), "4h", .min = 100, .max = 7 * DAY, .example = "4h"},
    END_OF_FIELDS,
};

static const struct schema_field spool_fields[] = {
    {"directory", schema_path, AT(processes.spool_directory), .example = "/var/lib/kidoban/spool"},
    {"reserve", schema_size, AT(spool.reserve), "256M", .min = 0, .max = 1024 * GIB, .example = "256M"},
    {"lifetime", schema_duration, AT(spool.lifetime_ms), "5d", .min = SECOND, .max = 60 * DAY, .example = "5d"},
    {"delay_warning", schema_duration, AT(spool.delay_warning_ms), "4h", .min = SECOND, .max = 60 * DAY,
     .example = "4h"},
    {"retry", schema_map, 0, .members = retry_fields},
    END_OF_FIELDS,
};

static const struct schema_field delivery_timeouts_fields[] = {
    {"connect", schema_duration, AT(delivery.connect_ms), "30s", .min = 100, .max = HOUR, .example = "30s"},
    {"command", schema_duration, AT(delivery.command_ms), "5m", .min = 100, .max = HOUR, .example = "5m"},
    {"data", schema_duration, AT(delivery.data_ms), "10m", .min = 100, .max = HOUR, .example = "10m"},
    {"idle", schema_duration, AT(delivery.idle_ms), "10s", .min = 0, .max = HOUR, .example = "10s"},
    END_OF_FIELDS,
};

static const struct schema_field resolver_fields[] = {
    {"forward", schema_forwarders, AT(delivery.forwarders), .example = "[192.0.2.53, \"127.0.0.1@5353\"]"},
    {"dnssec", schema_bool, AT(delivery.dnssec), "true"},
    END_OF_FIELDS,
};

static const struct schema_field delivery_fields[] = {
    {"workers", schema_uint, AT(delivery.workers), "1", .min = 1, .max = 32, .example = "1"},
    {"concurrency_per_destination", schema_uint, AT(delivery.concurrency_per_destination), "20", .min = 1, .max = 1000,
     .example = "20"},
    {"connections", schema_uint, AT(delivery.connections), "500", .min = 1, .max = 20000, .example = "500"},
    {"messages_per_connection", schema_uint, AT(delivery.messages_per_connection), "100", .min = 1, .max = 100000,
     .example = "100"},
    {"tls", schema_choice, AT(delivery.tls), "may", .words = tls_words},
    {"source_addresses", schema_addresses, AT(delivery.source_addresses), .example = "[192.0.2.25, \"2001:db8::25\"]"},
    {"timeouts", schema_map, 0, .members = delivery_timeouts_fields},
    {"resolver", schema_map, 0, .members = resolver_fields},
    END_OF_FIELDS,
};

struct route_reading {
    struct config_route route;
    char *domain, *to;
    struct config_place domain_at, to_at;
    int tls; /* -1: not said */
    int via;
};

static void read_route_domain(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                              void *target)
{
    struct route_reading *r = target;
    if (node != NULL) {
        schema_string(x, f, node, &r->domain);
        r->domain_at = node->at;
    }
}

static void read_route_to(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                          void *target)
{
    struct route_reading *r = target;
    if (node != NULL) {
        schema_string(x, f, node, &r->to);
        r->to_at = node->at;
    }
}

static void read_route_tls(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                           void *target)
{
    struct route_reading *r = target;
    if (node != NULL) {
        schema_choice(x, f, node, &r->tls);
    }
}

static void read_password_file(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                               void *target)
{
    struct route_reading *r = target;
    place_path(x, f, node, &r->route.password_file, &r->route.password_file_at);
}

static const struct schema_field route_fields[] = {
    {"domain", read_route_domain, 0, .required = true, .example = "example.ne.jp, .example.ne.jp or \"*\""},
    {"via", schema_choice, offsetof(struct route_reading, via), .required = true, .words = via_words},
    {"to", read_route_to, 0, .example = "\"smtp.example.net:587\" or unix:/run/dovecot/lmtp"},
    {"tls", read_route_tls, 0, .words = tls_words},
    {"lookup_mx", schema_bool, offsetof(struct route_reading, route.lookup_mx), "false"},
    {"username", schema_string, offsetof(struct route_reading, route.username), .example = "relay@example.net"},
    {"password_file", read_password_file, 0, .example = "/etc/kidoban/relay.password"},
    {"words", schema_string, offsetof(struct route_reading, route.words), .example = "This domain takes no mail"},
    END_OF_FIELDS,
};

static void finish_route_domain(struct schema_context *x, struct route_reading *r)
{
    const char *text = r->domain;
    if (text == NULL) {
        return;
    }
    if (strcmp(text, "*") == 0) {
        r->route.domain = strdup("*");
        return;
    }
    bool below = text[0] == '.';
    char *normal = schema_domain_normal(text + (below ? 1 : 0));
    if (normal == NULL) {
        schema_complain(x, r->domain_at, "\"%s\" is not a domain; write it like %s", text, route_fields[0].example);
        return;
    }
    struct buf b;
    buf_init(&b, 512);
    (void)buf_printf(&b, "%s%s", below ? "." : "", normal);
    r->route.domain = span_dup(buf_span(&b));
    buf_fini(&b);
    free(normal);
}

/* host, host:port, [v6]:port, unix:/path */
static bool parse_route_to(const char *to, struct config_route *route, uint16_t standard_port)
{
    if (strncmp(to, "unix:", 5) == 0) {
        route->unix_path = to[5] == '/' ? strdup(to + 5) : NULL;
        return route->unix_path != NULL && strlen(route->unix_path) < 108;
    }
    const char *colon = strrchr(to, ':');
    const char *bracket = strrchr(to, ']');
    bool has_port = colon != NULL && (bracket == NULL ? strchr(to, ':') == colon : colon > bracket);
    uint64_t port = standard_port;
    size_t len = has_port ? (size_t)(colon - to) : strlen(to);
    if ((has_port && (!schema_number(colon + 1, &port) || port == 0 || port > 65535)) || len == 0) {
        return false;
    }
    bool brackets = to[0] == '[' && to[len - 1] == ']';
    struct span host = {(const uint8_t *)to + (brackets ? 1 : 0), len - (brackets ? 2 : 0)};
    char *text = span_dup(host);
    struct net_address a;
    if (text != NULL && net_address_parse(text, &a) < 0) {
        char *normal = brackets ? NULL : schema_domain_normal(text);
        free(text);
        text = normal;
    }
    route->host = text;
    route->port = (uint16_t)port;
    return text != NULL;
}

static void finish_route(struct schema_context *x, struct route_reading *r)
{
    bool needs_to = r->via == VIA_SMARTHOST || r->via == VIA_LMTP;
    r->route.via = (enum config_via)r->via;
    finish_route_domain(x, r);
    if (needs_to && r->to == NULL) {
        schema_complain(x, r->route.at, "a route via %s needs \"to\", like %s", via_words[r->via],
                        route_fields[2].example);
    } else if (!needs_to && r->to != NULL) {
        schema_complain(x, r->to_at, "a route via %s takes no \"to\"; use via: smarthost or via: lmtp",
                        via_words[r->via]);
    } else if (needs_to && (!parse_route_to(r->to, &r->route, r->via == VIA_LMTP ? 24 : 587) ||
                            (r->via == VIA_SMARTHOST && r->route.unix_path != NULL))) {
        schema_complain(x, r->to_at, "\"%s\" is not a next hop; write it like %s", r->to, route_fields[2].example);
    }
    if ((r->route.username == NULL) != (r->route.password_file == NULL)) {
        schema_complain(x, r->route.at, "\"username\" and \"password_file\" go together");
    }
    if (r->route.username != NULL && r->via != VIA_SMARTHOST) {
        schema_complain(x, r->route.at, "a login is for routes via smarthost only");
    }
    int standard = r->via == VIA_LMTP ? TLS_NONE : r->route.username != NULL ? TLS_VERIFY : TLS_MAY;
    r->route.tls = (enum config_tls)(r->tls == -1 ? standard : r->tls);
    r->route.implicit_tls = r->via == VIA_SMARTHOST && r->route.port == 465;
    if (r->route.username != NULL && (r->route.tls == TLS_NONE || r->route.tls == TLS_MAY)) {
        schema_complain(x, r->route.at, "a password is never sent in clear; tls: must or tls: verify");
    }
}

static void read_routes(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                        void *target)
{
    struct config *c = target;
    size_t count = schema_list_count(node);
    c->routes = list_room(x, count + 1, sizeof(*c->routes));
    for (size_t i = 0; c->routes != NULL && i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        if (!want_map(x, f, item)) {
            continue;
        }
        struct route_reading r = {.tls = -1, .route = {.at = item->at}};
        schema_read_map(x, item, route_fields, &r);
        finish_route(x, &r);
        if (r.tls == -1 && r.via == VIA_MX) {
            r.route.tls = c->delivery.tls;
        }
        free(r.domain);
        free(r.to);
        c->routes[c->routes_count++] = r.route;
    }
    if (node == NULL && c->routes != NULL) {
        c->routes[0] = (struct config_route){.domain = strdup("*"), .via = VIA_MX, .tls = c->delivery.tls};
        c->routes_count = 1;
    }
}

/* processes */

static const struct schema_field log_fields[] = {
    {"level", schema_choice, AT(processes.log_level), "info", .words = level_words},
    {"events", schema_path, AT(processes.event_file), "/var/log/kidoban/events.jsonl",
     .example = "/var/log/kidoban/events.jsonl"},
    {"events_size", schema_size, AT(processes.event_file_size), "256M", .min = 64 * KIB, .max = 64 * GIB,
     .example = "256M"},
    {"events_kept", schema_uint, AT(processes.event_files), "8", .min = 1, .max = 1000, .example = "8"},
    END_OF_FIELDS,
};

static const struct schema_field processes_fields[] = {
    {"user_prefix", schema_string, AT(processes.user_prefix), "kidoban-", .example = "kidoban-"},
    {"runtime_directory", schema_path, AT(processes.runtime_directory), "/run/kidoban", .example = "/run/kidoban"},
    {"state_directory", schema_path, AT(processes.state_directory), "/var/lib/kidoban", .example = "/var/lib/kidoban"},
    {"sandbox", schema_bool, AT(processes.sandbox), "true"},
    {"log", schema_map, 0, .members = log_fields},
    END_OF_FIELDS,
};

const struct schema_field schema_root[] = {
    {"operator", schema_map, 0, .members = operator_fields},
    {"submission", schema_map, 0, .required = true, .members = submission_fields},
    {"accounts", schema_map, 0, .members = accounts_fields},
    {"limits", read_limits, 0, .members = limit_fields, .example = "{name: hourly, windows: [200/1h]}"},
    {"spool", schema_map, 0, .members = spool_fields},
    {"delivery", schema_map, 0, .members = delivery_fields},
    {"routes", read_routes, 0, .members = route_fields, .example = "{domain: \"*\", via: mx}"},
    {"processes", schema_map, 0, .members = processes_fields},
    END_OF_FIELDS,
};

/* The walk. */

void schema_complain(struct schema_context *x, struct config_place at, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    config_complaints_add(x->complaints, x->file, at.line, at.column, "%s", text);
    x->bad = true;
}

/* Levenshtein's distance of short words, for "did you mean". */
static size_t distance(const char *a, const char *b)
{
    size_t row[64];
    size_t m = strlen(a), n = strlen(b);
    if (m >= 64 || n >= 64) {
        return 64;
    }
    for (size_t k = 0; k <= n; k++) {
        row[k] = k;
    }
    for (size_t i = 1; i <= m; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t k = 1; k <= n; k++) {
            size_t change = diagonal + (a[i - 1] == b[k - 1] ? 0 : 1);
            size_t least = row[k] < row[k - 1] ? row[k] + 1 : row[k - 1] + 1;
            diagonal = row[k];
            row[k] = change < least ? change : least;
        }
    }
    return row[n];
}

static void unknown_key(struct schema_context *x, const struct yaml_node *child, const struct schema_field *fields)
{
    const char *near = NULL;
    size_t best = 4;
    struct buf all;
    buf_init(&all, 900);
    for (const struct schema_field *f = fields; f->key != NULL; f++) {
        size_t d = distance(child->key, f->key);
        if (d < best) {
            best = d;
            near = f->key;
        }
        (void)buf_printf(&all, "%s%s", f == fields ? "" : ", ", f->key);
    }
    if (near != NULL) {
        schema_complain(x, child->key_at, "unknown key \"%s\"; did you mean \"%s\"?", child->key, near);
    } else {
        schema_complain(x, child->key_at, "unknown key \"%s\"; here go: %.*s", child->key, (int)all.len,
                        (const char *)all.data);
    }
    buf_fini(&all);
}

static const struct schema_field *field_of(const struct schema_field *fields, const char *key)
{
    for (const struct schema_field *f = fields; f->key != NULL; f++) {
        if (strcmp(f->key, key) == 0) {
            return f;
        }
    }
    return NULL;
}

void schema_read_map(struct schema_context *x, const struct yaml_node *map, const struct schema_field *fields,
                     void *base)
{
    for (size_t i = 0; i < map->count; i++) {
        if (field_of(fields, map->children[i].key) == NULL) {
            unknown_key(x, &map->children[i], fields);
        }
    }
    for (const struct schema_field *f = fields; f->key != NULL; f++) {
        const struct yaml_node *node = config_yaml_member(map, f->key);
        if (node == NULL && f->required) {
            if (f->example != NULL) {
                schema_complain(x, map->at, "\"%s\" is missing; write it like %s: %s", f->key, f->key, f->example);
            } else {
                schema_complain(x, map->at, "\"%s\" is missing", f->key);
            }
            continue;
        }
        f->read(x, f, node, (char *)base + f->offset);
    }
}

static void walk(const struct schema_field *fields, const char *prefix,
                 void (*seen)(void *arg, const char *path, const struct schema_field *f), void *arg)
{
    for (const struct schema_field *f = fields; f->key != NULL; f++) {
        char path[256];
        (void)snprintf(path, sizeof(path), "%s%s", prefix, f->key);
        seen(arg, path, f);
        if (f->members != NULL) {
            (void)snprintf(path, sizeof(path), "%s%s%s.", prefix, f->key, f->read == schema_map ? "" : "[]");
            walk(f->members, path, seen, arg);
        }
    }
}

void config_schema_walk(void (*seen)(void *arg, const char *path, const struct schema_field *f), void *arg)
{
    walk(schema_root, "", seen, arg);
}

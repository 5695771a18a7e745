/*
 * submission: where users hand their mail in.
 */
#include "config/schema.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const senders_words[] = {"report", "enforce", NULL};
static const char *const version_words[] = {"1.2", "1.3", NULL};
static const char *const listen_tls_words[] = {"starttls", "implicit", NULL};

/* submission.tls */

static void read_certificate(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                             void *target)
{
    struct config_certificate *c = target;
    schema_path_at(x, f, node, &c->certificate, &c->certificate_at);
}

static void read_key(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    struct config_certificate *c = target;
    schema_path_at(x, f, node, &c->key, &c->key_at);
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
        c->submission.tls.certificates = schema_list_room(x, 1, sizeof(struct config_certificate));
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
        if (schema_want_map(x, f, item)) {
            schema_read_map(x, item, certificate_fields, one);
        }
    }
}

static void read_client_ca(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                           void *target)
{
    struct config *c = target;
    schema_path_at(x, f, node, &c->submission.tls.client_ca, &c->submission.tls.client_ca_at);
}

static const struct schema_field tls_fields[] = {
    {"certificate", read_default_certificate, 0, .required = true, .example = "/etc/kidoban/tls/fullchain.pem"},
    {"key", read_default_key, 0, .required = true, .example = "/etc/kidoban/tls/key.pem"},
    {"certificates", read_more_certificates, 0, .members = certificate_fields,
     .example = "{certificate: /etc/kidoban/tls/b.pem, key: /etc/kidoban/tls/b.key}"},
    {"client_ca", read_client_ca, 0, .example = "/etc/kidoban/tls/clients.pem"},
    {"minimum_version", schema_choice_bool, AT(submission.tls.tls_1_3_only), "1.2", .words = version_words},
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
        x->error = r.address == NULL ? -ENOMEM : x->error;
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
    c->submission.listen = schema_list_room(x, count, sizeof(*c->submission.listen));
    for (size_t i = 0; c->submission.listen != NULL && i < count; i++) {
        read_one_listen(x, node != NULL ? schema_list_item(node, i) : &standard[i], &c->submission.listen[i]);
        c->submission.listen_count++;
    }
    if (node != NULL && count == 0) {
        schema_complain(x, node->at, "\"listen\" is empty; leave it out for [\"[::]:587\", \"[::]:465\"]");
    }
}

/* submission.auth, senders, relay_networks */

/* -PLUS is offered only when the operator asks for it: mail programs on GNU SASL (mutt) take the strongest name they
 * see, cannot bind it, and give up without trying another. What it would guard against, somebody in the middle with a
 * certificate that the client trusts, can take all of SCRAM from the list while PLAIN is in it. */
static const struct {
    const char *name;
    unsigned bits;
    bool standard; /* offered when the configuration says nothing */
} mechanisms[] = {
    {"PLAIN", CONFIG_MECHANISM_PLAIN, true},
    {"LOGIN", CONFIG_MECHANISM_LOGIN, true},
    {"SCRAM-SHA-1", CONFIG_MECHANISM_SCRAM_SHA_1, true},
    {"SCRAM-SHA-1-PLUS", CONFIG_MECHANISM_SCRAM_SHA_1_PLUS, false},
    {"SCRAM-SHA-256", CONFIG_MECHANISM_SCRAM_SHA_256, true},
    {"SCRAM-SHA-256-PLUS", CONFIG_MECHANISM_SCRAM_SHA_256_PLUS, false},
    {"EXTERNAL", CONFIG_MECHANISM_EXTERNAL, true},
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
    for (size_t i = 0; node == NULL && i < sizeof(mechanisms) / sizeof(mechanisms[0]); i++) {
        *bits |= mechanisms[i].standard ? mechanisms[i].bits : 0;
    }
    for (size_t i = 0; i < schema_list_count(node); i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        unsigned one = item->kind == YAML_KIND_VALUE ? mechanism_bits(item->text) : 0;
        if (one == 0) {
            const char *text = item->kind == YAML_KIND_VALUE ? item->text : config_yaml_kind_name(item->kind);
            schema_complain(x, item->at, "\"%.*s\" is not a mechanism we have; they are %s", schema_shown(text), text,
                            f->example);
        }
        *bits |= one;
    }
    if (node != NULL && schema_list_count(node) == 0) {
        schema_complain(x, node->at,
                        "\"mechanisms\" is empty: nobody could log in; leave it out for the standard ones");
    }
}

static const struct schema_field auth_fields[] = {
    {"mechanisms", read_mechanisms, AT(submission.auth.mechanisms),
     .example = "PLAIN, LOGIN, SCRAM-SHA-1, SCRAM-SHA-1-PLUS, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, EXTERNAL"},
    END_OF_FIELDS,
};

static const struct schema_field senders_fields[] = {
    {"mode", schema_choice_bool, AT(submission.senders.enforce), "enforce", .words = senders_words},
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

/* Everybody is no network: that would be an open relay. */
static void check_relay_network(struct schema_context *x, const struct yaml_node *item, const struct config *c,
                                const struct config_relay_network *n)
{
    for (size_t i = 0; i < n->prefixes.count; i++) {
        const struct net_prefix *p = &n->prefixes.list[i];
        struct net_address a = {0};
        memcpy(a.bytes, p->bytes, sizeof(a.bytes));
        if (p->bits == 0 || (p->bits == 96 && net_address_is_v4(&a))) {
            schema_complain(x, item->at,
                            "a prefix of length 0 would let everybody relay; name your own networks, like %s",
                            relay_network_fields[1].example);
        }
    }
    for (const struct config_relay_network *o = c->submission.relay_networks; n->name != NULL && o < n; o++) {
        if (o->name != NULL && strcmp(o->name, n->name) == 0) {
            schema_complain(x, item->at, "two networks are called \"%.*s\"; each needs its own name",
                            schema_shown(n->name), n->name);
        }
    }
}

static void read_relay_networks(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                                void *target)
{
    struct config *c = target;
    size_t count = schema_list_count(node);
    c->submission.relay_networks = schema_list_room(x, count, sizeof(*c->submission.relay_networks));
    for (size_t i = 0; c->submission.relay_networks != NULL && i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        if (schema_want_map(x, f, item)) {
            struct config_relay_network *n = &c->submission.relay_networks[c->submission.relay_networks_count++];
            schema_read_map(x, item, relay_network_fields, n);
            check_relay_network(x, item, c, n);
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

const struct schema_field schema_submission_fields[] = {
    {"hostname", schema_domain, AT(submission.hostname), .required = true, .example = "mail.example.ne.jp"},
    {"listen", read_listen, 0, .members = listen_fields},
    {"workers", schema_workers, AT(submission.workers), "0", .max = 31, .example = "2"},
    {"tls", schema_map, 0, .required = true, .members = tls_fields,
     .example = "{certificate: /etc/kidoban/tls/fullchain.pem, key: /etc/kidoban/tls/key.pem}"},
    {"limits", schema_map, 0, .members = submission_limits_fields},
    {"timeouts", schema_map, 0, .members = submission_timeouts_fields},
    {"auth", schema_map, 0, .members = auth_fields},
    {"senders", schema_map, 0, .members = senders_fields},
    {"relay_networks", read_relay_networks, 0, .members = relay_network_fields,
     .example = "{name: web servers, prefixes: [192.0.2.0/28]}"},
    END_OF_FIELDS,
};

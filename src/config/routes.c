/*
 * routes: where the recipients of a domain go.
 */
#include "config/schema.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const via_words[] = {"mx", "smarthost", "lmtp", "error", NULL};

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
    schema_path_at(x, f, node, &r->route.password_file, &r->route.password_file_at);
}

const struct schema_field schema_route_fields[] = {
    {"domain", read_route_domain, 0, .required = true, .example = "example.ne.jp, .example.ne.jp or \"*\""},
    {"via", schema_choice, offsetof(struct route_reading, via), .required = true, .words = via_words, .example = "mx"},
    {"to", read_route_to, 0, .example = "\"smtp.example.net:587\" or unix:/run/dovecot/lmtp"},
    {"tls", read_route_tls, 0, .words = schema_tls_words},
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
    bool below = text[0] == '.';
    bool every = strcmp(text, "*") == 0;
    char *normal = every ? strdup(text) : schema_domain_normal(text + (below ? 1 : 0));
    if (normal == NULL && !every) {
        schema_complain(x, r->domain_at, "\"%.*s\" is not a domain; write it like %s", schema_shown(text), text,
                        schema_route_fields[0].example);
        return;
    }
    if (normal == NULL || asprintf(&r->route.domain, "%s%s", below ? "." : "", normal) < 0) {
        r->route.domain = NULL;
        x->error = -ENOMEM;
    }
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

static void finish_route_to(struct schema_context *x, struct route_reading *r)
{
    const char *like =
        r->via == VIA_LMTP ? "unix:/run/dovecot/lmtp or \"lmtp.example.net:24\"" : "\"smtp.example.net:587\"";
    bool needs_to = r->via == VIA_SMARTHOST || r->via == VIA_LMTP;
    if (needs_to && r->to == NULL) {
        schema_complain(x, r->route.at, "a route via %s needs \"to\", like %s", via_words[r->via], like);
    } else if (!needs_to && r->to != NULL) {
        schema_complain(x, r->to_at, "a route via %s takes no \"to\"; use via: smarthost or via: lmtp",
                        via_words[r->via]);
    } else if (needs_to && (!parse_route_to(r->to, &r->route, r->via == VIA_LMTP ? 24 : 587) ||
                            (r->via == VIA_SMARTHOST && r->route.unix_path != NULL))) {
        schema_complain(x, r->to_at, "\"%.*s\" is not a next hop; write it like %s", schema_shown(r->to), r->to, like);
    }
}

static void finish_route_login(struct schema_context *x, struct route_reading *r)
{
    if ((r->route.username == NULL) != (r->route.password_file == NULL)) {
        schema_complain(x, r->route.at, "\"username\" and \"password_file\" go together; write both or none");
    } else if (r->route.username != NULL && r->via != VIA_SMARTHOST) {
        schema_complain(x, r->route.at, "a login is for routes via smarthost only");
    }
    if (r->route.username != NULL && (r->tls == TLS_NONE || r->tls == TLS_MAY)) {
        schema_complain(x, r->route.at, "a password is never sent in clear; write tls: must or tls: verify");
    }
}

/* via is known. */
static void finish_route(struct schema_context *x, struct route_reading *r)
{
    r->route.via = (enum config_via)r->via;
    finish_route_to(x, r);
    finish_route_login(x, r);
    if (r->route.words != NULL && r->via != VIA_ERROR) {
        schema_complain(x, r->route.at, "\"words\" are for routes via error only");
    }
    if (r->route.lookup_mx && r->via != VIA_SMARTHOST) {
        schema_complain(x, r->route.at, "\"lookup_mx\" is for routes via smarthost only");
    }
    int standard = r->via == VIA_LMTP ? TLS_NONE : r->route.username != NULL ? TLS_VERIFY : TLS_MAY;
    r->route.tls = (enum config_tls)(r->tls == -1 ? standard : r->tls);
    r->route.implicit_tls = r->via == VIA_SMARTHOST && r->route.port == 465;
}

void schema_routes(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    struct config *c = target;
    size_t count = schema_list_count(node);
    c->routes = schema_list_room(x, count + 1, sizeof(*c->routes));
    for (size_t i = 0; c->routes != NULL && i < count; i++) {
        const struct yaml_node *item = schema_list_item(node, i);
        if (!schema_want_map(x, f, item)) {
            continue;
        }
        struct route_reading r = {.tls = -1, .via = -1, .route = {.at = item->at}};
        schema_read_map(x, item, schema_route_fields, &r);
        finish_route_domain(x, &r);
        if (r.via >= 0) {
            finish_route(x, &r);
        }
        if (r.tls == -1 && r.via == VIA_MX) {
            r.route.tls = c->delivery.tls;
        }
        free(r.domain);
        free(r.to);
        c->routes[c->routes_count++] = r.route;
    }
    if (node == NULL && c->routes != NULL) {
        char *every = strdup("*");
        x->error = every == NULL ? -ENOMEM : x->error;
        c->routes[0] = (struct config_route){.domain = every, .via = VIA_MX, .tls = c->delivery.tls};
        c->routes_count = 1;
    }
}

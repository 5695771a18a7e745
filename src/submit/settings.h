/*
 * settings.h: what a session needs of the configuration, made once at start and at each reload. Sessions hold the one
 * they began with until they end, so a reload never changes the rules in the middle of a dialogue.
 */
#ifndef KIDOBAN_SUBMIT_SETTINGS_H
#define KIDOBAN_SUBMIT_SETTINGS_H

#include "process/child.h"
#include "smtp/server.h"
#include "submit/tls.h"

struct submit_listener {
    struct smtp_server_config smtp;
    bool implicit_tls;
    char service[16];                    /* "587": what TLS tickets are bound to */
    const struct net_prefix *proxy_from; /* peers that speak the PROXY protocol first */
    size_t proxy_from_count;
};

struct submit_settings {
    size_t holders;
    struct config_ref *config;
    struct submit_tls *tls;
    struct submit_listener *listeners;
    size_t listeners_count;
};

/* 0 and *ret with one holder, or -errno with *ret_why a sentence. Holds the configuration. */
int submit_settings_new(struct config_ref *config, const struct child_tls *tls, size_t tls_count,
                        struct submit_settings **ret, const char **ret_why);
struct submit_settings *submit_settings_hold(struct submit_settings *s);
void submit_settings_drop(struct submit_settings **s);

/* Is the peer one that speaks the PROXY protocol first, for others? */
bool submit_listener_is_proxy(const struct submit_listener *l, const struct net_address *peer);
/* The name of the network that may relay without AUTH and holds this address, or NULL. */
const char *submit_settings_relay_network(const struct submit_settings *s, const struct net_address *peer);

#endif

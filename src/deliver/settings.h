/*
 * settings.h: what deliver takes from one configuration, made ready for use from within the sandbox. Destinations hold
 * the settings that they began with; a reload makes new ones beside them.
 */
#ifndef KIDOBAN_DELIVER_SETTINGS_H
#define KIDOBAN_DELIVER_SETTINGS_H

#include "deliver/connection.h"
#include "deliver/hosts.h"
#include "process/child.h"

#define SETTINGS_ANCHOR "/usr/share/dns/root.key" /* of the package dns-root-data */

struct settings {
    size_t holders;
    uint64_t number; /* 1, 2, ...: one a reload */
    struct config_ref *config;
    struct routes *routes;
    struct sessions *sessions;
    struct resolver *resolver;
    struct connection_env env;
    struct hosts_self self;
    struct net_address *local; /* this machine's own addresses */
    size_t local_count;
    struct net_address *sources;
    unsigned concurrency;     /* connections of a destination */
    unsigned connections_max; /* in all */
    uint64_t idle_ms;
    uint64_t down_ms; /* for how long a host that failed is left alone */
};

/* Reads password files, CA certificates, the trust anchor; shares the old resolver (and its cache) when nothing about
 * it has changed. Holds config. NULL after logging why. */
struct settings *settings_new(uv_loop_t *loop, struct outcome_sink *sink, struct config_ref *config,
                              const struct settings *old);
struct settings *settings_hold(struct settings *s);
void settings_drop(struct settings **s);

#endif

/*
 * The keys of the file, one row each: kidoban.yaml(5) says in words what stands here. The sections with more to them
 * than keys stand in submission.c, limits.c and routes.c.
 */
#include "config/schema.h"

static const char *const level_words[] = {"debug", "info", "warn", "error", NULL};
static const char *const store_words[] = {"sqlite", NULL};
const char *const schema_tls_words[] = {"none", "may", "must", "verify", NULL};

/* A choice of one: nothing to fill yet. */
static void choice_only(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                        void *target)
{
    int chosen = 0;
    (void)target;
    schema_choice(x, f, node, &chosen);
}

/* operator */

static const struct schema_field operator_fields[] = {
    {"name", schema_string, AT(operator_.name), "", .example = "Example Internet"},
    {"domains", schema_domains, AT(operator_.domains), .example = "[example.ne.jp]"},
    {"help_url", schema_url, AT(operator_.help_url), .example = "https://mail.example.ne.jp/"},
    END_OF_FIELDS,
};

/* accounts */

static const struct schema_field accounts_fields[] = {
    {"store", choice_only, 0, "sqlite", .words = store_words},
    {"directory", schema_path, AT(processes.vault_directory), .example = "/var/lib/kidoban/vault"},
    {"workers", schema_workers, AT(accounts.workers), "0", .max = 64, .example = "2"},
    {"cache", schema_duration, AT(accounts.cache_ms), "5m", .max = DAY, .example = "5m"},
    {"guesses_free", schema_uint, AT(accounts.guesses_free), "3", .min = 1, .max = 1000, .example = "3"},
    {"guess_delay", schema_duration, AT(accounts.guess_delay_first_ms), "2s", .max = MINUTE, .example = "2s"},
    {"guess_delay_max", schema_duration, AT(accounts.guess_delay_max_ms), "15s", .max = 5 * MINUTE, .example = "15s"},
    END_OF_FIELDS,
};

/* spool, delivery */

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
    {"tls", schema_choice, AT(delivery.tls), "may", .words = schema_tls_words},
    {"source_addresses", schema_addresses, AT(delivery.source_addresses), .example = "[192.0.2.25, \"2001:db8::25\"]"},
    {"timeouts", schema_map, 0, .members = delivery_timeouts_fields},
    {"resolver", schema_map, 0, .members = resolver_fields},
    END_OF_FIELDS,
};

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
    {"gate", schema_map, 0, .optional = true, .members = schema_gate_fields},
    {"submission", schema_map, 0, .optional = true, .members = schema_submission_fields},
    {"accounts", schema_map, 0, .members = accounts_fields},
    {"limits", schema_limits, 0, .members = schema_limit_fields, .example = "{name: hourly, windows: [200/1h]}"},
    {"spool", schema_map, 0, .members = spool_fields},
    {"delivery", schema_map, 0, .members = delivery_fields},
    {"routes", schema_routes, 0, .members = schema_route_fields, .example = "{domain: \"*\", via: mx}"},
    {"processes", schema_map, 0, .members = processes_fields},
    END_OF_FIELDS,
};

/*
 * config.h: the operator's YAML, read and checked into one immutable structure.
 *
 * Strict: one document, no anchors, tags or merges, no unknown or repeated key, every value of the right type and
 * within its range. Every complaint has file, line, column, the reason and what would be right; all complaints of a
 * file come in one run (at most CONFIG_COMPLAINTS_MAX). Reads bytes only: config_check_files() looks at the files that
 * are named. Keys, defaults and meaning: kidoban.yaml(5). The schema is in config/schema.c.
 */
#ifndef KIDOBAN_CONFIG_CONFIG_H
#define KIDOBAN_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/log.h"
#include "wire/address.h"

#define CONFIG_COMPLAINTS_MAX 50

struct config_complaint {
    char *file, *text;
    size_t line, column; /* from 1; 0: the file as a whole */
};

struct config_complaints {
    struct config_complaint *list;
    size_t count;
    size_t left_out; /* found beyond the maximum */
};

void config_complaints_add(struct config_complaints *c, const char *file, size_t line, size_t column, const char *fmt,
                           ...) __attribute__((format(printf, 5, 6)));
/* "file:line:column: text" a line. */
int config_complaints_format(const struct config_complaints *c, struct buf *out);
void config_complaints_fini(struct config_complaints *c);

/* Where in the file a value stands, for complaints that come later (files, sockets). */
struct config_place {
    size_t line, column;
};

struct config_prefixes {
    struct net_prefix *list;
    size_t count;
};

struct config_strings {
    char **list;
    size_t count;
};

struct config_certificate {
    char *certificate, *key;
    struct config_place certificate_at, key_at;
};

struct config_listen {
    struct net_address address;
    bool implicit_tls;
    bool repair_bare_lf;
    struct config_prefixes proxy_from;
    struct config_place at;
};

struct config_relay_network {
    char *name;
    struct config_prefixes prefixes;
};

enum config_limit_per { LIMIT_PER_ACCOUNT, LIMIT_PER_NETWORK };
enum config_limit_count { LIMIT_COUNT_MESSAGES, LIMIT_COUNT_RECIPIENTS };
enum config_limit_action { LIMIT_DEFER, LIMIT_REJECT, LIMIT_HOLD };

struct config_window {
    uint32_t limit;
    uint64_t window_ms;
};

struct config_limit {
    char *name;
    enum config_limit_per per;
    enum config_limit_count count;
    enum config_limit_action action;
    struct config_window *windows;
    size_t windows_count;
};

enum config_via { VIA_MX, VIA_SMARTHOST, VIA_LMTP, VIA_ERROR };
/* none: never; may: if offered; must: or not at all; verify: and the certificate must be good for the name. */
enum config_tls { TLS_NONE, TLS_MAY, TLS_MUST, TLS_VERIFY };

struct config_route {
    char *domain; /* "example.org", ".example.org" (all below), "*"; lower case, A-labels */
    enum config_via via;
    char *host; /* smart host or LMTP host: a name or an address; NULL for unix sockets */
    uint16_t port;
    char *unix_path; /* LMTP over a unix socket */
    char *words;     /* VIA_ERROR: what the sender is told */
    enum config_tls tls;
    bool implicit_tls; /* smart host on port 465 */
    bool lookup_mx;    /* smart host: look up MX of the name */
    char *username, *password_file;
    struct config_place at, password_file_at;
};

enum config_gate_refuse { GATE_TCP_RESET, GATE_ICMP_PROHIBITED, GATE_DROP };
enum config_gate_attach { GATE_ATTACH_AUTO, GATE_ATTACH_NATIVE, GATE_ATTACH_GENERIC, GATE_ATTACH_TC, GATE_ATTACH_TCX };
enum config_port25 { PORT25_ALLOW, PORT25_DENY, PORT25_MONITOR, PORT25_RATE };

#define CONFIG_GATE_CLASSES_MAX  2047    /* and the default */
#define CONFIG_GATE_SCOPED_MAX   28      /* classes with `to` */
#define CONFIG_GATE_PREFIXES_MAX 2000000 /* of one prefixes_file */

struct config_gate_class {
    char *name;
    struct config_place at;
    enum config_port25 port25;
    uint32_t rate;                    /* PORT25_RATE: so many new connections... */
    uint64_t rate_window_ms;          /* ...in so long */
    struct config_prefixes prefixes;  /* with those of prefixes_file after config_gate_read_files() */
    struct config_place *prefixes_at; /* of the first prefixes_inline of them: the others stand in their file */
    size_t prefixes_inline;
    char *prefixes_file; /* or NULL */
    struct config_place prefixes_file_at;
    struct config_prefixes to; /* none: every destination */
};

struct config_gate {
    bool present;
    struct config_strings subscriber_interfaces, uplink_interfaces; /* patterns: config_interface_matches() */
    bool monitor;
    enum config_gate_refuse refuse_with;
    enum config_port25 default_; /* never PORT25_RATE */
    bool return_path_allow, inbound_deny;
    struct config_prefixes dynamic_ranges, allow_to, tunnel_endpoints;
    enum config_gate_attach attach;
    char *pins; /* directory of a bpffs */
    uint32_t events_per_second, resets_per_second;
    uint64_t history_retention_ms;
    uint32_t history_lines; /* of a day */
    struct config_gate_class *classes;
    size_t classes_count;
};

struct config {
    struct {
        char *name;
        struct config_strings domains; /* A-labels, lower case */
        char *help_url;
    } operator_;
    struct config_gate gate;
    struct {
        bool present; /* false: nothing below is set, and no mail is taken; then gate.present */
        char *hostname;
        struct config_listen *listen;
        size_t listen_count;
        uint32_t workers;
        struct {
            struct config_certificate *certificates; /* the first is the default */
            size_t certificates_count;
            char *client_ca; /* NULL: no client certificates */
            struct config_place client_ca_at;
            bool tls_1_3_only, session_tickets;
        } tls;
        struct {
            uint64_t message_size, header_size;
            uint32_t recipients, connections, connections_per_network, commands, bad_commands, auth_failures,
                session_messages, line_length;
        } limits;
        struct {
            uint64_t handshake_ms, command_ms, data_ms;
        } timeouts;
        struct {
            unsigned mechanisms; /* bits as enum smtp_mechanism: CONFIG_MECHANISM_* below */
        } auth;
        struct {
            bool enforce; /* false: report only */
            bool plus_addressing, hide_client_address;
        } senders;
        struct config_relay_network *relay_networks;
        size_t relay_networks_count;
    } submission;
    struct {
        uint32_t workers; /* threads that check passwords */
        uint64_t cache_ms;
        uint64_t guess_delay_first_ms, guess_delay_max_ms;
        uint32_t guesses_free; /* wrong passwords before it is slowed */
    } accounts;
    struct config_limit *limits;
    size_t limits_count;
    struct {
        uint64_t reserve; /* octets to keep free on the disk */
        uint64_t lifetime_ms, delay_warning_ms, retry_first_ms, retry_max_ms;
    } spool;
    struct {
        uint32_t workers, concurrency_per_destination, connections, messages_per_connection;
        uint64_t connect_ms, command_ms, data_ms, idle_ms;
        enum config_tls tls;
        struct config_strings source_addresses;
        struct config_strings forwarders; /* resolver addresses, "192.0.2.1" or "192.0.2.1@5353"; none: from the root */
        bool dnssec;
    } delivery;
    struct config_route *routes; /* in the file's order */
    size_t routes_count;
    struct {
        char *user_prefix, *runtime_directory, *state_directory;
        char *vault_directory, *guard_directory, *spool_directory, *gate_directory; /* below the state directory
                                                                                         unless given */
        bool sandbox;
        enum log_level log_level;
        char *event_file;
        uint64_t event_file_size;
        uint32_t event_files;
    } processes;
};

/* Bits of submission.auth.mechanisms; the same as enum smtp_mechanism. */
enum {
    CONFIG_MECHANISM_PLAIN = 1,
    CONFIG_MECHANISM_LOGIN = 2,
    CONFIG_MECHANISM_SCRAM_SHA_1 = 4,
    CONFIG_MECHANISM_SCRAM_SHA_1_PLUS = 8,
    CONFIG_MECHANISM_SCRAM_SHA_256 = 16,
    CONFIG_MECHANISM_SCRAM_SHA_256_PLUS = 32,
    CONFIG_MECHANISM_EXTERNAL = 64,
};

/* text: the file's octets; file: its name, for complaints. 0 and *ret, or -EINVAL with complaints, or -ENOMEM. */
int config_load(struct span text, const char *file, struct config **ret, struct config_complaints *complaints);
void config_free(struct config **c);
/* Certificates and keys exist, can be read and belong together, password files can be read, the gate's files of
 * prefixes are good. 0, or -EINVAL with complaints. */
int config_check_files(const struct config *c, const char *file, struct config_complaints *complaints);

/* Reads the files of prefixes that classes of the gate name, and adds them to the classes' own: for who needs the whole
 * policy (the others need not hold two million prefixes). Once for a structure. fds: NULL, or for each class a
 * descriptor of its file's octets (borrowed; read from its beginning), -1 where it has none. 0, or -EINVAL with
 * complaints (a place in the file of prefixes, or the key that names it), or -ENOMEM; then nothing was added. */
int config_gate_read_files(struct config *c, const char *file, const int *fds, struct config_complaints *complaints);
/* A prefix as the gate takes it: no host bits, no IPv4 address in IPv6 dress. NULL and *ret, or what is wrong with it,
 * to follow the text in quotes: "has bits set behind its length". IPv4 comes mapped, as in every net_prefix. */
const char *config_gate_prefix_parse(const char *text, struct net_prefix *ret);
bool config_gate_prefix_is_v4(const struct net_prefix *p);
/* "tap*": every * stands for any octets, none too. */
bool config_interface_matches(const char *pattern, const char *name);

/* The route of a recipient's domain (lower case, A-labels): exact, else the longest suffix, else "*"; NULL: none. */
const struct config_route *config_route_find(const struct config *c, struct span domain);

#endif

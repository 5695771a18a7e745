/*
 * schema.h: the keys of the file as tables. Inside of src/config only; `kidoban` and the tests read the names through
 * config_schema_walk().
 */
#ifndef KIDOBAN_CONFIG_SCHEMA_H
#define KIDOBAN_CONFIG_SCHEMA_H

#include <stddef.h>

#include "config/yaml.h"

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

struct schema_context {
    const char *file;
    struct config_complaints *complaints;
    bool bad;
    int error;
};

struct schema_field {
    const char *key;
    /* Reads node into target. value is what stands behind the key; NULL node: only the default text. */
    void (*read)(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
    size_t offset;        /* of the target in the structure that the map fills */
    const char *fallback; /* the default as one would write it; NULL: none */
    bool required;
    bool optional;     /* of a map: left out, it is not there at all, rather than there with its defaults */
    uint64_t min, max; /* numbers, sizes (octets), durations (ms) */
    const struct schema_field *members; /* of a map, or of the maps in a list */
    const char *const *words;           /* of a choice; NULL-terminated */
    const char *example;                /* what would be right, for complaints */
};

extern const struct schema_field schema_root[];
extern const struct schema_field schema_submission_fields[], schema_gate_fields[], schema_limit_fields[],
    schema_route_fields[];
extern const char *const schema_tls_words[]; /* as enum config_tls */

/* Fills base from a map. */
void schema_read_map(struct schema_context *x, const struct yaml_node *map, const struct schema_field *fields,
                     void *base);
void schema_complain(struct schema_context *x, struct config_place at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Calls seen with every key's path: "submission.limits.recipients", "routes[].domain". */
void config_schema_walk(void (*seen)(void *arg, const char *path, const struct schema_field *f), void *arg);

/* Sections with readers of their own: limits.c, routes.c. */
void schema_limits(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
void schema_routes(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);

/* gate.c: what one key alone cannot tell; the fields' memory. */
void schema_gate_check(struct schema_context *x, const struct config_gate *g, const struct yaml_node *section);
void schema_gate_fini(struct config_gate *g);
/* gate_files.c: the same prefix in two classes, over the prefixes in the configuration itself. */
void schema_gate_check_prefixes(struct schema_context *x, const struct config_gate *g);
/* Reads the files of prefixes and throws the prefixes away; 0, -EINVAL with complaints, -ENOMEM. */
int schema_gate_check_files(const struct config *c, const char *file, struct config_complaints *complaints);

/* walk.c: zeroed room for count elements, at least one; NULL: x->error says so. */
void *schema_list_room(struct schema_context *x, size_t count, size_t size);
/* An element of the list f is a map; false and a complaint. */
bool schema_want_map(struct schema_context *x, const struct schema_field *f, const struct yaml_node *item);
/* A path and where it stands. */
void schema_path_at(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, char **target,
                    struct config_place *at);
/* A number; 0: as many as the machine has processors, at most 16. */
void schema_workers(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
/* A choice that fills a bool: the second word is true. */
void schema_choice_bool(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                        void *target);

/* types.c */
void schema_string(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
void schema_bool(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
void schema_uint(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
void schema_size(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
void schema_duration(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                     void *target);
void schema_choice(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
void schema_domain(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
void schema_path(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
void schema_url(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
void schema_map(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
void schema_domains(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target);
void schema_addresses(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                      void *target);
void schema_forwarders(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                       void *target);
void schema_prefixes(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                     void *target);
/* "[::]:587", "192.0.2.1:465", ":587". false and a complaint. */
bool schema_endpoint(struct schema_context *x, struct config_place at, const char *text, struct net_address *ret);
/* A domain as A-labels in lower case, on the heap; NULL: it is none. A leading dot or "*" is the caller's. */
char *schema_domain_normal(const char *text);
/* How many octets of a value a complaint shows. */
int schema_shown(const char *text);
bool schema_number(const char *text, uint64_t *ret);
bool schema_duration_parse(const char *text, uint64_t *ret_ms);
/* A list's elements one by one; a single value counts as a list of one. NULL node: none. */
size_t schema_list_count(const struct yaml_node *node);
const struct yaml_node *schema_list_item(const struct yaml_node *node, size_t i);

#endif

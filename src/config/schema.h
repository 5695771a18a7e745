/*
 * schema.h: the keys of the file as tables. Inside of src/config only; `kidoban` and the tests read the names through
 * config_schema_walk().
 */
#ifndef KIDOBAN_CONFIG_SCHEMA_H
#define KIDOBAN_CONFIG_SCHEMA_H

#include "config/yaml.h"

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
    uint64_t min, max;                  /* numbers, sizes (octets), durations (ms) */
    const struct schema_field *members; /* of a map, or of the maps in a list */
    const char *const *words;           /* of a choice; NULL-terminated */
    const char *example;                /* what would be right, for complaints */
};

extern const struct schema_field schema_root[];

/* Fills base from a map. */
void schema_read_map(struct schema_context *x, const struct yaml_node *map, const struct schema_field *fields,
                     void *base);
void schema_complain(struct schema_context *x, struct config_place at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Calls seen with every key's path: "submission.limits.recipients", "routes[].domain". */
void config_schema_walk(void (*seen)(void *arg, const char *path, const struct schema_field *f), void *arg);

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
bool schema_number(const char *text, uint64_t *ret);
bool schema_duration_parse(const char *text, uint64_t *ret_ms);
/* A list's elements one by one; a single value counts as a list of one. NULL node: none. */
size_t schema_list_count(const struct yaml_node *node);
const struct yaml_node *schema_list_item(const struct yaml_node *node, size_t i);

#endif

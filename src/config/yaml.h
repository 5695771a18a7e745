/*
 * yaml.h: a strict reading of YAML: mappings, sequences and plain values of one document, every node with its place.
 * Inside of src/config only. Anchors, aliases, tags, merges and repeated keys are complaints.
 */
#ifndef KIDOBAN_CONFIG_YAML_H
#define KIDOBAN_CONFIG_YAML_H

#include "config/config.h"

enum yaml_kind { YAML_KIND_VALUE, YAML_KIND_LIST, YAML_KIND_MAP };

struct yaml_node {
    enum yaml_kind kind;
    struct config_place at;
    char *text; /* YAML_KIND_VALUE */
    bool quoted;
    char *key; /* in a map */
    struct config_place key_at;
    struct yaml_node *children;
    size_t count;
};

/* 0 and *ret, -EINVAL with complaints, -ENOMEM. */
int config_yaml_read(struct span text, const char *file, struct yaml_node **ret, struct config_complaints *complaints);
void config_yaml_free(struct yaml_node **node);
/* The member of a map, or NULL. */
const struct yaml_node *config_yaml_member(const struct yaml_node *map, const char *key);
const char *config_yaml_kind_name(enum yaml_kind kind); /* "a value", "a list", "a map" */

#endif

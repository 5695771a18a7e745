/*
 * The walk over tables and file together, and the helpers of those who read lists.
 */
#include "config/schema.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
        if (d < best && d < strlen(child->key) && d < strlen(f->key)) {
            best = d;
            near = f->key;
        }
        (void)buf_printf(&all, "%s%s", f == fields ? "" : ", ", f->key);
    }
    if (near != NULL) {
        schema_complain(x, child->key_at, "unknown key \"%.*s\"; did you mean \"%s\"?", schema_shown(child->key),
                        child->key, near);
    } else {
        schema_complain(x, child->key_at, "unknown key \"%.*s\"; here go: %.*s", schema_shown(child->key), child->key,
                        (int)all.len, (const char *)all.data);
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

/* A choice that fills a bool: the second word is true. */
void schema_choice_bool(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node,
                        void *target)
{
    int chosen = 0;
    schema_choice(x, f, node, &chosen);
    *(bool *)target = chosen == 1;
}

void *schema_list_room(struct schema_context *x, size_t count, size_t size)
{
    void *list = calloc(count > 0 ? count : 1, size);
    if (list == NULL) {
        x->error = -ENOMEM;
    }
    return list;
}

bool schema_want_map(struct schema_context *x, const struct schema_field *f, const struct yaml_node *item)
{
    if (item->kind != YAML_KIND_MAP) {
        schema_complain(x, item->at, "an element of \"%s\" should be a map, like %s", f->key, f->example);
        return false;
    }
    return true;
}
void schema_path_at(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, char **target,
                    struct config_place *at)
{
    if (node != NULL) {
        schema_path(x, f, node, target);
        *at = node->at;
    }
}

/* 0 or left out: as many as the machine has processors. */
void schema_workers(struct schema_context *x, const struct schema_field *f, const struct yaml_node *node, void *target)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    schema_uint(x, f, node, target);
    if (*(uint32_t *)target == 0) {
        *(uint32_t *)target = cores < 1 ? 1 : cores > 16 ? 16 : (uint32_t)cores;
    }
}

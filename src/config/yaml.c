#include "config/yaml.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define DEPTH_MAX 16

struct reading {
    yaml_parser_t parser;
    struct span text;
    const char *file;
    struct config_complaints *complaints;
    bool bad;
    int error; /* -ENOMEM */
};

static struct config_place place_of(const yaml_mark_t *mark)
{
    return (struct config_place){.line = mark->line + 1, .column = mark->column + 1};
}

static void complain(struct reading *r, struct config_place at, const char *text)
{
    config_complaints_add(r->complaints, r->file, at.line, at.column, "%s", text);
    r->bad = true;
}

const char *config_yaml_kind_name(enum yaml_kind kind)
{
    static const char *const names[] = {
        [YAML_KIND_VALUE] = "a value", [YAML_KIND_LIST] = "a list", [YAML_KIND_MAP] = "a map"};
    return names[kind];
}

static void node_fini(struct yaml_node *n)
{
    for (size_t i = 0; i < n->count; i++) {
        node_fini(&n->children[i]);
    }
    free(n->children);
    free(n->text);
    free(n->key);
}

void config_yaml_free(struct yaml_node **node)
{
    if (*node != NULL) {
        node_fini(*node);
        free(*node);
        *node = NULL;
    }
}

const struct yaml_node *config_yaml_member(const struct yaml_node *map, const char *key)
{
    for (size_t i = 0; map != NULL && map->kind == YAML_KIND_MAP && i < map->count; i++) {
        if (strcmp(map->children[i].key, key) == 0) {
            return &map->children[i];
        }
    }
    return NULL;
}

/* Of an octet, in characters as the parser counts them. */
static struct config_place place_of_octet(struct span text, size_t offset)
{
    struct config_place at = {1, 1};
    for (size_t i = 0; i < offset && i < text.len; i++) {
        bool newline = text.ptr[i] == '\n';
        at.line += newline;
        at.column = newline ? 1 : at.column + ((text.ptr[i] & 0xC0) != 0x80);
    }
    return at;
}

static void complain_of_parser(struct reading *r)
{
    const yaml_parser_t *p = &r->parser;
    struct config_place at = place_of(&p->problem_mark);
    char began[64] = "";
    if (p->error == YAML_READER_ERROR) {
        at = place_of_octet(r->text, p->problem_offset);
    } else if (p->context != NULL && p->context_mark.line != p->problem_mark.line) {
        (void)snprintf(began, sizeof(began), " (began in line %zu)", p->context_mark.line + 1);
    }
    config_complaints_add(r->complaints, r->file, at.line, at.column, "not YAML: %s%s; %s",
                          p->problem != NULL ? p->problem : "unreadable", began,
                          p->error == YAML_READER_ERROR ? "a configuration is UTF-8 text"
                                                        : "check indentation, brackets and quotes");
    r->bad = true;
}

/* false: the document cannot be read on. */
static bool next_event(struct reading *r, yaml_event_t *event)
{
    if (yaml_parser_parse(&r->parser, event) != 0) {
        return true;
    }
    if (r->parser.error == YAML_MEMORY_ERROR) {
        r->error = -ENOMEM;
        return false;
    }
    complain_of_parser(r);
    return false;
}

static void check_plain(struct reading *r, struct config_place at, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor != NULL) {
        complain(r, at, "anchors (&name) are not taken; write the value where it is needed");
    }
    if (tag != NULL) {
        complain(r, at, "tags (!name) are not taken; leave it out");
    }
}

static struct yaml_node *add_child(struct reading *r, struct yaml_node *parent)
{
    if ((parent->count & (parent->count - 1)) == 0) { /* room is doubled at 0, 1, 2, 4, 8 ... */
        size_t room = parent->count == 0 ? 1 : parent->count * 2;
        struct yaml_node *grown = realloc(parent->children, room * sizeof(*grown));
        if (grown == NULL) {
            r->error = -ENOMEM;
            return NULL;
        }
        parent->children = grown;
    }
    struct yaml_node *child = &parent->children[parent->count++];
    *child = (struct yaml_node){0};
    return child;
}

static bool read_node(struct reading *r, const yaml_event_t *event, struct yaml_node *n, unsigned depth);

static bool read_list(struct reading *r, struct yaml_node *list, unsigned depth)
{
    for (;;) {
        yaml_event_t event;
        if (!next_event(r, &event)) {
            return false;
        }
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        struct yaml_node *child = end ? NULL : add_child(r, list);
        bool good = end || (child != NULL && read_node(r, &event, child, depth + 1));
        yaml_event_delete(&event);
        if (end || !good) {
            return good;
        }
    }
}

static bool read_key(struct reading *r, const yaml_event_t *event, const struct yaml_node *map, char **ret_key)
{
    struct config_place at = place_of(&event->start_mark);
    if (event->type != YAML_SCALAR_EVENT) {
        complain(r, at, "a key must be a word");
        return false;
    }
    check_plain(r, at, event->data.scalar.anchor, event->data.scalar.tag);
    const char *key = (const char *)event->data.scalar.value;
    const struct yaml_node *twin = config_yaml_member(map, key);
    if (strlen(key) != event->data.scalar.length) {
        complain(r, at, "a key must not hold a NUL");
        return false;
    }
    if (twin != NULL) {
        config_complaints_add(r->complaints, r->file, at.line, at.column,
                              "\"%.120s\" is there twice; the first is in line %zu: keep one", key, twin->key_at.line);
        r->bad = true;
    }
    *ret_key = strdup(key);
    r->error = *ret_key == NULL ? -ENOMEM : r->error;
    return *ret_key != NULL;
}

static bool read_map(struct reading *r, struct yaml_node *map, unsigned depth)
{
    for (;;) {
        yaml_event_t event;
        char *key = NULL;
        if (!next_event(r, &event)) {
            return false;
        }
        bool end = event.type == YAML_MAPPING_END_EVENT;
        struct config_place at = place_of(&event.start_mark);
        bool good = end || read_key(r, &event, map, &key);
        yaml_event_delete(&event);
        if (end || !good || !next_event(r, &event)) {
            free(key);
            return end;
        }
        struct yaml_node *child = add_child(r, map);
        if (child != NULL) {
            child->key = key;
            child->key_at = at;
            good = read_node(r, &event, child, depth + 1);
        } else {
            free(key);
            good = false;
        }
        yaml_event_delete(&event);
        if (!good) {
            return false;
        }
    }
}

static bool read_value(struct reading *r, const yaml_event_t *event, struct yaml_node *n)
{
    check_plain(r, n->at, event->data.scalar.anchor, event->data.scalar.tag);
    if (memchr(event->data.scalar.value, 0, event->data.scalar.length) != NULL) {
        complain(r, n->at, "a value must not hold a NUL");
    }
    n->kind = YAML_KIND_VALUE;
    n->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    n->text = strdup((const char *)event->data.scalar.value);
    r->error = n->text == NULL ? -ENOMEM : r->error;
    return n->text != NULL;
}

/* Keeps key and key_at, which the caller has set. */
static bool read_node(struct reading *r, const yaml_event_t *event, struct yaml_node *n, unsigned depth)
{
    n->at = place_of(&event->start_mark);
    if (depth > DEPTH_MAX) {
        complain(r, n->at, "nested too deep");
        return false;
    }
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return read_value(r, event, n);
    case YAML_SEQUENCE_START_EVENT:
        check_plain(r, n->at, event->data.sequence_start.anchor, event->data.sequence_start.tag);
        n->kind = YAML_KIND_LIST;
        return read_list(r, n, depth);
    case YAML_MAPPING_START_EVENT:
        check_plain(r, n->at, event->data.mapping_start.anchor, event->data.mapping_start.tag);
        n->kind = YAML_KIND_MAP;
        return read_map(r, n, depth);
    case YAML_ALIAS_EVENT:
        n->kind = YAML_KIND_VALUE;
        n->text = strdup("");
        complain(r, n->at, "aliases (*name) are not taken; write the value here");
        return n->text != NULL;
    default:
        complain(r, n->at, "not expected here");
        return false;
    }
}

/* Stream start, document start, the root, document end, stream end: nothing more. */
static bool read_document(struct reading *r, struct yaml_node *root)
{
    bool seen = false, good = true;
    for (bool end = false; good && !end;) {
        yaml_event_t event;
        if (!next_event(r, &event)) {
            return false;
        }
        switch (event.type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (seen) {
                complain(r, place_of(&event.start_mark), "a second document; a configuration is one");
                good = false;
            }
            break;
        case YAML_STREAM_END_EVENT:
            end = true;
            break;
        default:
            seen = true;
            good = read_node(r, &event, root, 0);
            break;
        }
        yaml_event_delete(&event);
    }
    if (good && !seen) {
        complain(r, (struct config_place){1, 1}, "the file is empty; see kidoban.yaml(5) for the smallest useful one");
    }
    return good && seen;
}

int config_yaml_read(struct span text, const char *file, struct yaml_node **ret, struct config_complaints *complaints)
{
    static const uint8_t mark[] = {0xEF, 0xBB, 0xBF};
    bool marked = text.len >= sizeof(mark) && memcmp(text.ptr, mark, sizeof(mark)) == 0;
    text = marked ? (struct span){text.ptr + sizeof(mark), text.len - sizeof(mark)} : text;
    struct reading r = {.text = text, .file = file, .complaints = complaints};
    struct yaml_node *root = calloc(1, sizeof(*root));
    if (root == NULL || yaml_parser_initialize(&r.parser) == 0) {
        free(root);
        return -ENOMEM;
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, text.len > 0 ? text.ptr : (const uint8_t *)"", text.len);
    bool good = read_document(&r, root);
    yaml_parser_delete(&r.parser);
    if (!good || r.bad || r.error != 0) {
        config_yaml_free(&root);
        return r.error != 0 ? r.error : -EINVAL;
    }
    *ret = root;
    return 0;
}

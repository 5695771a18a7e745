/*
 * The gate's prefixes: how one is written, files of them, and that none is in two classes.
 *
 * A file has one prefix a line; what follows # is a comment; empty lines are taken. It is the operator's own and may be
 * written by a program: every line is checked, and two million of them take about a second.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/schema.h"

const char *config_gate_prefix_parse(const char *text, struct net_prefix *ret)
{
    char host[64];
    const char *slash = strchrnul(text, '/');
    size_t len = (size_t)(slash - text);
    struct net_address a;
    if (len >= sizeof(host)) {
        return "is not a prefix";
    }
    memcpy(host, text, len);
    host[len] = '\0';
    if (net_address_parse(host, &a) < 0) {
        return "is not a prefix";
    }
    bool v4 = memchr(text, ':', len) == NULL;
    uint64_t most = v4 ? 32 : 128, bits = most;
    if (!v4 && net_address_is_v4(&a)) {
        return "is an IPv4 address in IPv6 dress, which no packet has as such";
    }
    if (*slash == '/' && (!schema_number(slash + 1, &bits) || bits > most)) {
        return v4 ? "has no length from 0 to 32" : "has no length from 0 to 128";
    }
    struct net_prefix p = {.bits = (uint8_t)(bits + 128 - most)};
    memcpy(p.bytes, a.bytes, sizeof(p.bytes));
    for (unsigned bit = p.bits; bit < 128; bit++) {
        if ((p.bytes[bit / 8] & (0x80U >> bit % 8)) != 0) {
            return "has bits set behind its length";
        }
    }
    *ret = p;
    return NULL;
}

bool config_gate_prefix_is_v4(const struct net_prefix *p)
{
    struct net_address a = {0};
    memcpy(a.bytes, p->bytes, sizeof(a.bytes));
    return p->bits >= 96 && net_address_is_v4(&a);
}

/* One prefix of any class, with where it stands. */
struct entry {
    struct net_prefix prefix;
    uint16_t class_;
    bool from_file;
    uint32_t line, column;
};

struct entries {
    struct entry *list;
    size_t count, room;
};

static int entries_add(struct entries *e, struct entry one)
{
    if (e->count == e->room) {
        size_t room = e->room == 0 ? 256 : e->room * 2;
        struct entry *grown = realloc(e->list, room * sizeof(*grown));
        if (grown == NULL) {
            return -ENOMEM;
        }
        e->list = grown;
        e->room = room;
    }
    e->list[e->count++] = one;
    return 0;
}

static int add_inline(struct entries *e, const struct config_gate *g)
{
    int r = 0;
    for (size_t i = 0; i < g->classes_count; i++) {
        const struct config_gate_class *c = &g->classes[i];
        for (size_t k = 0; k < c->prefixes_inline && r == 0; k++) {
            r = entries_add(e, (struct entry){.prefix = c->prefixes.list[k],
                                              .class_ = (uint16_t)i,
                                              .line = (uint32_t)c->prefixes_at[k].line,
                                              .column = (uint32_t)c->prefixes_at[k].column});
        }
    }
    return r;
}

/* The one line, without its end and comment. */
static int add_line(struct entries *e, char *line, struct entry at, const char *path,
                    struct config_complaints *complaints)
{
    line[strcspn(line, "#\r\n")] = '\0';
    char *text = line + strspn(line, " \t");
    size_t len = strlen(text);
    while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t')) {
        text[--len] = '\0';
    }
    if (len == 0) {
        return 0;
    }
    at.column = (uint32_t)(text - line) + 1;
    const char *wrong = config_gate_prefix_parse(text, &at.prefix);
    if (wrong != NULL) {
        config_complaints_add(complaints, path, at.line, at.column, "\"%.*s\" %s; write one prefix a line, like %s",
                              schema_shown(text), text, wrong, "192.0.2.0/24 or 2001:db8::/32");
        return -EINVAL;
    }
    return entries_add(e, at);
}

static int add_stream(struct entries *e, FILE *f, struct entry at, const char *path,
                      struct config_complaints *complaints)
{
    char line[256];
    size_t first = e->count;
    int r = 0;
    while (r != -ENOMEM && fgets(line, sizeof(line), f) != NULL) {
        at.line++;
        bool whole = strchr(line, '\n') != NULL || feof(f);
        bool comment = !whole && strchr(line, '#') != NULL;
        for (int c = 0; !whole && c != EOF && c != '\n';) {
            c = fgetc(f);
        }
        if (!whole && !comment) {
            config_complaints_add(complaints, path, at.line, 1, "longer than any prefix; write one prefix a line");
            r = -EINVAL;
            continue;
        }
        int one = add_line(e, line, at, path, complaints);
        r = one < 0 ? one : r;
        if (e->count - first > CONFIG_GATE_PREFIXES_MAX) {
            config_complaints_add(complaints, path, at.line, 1, "more than %d prefixes; part them into several classes",
                                  CONFIG_GATE_PREFIXES_MAX);
            return -EINVAL;
        }
    }
    if (ferror(f)) {
        config_complaints_add(complaints, path, at.line + 1, 1, "%s", strerror(errno));
        return -EINVAL;
    }
    return r;
}

static int add_file(struct entries *e, const struct config_gate_class *c, size_t class_, const char *file,
                    struct config_complaints *complaints)
{
    FILE *f = fopen(c->prefixes_file, "re");
    if (f == NULL) {
        config_complaints_add(complaints, file, c->prefixes_file_at.line, c->prefixes_file_at.column, "%s: %s",
                              c->prefixes_file, strerror(errno));
        return -EINVAL;
    }
    struct entry at = {.class_ = (uint16_t)class_, .from_file = true};
    int r = add_stream(e, f, at, c->prefixes_file, complaints);
    (void)fclose(f);
    return r;
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int bytes = memcmp(x->prefix.bytes, y->prefix.bytes, sizeof(x->prefix.bytes));
    if (bytes != 0 || x->prefix.bits != y->prefix.bits) {
        return bytes != 0 ? bytes : x->prefix.bits < y->prefix.bits ? -1 : 1;
    }
    if (x->class_ != y->class_) {
        return x->class_ < y->class_ ? -1 : 1;
    }
    return x->line < y->line ? -1 : x->line > y->line;
}

/* Sorts. The same prefix twice in one class says nothing new and is taken. */
static int check_entries(struct entries *e, const struct config_gate *g, const char *file,
                         struct config_complaints *complaints)
{
    int r = 0;
    if (e->count > 1) {
        qsort(e->list, e->count, sizeof(*e->list), compare_entries);
    }
    for (size_t i = 1; i < e->count; i++) {
        const struct entry *a = &e->list[i - 1], *b = &e->list[i];
        if (a->class_ == b->class_ || a->prefix.bits != b->prefix.bits ||
            memcmp(a->prefix.bytes, b->prefix.bytes, sizeof(a->prefix.bytes)) != 0) {
            continue;
        }
        const struct config_gate_class *mine = &g->classes[b->class_], *other = &g->classes[a->class_];
        config_complaints_add(complaints, b->from_file ? mine->prefixes_file : file, b->line, b->column,
                              "this prefix of class \"%s\" is in class \"%s\" too (%s:%u); keep one", mine->name,
                              other->name, a->from_file ? other->prefixes_file : file, a->line);
        r = -EINVAL;
    }
    return r;
}

void schema_gate_check_prefixes(struct schema_context *x, const struct config_gate *g)
{
    struct entries e = {0};
    int r = add_inline(&e, g);
    r = r < 0 ? r : check_entries(&e, g, x->file, x->complaints);
    free(e.list);
    x->bad = x->bad || r == -EINVAL;
    x->error = r == -ENOMEM ? r : x->error;
}

/* All prefixes of all classes, checked. */
static int gather(const struct config *c, const char *file, struct entries *e, struct config_complaints *complaints)
{
    int r = add_inline(e, &c->gate);
    for (size_t i = 0; i < c->gate.classes_count && r != -ENOMEM; i++) {
        if (c->gate.classes[i].prefixes_file != NULL) {
            int one = add_file(e, &c->gate.classes[i], i, file, complaints);
            r = one < 0 ? one : r;
        }
    }
    return r < 0 ? r : check_entries(e, &c->gate, file, complaints);
}

int schema_gate_check_files(const struct config *c, const char *file, struct config_complaints *complaints)
{
    struct entries e = {0};
    int r = gather(c, file, &e, complaints);
    free(e.list);
    return r;
}

/* Room for the entries of one class behind its own. */
static int make_room(struct config_gate_class *c, size_t more)
{
    struct net_prefix *grown = realloc(c->prefixes.list, (c->prefixes.count + more + 1) * sizeof(*grown));
    if (grown == NULL) {
        return -ENOMEM;
    }
    c->prefixes.list = grown;
    return 0;
}

static int install(struct config_gate *g, const struct entries *e)
{
    size_t *more = calloc(g->classes_count + 1, sizeof(*more));
    int r = more == NULL ? -ENOMEM : 0;
    for (size_t i = 0; r == 0 && i < e->count; i++) {
        more[e->list[i].class_] += e->list[i].from_file ? 1 : 0;
    }
    for (size_t i = 0; r == 0 && i < g->classes_count; i++) {
        r = make_room(&g->classes[i], more[i]);
    }
    free(more);
    for (size_t i = 0; r == 0 && i < e->count; i++) {
        struct config_prefixes *p = &g->classes[e->list[i].class_].prefixes;
        if (e->list[i].from_file) {
            p->list[p->count++] = e->list[i].prefix;
        }
    }
    return r;
}

int config_gate_read_files(struct config *c, const char *file, struct config_complaints *complaints)
{
    struct entries e = {0};
    int r = gather(c, file, &e, complaints);
    r = r < 0 ? r : install(&c->gate, &e);
    free(e.list);
    return r;
}

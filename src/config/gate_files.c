/*
 * The gate's prefixes: how one is written, files of them, and that none is in two classes.
 *
 * A file has one prefix a line; what follows # is a comment; empty lines are taken. It is the operator's own and may be
 * written by a program: every line is checked, and a million of them take a few tenths of a second.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/large.h"
#include "common/radix.h"
#include "config/schema.h"

#define LINE_MIN 12 /* octets of a usual line, at the least */

/* A number of at most `digits` digits, none of them a needless 0, up to most. Behind it, or NULL. */
static const char *read_number(const char *text, unsigned digits, unsigned most, unsigned *ret)
{
    unsigned n = 0, len = 0;
    for (; text[len] >= '0' && text[len] <= '9' && len < digits; len++) {
        n = n * 10 + (unsigned)(text[len] - '0');
    }
    *ret = n;
    return len == 0 || n > most || (len > 1 && text[0] == '0') ? NULL : text + len;
}

/* The usual case, quickly: a good IPv4 prefix as nearly everyone writes it. What is not such a one may still be good.
 */
static bool read_plain_v4(const char *text, struct net_prefix *ret)
{
    uint32_t address = 0;
    unsigned n, bits = 32;
    for (int i = 0; i < 4; i++) {
        text = read_number(text, 3, 255, &n);
        if (text == NULL || (i < 3 && *text++ != '.')) {
            return false;
        }
        address = address << 8 | n;
    }
    if (*text == '/') {
        text = read_number(text + 1, 2, 32, &bits);
    }
    if (text == NULL || *text != '\0' || (bits < 32 && address << bits != 0)) {
        return false;
    }
    struct net_prefix p = {.bytes = {[10] = 0xff, [11] = 0xff}, .bits = (uint8_t)(96 + bits)};
    for (int i = 0; i < 4; i++) {
        p.bytes[12 + i] = (uint8_t)(address >> (24 - 8 * i));
    }
    *ret = p;
    return true;
}

const char *config_gate_prefix_parse(const char *text, struct net_prefix *ret)
{
    if (read_plain_v4(text, ret)) {
        return NULL;
    }
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
    for (unsigned i = p.bits / 8; i < sizeof(p.bytes); i++) {
        unsigned behind = i == p.bits / 8 ? 0xffU >> p.bits % 8 : 0xff;
        if ((p.bytes[i] & behind) != 0) {
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
    bool from_file;
    uint16_t class_;
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

/* Room for what a file of so many octets may hold, so that the list need not grow line by line. */
static int entries_reserve(struct entries *e, size_t octets)
{
    size_t more = octets / LINE_MIN < CONFIG_GATE_PREFIXES_MAX ? octets / LINE_MIN : CONFIG_GATE_PREFIXES_MAX;
    if (e->room - e->count >= more) {
        return 0;
    }
    struct entry *grown = large_alloc(e->count + more, sizeof(*grown));
    if (grown == NULL) {
        return -ENOMEM;
    }
    if (e->count > 0) {
        memcpy(grown, e->list, e->count * sizeof(*grown));
    }
    free(e->list);
    e->list = grown;
    e->room = e->count + more;
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

/* fd: the file's octets from somebody who could open it, or -1. */
static FILE *open_file(const struct config_gate_class *c, int fd)
{
    if (fd < 0) {
        return fopen(c->prefixes_file, "re");
    }
    int own = lseek(fd, 0, SEEK_SET) == 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    FILE *f = own >= 0 ? fdopen(own, "r") : NULL;
    if (f == NULL && own >= 0) {
        (void)close(own);
    }
    return f;
}

static int add_file(struct entries *e, const struct config_gate_class *c, size_t class_, int fd, const char *file,
                    struct config_complaints *complaints)
{
    FILE *f = open_file(c, fd);
    if (f == NULL) {
        config_complaints_add(complaints, file, c->prefixes_file_at.line, c->prefixes_file_at.column, "%s: %s",
                              c->prefixes_file, strerror(errno));
        return -EINVAL;
    }
    struct entry at = {.class_ = (uint16_t)class_, .from_file = true};
    struct stat status;
    int r = fstat(fileno(f), &status) == 0 && S_ISREG(status.st_mode) ? entries_reserve(e, (size_t)status.st_size) : 0;
    r = r < 0 ? r : add_stream(e, f, at, c->prefixes_file, complaints);
    (void)fclose(f);
    return r;
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->class_ != y->class_) {
        return x->class_ < y->class_ ? -1 : 1;
    }
    return x->line < y->line ? -1 : x->line > y->line;
}

static bool same_prefix(const struct entry *a, const struct entry *b)
{
    return memcmp(&a->prefix, &b->prefix, sizeof(a->prefix)) == 0;
}

/* By prefix; the same ones by class and line. */
static int sort_entries(struct entries *e)
{
    /* Of struct net_prefix: the length, then the address from its end. */
    static const uint8_t order[] = {16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0};
    _Static_assert(sizeof(struct net_prefix) == sizeof(order) && offsetof(struct entry, prefix) == 0,
                   "all of a prefix");
    struct entry *spare = large_alloc(e->count, sizeof(*spare));
    if (spare == NULL) {
        return -ENOMEM;
    }
    radix_sort(e->list, spare, e->count, sizeof(*spare), order, sizeof(order));
    free(spare);
    for (size_t i = 0, end; i < e->count; i = end) {
        for (end = i + 1; end < e->count && same_prefix(&e->list[i], &e->list[end]); end++) {
        }
        if (end - i > 1) {
            qsort(&e->list[i], end - i, sizeof(*e->list), compare_entries);
        }
    }
    return 0;
}

/* Sorts. The same prefix twice in one class says nothing new and is taken. */
static int check_entries(struct entries *e, const struct config_gate *g, const char *file,
                         struct config_complaints *complaints)
{
    int r = sort_entries(e);
    for (size_t i = 1; i < e->count && r != -ENOMEM; i++) {
        const struct entry *a = &e->list[i - 1], *b = &e->list[i];
        if (a->class_ == b->class_ || !same_prefix(a, b)) {
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
static int gather(const struct config *c, const char *file, const int *fds, struct entries *e,
                  struct config_complaints *complaints)
{
    int r = add_inline(e, &c->gate);
    for (size_t i = 0; i < c->gate.classes_count && r != -ENOMEM; i++) {
        if (c->gate.classes[i].prefixes_file != NULL) {
            int one = add_file(e, &c->gate.classes[i], i, fds != NULL ? fds[i] : -1, file, complaints);
            r = one < 0 ? one : r;
        }
    }
    return r < 0 ? r : check_entries(e, &c->gate, file, complaints);
}

int schema_gate_check_files(const struct config *c, const char *file, struct config_complaints *complaints)
{
    struct entries e = {0};
    int r = gather(c, file, NULL, &e, complaints);
    free(e.list);
    return r;
}

/* Room for the entries of one class behind its own. */
static int make_room(struct config_gate_class *c, size_t more)
{
    struct net_prefix *grown = large_alloc(c->prefixes.count + more, sizeof(*grown));
    if (grown == NULL) {
        return -ENOMEM;
    }
    if (c->prefixes.count > 0) {
        memcpy(grown, c->prefixes.list, c->prefixes.count * sizeof(*grown));
    }
    free(c->prefixes.list);
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

int config_gate_read_files(struct config *c, const char *file, const int *fds, struct config_complaints *complaints)
{
    struct entries e = {0};
    int r = gather(c, file, fds, &e, complaints);
    r = r < 0 ? r : install(&c->gate, &e);
    free(e.list);
    return r;
}

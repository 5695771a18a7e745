#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

struct cli_table {
    const struct cli *cli;
    const struct cli_column *columns;
    size_t count;
    struct libscols_table *table;
    size_t rows;
};

/* How many octets at p a terminal must not get: C0, DEL; C1 (U+0080 to U+009F); U+200E, U+200F, U+202A to U+202E,
 * U+2066 to U+2069. */
static size_t dangerous(const unsigned char *p)
{
    if (p[0] < 0x20 || p[0] == 0x7f) {
        return 1;
    }
    if (p[0] == 0xc2) {
        return p[1] >= 0x80 && p[1] <= 0x9f ? 2 : 0;
    }
    if (p[0] != 0xe2 || p[1] == '\0') {
        return 0;
    }
    bool turns = (p[1] == 0x80 && (p[2] == 0x8e || p[2] == 0x8f || (p[2] >= 0xaa && p[2] <= 0xae))) ||
                 (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9);
    return turns ? 3 : 0;
}

void cli_clean(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p != '\0';) {
        size_t len = dangerous(p);
        memset(p, '?', len);
        p += len > 0 ? len : 1;
    }
}

bool cli_has_colour(void)
{
    const char *term = getenv("TERM"), *no = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) == 1 && term != NULL && strcmp(term, "dumb") != 0 && (no == NULL || no[0] == '\0');
}

/* One cell's text, on the heap. */
static char *cell(json_t *value)
{
    char *text = NULL;
    if (json_is_string(value)) {
        text = strdup(json_string_value(value));
    } else if (json_is_array(value)) {
        struct buf b;
        size_t i;
        json_t *item;
        buf_init(&b, 1U << 20);
        json_array_foreach(value, i, item)
        {
            char *one = cell(item);
            (void)buf_printf(&b, "%s%s", i > 0 ? ", " : "", one != NULL ? one : "");
            free(one);
        }
        text = span_dup(buf_span(&b));
        buf_fini(&b);
    } else if (value == NULL || json_is_null(value)) {
        text = strdup("");
    } else {
        text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    }
    if (text != NULL) {
        cli_clean(text);
    }
    return text;
}

size_t cli_table_rows(const struct cli_table *t)
{
    return t != NULL ? t->rows : 0;
}

struct cli_table *cli_table_new(const struct cli *c, const struct cli_column *columns, size_t count)
{
    struct cli_table *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return NULL;
    }
    *t = (struct cli_table){.cli = c, .columns = columns, .count = count};
    if (c->json) {
        (void)fputs("[", stdout);
        return t;
    }
    t->table = scols_new_table();
    for (size_t i = 0; i < count; i++) {
        (void)scols_table_new_column(t->table, columns[i].title, 0.1,
                                     columns[i].right ? SCOLS_FL_RIGHT
                                     : i + 1 == count ? SCOLS_FL_WRAP
                                                      : 0);
    }
    return t;
}

void cli_table_add(struct cli_table *t, json_t *row)
{
    if (t == NULL) {
        return;
    }
    if (t->cli->json) {
        (void)fputs(t->rows > 0 ? ",\n" : "\n", stdout);
        (void)json_dumpf(row, stdout, JSON_COMPACT);
    } else {
        struct libscols_line *line = scols_table_new_line(t->table, NULL);
        for (size_t i = 0; line != NULL && i < t->count; i++) {
            char *text = cell(json_object_get(row, t->columns[i].key));
            if (text == NULL || scols_line_refer_data(line, i, text) != 0) {
                free(text);
            }
        }
    }
    t->rows++;
}

void cli_table_end(struct cli_table **tp)
{
    struct cli_table *t = *tp;
    *tp = NULL;
    if (t == NULL) {
        return;
    }
    if (t->cli->json) {
        (void)fputs(t->rows > 0 ? "\n]\n" : "]\n", stdout);
    } else {
        if (t->rows > 0) {
            (void)scols_print_table(t->table);
        }
        scols_unref_table(t->table);
    }
    free(t);
}

void cli_print_object(const struct cli *c, json_t *object)
{
    const char *key;
    json_t *value;
    if (c->json) {
        (void)json_dumpf(object, stdout, JSON_INDENT(2));
        (void)fputc('\n', stdout);
        return;
    }
    json_object_foreach(object, key, value)
    {
        char *text = cell(value);
        (void)printf("%-16s %s\n", key, text != NULL ? text : "");
        free(text);
    }
}

static void add_row(void *arg, json_t *line)
{
    cli_table_add(arg, line);
}

int cli_ask_table(struct cli *c, const char *owner, json_t *take_request, const struct cli_column *columns,
                  size_t count)
{
    struct cli_table *t = cli_table_new(c, columns, count);
    int status = cli_ask(c, owner, take_request, add_row, t);
    cli_table_end(&t);
    return status;
}

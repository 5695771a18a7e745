/*
 * kidoban gate impact: whom enforcement cuts off or would cut off, where they send, and what to tell them. Reads the
 * history that the keeper writes; when the keeper is there it is asked to write what it knows first.
 */
#include "cli/gate_impact.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

#define DAYS_DEFAULT  28
#define DAYS_MAX      3660
#define COUNT_DEFAULT 50
#define FARS_TEXT     4 /* shown of a line, and asked for in DNS */
#define FARS_ALL      12
#define LOOK_UP_MS    5000

struct asked {
    unsigned long days, count;
    enum language language;
    bool csv, names;
};

static uint64_t refused(const struct impact_line *l)
{
    return l->connections[0];
}

static uint64_t noted(const struct impact_line *l)
{
    return l->connections[1];
}

static void put_time(uint64_t wall_ms, char text[static 32])
{
    time_t at = (time_t)(wall_ms / 1000);
    struct tm tm;
    text[0] = '\0';
    if (localtime_r(&at, &tm) != NULL) {
        (void)strftime(text, 32, "%Y-%m-%dT%H:%M:%S%z", &tm);
    }
}

/* For the table. */
static void put_short_time(uint64_t wall_ms, char text[static 32])
{
    time_t at = (time_t)(wall_ms / 1000);
    struct tm tm;
    text[0] = '\0';
    if (localtime_r(&at, &tm) != NULL) {
        (void)strftime(text, 32, "%m-%d %H:%M", &tm);
    }
}

/* JSON */

static json_t *far_json(const struct impact_far *f, const struct names *names)
{
    const struct far_name *name = names_find(names, f->address);
    char address[64], network[64];
    impact_address(f->address, address);
    impact_network(f->address, network);
    return json_pack("{s:s,s:s,s:I,s:s?,s:s?}", "address", address, "network", network, "seen", (json_int_t)f->count,
                     "name", name != NULL ? name->host : NULL, "mx_of",
                     name != NULL && name->mx_of[0] != '\0' ? name->mx_of : NULL);
}

static json_t *line_json(const struct impact_line *l, const struct names *names, enum language language)
{
    char key[64], first[32], last[32];
    json_t *why = json_array(), *to = json_array();
    impact_key(l->key, key);
    put_time(l->first_ms, first);
    put_time(l->last_ms, last);
    for (size_t i = 0; i < l->judgement.count; i++) {
        struct buf text;
        buf_init(&text, 1024);
        words_reason(&text, l->judgement.why[i].reason, l->judgement.why[i].number, language);
        (void)json_array_append_new(
            why, json_pack("{s:s,s:I,s:s%}", "reason", behaviour_reason_name(l->judgement.why[i].reason), "number",
                           (json_int_t)l->judgement.why[i].number, "text", text.data, text.len));
        buf_fini(&text);
    }
    for (size_t i = 0; i < l->fars_count && i < FARS_ALL; i++) {
        (void)json_array_append_new(to, far_json(&l->fars[i], names));
    }
    json_t *o = json_pack("{s:s,s:s,s:s,s:o,s:I,s:I,s:I,s:I}", "line", key, "class", l->class_, "kind",
                          behaviour_kind_name(l->judgement.kind), "why", why, "refused_connections",
                          (json_int_t)refused(l), "noted_connections", (json_int_t)noted(l), "refused_packets",
                          (json_int_t)l->packets[0], "noted_packets", (json_int_t)l->packets[1]);
    json_t *more =
        json_pack("{s:I,s:I,s:I,s:I,s:s,s:s,s:o}", "destinations", (json_int_t)l->behaviour.destinations, "networks",
                  (json_int_t)l->behaviour.networks, "busiest_minute", (json_int_t)l->behaviour.peak, "hours",
                  (json_int_t)l->behaviour.hours, "first", first, "last", last, "to", to);
    (void)json_object_update_missing(o, more);
    json_decref(more);
    return o;
}

static bool has_kind(const struct impact *all, enum behaviour_kind kind)
{
    for (const struct impact_line *l = all->lines; l != NULL; l = l->hh.next) {
        if (l->judgement.kind == kind) {
            return true;
        }
    }
    return false;
}

static void day_text(uint32_t day, char text[static sizeof(HISTORY_FILE_NAME)])
{
    char name[sizeof(HISTORY_FILE_NAME)];
    history_file_name(day, name);
    (void)snprintf(text, sizeof(name), "%s", name + strlen("day-"));
}

static void print_json(const struct cli *c, const struct impact *all, const struct names *names, enum language language)
{
    char from[sizeof(HISTORY_FILE_NAME)], to[sizeof(HISTORY_FILE_NAME)];
    json_t *lines = json_array(), *notices = json_object();
    for (const struct impact_line *l = all->lines; l != NULL; l = l->hh.next) {
        (void)json_array_append_new(lines, line_json(l, names, language));
    }
    for (enum behaviour_kind kind = 0; kind < BEHAVIOUR_KINDS; kind++) {
        struct buf text;
        buf_init(&text, 1U << 14);
        words_notice(&text, kind, c->config, language);
        if (has_kind(all, kind)) {
            (void)json_object_set_new(notices, behaviour_kind_name(kind),
                                      json_stringn((const char *)text.data, text.len));
        }
        buf_fini(&text);
    }
    day_text(all->from_day, from);
    day_text(all->to_day, to);
    json_t *o =
        json_pack("{s:s,s:s,s:I,s:I,s:o,s:{s:I,s:I},s:o}", "from", from, "to", to, "days_seen", (json_int_t)all->days,
                  "days_damaged", (json_int_t)all->damaged_days, "lines", lines, "rest", "lines",
                  (json_int_t)all->rest.lines, "connections", (json_int_t)all->rest.connections, "notices", notices);
    (void)json_dumpf(o, stdout, JSON_INDENT(2));
    (void)fputc('\n', stdout);
    json_decref(o);
}

/* CSV, RFC 4180. What a spreadsheet would take for a formula begins with an apostrophe; no control characters. */

static void put_quoted(char *text)
{
    cli_clean(text);
    (void)fputs(text[0] != '\0' && strchr("=+-@", text[0]) != NULL ? "\"'" : "\"", stdout);
    for (const char *p = text; *p != '\0'; p++) {
        (void)fputs(*p == '"' ? "\"\"" : (char[]){*p, '\0'}, stdout);
    }
    (void)fputc('"', stdout);
}

static void put_words(struct buf *text)
{
    put_quoted(buf_append_byte(text, '\0') == 0 ? (char *)text->data : (char[]){""});
    buf_clear(text);
}

static void put_far(struct buf *out, const struct impact_far *f, const struct names *names, enum language language)
{
    const struct far_name *name = names_find(names, f->address);
    char text[64];
    if (name == NULL) {
        impact_address(f->address, text);
        (void)buf_append_str(out, text);
        return;
    }
    (void)buf_append_str(out, name->host);
    if (name->mx_of[0] != '\0') {
        (void)buf_printf(out, " (%s %s)", words_of(WORD_MX, language), name->mx_of);
    }
}

/* "", "mx1.example.net 12, 192.0.2.1 3" */
static void put_fars(struct buf *out, const struct impact_line *l, const struct names *names, size_t most,
                     enum language language)
{
    for (size_t i = 0; i < l->fars_count && i < most; i++) {
        (void)buf_append_str(out, i > 0 ? ", " : "");
        put_far(out, &l->fars[i], names, language);
        (void)buf_printf(out, " %llux", (unsigned long long)l->fars[i].count);
    }
    if (l->behaviour.destinations > l->fars_count || l->fars_count > most) {
        (void)buf_append_str(out, l->fars_count > 0 ? ", ..." : "...");
    }
}

static void put_reasons(struct buf *out, const struct impact_line *l, enum language language)
{
    for (size_t i = 0; i < l->judgement.count; i++) {
        (void)buf_append_str(out, i > 0 ? "; " : "");
        words_reason(out, l->judgement.why[i].reason, l->judgement.why[i].number, language);
    }
}

static void print_csv(const struct cli *c, const struct impact *all, const struct names *names, enum language language)
{
    (void)fputs("line,class,kind,refused_connections,noted_connections,refused_packets,noted_packets,destinations,"
                "busiest_minute,hours,first,last,why,to,notice\r\n",
                stdout);
    for (const struct impact_line *l = all->lines; l != NULL; l = l->hh.next) {
        char key[64], class_[sizeof(l->class_)], first[32], last[32];
        struct buf text;
        memcpy(class_, l->class_, sizeof(class_));
        impact_key(l->key, key);
        put_time(l->first_ms, first);
        put_time(l->last_ms, last);
        (void)printf("%s,", key);
        put_quoted(class_);
        (void)printf(",%s,%llu,%llu,%llu,%llu,%u,%u,%u,%s,%s,", behaviour_kind_name(l->judgement.kind),
                     (unsigned long long)refused(l), (unsigned long long)noted(l), (unsigned long long)l->packets[0],
                     (unsigned long long)l->packets[1], l->behaviour.destinations, l->behaviour.peak,
                     l->behaviour.hours, first, last);
        buf_init(&text, 1U << 16);
        put_reasons(&text, l, language);
        put_words(&text);
        (void)fputc(',', stdout);
        put_fars(&text, l, names, FARS_ALL, language);
        put_words(&text);
        (void)fputc(',', stdout);
        words_notice(&text, l->judgement.kind, c->config, language);
        put_words(&text);
        (void)fputs("\r\n", stdout);
        buf_fini(&text);
    }
}

/* Text */

static void print_table(const struct cli *c, const struct impact *all, unsigned long most, enum language language)
{
    const struct cli_column columns[] = {
        {"line", words_of(WORD_LINE, language), false},   {"class", words_of(WORD_CLASS, language), false},
        {"kind", words_of(WORD_KIND, language), false},   {"refused", words_of(WORD_REFUSED, language), true},
        {"noted", words_of(WORD_WOULD, language), true},  {"to", words_of(WORD_DESTINATIONS, language), true},
        {"first", words_of(WORD_FIRST, language), false}, {"last", words_of(WORD_LAST, language), false},
    };
    struct cli_table *t = cli_table_new(c, columns, sizeof(columns) / sizeof(columns[0]));
    unsigned long shown = 0;
    for (const struct impact_line *l = all->lines; l != NULL && shown < most; l = l->hh.next, shown++) {
        char key[64], first[32], last[32];
        impact_key(l->key, key);
        put_short_time(l->first_ms, first);
        put_short_time(l->last_ms, last);
        json_t *row =
            json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:s,s:s}", "line", key, "class", l->class_, "kind",
                      words_kind(l->judgement.kind, language), "refused", (json_int_t)refused(l), "noted",
                      (json_int_t)noted(l), "to", (json_int_t)l->behaviour.destinations, "first", first, "last", last);
        cli_table_add(t, row);
        json_decref(row);
    }
    cli_table_end(&t);
}

static void print_words(struct buf *text)
{
    if (buf_append_byte(text, '\0') == 0) {
        cli_clean((char *)text->data);
        (void)puts((const char *)text->data);
    }
    buf_clear(text);
}

static void print_details(const struct impact *all, const struct names *names, unsigned long most,
                          enum language language)
{
    unsigned long shown = 0;
    struct buf text;
    buf_init(&text, 1U << 16);
    for (const struct impact_line *l = all->lines; l != NULL && shown < most; l = l->hh.next, shown++) {
        char key[64];
        impact_key(l->key, key);
        (void)printf("\n%s: %s\n", key, words_kind(l->judgement.kind, language));
        (void)buf_printf(&text, "  %s: ", words_of(WORD_WHY, language));
        put_reasons(&text, l, language);
        print_words(&text);
        (void)buf_printf(&text, "  %s: ", words_of(WORD_TO, language));
        put_fars(&text, l, names, FARS_TEXT, language);
        print_words(&text);
    }
    buf_fini(&text);
}

static void print_notices(const struct cli *c, const struct impact *all, enum language language)
{
    (void)printf("\n%s\n", words_of(WORD_NOTICES, language));
    for (enum behaviour_kind kind = 0; kind < BEHAVIOUR_KINDS; kind++) {
        struct buf text;
        if (!has_kind(all, kind)) {
            continue;
        }
        buf_init(&text, 1U << 14);
        (void)buf_printf(&text, "  %s: ", words_kind(kind, language));
        words_notice(&text, kind, c->config, language);
        print_words(&text);
        buf_fini(&text);
    }
}

static void print_text(const struct cli *c, const struct impact *all, const struct names *names,
                       const struct asked *asked)
{
    char from[sizeof(HISTORY_FILE_NAME)], to[sizeof(HISTORY_FILE_NAME)];
    enum language language = asked->language;
    unsigned long long sums[2] = {0};
    for (const struct impact_line *l = all->lines; l != NULL; l = l->hh.next) {
        sums[0] += refused(l);
        sums[1] += noted(l);
    }
    day_text(all->from_day, from);
    day_text(all->to_day, to);
    (void)printf("%s - %s\n", from, to);
    if (all->damaged_days > 0) {
        (void)printf("%s: %zu\n", words_of(WORD_DAMAGED, language), all->damaged_days);
    }
    if (all->count == 0) {
        (void)printf("%s\n", words_of(WORD_NONE, language));
        return;
    }
    (void)printf("%s: %zu; %s: %llu; %s: %llu\n\n", words_of(WORD_LINES, language), all->count,
                 words_of(WORD_ALL_REFUSED, language), sums[0], words_of(WORD_ALL_NOTED, language), sums[1]);
    print_table(c, all, asked->count, language);
    if (all->count > asked->count) {
        (void)printf("%s: %zu\n", words_of(WORD_MORE, language), all->count - (size_t)asked->count);
    }
    if (all->rest.lines > 0) {
        (void)printf("%s: %llu; %s: %llu\n", words_of(WORD_REST, language), (unsigned long long)all->rest.lines,
                     words_of(WORD_CONNECTIONS, language), (unsigned long long)all->rest.connections);
    }
    print_details(all, names, asked->count, language);
    print_notices(c, all, language);
}

/* The verb */

static void find_names(struct names *names, const struct impact *all, const struct config *config)
{
    for (size_t i = 0; i < FARS_TEXT; i++) { /* everybody's first, then everybody's second... */
        for (const struct impact_line *l = all->lines; l != NULL; l = l->hh.next) {
            if (i < l->fars_count) {
                names_want(names, l->fars[i].address);
            }
        }
    }
    names_look_up(names, config, LOOK_UP_MS);
}

static int report(struct cli *c, const struct asked *asked, int directory_fd)
{
    struct impact all;
    struct names names = {0};
    uint32_t today = history_day(clock_wall_ms());
    uint32_t from = today >= asked->days ? today + 1 - (uint32_t)asked->days : 0;
    int r = impact_read(directory_fd, from, today, &all);
    if (r < 0) {
        cli_error("%s: %s", c->config->processes.gate_directory, strerror(-r));
        return EX_IOERR;
    }
    if (asked->names) {
        find_names(&names, &all, c->config);
    }
    impact_judge(&all, &names);
    if (c->json) {
        print_json(c, &all, &names, asked->language);
    } else if (asked->csv) {
        print_csv(c, &all, &names, asked->language);
    } else {
        print_text(c, &all, &names, asked);
    }
    impact_fini(&all);
    names_fini(&names);
    return 0;
}

static int open_and_report(struct cli *c, const struct asked *asked)
{
    if (cli_config(c) == NULL) {
        return c->unreadable ? EX_NOINPUT : EX_CONFIG;
    }
    const char *directory = c->config->processes.gate_directory;
    if (cli_answers(c, "gate")) {
        int status = cli_ask(c, "gate", json_pack("{s:s}", "verb", "history.save"), NULL, NULL);
        if (status != 0) {
            return status;
        }
    }
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        cli_error("%s: %s", directory, strerror(errno));
        return errno == EACCES ? EX_NOPERM : EX_NOINPUT;
    }
    int status = report(c, asked, fd);
    (void)close(fd);
    return status;
}

static bool take_number(const char *text, unsigned long max, unsigned long *ret)
{
    char *end;
    errno = 0;
    *ret = strtoul(text, &end, 10);
    bool good = text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *ret >= 1 && *ret <= max;
    if (!good) {
        cli_error("\"%s\" should be a number from 1 to %lu", text, max);
    }
    return good;
}

int cli_gate_impact(struct cli *c, int argc, char **argv)
{
    static const char usage[] = "usage: kidoban gate impact [--days N] [--count N] [--lang ja|en] [--no-names] [--csv]";
    struct asked asked = {.days = DAYS_DEFAULT, .count = COUNT_DEFAULT, .names = true};
    bool good = words_language(NULL, &asked.language);
    for (int i = 0; good && i < argc; i++) {
        bool value = i + 1 < argc;
        if (strcmp(argv[i], "--csv") == 0) {
            asked.csv = true;
        } else if (strcmp(argv[i], "--no-names") == 0) {
            asked.names = false;
        } else if (strcmp(argv[i], "--days") == 0 && value) {
            good = take_number(argv[++i], DAYS_MAX, &asked.days);
        } else if (strcmp(argv[i], "--count") == 0 && value) {
            good = take_number(argv[++i], 1000000, &asked.count);
        } else {
            good = strcmp(argv[i], "--lang") == 0 && value && words_language(argv[++i], &asked.language);
        }
    }
    return good ? open_and_report(c, &asked) : cli_usage("%s", usage);
}

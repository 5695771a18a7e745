/*
 * kidoban gate top: the lines that are refused just now, again and again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

#define EVERY_S 2
#define COUNT   20

struct top {
    struct cli_table *table;
    bool json;
};

static void put_row(void *arg, json_t *row)
{
    const struct top *top = arg;
    char rate[32], last[32] = "";
    time_t at = (time_t)(json_integer_value(json_object_get(row, "last_ms")) / 1000);
    struct tm tm;
    if (json_object_get(row, "address") == NULL) {
        return; /* the end: how many there are */
    }
    if (top->json) {
        cli_table_add(top->table, row);
        return;
    }
    (void)snprintf(rate, sizeof(rate), "%.1f", json_real_value(json_object_get(row, "rate")));
    if (localtime_r(&at, &tm) != NULL) {
        (void)strftime(last, sizeof(last), "%H:%M:%S", &tm);
    }
    (void)json_object_set_new(row, "rate_text", json_string(rate));
    (void)json_object_set_new(row, "last", json_string(last));
    const char *verdict = json_string_value(json_object_get(row, "verdict"));
    bool noted = verdict != NULL && strcmp(verdict, "pass") == 0; /* only monitored */
    (void)json_object_set_new(row, "what", json_string(noted ? "noted" : verdict));
    cli_table_add(top->table, row);
}

static int print_once(struct cli *c, json_int_t count)
{
    static const struct cli_column columns[] = {
        {"address", "LINE", false},      {"class", "CLASS", false},    {"what", "WHAT", false},
        {"rate_text", "A SECOND", true}, {"packets", "PACKETS", true}, {"connections", "CONNECTIONS", true},
        {"destinations", "TO", true},    {"last", "LAST", false},
    };
    struct top top = {.table = cli_table_new(c, columns, sizeof(columns) / sizeof(columns[0])), .json = c->json};
    int status = cli_ask(c, "gate", json_pack("{s:s,s:I}", "verb", "gate.top", "count", count), put_row, &top);
    if (status == 0 && !c->json && cli_table_rows(top.table) == 0) {
        (void)puts("nobody is refused just now");
    }
    cli_table_end(&top.table);
    return status;
}

int cli_gate_top(struct cli *c, int argc, char **argv)
{
    static const char usage[] = "usage: kidoban gate top [--once] [--count N]";
    long count = COUNT;
    bool once = c->json, good = true;
    for (int i = 0; good && i < argc; i++) {
        if (strcmp(argv[i], "--once") == 0) {
            once = true;
        } else if (strcmp(argv[i], "--count") == 0 && i + 1 < argc) {
            char *end;
            errno = 0;
            count = strtol(argv[++i], &end, 10);
            good = *end == '\0' && errno == 0 && count >= 1 && count <= 1000;
        } else {
            good = false;
        }
    }
    if (!good) {
        return cli_usage("%s", usage);
    }
    int status = 0;
    for (bool more = true; more && status == 0; more = !once && ferror(stdout) == 0) {
        if (!once && isatty(STDOUT_FILENO) == 1) {
            (void)fputs("\033[H\033[J", stdout);
        }
        status = print_once(c, count);
        if (!once && status == 0) {
            (void)fflush(stdout);
            (void)sleep(EVERY_S);
        }
    }
    return status;
}

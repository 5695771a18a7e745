/*
 * kidoban status: the house at a glance. What several processes of one kind count is added up; figures count since the
 * process started. With --json everything stands there as the processes told it.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static bool has(const json_t *status, const char *role)
{
    size_t i;
    const json_t *one;
    json_array_foreach(json_object_get(status, "processes"), i, one)
    {
        const char *its = json_string_value(json_object_get(one, "role"));
        if (its != NULL && strcmp(its, role) == 0) {
            return true;
        }
    }
    return false;
}

/* Of all processes with that role. */
static json_int_t sum(const json_t *status, const char *role, const char *figure)
{
    json_int_t total = 0;
    size_t i;
    const json_t *one;
    json_array_foreach(json_object_get(status, "processes"), i, one)
    {
        const char *its = json_string_value(json_object_get(one, "role"));
        if (its != NULL && strcmp(its, role) == 0) {
            total += json_integer_value(json_object_get(json_object_get(one, "figures"), figure));
        }
    }
    return total;
}

static void put_age(json_int_t seconds, struct buf *out)
{
    static const struct {
        json_int_t seconds;
        const char *name;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    size_t i = 0;
    while (i < 3 && seconds < units[i].seconds) {
        i++;
    }
    (void)buf_printf(out, "%lld %s", (long long)(seconds / units[i].seconds), units[i].name);
    json_int_t rest = i < 3 ? seconds % units[i].seconds / units[i + 1].seconds : 0;
    if (rest > 0) {
        (void)buf_printf(out, " %lld %s", (long long)rest, units[i + 1].name);
    }
}

static void put_count(struct buf *out, json_int_t n, const char *noun)
{
    (void)buf_printf(out, "%lld %s%s", (long long)n, noun, n == 1 ? "" : "s");
}

static void submission_words(const json_t *s, struct buf *out)
{
    put_count(out, sum(s, "submit", "sessions_open"), "session");
    (void)buf_append_str(out, " open; ");
    put_count(out, sum(s, "submit", "messages"), "message");
    (void)buf_printf(out, " taken, %lld refused; logins: %lld good, %lld wrong", (long long)sum(s, "submit", "refused"),
                     (long long)sum(s, "submit", "auth_ok"), (long long)sum(s, "submit", "auth_failed"));
    if (sum(s, "submit", "sessions_refused") > 0) {
        (void)buf_append_str(out, "; ");
        put_count(out, sum(s, "submit", "sessions_refused"), "connection");
        (void)buf_append_str(out, " refused");
    }
}

static void queue_words(const json_t *s, struct buf *out)
{
    put_count(out, sum(s, "spool", "messages"), "message");
    (void)buf_append_str(out, " for ");
    put_count(out, sum(s, "spool", "recipients"), "recipient");
    (void)buf_printf(out, ": %lld under way, %lld held", (long long)sum(s, "spool", "delivering"),
                     (long long)sum(s, "spool", "held"));
    if (sum(s, "spool", "messages") > 0) {
        (void)buf_append_str(out, "; the oldest ");
        put_age(sum(s, "spool", "oldest_age_ms") / 1000, out);
    }
    (void)buf_printf(out, "; %.1f GiB free", (double)sum(s, "spool", "disk_free") / (1024.0 * 1024.0 * 1024.0));
}

static void relay_words(const json_t *s, struct buf *out)
{
    (void)buf_printf(out, "%lld delivered, %lld put off, %lld failed; ", (long long)sum(s, "deliver", "delivered"),
                     (long long)sum(s, "deliver", "deferred"), (long long)sum(s, "deliver", "failed"));
    put_count(out, sum(s, "deliver", "connections"), "connection");
    (void)buf_append_str(out, " open");
}

static void guard_words(const json_t *s, struct buf *out)
{
    (void)buf_printf(out, "%lld put off, %lld refused, %lld held by limits; ", (long long)sum(s, "guard", "deferred"),
                     (long long)sum(s, "guard", "rejected"), (long long)sum(s, "guard", "held"));
    put_count(out, sum(s, "guard", "suspended_accounts"), "account");
    (void)buf_append_str(out, " suspended");
}

static const char *mode_of_gate(const json_t *status)
{
    size_t i;
    const json_t *one;
    json_array_foreach(json_object_get(status, "processes"), i, one)
    {
        const char *mode = json_string_value(json_object_get(json_object_get(one, "figures"), "mode"));
        if (mode != NULL) {
            return mode;
        }
    }
    return "starting";
}

static void gate_words(const json_t *s, struct buf *out)
{
    (void)buf_printf(out, "%s; ", mode_of_gate(s));
    put_count(out, sum(s, "gate", "places"), "program");
    (void)buf_append_str(out, " attached; ");
    (void)buf_printf(out, "prefixes: %lld; %lld refused, %lld dropped, %lld passed",
                     (long long)sum(s, "gate", "prefixes"), (long long)sum(s, "gate", "refused"),
                     (long long)sum(s, "gate", "dropped"), (long long)sum(s, "gate", "passed"));
    json_int_t would = sum(s, "gate", "would_refuse") + sum(s, "gate", "would_drop");
    if (would > 0) {
        (void)buf_printf(out, ", %lld only watched", (long long)would);
    }
}

/* What clients did against the rules, and what of ours needs a look: only what there is. */
static void incident_words(const json_t *s, struct buf *out)
{
    static const char *const ours[][2] = {{"spool", "damaged"}, {"spool", "write_failures"}, {"deliver", "damaged"}};
    size_t i;
    const json_t *one;
    const char *key;
    json_t *value, *names = json_object();
    json_array_foreach(json_object_get(s, "processes"), i, one)
    {
        json_object_foreach(json_object_get(one, "figures"), key, value)
        {
            json_int_t n = json_integer_value(value) + json_integer_value(json_object_get(names, key));
            if (strncmp(key, "smtp-", 5) == 0 && n > 0) {
                (void)json_object_set_new(names, key, json_integer(n));
            }
        }
    }
    for (i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        json_int_t n = sum(s, ours[i][0], ours[i][1]);
        if (n > 0) {
            (void)buf_printf(out, "%s%s %s %lld", out->len > 0 ? ", " : "", ours[i][0], ours[i][1], (long long)n);
        }
    }
    json_object_foreach(names, key, value)
    {
        (void)buf_printf(out, "%s%s %lld", out->len > 0 ? ", " : "", key, (long long)json_integer_value(value));
    }
    json_decref(names);
}

static void print_words(const json_t *status)
{
    static const struct {
        const char *title, *role; /* NULL: any */
        void (*words)(const json_t *s, struct buf *out);
    } lines[] = {{"submission", "submit", submission_words},
                 {"queue", "spool", queue_words},
                 {"relay", "deliver", relay_words},
                 {"gate", "gate", gate_words},
                 {"guard", "guard", guard_words},
                 {"incidents", NULL, incident_words}};
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct buf b;
        buf_init(&b, 4096);
        if (lines[i].role == NULL || has(status, lines[i].role)) {
            lines[i].words(status, &b);
        }
        if (b.len > 0) {
            (void)printf("%-10s  %.*s\n", lines[i].title, (int)b.len, (const char *)b.data);
        }
        buf_fini(&b);
    }
}

static void print_processes(const struct cli *c, const json_t *status)
{
    static const struct cli_column columns[] = {{"role", "PROCESS", false}, {"instance", "NO.", true},
                                                {"state", "STATE", false},  {"pid", "PID", true},
                                                {"up", "UP", true},         {"restarts", "RESTARTS", true}};
    struct cli_table *t = cli_table_new(c, columns, sizeof(columns) / sizeof(columns[0]));
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(status, "processes"), i, one)
    {
        struct buf up;
        buf_init(&up, 64);
        put_age(json_integer_value(json_object_get(one, "uptime_s")), &up);
        (void)json_object_set_new(one, "up", json_stringn((const char *)up.data, up.len));
        buf_fini(&up);
        cli_table_add(t, one);
    }
    cli_table_end(&t);
}

void cli_print_status(void *arg, json_t *status)
{
    const struct cli *c = arg;
    if (c->json) {
        cli_print_object(c, status);
        return;
    }
    struct buf head;
    size_t i;
    const json_t *one;
    buf_init(&head, 1U << 16);
    (void)buf_printf(&head, "kidoband %s, up ", json_string_value(json_object_get(status, "version")));
    put_age(json_integer_value(json_object_get(status, "uptime_s")), &head);
    (void)buf_printf(&head, ", %s", json_string_value(json_object_get(status, "config")));
    json_array_foreach(json_object_get(status, "listen"), i, one)
    {
        (void)buf_printf(&head, "%s%s", i == 0 ? "\nlistens on " : ", ", json_string_value(one));
    }
    (void)printf("%.*s\n\n", (int)head.len, (const char *)head.data);
    buf_fini(&head);
    print_words(status);
    (void)fputc('\n', stdout);
    print_processes(c, status);
}

/*
 * `kidoban gate replay` judges every packet of a capture; `kidoban gate diff` says which of them another policy would
 * judge otherwise. Neither needs an interface or a daemon, and only the kernel's engine needs rights. The reference's
 * rates run by the capture's own clock; where the kernel judges too, every connection is its subject's first.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/capture.h"
#include "cli/gate.h"
#include "cli/gate_kernel.h"

enum engine { ENGINE_REFERENCE, ENGINE_KERNEL, ENGINE_BOTH, ENGINES };

static const char *const engine_names[ENGINES] = {"reference", "kernel", "both"};

struct options {
    const char *pcap;
    enum engine engine;
    enum packet_side side;
    bool side_given;
    const char *old, *new; /* diff */
};

/* A file being read, whatever is done with its packets. */
struct source {
    FILE *file;
    struct capture *capture;
};

static int source_open(struct source *s, const char *path)
{
    const char *error;
    *s = (struct source){.file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re")};
    if (s->file == NULL) {
        cli_error("%s: %s", path, strerror(errno));
        return EX_NOINPUT;
    }
    if (capture_open(s->file, &s->capture, &error) < 0) {
        cli_error("%s: %s", path, error);
        return EX_DATAERR;
    }
    return 0;
}

static void source_close(struct source *s)
{
    capture_close(&s->capture);
    if (s->file != NULL && s->file != stdin) {
        (void)fclose(s->file);
    }
}

/* Each packet to seen; 0, or an exit status after saying why. */
static int each_packet(const char *path, void (*seen)(void *arg, uint64_t number, const struct capture_packet *k),
                       void *arg)
{
    struct source s;
    struct capture_packet k;
    const char *error;
    int status = source_open(&s, path), r = 0;
    for (uint64_t number = 1; status == 0 && (r = capture_next(s.capture, &k, &error)) > 0; number++) {
        seen(arg, number, &k);
    }
    if (r < 0) {
        cli_error("%s: %s", path, error);
        status = EX_DATAERR;
    }
    source_close(&s);
    return status;
}

static struct policy_question question_of(const struct capture_packet *k, enum packet_side side,
                                          struct policy_rates *rates)
{
    return (struct policy_question){
        .side = side, .link = k->link, .frame = k->frame, .now_boot_ns = k->time_ns, .rates = rates};
}

/* Options */

static bool take_engine(const char *word, struct options *o)
{
    for (size_t i = 0; i < ENGINES; i++) {
        if (strcmp(engine_names[i], word) == 0) {
            o->engine = (enum engine)i;
            return true;
        }
    }
    cli_error("there is no engine \"%s\"; there are reference, kernel and both", word);
    return false;
}

static bool take_options(int argc, char **argv, struct options *o)
{
    for (int i = 0; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strncmp(argv[i], "--", 2) != 0) {
            const char **place = o->old == NULL ? &o->old : &o->new;
            if (o->new != NULL) {
                return false;
            }
            *place = argv[i];
            continue;
        }
        i++;
        if (value != NULL && strcmp(argv[i - 1], "--pcap") == 0) {
            o->pcap = value;
        } else if (value != NULL && strcmp(argv[i - 1], "--side") == 0) {
            o->side_given = cli_gate_side(value, &o->side);
        } else if (value == NULL || strcmp(argv[i - 1], "--engine") != 0 || !take_engine(value, o)) {
            return false;
        }
    }
    return o->pcap != NULL && o->side_given;
}

/* kidoban gate replay */

struct replay {
    const struct options *options;
    const struct policy *policy;
    struct policy_rates *rates; /* the reference alone has the capture's clock */
    struct gate_kernel *kernel;
    bool differs;
    int error;
};

/* What the engine says; of both, what the reference says, and on *ret_kernel what the kernel does where it differs. */
static struct policy_judgement ask(struct replay *r, const struct policy_question *q,
                                   struct policy_judgement *ret_kernel, bool *ret_differs)
{
    struct policy_judgement j = {0};
    *ret_differs = false;
    if (r->options->engine != ENGINE_KERNEL) {
        policy_evaluate(r->policy, q, &j);
    }
    if (r->options->engine != ENGINE_REFERENCE) {
        int error = gate_kernel_judge(r->kernel, q, ret_kernel);
        r->error = r->error == 0 ? error : r->error;
        *ret_differs = r->options->engine == ENGINE_BOTH && error == 0 && !gate_kernel_agrees(&j, ret_kernel);
    }
    r->differs = r->differs || *ret_differs;
    return r->options->engine == ENGINE_KERNEL ? *ret_kernel : j;
}

static void replay_one(void *arg, uint64_t number, const struct capture_packet *k)
{
    struct replay *r = arg;
    const struct policy_question q = question_of(k, r->options->side, r->rates);
    struct policy_judgement other;
    bool differs;
    const struct policy_judgement j = ask(r, &q, &other, &differs);
    json_t *line = json_pack("{s:I}", "packet", (json_int_t)number), *rest = cli_gate_judgement(&j);
    (void)json_object_update(line, rest);
    if (k->truncated) {
        (void)json_object_set_new(line, "truncated", json_true());
    }
    if (differs) {
        (void)json_object_set_new(line, "kernel", cli_gate_judgement(&other));
    }
    (void)json_dumpf(line, stdout, JSON_COMPACT);
    (void)fputc('\n', stdout);
    json_decref(rest);
    json_decref(line);
}

static int replay(struct replay *r)
{
    int error = r->options->engine != ENGINE_REFERENCE ? gate_kernel_open(r->policy, r->options->side, &r->kernel) : 0;
    if (error < 0) {
        cli_error("the program cannot be loaded into the kernel: %s%s", strerror(-error),
                  error == -EPERM ? " (it takes root, or CAP_BPF and CAP_NET_ADMIN)" : "");
        return error == -EPERM ? EX_NOPERM : EX_OSERR;
    }
    int status = each_packet(r->options->pcap, replay_one, r);
    gate_kernel_close(&r->kernel);
    if (status == 0 && r->error < 0) {
        cli_error("the kernel did not run every packet: %s", strerror(-r->error));
        return EX_OSERR;
    }
    return status == 0 && r->differs ? 1 : status;
}

int cli_gate_replay(struct cli *c, int argc, char **argv)
{
    struct options o = {0};
    if (!take_options(argc, argv, &o) || o.old != NULL) {
        return cli_usage(
            "usage: kidoban gate replay --pcap FILE --side subscriber|uplink [--engine reference|kernel|both]");
    }
    int status;
    struct policy *p = cli_gate_policy(c, &status);
    if (p != NULL) {
        struct replay r = {.options = &o, .policy = p};
        r.rates = o.engine == ENGINE_REFERENCE ? policy_rates_new() : NULL;
        status = replay(&r);
        policy_rates_free(&r.rates);
    }
    policy_free(&p);
    return status;
}

/* kidoban gate diff */

struct diff {
    const struct options *options;
    struct policy *old, *new;
    struct policy_rates *old_rates, *new_rates;
    struct cli_table *table;
};

static bool never(const void *arg, const struct policy_address *far)
{
    (void)arg;
    (void)far;
    return false;
}

/* "refuse (class dynamic)" */
static json_t *words_of(const struct policy_judgement *j)
{
    const char *name = j->asked && j->class_ != 0 ? j->class_name : "";
    const char *would = j->would != j->verdict ? policy_verdict_name(j->would) : NULL;
    return json_sprintf("%s%s%s (%s%s%s)", policy_verdict_name(j->verdict), would != NULL ? ", would " : "",
                        would != NULL ? would : "", policy_reason_name(j->reason), name[0] != '\0' ? " " : "", name);
}

static void diff_one(void *arg, uint64_t number, const struct capture_packet *k)
{
    struct diff *d = arg;
    const struct policy_question old = question_of(k, d->options->side, d->old_rates);
    const struct policy_question new = question_of(k, d->options->side, d->new_rates);
    struct policy_judgement was, is;
    struct packet packet;
    policy_evaluate(d->old, &old, &was);
    policy_evaluate(d->new, &new, &is);
    if (was.verdict == is.verdict && was.would == is.would) {
        return;
    }
    char from[POLICY_ADDRESS_TEXT] = "", to[POLICY_ADDRESS_TEXT] = "";
    packet_read(k->frame, k->link, d->options->side, never, NULL, &packet);
    if (packet.layers_count > 0) {
        policy_address_format(&packet.layers[0].source, from);
        policy_address_format(&packet.layers[0].destination, to);
    }
    json_t *row = json_pack("{s:I,s:s,s:s,s:o,s:o}", "packet", (json_int_t)number, "from", from, "to", to, "old",
                            words_of(&was), "new", words_of(&is));
    cli_table_add(d->table, row);
    json_decref(row);
}

/* What was changed at run time is asked once, of the keeper that the old configuration names: it holds for both. */
static struct policy *policy_of(const struct cli *c, const char *path, struct runtime **runtime, int *ret_status)
{
    struct cli one = *c;
    one.config = NULL;
    one.config_path = path;
    if (*runtime == NULL) {
        *runtime = cli_gate_runtime(&one, ret_status);
        if (*runtime != NULL) {
            cli_gate_hold(*runtime);
        }
    }
    struct policy *p = *runtime != NULL ? cli_gate_policy_with(&one, *runtime, ret_status) : NULL;
    config_free(&one.config);
    return p;
}

int cli_gate_diff(struct cli *c, int argc, char **argv)
{
    static const struct cli_column columns[] = {{"packet", "PACKET", true},
                                                {"from", "FROM", false},
                                                {"to", "TO", false},
                                                {"old", "OLD", false},
                                                {"new", "NEW", false}};
    struct options o = {0};
    if (!take_options(argc, argv, &o) || o.new == NULL) {
        return cli_usage("usage: kidoban gate diff OLD NEW --pcap FILE --side subscriber|uplink");
    }
    int status = 0;
    struct runtime *runtime = NULL;
    struct diff d = {.options = &o, .old_rates = policy_rates_new(), .new_rates = policy_rates_new()};
    d.old = policy_of(c, o.old, &runtime, &status);
    d.new = d.old != NULL ? policy_of(c, o.new, &runtime, &status) : NULL;
    if (d.new != NULL) {
        d.table = cli_table_new(c, columns, sizeof(columns) / sizeof(columns[0]));
        status = each_packet(o.pcap, diff_one, &d);
        status = status == 0 && cli_table_rows(d.table) > 0 ? 1 : status;
        cli_table_end(&d.table);
    }
    policy_free(&d.old);
    policy_free(&d.new);
    runtime_free(&runtime);
    policy_rates_free(&d.old_rates);
    policy_rates_free(&d.new_rates);
    return status;
}

/*
 * What the verbs of the gate share, and `kidoban gate test`: one packet, judged by the reference and in the kernel.
 */
#include "cli/gate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/gate_loaded.h"
#include "common/clock.h"

struct runtime_moment cli_gate_now(void)
{
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    return (struct runtime_moment){.wall_ms = clock_wall_ms(),
                                   .boot_ns = (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec};
}

static void take_runtime(void *arg, json_t *line)
{
    struct runtime **r = arg;
    if (*r != NULL || runtime_parse(line, r) < 0) {
        runtime_free(r); /* two answers are none */
    }
}

struct runtime *cli_gate_runtime(struct cli *c, int *ret_status)
{
    struct runtime *r = NULL;
    *ret_status = EX_OSERR;
    if (cli_config(c) == NULL) {
        *ret_status = c->unreadable ? EX_NOINPUT : EX_CONFIG;
        return NULL;
    }
    int fd = cli_connect(c, "gate");
    if (fd == -EACCES) {
        cli_error("you may not ask the gate's keeper: without what was changed at run time");
    }
    if (fd < 0) {
        return runtime_new();
    }
    (void)close(fd);
    int status = cli_ask(c, "gate", json_pack("{s:s}", "verb", "gate.runtime"), take_runtime, &r);
    if (status == 0 && r == NULL) {
        cli_error("what was changed at run time does not read");
        status = EX_PROTOCOL;
    }
    *ret_status = status;
    return r;
}

struct policy *cli_gate_policy_with(struct cli *c, const struct runtime *runtime, int *ret_status)
{
    struct policy *p = NULL;
    struct config_complaints complaints = {0};
    const struct runtime_moment now = cli_gate_now();
    *ret_status = EX_CONFIG;
    if (cli_config(c) == NULL) {
        *ret_status = c->unreadable ? EX_NOINPUT : EX_CONFIG;
        return NULL;
    }
    if (!c->config->gate.present) {
        cli_error("%s has no section \"gate\"", c->config_path);
        return NULL;
    }
    int r = config_gate_read_files(c->config, c->config_path, NULL, &complaints);
    r = r < 0 ? r : runtime_policy(runtime, &c->config->gate, &now, &p);
    if (complaints.count > 0) {
        cli_print_complaints(c, &complaints, false);
    } else if (r < 0) {
        cli_error("%s: %s", c->config_path, strerror(-r));
        *ret_status = EX_OSERR;
    }
    config_complaints_fini(&complaints);
    return p;
}

static void forget(void *arg, const struct runtime_exemption *e)
{
    (void)arg;
    (void)e;
}

void cli_gate_hold(struct runtime *r)
{
    (void)runtime_prune(r, runtime_now(r, clock_wall_ms()), forget, NULL);
    for (size_t i = 0; i < r->exemptions_count; i++) {
        r->exemptions[i].until_ms = 0;
    }
}

struct policy *cli_gate_policy(struct cli *c, int *ret_status)
{
    struct runtime *r = cli_gate_runtime(c, ret_status);
    if (r == NULL) {
        return NULL;
    }
    cli_gate_hold(r);
    struct policy *p = cli_gate_policy_with(c, r, ret_status);
    runtime_free(&r);
    return p;
}

bool cli_gate_side(const char *word, enum packet_side *ret)
{
    bool subscriber = strcmp(word, "subscriber") == 0;
    if (!subscriber && strcmp(word, "uplink") != 0) {
        cli_error("--side should be subscriber or uplink, not \"%s\"", word);
        return false;
    }
    *ret = subscriber ? PACKET_SUBSCRIBER : PACKET_UPLINK;
    return true;
}

json_t *cli_gate_judgement(const struct policy_judgement *j)
{
    const char *class_name = j->asked && j->class_ != 0 ? j->class_name : NULL;
    json_t *o = json_pack("{s:s,s:s,s:s?}", "verdict", policy_verdict_name(j->verdict), "rule",
                          policy_reason_name(j->reason), "class", class_name);
    if (o != NULL && j->would != j->verdict) {
        (void)json_object_set_new(o, "would", json_string(policy_verdict_name(j->would)));
    }
    return o;
}

/* kidoban gate test */

#define FRAME_MAX    60
#define ETHER_HEADER 14

struct asked {
    struct policy_address from, to;
    uint16_t port, source_port;
    enum packet_side side;
};

static void put16(uint8_t *at, unsigned n)
{
    at[0] = (uint8_t)(n >> 8);
    at[1] = (uint8_t)n;
}

/* Bare IP with a TCP header: what begins a connection, or from port 25 what answers that. */
static size_t build(const struct asked *a, uint8_t frame[static FRAME_MAX])
{
    size_t header = a->from.v6 ? 40 : 20;
    memset(frame, 0, FRAME_MAX);
    if (a->from.v6) {
        frame[0] = 0x60;
        put16(frame + 4, 20);
        frame[6] = 6;
        frame[7] = 64;
        memcpy(frame + 8, a->from.bytes, 16);
        memcpy(frame + 24, a->to.bytes, 16);
    } else {
        frame[0] = 0x45;
        put16(frame + 2, 40);
        frame[8] = 64;
        frame[9] = 6;
        memcpy(frame + 12, a->from.bytes, 4);
        memcpy(frame + 16, a->to.bytes, 4);
    }
    put16(frame + header, a->source_port);
    put16(frame + header + 2, a->port);
    frame[header + 12] = 5 << 4;
    frame[header + 13] = a->source_port == 25 ? 0x12 : 0x02;
    return header + 20;
}

static bool parse_port(const char *text, uint16_t *ret)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || n > 65535) {
        cli_error("\"%s\" is not a port", text);
        return false;
    }
    *ret = (uint16_t)n;
    return true;
}

static bool parse_address(const char *text, struct policy_address *ret)
{
    if (policy_address_parse(text, ret) < 0) {
        cli_error("\"%s\" is not an address", text);
        return false;
    }
    return true;
}

/* What it was that listed the subject: the longest prefix of its class. */
static const struct policy_prefix *prefix_of(const struct policy *p, const struct policy_judgement *j)
{
    const struct policy_prefix *best = NULL;
    for (size_t i = 0; i < p->sources_count; i++) {
        const struct policy_prefix *one = &p->sources[i].prefix;
        if ((best == NULL || one->bits > best->bits) && policy_prefix_contains(one, &j->subject)) {
            best = one;
        }
    }
    return best;
}

static json_t *describe(const struct policy *p, const struct policy_judgement *j)
{
    char subject[POLICY_ADDRESS_TEXT], text[POLICY_PREFIX_TEXT];
    json_t *o = cli_gate_judgement(j);
    if (o == NULL || !j->asked) {
        return o;
    }
    const struct policy_prefix *prefix = prefix_of(p, j);
    policy_address_format(&j->subject, subject);
    (void)json_object_set_new(o, "line", json_string(subject));
    (void)json_object_set_new(o, "port25", json_string(policy_rule_name(p->classes[j->class_].rule)));
    if (prefix != NULL) {
        policy_prefix_format(prefix, text);
        (void)json_object_set_new(o, "prefix", json_string(text));
    }
    return o;
}

static json_t *kernel_json(const struct loaded_answer *k)
{
    json_t *o = json_pack("{s:s,s:s?,s:s}", "verdict", policy_verdict_name(k->verdict), "rule",
                          k->has_rule ? policy_reason_name(k->rule) : NULL, "program", k->keeper ? "keeper" : "own");
    if (o != NULL && k->would != k->verdict) {
        (void)json_object_set_new(o, "would", json_string(policy_verdict_name(k->would)));
    }
    return o;
}

static json_t *kernel_words(const struct loaded_answer *k)
{
    bool would = k->would != k->verdict;
    return json_sprintf("%s, by %s%s%s (%s)", policy_verdict_name(k->verdict),
                        k->has_rule ? policy_reason_name(k->rule) : "no policy", would ? ", would " : "",
                        would ? policy_verdict_name(k->would) : "",
                        k->keeper ? "the keeper's program" : "a program loaded for this");
}

/* Asks the kernel, too. Does what it says fit? Where it cannot be asked, it does. */
static bool add_kernel(const struct cli *c, const struct policy *p, const struct policy_question *q,
                       const struct policy_judgement *j, json_t *o)
{
    struct loaded_answer k;
    int r = gate_loaded_ask(c->config->gate.pins, p, q, &k);
    if (r < 0) {
        (void)json_object_set_new(o, "kernel",
                                  c->json ? json_null() : json_sprintf("cannot be asked: %s", strerror(-r)));
        return true;
    }
    (void)json_object_set_new(o, "kernel", c->json ? kernel_json(&k) : kernel_words(&k));
    return k.verdict == j->verdict && k.has_rule && k.rule == j->reason;
}

static int judge(struct cli *c, const struct asked *a)
{
    static const uint8_t ethertypes[2][2] = {{0x08, 0x00}, {0x86, 0xdd}};
    uint8_t frame[ETHER_HEADER + FRAME_MAX] = {0};
    struct policy_judgement j;
    int status;
    struct policy *p = cli_gate_policy(c, &status);
    if (p == NULL) {
        return status;
    }
    memcpy(frame + ETHER_HEADER - 2, ethertypes[a->from.v6 ? 1 : 0], 2);
    size_t len = ETHER_HEADER + build(a, frame + ETHER_HEADER);
    const struct policy_question q = {.side = a->side, .link = PACKET_ETHERNET, .frame = {frame, len}};
    policy_evaluate(p, &q, &j);
    json_t *o = describe(p, &j);
    if (!add_kernel(c, p, &q, &j, o)) {
        cli_error("the program in the kernel and the configuration do not say the same: not reloaded, or a rate");
    }
    cli_print_object(c, o);
    json_decref(o);
    policy_free(&p);
    return j.verdict == POLICY_PASS ? 0 : 1;
}

int cli_gate_test(struct cli *c, int argc, char **argv)
{
    static const char usage[] =
        "usage: kidoban gate test --from ADDRESS --to ADDRESS [--port N] [--source-port N] [--side subscriber|uplink]";
    struct asked a = {.port = 25, .source_port = 49152};
    bool from = false, to = false, good = argc % 2 == 0;
    for (int i = 0; good && i < argc; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--from") == 0) {
            good = from = parse_address(value, &a.from);
        } else if (strcmp(argv[i], "--to") == 0) {
            good = to = parse_address(value, &a.to);
        } else if (strcmp(argv[i], "--port") == 0) {
            good = parse_port(value, &a.port);
        } else if (strcmp(argv[i], "--source-port") == 0) {
            good = parse_port(value, &a.source_port);
        } else {
            good = strcmp(argv[i], "--side") == 0 && cli_gate_side(value, &a.side);
        }
    }
    if (!good || !from || !to) {
        return cli_usage("%s", usage);
    }
    if (a.from.v6 != a.to.v6) {
        return cli_usage("both addresses should be of one family");
    }
    return judge(c, &a);
}

/*
 * gate_cost [--rounds N] [--runs N] [--cold N] [--prefixes N] [--seed N]: what the gate costs a packet, in nanoseconds
 * of this thread's processor time a run, by BPF_PROG_TEST_RUN. See bench/gate, which reads what it prints.
 *
 * A case is a program on a frame. In each round every case has its turn, so that whatever disturbs the machine disturbs
 * all; each case names its floor, the same frame through a program that does nothing. "fed": a program before it
 * gives each run another of RIG_SOURCES source addresses, and goes on to the one under test by a tail call; its floor
 * does too. A block of it is --cold runs, so that all the others have had their turn with the caches before a source
 * comes again. What must be refused is counted by the gate itself, and compared.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "common/log.h"
#include "gate/program.h"
#include "gate_rig.h"
#include "gate_rig.skel.h"
#include "gate_set.h"
#include "policy/compile.h"
#include "policy/law_fake.h"

#define CASES_MAX 64
#define TEN       10

static void fail(const char *what, int error)
{
    log_flush();
    (void)fprintf(stderr, "gate-cost: %s: %s\n", what, strerror(error));
    exit(2);
}

static void *need(void *p)
{
    if (p == NULL) {
        fail("no memory", ENOMEM);
    }
    return p;
}

/* A gate with a policy. */

struct gate {
    struct gate_program program;
    uint64_t refused; /* as its counters must say */
};

static void enforce(struct gate *g, const struct policy *p)
{
    struct policy_rows rows = {0};
    struct policy_blob blob;
    int r = gate_program_load((struct gate_kind){0}, NULL, &g->program);
    r = r == 0 ? policy_rows_assign(&rows, p) : r;
    r = r == 0 ? policy_compile(p, &rows, 1, &blob) : r;
    r = r == 0 ? gate_policy_set(&g->program.maps, blob.cells, blob.count) : r;
    if (r < 0) {
        fail("a gate does not stand", -r);
    }
    free(blob.cells);
    policy_rows_fini(&rows);
}

/* These prefixes have that rule; what is refused gets no answer. */
static void enforce_prefixes(struct gate *g, enum config_port25 rule, struct net_prefix *prefixes, size_t count,
                             const struct policy_exemption *exemptions, size_t exemptions_count)
{
    struct config_gate_class lines = {
        .name = (char *)(uintptr_t) "lines", .port25 = rule, .prefixes = {.list = prefixes, .count = count}};
    struct config_gate gate = {.present = true,
                               .refuse_with = GATE_DROP,
                               .default_ = PORT25_ALLOW,
                               .events_per_second = 1,
                               .resets_per_second = 20,
                               .classes = &lines,
                               .classes_count = 1};
    struct policy *p = NULL;
    int r = policy_new(&gate, exemptions, exemptions_count, &p);
    if (r < 0) {
        fail("no policy", -r);
    }
    enforce(g, p);
    policy_free(&p);
}

static uint64_t refused_by(const struct gate *g)
{
    static struct gate_row rows[1024];
    uint64_t sum = 0;
    uint32_t row = 1;
    int cpus = libbpf_num_possible_cpus();
    if (cpus < 0 || cpus > 1024 || bpf_map_lookup_elem(g->program.maps.fd[GATE_MAP_ROWS], &row, rows) < 0) {
        fail("no counters", EIO);
    }
    for (int i = 0; i < cpus; i++) {
        sum += rows[i].count[GATE_REFUSED];
    }
    return sum;
}

/* Ten prefixes of each family: what the frames of the law come from, and nine more. */
static struct net_prefix *ten_new(bool v6)
{
    static const char *const v4[TEN] = {"198.51.100.0/22", "10.16.0.0/12",   "100.64.0.0/10",  "172.16.0.0/12",
                                        "59.128.0.0/12",   "203.0.112.0/21", "133.192.0.0/13", "36.8.0.0/14",
                                        "150.31.0.0/16",   "219.96.0.0/11"};
    static const char *const six[TEN] = {"2001:db8:100::/40", "2400:4000::/28", "2001:240::/32", "2409:10::/30",
                                         "2001:268::/32",     "240b::/24",      "240d:10::/28",  "2001:c80::/32",
                                         "2402:4::/32",       "2405:6580::/29"};
    struct net_prefix *all = need(calloc(TEN, sizeof(*all)));
    for (size_t i = 0; i < TEN; i++) {
        if (config_gate_prefix_parse((v6 ? six : v4)[i], &all[i]) != NULL) {
            fail(v6 ? six[i] : v4[i], EINVAL);
        }
    }
    return all;
}

/* The rigs */

static struct gate_rig_bpf *rig_new(bool v6)
{
    struct gate_rig_bpf *rig = need(gate_rig_bpf__open());
    rig->rodata->rig_v6 = v6;
    int r = gate_rig_bpf__load(rig);
    if (r < 0) {
        fail("the rig does not load", -r);
    }
    return rig;
}

static void rig_fill(const struct gate_rig_bpf *rig, const struct net_prefix *from, size_t count, uint64_t *seed)
{
    size_t size = RIG_SOURCES * sizeof(struct rig_source);
    struct rig_source *sources =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(rig->maps.rig_sources), 0);
    if (sources == MAP_FAILED) {
        fail("the sources", errno);
    }
    /* Each prefix as often as the others, in no order. */
    size_t *order = need(calloc(RIG_SOURCES, sizeof(*order)));
    for (size_t i = 0; i < RIG_SOURCES; i++) {
        size_t k = gate_set_draw(seed) % (i + 1);
        order[i] = order[k];
        order[k] = i;
    }
    for (size_t i = 0; i < RIG_SOURCES; i++) {
        struct policy_address a = gate_set_address(&from[order[i] % count], seed);
        memcpy(sources[i].address, a.bytes, sizeof(sources[i].address));
    }
    free(order);
    (void)munmap(sources, size);
}

static void rig_plant(const struct gate_rig_bpf *rig, const struct net_prefix *prefixes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct policy_prefix p = policy_prefix_of(&prefixes[i]);
        struct rig_prefix key = {.bits = p.bits};
        uint32_t one = 1;
        memcpy(key.address, p.bytes, sizeof(key.address));
        if (bpf_map_update_elem(bpf_map__fd(rig->maps.rig_trie), &key, &one, BPF_ANY) < 0) {
            fail("the kernel's trie", errno);
        }
    }
}

/* Cases */

struct case_ {
    const char *name, *floor;       /* floor: the case to take away; NULL: it is one */
    const struct gate_rig_bpf *rig; /* fed by it, or NULL */
    int fd;                         /* the program under test */
    uint32_t returns;               /* an enum xdp_action */
    struct gate *refuses;           /* counts these runs as refused, or NULL */
    uint8_t frame[FRAME_FAKE_MAX];
    size_t len;
    double ns; /* of the last block */
};

static struct case_ cases[CASES_MAX];
static size_t cases_count;

static struct case_ *add(const char *name, const char *floor, int fd, const char *words, int family, uint32_t returns)
{
    struct case_ *c = &cases[cases_count++];
    *c = (struct case_){.name = name, .floor = floor, .fd = fd, .returns = returns};
    c->len = frame_fake_build(words, family, c->frame);
    return c;
}

static double thread_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void run(struct case_ *c, uint32_t runs)
{
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = c->frame, .data_size_in = (uint32_t)c->len, .repeat = (int)runs);
    int fd = c->rig != NULL ? bpf_program__fd(c->rig->progs.rig_feed) : c->fd;
    uint32_t zero = 0;
    if (c->rig != NULL && bpf_map_update_elem(bpf_map__fd(c->rig->maps.rig_next), &zero, &c->fd, BPF_ANY) < 0) {
        fail("the rig goes nowhere", errno);
    }
    double before = thread_ns();
    int r = bpf_prog_test_run_opts(fd, &options);
    c->ns = (thread_ns() - before) / runs;
    if (r < 0 || options.retval != c->returns) {
        (void)fprintf(stderr, "gate-cost: %s: returns %u, not %u\n", c->name, options.retval, c->returns);
        exit(1);
    }
    if (c->refuses != NULL) {
        c->refuses->refused += runs;
    }
}

static int fd_of(const struct gate *g)
{
    return g->program.fd;
}

/* Of one family. The names end in it. */
struct family {
    int family;
    struct net_prefix *ten;
    struct gate few, law, exempting, allowing;
    struct gate_rig_bpf *rig; /* feeds from the ten */
};

static void prepare_family(struct family *f, uint64_t *seed)
{
    bool v6 = f->family == 6;
    struct policy_exemption exempt = {.until_ns = POLICY_NO_END, .id = 1};
    struct net_prefix p;
    if (config_gate_prefix_parse(v6 ? "2001:db8:100::7" : "198.51.100.7", &p) != NULL) {
        fail("the exemption", EINVAL);
    }
    exempt.prefix = policy_prefix_of(&p);
    f->ten = ten_new(v6);
    enforce_prefixes(&f->few, PORT25_DENY, f->ten, TEN, NULL, 0);
    enforce_prefixes(&f->allowing, PORT25_ALLOW, f->ten, TEN, NULL, 0);
    enforce_prefixes(&f->exempting, PORT25_DENY, f->ten, TEN, &exempt, 1);
    struct policy *law = law_policy_new(LAW_PLAIN);
    law->refuse_with = BLOB_SILENT;
    enforce(&f->law, law);
    policy_free(&law);
    f->rig = rig_new(v6);
    rig_fill(f->rig, f->ten, TEN, seed);
    rig_plant(f->rig, f->ten, TEN);
}

#define NAME(f, text) ((f)->family == 6 ? text " IPv6" : text " IPv4")

/* Four tags, a PPPoE session, three packets in each other with as many extension headers as the law reads. */
static void add_deepest(struct family *f)
{
    char words[2048];
    size_t at = 0;
    at += (size_t)snprintf(words, sizeof(words), "eth / tag / tag / tag / tag / pppoe");
    for (int i = 0; i < 3; i++) {
        at += (size_t)snprintf(words + at, sizeof(words) - at, " / ip deny %s", i < 2 ? "aftr" : "world");
        for (int k = 0; k < 32; k++) {
            at += (size_t)snprintf(words + at, sizeof(words) - at, f->family == 6 ? " / dst" : " / ah");
        }
    }
    (void)snprintf(words + at, sizeof(words) - at, " / tcp 1024 25 S");
    struct case_ *c =
        add(NAME(f, "deepest stack, refused"), NAME(f, "floor: deepest"), fd_of(&f->law), words, f->family, XDP_DROP);
    (void)add(NAME(f, "floor: deepest"), NULL, bpf_program__fd(f->rig->progs.rig_empty), words, f->family, XDP_PASS);
    c->refuses = &f->law;
}

static void add_family(struct family *f)
{
    int empty = bpf_program__fd(f->rig->progs.rig_empty), few = fd_of(&f->few);
    const char *floor = NAME(f, "floor"), *fed_floor = NAME(f, "floor: fed, 10 prefixes"),
               *other = "eth / ip deny world / tcp 1024 443 A / data 100",
               *smtp = "eth / ip deny world / tcp 1024 25 S";
    (void)add(floor, NULL, empty, other, f->family, XDP_PASS);
    (void)add(NAME(f, "not port 25"), floor, few, other, f->family, XDP_PASS);
    (void)add(NAME(f, "not port 25, tagged"), floor, few, "eth / tag / ip deny world / tcp 1024 443 A / data 96",
              f->family, XDP_PASS);
    (void)add(NAME(f, "not TCP"), floor, few, "eth / ip deny world / udp 1024 443 / data 100", f->family, XDP_PASS);
    add(NAME(f, "refused, one source"), floor, few, smtp, f->family, XDP_DROP)->refuses = &f->few;
    (void)add(NAME(f, "exempt"), floor, fd_of(&f->exempting), "eth / ip exempt world / tcp 1024 25 S", f->family,
              XDP_PASS);
    (void)add(NAME(f, "kernel's LPM trie, one source"), floor, bpf_program__fd(f->rig->progs.rig_lpm), smtp, f->family,
              XDP_DROP);
    add_deepest(f);
    struct case_ *c = add(fed_floor, NULL, empty, smtp, f->family, XDP_PASS);
    c->rig = f->rig;
    c = add(NAME(f, "not port 25, random sources"), fed_floor, few, other, f->family, XDP_PASS);
    c->rig = f->rig;
    c = add(NAME(f, "refused, 10 prefixes, random sources"), fed_floor, few, smtp, f->family, XDP_DROP);
    c->rig = f->rig;
    c->refuses = &f->few;
    add(NAME(f, "allowed, 10 prefixes, random sources"), fed_floor, fd_of(&f->allowing), smtp, f->family, XDP_PASS)
        ->rig = f->rig;
    c = add(NAME(f, "kernel's LPM trie, 10 prefixes, random sources"), fed_floor,
            bpf_program__fd(f->rig->progs.rig_lpm), smtp, f->family, XDP_DROP);
    c->rig = f->rig;
}

/* A million of one set. */
struct many {
    const char *floor, *gate, *allowed, *trie; /* names */
    enum gate_set set;
    struct net_prefix *prefixes;
    struct gate_rig_bpf *rig;
    struct gate stands, allows;
};

static void add_many(struct many *m, size_t count, uint64_t *seed)
{
    int family = m->set == GATE_SET_MIXED6 ? 6 : 4;
    const char *smtp = "eth / ip deny world / tcp 1024 25 S";
    m->prefixes = need(gate_set_new(m->set, count, seed));
    m->rig = rig_new(family == 6);
    rig_fill(m->rig, m->prefixes, count, seed);
    rig_plant(m->rig, m->prefixes, count);
    enforce_prefixes(&m->stands, PORT25_DENY, m->prefixes, count, NULL, 0);
    enforce_prefixes(&m->allows, PORT25_ALLOW, m->prefixes, count, NULL, 0);
    add(m->floor, NULL, bpf_program__fd(m->rig->progs.rig_empty), smtp, family, XDP_PASS)->rig = m->rig;
    struct case_ *c = add(m->gate, m->floor, fd_of(&m->stands), smtp, family, XDP_DROP);
    c->rig = m->rig;
    c->refuses = &m->stands;
    add(m->allowed, m->floor, fd_of(&m->allows), smtp, family, XDP_PASS)->rig = m->rig;
    add(m->trie, m->floor, bpf_program__fd(m->rig->progs.rig_lpm), smtp, family, XDP_DROP)->rig = m->rig;
}

static void check_counts(struct family *families, struct many *many)
{
    struct gate *all[] = {&families[0].few, &families[0].law, &families[1].few, &families[1].law,
                          &many[0].stands,  &many[1].stands,  &many[2].stands};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        uint64_t counted =
            all[i] == &families[0].law || all[i] == &families[1].law ? all[i]->refused : refused_by(all[i]);
        if (counted != all[i]->refused) {
            (void)fprintf(stderr, "gate-cost: gate %zu: refused %" PRIu64 ", not %" PRIu64 "\n", i, counted,
                          all[i]->refused);
            exit(1);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"rounds", required_argument, NULL, 'n'}, {"runs", required_argument, NULL, 'r'},
        {"cold", required_argument, NULL, 'c'},   {"prefixes", required_argument, NULL, 'p'},
        {"seed", required_argument, NULL, 's'},   {0}};
    uint64_t values[256] = {['n'] = 9, ['r'] = RIG_SOURCES, ['c'] = RIG_SOURCES / 8, ['p'] = 1000000, ['s'] = 25};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == '?') {
            return 64;
        }
        values[c & 255] = strtoull(optarg, NULL, 10);
    }
    uint64_t seed = values['s'] * 0x9e3779b97f4a7c15U + 1;
    struct family families[] = {{.family = 4}, {.family = 6}};
    struct many many[GATE_SETS] = {{.floor = "floor: fed, hosts4",
                                    .gate = "refused, hosts4",
                                    .allowed = "allowed, hosts4",
                                    .trie = "kernel's LPM trie, hosts4",
                                    .set = GATE_SET_HOSTS4},
                                   {.floor = "floor: fed, mixed4",
                                    .gate = "refused, mixed4",
                                    .allowed = "allowed, mixed4",
                                    .trie = "kernel's LPM trie, mixed4",
                                    .set = GATE_SET_MIXED4},
                                   {.floor = "floor: fed, mixed6",
                                    .gate = "refused, mixed6",
                                    .allowed = "allowed, mixed6",
                                    .trie = "kernel's LPM trie, mixed6",
                                    .set = GATE_SET_MIXED6}};
    log_open("gate-cost", LOG_LEVEL_INFO, -1);
    for (size_t i = 0; i < 2; i++) {
        prepare_family(&families[i], &seed);
        add_family(&families[i]);
    }
    for (size_t i = 0; i < GATE_SETS; i++) {
        add_many(&many[i], values['p'], &seed);
    }
    (void)printf("{\"seed\": %" PRIu64 ", \"prefixes\": %" PRIu64 ", \"runs\": %" PRIu64 ", \"floors\": {", values['s'],
                 values['p'], values['r']);
    for (size_t i = 0; i < cases_count; i++) {
        (void)printf("%s\"%s\": \"%s\"", i > 0 ? ", " : "", cases[i].name,
                     cases[i].floor != NULL ? cases[i].floor : "");
    }
    (void)printf("}, \"rounds\": [");
    for (uint64_t round = 0; round <= values['n']; round++) { /* round 0 only warms up */
        for (size_t i = 0; i < cases_count; i++) {
            run(&cases[i], (uint32_t)values[cases[i].rig != NULL ? 'c' : 'r']);
            if (round > 0) {
                (void)printf("%s\"%s\": %.2f", i > 0 ? ", " : round > 1 ? ",\n {" : "\n {", cases[i].name, cases[i].ns);
            }
        }
        (void)printf("%s", round > 0 ? "}" : "");
    }
    (void)printf("]}\n");
    check_counts(families, many);
    return 0;
}

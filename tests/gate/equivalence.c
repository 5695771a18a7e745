/*
 * equivalence [--seed N] [--mutations N]: the reference and the program in the kernel, for XDP and for TC, say the same
 * of every frame: of the law's table, of each of its frames cut at every octet, and of seeded mutations; and of every
 * source, by policies that are drawn. Needs root.
 *
 * A failure prints the frame and what each said; the same seed finds it again. The last line counts.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "gate/program.h"
#include "policy/compile.h"
#include "policy/evaluate.h"
#include "policy/law_fake.h"

#define SHOWN_MAX 20

enum { HOOK_XDP, HOOK_TC, HOOKS };

#define DRAWN LAW_POLICIES /* the policy that is drawn, behind those of the law */

static struct policy *policies[LAW_POLICIES + 1];
static struct policy_rows rows[LAW_POLICIES + 1];
static struct policy_blob blobs[LAW_POLICIES + 1];
static struct gate_program programs[HOOKS][2][2]; /* hook, link, side */
static int in_force = -1;
static uint64_t state, judged, passed_over, failed, by_reason[REASON_COUNT];

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint64_t now_boot_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void fail(const char *what, int error)
{
    log_flush();
    (void)fprintf(stderr, "equivalence: %s: %s\n", what, strerror(error));
    exit(2);
}

static void prepare(void)
{
    const struct gate_maps *maps = NULL;
    for (int hook = 0; hook < HOOKS; hook++) {
        for (int link = 0; link < 2; link++) {
            for (int side = 0; side < 2; side++) {
                struct gate_kind kind = {
                    .tc = hook == HOOK_TC, .ip = link == PACKET_IP, .uplink = side == PACKET_UPLINK, .explain = true};
                int r = gate_program_load(kind, maps, &programs[hook][link][side]);
                if (r < 0) {
                    fail("a program does not load", -r);
                }
                maps = &programs[0][0][0].maps;
            }
        }
    }
    for (int i = 0; i < LAW_POLICIES; i++) {
        policies[i] = law_policy_new((enum law_policy)i);
        if (policy_rows_assign(&rows[i], policies[i]) < 0 || policy_compile(policies[i], &rows[i], 1, &blobs[i]) < 0) {
            fail("a policy does not compile", ENOMEM);
        }
    }
}

static void enforce(int policy)
{
    if (policy != in_force) {
        int r = gate_policy_set(&programs[0][0][0].maps, blobs[policy].cells, blobs[policy].count);
        if (r < 0) {
            fail("a policy is not taken", -r);
        }
        in_force = policy;
    }
}

/* Each connection is its line's first: what the program remembers of it is taken away. */
static void forget_source(const struct policy_address *a)
{
    struct gate_source_key key = {{0}};
    if (a->v6) {
        memcpy(key.address, a->bytes, 8);
    } else {
        key.address[10] = key.address[11] = 0xff;
        memcpy(key.address + 12, a->bytes, 4);
    }
    (void)bpf_map_delete_elem(programs[0][0][0].maps.fd[GATE_MAP_SOURCES], &key);
}

static bool same(int policy, const struct policy_judgement *want, const struct gate_judgement *got)
{
    if (got->runs == 0) { /* the short way */
        return want->would == POLICY_PASS && want->reason <= REASON_UNPARSED;
    }
    bool good = got->verdict == want->verdict && got->would == want->would && got->reason == want->reason;
    if (good && want->asked) {
        const char *name = rows[policy].names[got->class_];
        good = got->exemption == want->exemption && name != NULL && strcmp(name, want->class_name) == 0;
    }
    return good;
}

static void complain(int policy, int hook, int link, int side, struct span frame, const struct policy_judgement *want,
                     const struct gate_judgement *got)
{
    if (++failed > SHOWN_MAX) {
        return;
    }
    (void)printf(
        "policy %d, %s, %s, %s side, %zu octets\n    reference: %s %s (%s) class %s exemption %" PRIu64
        "\n    program:   %s %s (%s) class %u exemption %" PRIu64 "%s\n    ",
        policy, hook == HOOK_TC ? "TC" : "XDP", link == PACKET_IP ? "IP" : "Ethernet",
        side == PACKET_UPLINK ? "uplink" : "subscriber", frame.len, policy_verdict_name(want->verdict),
        policy_reason_name(want->reason), policy_verdict_name(want->would), want->asked ? want->class_name : "-",
        (uint64_t)want->exemption, policy_verdict_name((enum policy_verdict)got->verdict),
        policy_reason_name((enum policy_reason)got->reason), policy_verdict_name((enum policy_verdict)got->would),
        got->class_, (uint64_t)got->exemption, got->runs == 0 ? ", the short way" : "");
    for (size_t i = 0; i < frame.len && i < 200; i++) {
        (void)printf("%02x", frame.ptr[i]);
    }
    (void)printf("\n");
}

static void judge(int policy, int link, int side, struct span frame)
{
    struct policy_judgement want;
    struct policy_question q = {
        .side = (enum packet_side)side, .link = (enum packet_link)link, .frame = frame, .now_boot_ns = now_boot_ns()};
    enforce(policy);
    policy_evaluate(policies[policy], &q, &want);
    by_reason[want.reason]++;
    for (int hook = 0; hook < HOOKS; hook++) {
        enum policy_verdict verdict;
        struct gate_judgement got;
        if (want.reason == REASON_RATE) {
            forget_source(&want.subject);
        }
        int r = frame.len < 14 ? -EINVAL : gate_program_run(&programs[hook][link][side], frame, &verdict, &got, NULL);
        if (r < 0) { /* the kernel runs no frame too short for Ethernet, and (TC) none too short for IP or too long */
            passed_over++;
            if (frame.len >= (hook == HOOK_TC ? 14 + 40 : 14) && frame.len < 3000) {
                fail("a frame is not run", -r);
            }
            continue;
        }
        judged++;
        if (!same(policy, &want, &got) || (verdict == POLICY_PASS) != (want.verdict == POLICY_PASS)) {
            complain(policy, hook, link, side, frame, &want, &got);
        }
    }
}

static int link_of(const struct law_row *row)
{
    return strncmp(row->frame, "eth", 3) == 0 ? PACKET_ETHERNET : PACKET_IP;
}

static int family_of(const struct law_row *row, int family)
{
    return row->families == 'b' || row->families == '0' + family;
}

/* What may stand between Ethernet and IP without changing what is said. */
static const char *const stacks[] = {"eth / ",
                                     "eth / tag / ",
                                     "eth / tag type=88a8 / tag / ",
                                     "eth / tag type=9100 / tag type=9200 / tag type=9300 / tag / ",
                                     "eth / pppoe / ",
                                     "eth / pppoe short / ",
                                     "eth / tag type=88a8 / tag / pppoe / "};
#define STACKS (sizeof(stacks) / sizeof(stacks[0]))

/* The row's frame in that stack; 0: it has another of its own. */
static size_t build(const struct law_row *row, int family, size_t stack, uint8_t octets[static FRAME_FAKE_MAX])
{
    char words[1024];
    if (stack == 0) {
        return frame_fake_build(row->frame, family, octets);
    }
    if (strncmp(row->frame, "eth / ip", 8) != 0) {
        return 0;
    }
    (void)snprintf(words, sizeof(words), "%s%s", stacks[stack], row->frame + 6);
    return frame_fake_build(words, family, octets);
}

static size_t corpus(void)
{
    uint8_t octets[FRAME_FAKE_MAX];
    size_t frames = 0;
    for (size_t n = 0; n < law_rows_count * 2 * STACKS; n++) {
        const struct law_row *row = &law_rows[n / 2 / STACKS];
        int family = n / STACKS % 2 == 0 ? 4 : 6;
        size_t len = family_of(row, family) ? build(row, family, n % STACKS, octets) : 0;
        for (int side = 0; side < 2 && len > 0; side++) {
            judge((int)row->policy, link_of(row), side, (struct span){octets, len});
        }
        frames += len > 0;
    }
    return frames;
}

static size_t cuts(void)
{
    uint8_t octets[FRAME_FAKE_MAX];
    size_t frames = 0;
    for (size_t i = 0; i < law_rows_count; i++) {
        const struct law_row *row = &law_rows[i];
        for (int family = 4; family <= 6; family += 2) {
            size_t len = family_of(row, family) ? frame_fake_build(row->frame, family, octets) : 0;
            for (size_t cut = 14; cut < len && cut < 200; cut++, frames++) {
                judge((int)row->policy, link_of(row), row->side == 'u', (struct span){octets, cut});
            }
        }
    }
    return frames;
}

/* Values at which header fields change their meaning. */
static uint8_t interesting(void)
{
    static const uint8_t values[] = {0,    1,    2,    4,    6,    8,   17,  25,   0x20, 0x21, 41,   43,
                                     44,   0x40, 0x45, 0x46, 0x4f, 50,  51,  0x57, 58,   59,   60,   0x60,
                                     0x64, 0x7f, 131,  135,  137,  139, 140, 0x81, 0x86, 0x88, 0xa8, 0xc8,
                                     0xdd, 0xff, 0x91, 0x11, 0x64, 20,  24,  28,   40};
    return values[draw() % sizeof(values)];
}

static size_t mutate_once(uint8_t *octets, size_t len)
{
    size_t at = len > 0 ? draw() % len : 0, n = 1 + draw() % 8, from = len > 0 ? draw() % len : 0;
    /* Headers are at the front. */
    at = draw() % 2 == 0 ? at % 64 : at;
    if (at >= len) {
        return len;
    }
    switch (draw() % 8) {
    case 0:
        octets[at] ^= (uint8_t)(1U << draw() % 8);
        break;
    case 1:
        octets[at] = (uint8_t)draw();
        break;
    case 2:
    case 3:
        octets[at] = interesting();
        break;
    case 4: /* some octets more */
        n = len + n <= FRAME_FAKE_MAX ? n : 0;
        memmove(octets + at + n, octets + at, len - at);
        return len + n;
    case 5: /* some less */
        n = n <= len - at ? n : len - at;
        memmove(octets + at, octets + at + n, len - at - n);
        return len - n;
    case 6:
        return at;
    default: /* a piece from elsewhere */
        n = 4 * n;
        n = n <= len - at ? n : len - at;
        n = n <= len - from ? n : len - from;
        memmove(octets + at, octets + from, n);
        break;
    }
    return len;
}

static void mutations(uint64_t count)
{
    uint8_t octets[FRAME_FAKE_MAX];
    for (uint64_t i = 0; i < count; i++) {
        /* Policies change rarely: each change waits for the kernel. */
        static int policy;
        policy = i % 1000 == 0 ? (int)(draw() % LAW_POLICIES) : policy;
        const struct law_row *row = &law_rows[draw() % law_rows_count];
        int family = row->families == 'b' ? (draw() % 2 == 0 ? 4 : 6) : row->families - '0';
        size_t len = frame_fake_build(row->frame, family, octets);
        for (uint64_t n = 1 + draw() % 4; n > 0; n--) {
            len = mutate_once(octets, len);
        }
        judge(policy, link_of(row), draw() % 4 == 0 ? row->side == 's' : row->side == 'u', (struct span){octets, len});
    }
}

/* Policies that are drawn: prefixes of all lengths in each other and beside each other, half of the exemptions at an
 * end. */

#define DRAWN_PREFIXES 60

static struct net_prefix draw_prefix(const struct net_prefix *others, size_t count)
{
    struct net_prefix p = {.bytes = {[10] = 0xff, [11] = 0xff}};
    bool v6 = draw() % 2 == 0;
    unsigned least = v6 ? 0 : 96, keep = least;
    if (count > 0 && draw() % 3 != 0) { /* shares its beginning with another */
        p = others[draw() % count];
        least = config_gate_prefix_is_v4(&p) ? 96 : 0;
        keep = least + (unsigned)(draw() % (129 - least));
    }
    for (unsigned bit = keep; bit < 128; bit++) {
        uint8_t mask = (uint8_t)(0x80U >> bit % 8);
        p.bytes[bit / 8] = (uint8_t)((p.bytes[bit / 8] & ~mask) | (draw() % 2 == 0 ? mask : 0));
    }
    p.bits = (uint8_t)(least + draw() % (129 - least));
    if (least == 0) {
        p.bytes[0] = (uint8_t)(0x20 | (p.bytes[0] & 0x1f)); /* and never an IPv4 address in IPv6 dress */
        p.bits = p.bits < 3 ? 3 : p.bits;
    }
    for (unsigned bit = p.bits; bit < 128; bit++) {
        p.bytes[bit / 8] &= (uint8_t) ~(0x80U >> bit % 8);
    }
    return p;
}

static bool is_there(const struct net_prefix *all, size_t count, const struct net_prefix *p)
{
    for (size_t i = 0; i < count; i++) {
        if (memcmp(&all[i], p, sizeof(*p)) == 0) {
            return true;
        }
    }
    return false;
}

static void draw_policy(const struct net_prefix *prefixes, size_t count)
{
    static const enum config_port25 rules[] = {PORT25_DENY, PORT25_ALLOW, PORT25_MONITOR, PORT25_DENY};
    struct config_gate_class classes[4] = {{0}};
    struct policy_exemption exemptions[DRAWN_PREFIXES] = {{.id = 0}};
    struct config_gate gate = {
        .present = true, .default_ = PORT25_ALLOW, .refuse_with = GATE_DROP, .classes = classes, .classes_count = 4};
    char names[4][8];
    size_t exempted = 0;
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "c%zu", i);
        /* A quarter each; the lists are views of what is the caller's. */
        classes[i] =
            (struct config_gate_class){.name = names[i],
                                       .port25 = rules[i],
                                       .prefixes = {.list = (struct net_prefix *)(uintptr_t)(prefixes + i * count / 4),
                                                    .count = (i + 1) * count / 4 - i * count / 4}};
    }
    for (size_t i = 0; i < count; i += 5) {
        exemptions[exempted] = (struct policy_exemption){.prefix = policy_prefix_of(&prefixes[i]),
                                                         .until_ns = draw() % 2 == 0 ? POLICY_NO_END : LAW_NOW_NS,
                                                         .id = exempted + 1};
        exempted++;
    }
    policy_free(&policies[DRAWN]);
    policy_rows_fini(&rows[DRAWN]);
    free(blobs[DRAWN].cells);
    in_force = in_force == DRAWN ? -1 : in_force;
    if (policy_new(&gate, exemptions, exempted, &policies[DRAWN]) < 0 ||
        policy_rows_assign(&rows[DRAWN], policies[DRAWN]) < 0 ||
        policy_compile(policies[DRAWN], &rows[DRAWN], 1, &blobs[DRAWN]) < 0) {
        fail("a policy that was drawn does not compile", ENOMEM);
    }
}

/* From the prefix's first or last address, or one with another bit. */
static void judge_source(const struct net_prefix *p)
{
    uint8_t frame[FRAME_FAKE_MAX];
    struct policy_prefix in = policy_prefix_of(p);
    unsigned most = in.v6 ? 128 : 32;
    size_t len = frame_fake_build("eth / ip unlisted world / tcp 1024 25 S", in.v6 ? 6 : 4, frame);
    for (unsigned bit = in.bits; bit < most && draw() % 2 == 0; bit++) {
        in.bytes[bit / 8] |= (uint8_t)(0x80U >> bit % 8);
    }
    if (draw() % 4 != 0) {
        unsigned bit = (unsigned)(draw() % most);
        in.bytes[bit / 8] ^= (uint8_t)(0x80U >> bit % 8);
    }
    memcpy(frame + 14 + (in.v6 ? 8 : 12), in.bytes, in.v6 ? 16 : 4);
    judge(DRAWN, PACKET_ETHERNET, PACKET_SUBSCRIBER, (struct span){frame, len});
}

static void drawn(uint64_t count)
{
    struct net_prefix prefixes[DRAWN_PREFIXES];
    for (uint64_t i = 0; i < count; i++) {
        size_t n = 0, wanted = 1 + draw() % DRAWN_PREFIXES;
        while (n < wanted) {
            prefixes[n] = draw_prefix(prefixes, n);
            n += is_there(prefixes, n, &prefixes[n]) ? 0 : 1;
        }
        draw_policy(prefixes, n);
        for (size_t k = 0; k < 2 * n; k++) {
            judge_source(&prefixes[k % n]);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'}, {"mutations", required_argument, NULL, 'm'}, {0}};
    uint64_t seed = 25, count = 200000;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c != 's' && c != 'm') {
            return 64;
        }
        *(c == 's' ? &seed : &count) = strtoull(optarg, NULL, 10);
    }
    log_open("equivalence", LOG_LEVEL_INFO, -1);
    state = seed * 0x9e3779b97f4a7c15U + 1;
    prepare();
    size_t law = corpus(), cut = cuts();
    mutations(count);
    drawn(count / 1000);
    (void)printf("seed %" PRIu64 ": %zu frames of the law, %zu cut, %" PRIu64 " mutations, %" PRIu64
                 " policies drawn; %" PRIu64 " runs in the kernel, %" PRIu64 " not run\n",
                 seed, law, cut, count, count / 1000, judged, passed_over);
    for (int i = 0; i < REASON_COUNT; i++) {
        (void)printf("%s %" PRIu64 "%s", policy_reason_name((enum policy_reason)i), by_reason[i],
                     i + 1 < REASON_COUNT ? ", " : "\n");
    }
    (void)printf("%" PRIu64 " disagreements\n", failed);
    return failed == 0 ? 0 : 1;
}

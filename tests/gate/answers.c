/*
 * answers: what the gate sends back for a refused packet, field by field, for XDP and TC, every link, both families;
 * and when it is silent. Run in the kernel on frames of ours; the sockets' side of it is in tests/system/test_gate.py.
 * Needs root. The last line counts.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gate/program.h"
#include "policy/compile.h"
#include "policy/law_fake.h"

static unsigned passed, failed;
static struct policy *policy;
static struct policy_rows rows;
static struct gate_program programs[2][2]; /* TC, IP */
static char doing[256];

static void expect(bool good, const char *what)
{
    if (good) {
        return;
    }
    failed++;
    (void)printf("%s: %s\n", doing, what);
}

static void fail(const char *what, int error)
{
    log_flush();
    (void)fprintf(stderr, "answers: %s: %s\n", what, strerror(error));
    exit(2);
}

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

/* RFC 1071, the slow way. */
static uint32_t sum(const uint8_t *p, size_t len, uint32_t from)
{
    for (size_t i = 0; i < len; i++) {
        from += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
        from = from > 0xffff ? from - 0xffff : from;
    }
    return from;
}

static uint32_t pseudo(const uint8_t *ip, uint8_t protocol, uint32_t len)
{
    bool v6 = ip[0] >> 4 == 6;
    uint8_t tail[4] = {0, protocol, (uint8_t)(len >> 8), (uint8_t)len};
    return sum(tail, sizeof(tail), sum(ip + (v6 ? 8 : 12), v6 ? 32 : 8, 0));
}

struct wanted {
    const char *link; /* words before the IP header */
    const char *tcp;  /* words after it */
    int family;
    bool tc, prohibited, partial;
    size_t data;
    unsigned flags;
};

static void enforce(enum blob_refuse_with with)
{
    struct policy_blob blob;
    policy->refuse_with = with;
    if (policy_compile(policy, &rows, 1, &blob) < 0) {
        fail("no policy", ENOMEM);
    }
    int r = gate_policy_set(&programs[0][0].maps, blob.cells, blob.count);
    if (r < 0) {
        fail("the policy is not taken", -r);
    }
    free(blob.cells);
}

/* Where the IP header begins. */
static size_t build(const struct wanted *w, uint8_t frame[static FRAME_FAKE_MAX], size_t *ret_len)
{
    char words[256];
    (void)snprintf(words, sizeof(words), "%s%sip deny world / %s / data %zu", w->link, w->link[0] != '\0' ? " / " : "",
                   w->tcp, w->data);
    size_t len = frame_fake_build(words, w->family, frame), header = w->family == 6 ? 40 : 20;
    size_t at = len - w->data - 20 - header;
    uint8_t *tcp = frame + at + header;
    if (w->link[0] != '\0') {
        memcpy(frame, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02", 12);
    }
    memcpy(tcp + 4, "\xff\xff\xff\xf0\x12\x34\x56\x78", 8); /* sequence numbers that run over */
    uint32_t check = pseudo(frame + at, 6, (uint32_t)(20 + w->data));
    if (!w->partial) {
        tcp[16] = tcp[17] = 0;
        check = 0xffff & ~sum(tcp, 20 + w->data, check);
    }
    tcp[16] = (uint8_t)(check >> 8);
    tcp[17] = (uint8_t)check;
    *ret_len = len;
    return at;
}

static void check_link(const struct wanted *w, const uint8_t *in, const uint8_t *out, size_t at)
{
    if (w->link[0] == '\0') {
        return;
    }
    expect(memcmp(out, in + 6, 6) == 0 && memcmp(out + 6, in, 6) == 0, "Ethernet's addresses are not exchanged");
    bool ppp = strstr(w->link, "pppoe") != NULL;
    size_t protocol = ppp ? (strstr(w->link, "short") != NULL ? 1 : 2) : 0, kept = ppp ? at - protocol - 2 : at;
    expect(memcmp(out + 12, in + 12, kept - 12) == 0, "tags are not kept");
    if (ppp) {
        size_t ip = w->family == 6 ? 40 + get16(out + at + 4) : get16(out + at + 2);
        expect(get16(out + at - protocol - 2) == ip + protocol, "PPPoE's length is wrong");
        expect(memcmp(out + at - protocol, in + at - protocol, protocol) == 0, "PPP's protocol is not kept");
    }
}

static void check_ip(const struct wanted *w, const uint8_t *in, const uint8_t *out, uint8_t protocol, size_t payload)
{
    if (w->family == 6) {
        expect(out[0] == 0x60 && get16(out + 4) == payload && out[6] == protocol && out[7] == 64, "IPv6 header");
        expect(memcmp(out + 8, in + 24, 16) == 0 && memcmp(out + 24, in + 8, 16) == 0, "IPv6 addresses");
        return;
    }
    expect(out[0] == 0x45 && get16(out + 2) == 20 + payload && out[9] == protocol && out[8] == 64, "IPv4 header");
    expect(sum(out, 20, 0) == 0xffff, "IPv4 header checksum");
    expect(memcmp(out + 12, in + 16, 4) == 0 && memcmp(out + 16, in + 12, 4) == 0, "IPv4 addresses");
}

static void check_reset(const struct wanted *w, const uint8_t *in, const uint8_t *out, size_t len)
{
    size_t header = w->family == 6 ? 40 : 20;
    const uint8_t *a = in + header, *b = out + header;
    expect(len == header + 20, "length");
    check_ip(w, in, out, 6, 20);
    expect(get16(b) == get16(a + 2) && get16(b + 2) == get16(a), "ports");
    if ((w->flags & 0x10) != 0) {
        expect(b[13] == 0x04 && get32(b + 4) == get32(a + 8) && get32(b + 8) == 0, "reset of a segment with ACK");
    } else {
        uint32_t counted = (uint32_t)w->data + ((w->flags & 2) != 0) + ((w->flags & 1) != 0);
        expect(b[13] == 0x14 && get32(b + 4) == 0 && get32(b + 8) == get32(a + 4) + counted, "reset that acknowledges");
    }
    expect(b[12] == 0x50 && get16(b + 14) == 0 && get16(b + 18) == 0, "the rest of TCP's header");
    uint32_t head = pseudo(out, 6, 20);
    expect(w->partial ? get16(b + 16) == head : sum(b, 20, head) == 0xffff, "TCP checksum");
}

/* What a device does that finishes a checksum: from the TCP header to the end, into its field. */
static void finish(uint8_t *tcp, size_t len)
{
    uint32_t check = 0xffff & ~sum(tcp, len, 0);
    tcp[16] = (uint8_t)(check >> 8);
    tcp[17] = (uint8_t)check;
}

static void check_prohibited(const struct wanted *w, const uint8_t *in, size_t in_len, uint8_t *out, size_t len)
{
    size_t header = w->family == 6 ? 40 : 20, most = w->family == 6 ? 1280 : 576;
    uint8_t *b = out + header, protocol = w->family == 6 ? 58 : 1;
    size_t quote = in_len < most - header - 8 ? in_len : most - header - 8;
    expect(len == header + 8 + quote, "length");
    if (len != header + 8 + quote) {
        return;
    }
    check_ip(w, in, out, protocol, 8 + quote);
    expect(w->family == 6 || out[1] == (0xc0 | (in[1] & 0x1c)), "precedence and TOS");
    expect(w->family == 6 ? b[0] == 1 && b[1] == 1 : b[0] == 3 && b[1] == 13, "type and code");
    expect(memcmp(b + 8, in, quote) == 0, "the quoted packet");
    if (w->partial) {
        finish(b + 8 + header, quote - header);
    }
    expect(sum(b, 8 + quote, w->family == 6 ? pseudo(out, 58, (uint32_t)(8 + quote)) : 0) == 0xffff, "ICMP checksum");
}

static int run(const struct wanted *w, struct span frame, struct buf *out)
{
    enum policy_verdict verdict;
    struct gate_judgement j;
    int r = gate_program_run(&programs[w->tc][w->link[0] == '\0'], frame, &verdict, &j, out);
    if (r < 0) {
        fail(doing, -r);
    }
    expect(j.verdict == POLICY_REFUSE, "it is not refused");
    return verdict;
}

static void name(const struct wanted *w)
{
    (void)snprintf(doing, sizeof(doing), "%s, %s, IPv%d, [%s] %s, %zu octets%s", w->tc ? "TC" : "XDP",
                   w->prohibited ? "prohibited" : "reset", w->family, w->link, w->tcp, w->data,
                   w->partial ? ", checksum unfinished" : "");
}

static void check_answer(const struct wanted *w)
{
    uint8_t frame[FRAME_FAKE_MAX];
    size_t len, at = build(w, frame, &len);
    struct buf out;
    unsigned before = failed;
    name(w);
    buf_init(&out, 65536);
    gate_sources_forget(&programs[0][0].maps);
    int verdict = run(w, (struct span){frame, len}, &out);
    expect(verdict == POLICY_REFUSE, "no answer");
    if (verdict == POLICY_REFUSE && out.len > at + 20) {
        check_link(w, frame, out.data, at);
        if (w->prohibited) {
            check_prohibited(w, frame + at, len - at, out.data + at, out.len - at);
        } else {
            check_reset(w, frame + at, out.data + at, out.len - at);
        }
    }
    buf_fini(&out);
    passed += failed == before;
    failed = failed > before ? before + 1 : before;
}

static void check_answers(bool prohibited)
{
    static const char *const links[] = {"eth",
                                        "eth / tag",
                                        "eth / tag type=88a8 / tag",
                                        "eth / tag / tag / tag / tag",
                                        "eth / pppoe",
                                        "eth / tag / pppoe short",
                                        ""};
    static const struct {
        const char *words;
        unsigned flags;
        size_t data;
    } segments[] = {{"tcp 1024 25 S", 0x02, 0},  {"tcp 1024 25 S", 0x02, 7},  {"tcp 1024 25 A", 0x10, 100},
                    {"tcp 1024 25 FA", 0x11, 0}, {"tcp 1024 25 F", 0x01, 33}, {"tcp 1024 25 PA", 0x18, 1300},
                    {"tcp 1024 25 SA", 0x12, 0}};
    enforce(prohibited ? BLOB_PROHIBITED : BLOB_RESET);
    for (int n = 0; n < 8; n++) {
        for (size_t l = 0; l < sizeof(links) / sizeof(links[0]); l++) {
            for (size_t s = 0; s < sizeof(segments) / sizeof(segments[0]); s++) {
                struct wanted w = {.link = links[l],
                                   .tcp = segments[s].words,
                                   .family = (n & 1) != 0 ? 6 : 4,
                                   .tc = (n & 2) != 0,
                                   .partial = (n & 4) != 0,
                                   .prohibited = prohibited,
                                   .flags = segments[s].flags,
                                   .data = segments[s].data};
                /* Run by hand the kernel believes that all packets have Ethernet, and moves none of its headers where
                 * there is none: tests/system/test_gate_tunnels.py asks on real devices. */
                bool by_hand = !w.tc || !prohibited || w.link[0] != '\0';
                if (by_hand && (!w.partial || w.tc)) {
                    check_answer(&w);
                }
            }
        }
    }
}

static void check_silence(bool tc, const char *words, int family)
{
    uint8_t frame[FRAME_FAKE_MAX];
    struct wanted w = {.link = strncmp(words, "eth", 3) == 0 ? "eth" : "", .tc = tc};
    size_t len = frame_fake_build(words, family, frame);
    unsigned before = failed;
    (void)snprintf(doing, sizeof(doing), "%s, IPv%d, silence: %s", tc ? "TC" : "XDP", family, words);
    if (strstr(words, "type=0806") == NULL && w.link[0] != '\0') {
        memcpy(frame, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02", 12);
    }
    gate_sources_forget(&programs[0][0].maps);
    expect(run(&w, (struct span){frame, len}, NULL) == POLICY_DROP, "it is answered");
    passed += failed == before;
}

static void check_silences(void)
{
    static const char *const words[] = {
        "eth / ip deny world / tcp 1024 25 R",         "eth / ip deny world / tcp 1024 25 RA",
        "eth / ip4 deny world mf / tcp 1024 25 S",     "eth / ip6 deny world / frag m / tcp 1024 25 S",
        "eth / ip deny world / tcp 1024 25 S keep=13", "eth / ip deny aftr / ip deny world / tcp 1024 25 S",
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        for (int n = 0; n < 4; n++) {
            check_silence((n & 1) != 0, words[i], (n & 2) != 0 ? 6 : 4);
        }
    }
}

/* Ethernet's group addresses, and the budget of one source. */
static void check_group_and_budget(bool tc)
{
    uint8_t frame[FRAME_FAKE_MAX];
    struct wanted w = {.link = "eth", .tcp = "tcp 1024 25 S", .family = 4, .tc = tc};
    size_t len;
    unsigned before = failed, answered = 0;
    (void)build(&w, frame, &len);
    frame[0] |= 1;
    (void)snprintf(doing, sizeof(doing), "%s, to a group", tc ? "TC" : "XDP");
    gate_sources_forget(&programs[0][0].maps);
    expect(run(&w, (struct span){frame, len}, NULL) == POLICY_DROP, "it is answered");
    passed += failed == before;
    before = failed;
    frame[0] &= 0xfe;
    (void)snprintf(doing, sizeof(doing), "%s, a source's budget", tc ? "TC" : "XDP");
    gate_sources_forget(&programs[0][0].maps);
    for (int i = 0; i < 200; i++) {
        answered += run(&w, (struct span){frame, len}, NULL) == POLICY_REFUSE;
    }
    expect(answered >= policy->resets_per_second && answered < 200, "it is not kept");
    passed += failed == before;
}

/* A policy that cannot be read lets nothing through that may be of port 25. */
static void check_damage(bool tc, const char *what, size_t keep, uint32_t version)
{
    uint8_t frame[FRAME_FAKE_MAX];
    struct policy_blob blob;
    struct wanted w = {.link = "eth", .tcp = "tcp 1024 25 S", .family = 4, .tc = tc};
    enum policy_verdict verdict = POLICY_PASS;
    struct gate_judgement j;
    size_t len;
    unsigned before = failed;
    (void)build(&w, frame, &len);
    (void)snprintf(doing, sizeof(doing), "%s, %s", tc ? "TC" : "XDP", what);
    if (policy_compile(policy, &rows, 1, &blob) < 0) {
        fail("no policy", ENOMEM);
    }
    blob.cells[0].lanes[0] = version;
    int r = gate_policy_set(&programs[0][0].maps, blob.cells, keep < blob.count ? keep : blob.count);
    r = r == 0 ? gate_program_run(&programs[tc][0], (struct span){frame, len}, &verdict, &j, NULL) : r;
    free(blob.cells);
    if (r < 0) {
        fail(doing, -r);
    }
    expect(verdict == POLICY_DROP, "it is let through");
    passed += failed == before;
}

int main(void)
{
    log_open("answers", LOG_LEVEL_INFO, -1);
    for (int n = 0; n < 4; n++) {
        struct gate_kind kind = {.tc = (n & 1) != 0, .ip = (n & 2) != 0, .explain = true};
        int r = gate_program_load(kind, n > 0 ? &programs[0][0].maps : NULL, &programs[n & 1][n >> 1]);
        if (r < 0) {
            fail("a program does not load", -r);
        }
    }
    policy = law_policy_new(LAW_PLAIN);
    if (policy_rows_assign(&rows, policy) < 0) {
        fail("no rows", ENOMEM);
    }
    check_answers(false);
    check_answers(true);
    enforce(BLOB_RESET);
    check_silences();
    check_group_and_budget(false);
    check_group_and_budget(true);
    enforce(BLOB_SILENT);
    check_silence(false, "eth / ip deny world / tcp 1024 25 S", 4);
    check_silence(true, "eth / ip deny world / tcp 1024 25 S", 6);
    for (int tc = 0; tc < 2; tc++) {
        check_damage(tc != 0, "a policy of another version", SIZE_MAX, BLOB_VERSION + 1);
        check_damage(tc != 0, "a policy cut behind its header", 2, BLOB_VERSION);
        check_damage(tc != 0, "a policy cut to half its root", 2000, BLOB_VERSION);
    }
    (void)printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}

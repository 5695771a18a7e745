/*
 * gate_frames attach DEVICE | gate_frames send DEVICE DESTINATION-MAC
 *
 * The two hands of bench/gate's row "frames". Each takes orders from standard input, a line each, and answers with a
 * line when it is done. attach: "none", "native", "generic", "tc" or "tcx" is where the gate's program then sits on the
 * device; "empty-tc" and "empty-tcx": one that does nothing. send: a number of frames to send into the device, TCP to
 * port 443 from many sources; the answer is JSON: the processor time of this thread, which has the whole way of a frame
 * through a router in it where the kernel forwards at once.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "gate/program.h"
#include "gate_set.h"
#include "policy/compile.h"

#define TCX_INGRESS 46 /* BPF_TCX_INGRESS, which headers of Linux 6.1 do not have */

#define FRAMES 4096
#define LENGTH 80
#define BATCH  64

static void fail(const char *what, int error)
{
    log_flush();
    (void)fprintf(stderr, "gate-frames: %s: %s\n", what, strerror(error));
    exit(2);
}

static void answer(const char *line)
{
    (void)printf("%s\n", line);
    (void)fflush(stdout);
}

/* The gate */

struct hands {
    int index, tcx, empty; /* tcx: a link, or -1; empty: a TC program */
    struct gate_program xdp, tc;
};

static void enforce(const struct gate_maps *maps)
{
    struct net_prefix prefixes[2];
    struct config_gate_class lines = {
        .name = (char *)(uintptr_t) "lines", .port25 = PORT25_DENY, .prefixes = {.list = prefixes, .count = 2}};
    struct config_gate gate = {.present = true, .refuse_with = GATE_DROP, .classes = &lines, .classes_count = 1};
    struct policy *p = NULL;
    struct policy_rows rows = {0};
    struct policy_blob blob;
    if (config_gate_prefix_parse("198.51.100.0/22", &prefixes[0]) != NULL ||
        config_gate_prefix_parse("10.16.0.0/12", &prefixes[1]) != NULL) {
        fail("the prefixes", EINVAL);
    }
    int r = policy_new(&gate, NULL, 0, &p);
    r = r == 0 ? policy_rows_assign(&rows, p) : r;
    r = r == 0 ? policy_compile(p, &rows, 1, &blob) : r;
    r = r == 0 ? gate_policy_set(maps, blob.cells, blob.count) : r;
    if (r < 0) {
        fail("the policy", -r);
    }
    free(blob.cells);
    policy_rows_fini(&rows);
    policy_free(&p);
}

static void detach(struct hands *h)
{
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = h->index, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
    (void)bpf_xdp_detach(h->index, XDP_FLAGS_DRV_MODE, NULL);
    (void)bpf_xdp_detach(h->index, XDP_FLAGS_SKB_MODE, NULL);
    (void)bpf_tc_hook_destroy(&hook);
    if (h->tcx >= 0) {
        (void)close(h->tcx);
    }
    h->tcx = -1;
}

/* It returns TC_ACT_UNSPEC, as ours does to what passes. */
static int load_empty(void)
{
    const struct bpf_insn all[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = -1},
                                   {.code = BPF_JMP | BPF_EXIT}};
    int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "empty", "GPL", all, sizeof(all) / sizeof(all[0]), NULL);
    return fd >= 0 ? fd : -errno;
}

static int attach_tcx(struct hands *h, int program)
{
    h->tcx = bpf_link_create(program, h->index, (enum bpf_attach_type)TCX_INGRESS, NULL);
    return h->tcx >= 0 ? 0 : -errno;
}

static int attach_tc(const struct hands *h, int program)
{
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = h->index, .attach_point = BPF_TC_INGRESS);
    LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = program, .handle = 1, .priority = 1);
    int r = bpf_tc_hook_create(&hook);
    return r < 0 && r != -EEXIST ? r : bpf_tc_attach(&hook, &options);
}

static int obey(struct hands *h, const char *order)
{
    detach(h);
    return strcmp(order, "tc") == 0          ? attach_tc(h, h->tc.fd)
           : strcmp(order, "empty-tc") == 0  ? attach_tc(h, h->empty)
           : strcmp(order, "tcx") == 0       ? attach_tcx(h, h->tc.fd)
           : strcmp(order, "empty-tcx") == 0 ? attach_tcx(h, h->empty)
           : strcmp(order, "native") == 0    ? bpf_xdp_attach(h->index, h->xdp.fd, XDP_FLAGS_DRV_MODE, NULL)
           : strcmp(order, "generic") == 0   ? bpf_xdp_attach(h->index, h->xdp.fd, XDP_FLAGS_SKB_MODE, NULL)
           : strcmp(order, "none") == 0      ? 0
                                             : -EINVAL;
}

static int do_attach(const char *device)
{
    struct hands h = {.index = (int)if_nametoindex(device), .tcx = -1};
    char order[64];
    int r = h.index > 0 ? gate_program_load((struct gate_kind){0}, NULL, &h.xdp) : -ENODEV;
    r = r == 0 ? gate_program_load((struct gate_kind){.tc = true}, &h.xdp.maps, &h.tc) : r;
    h.empty = r == 0 ? load_empty() : -1;
    r = r == 0 && h.empty < 0 ? h.empty : r;
    if (r < 0) {
        fail(device, -r);
    }
    (void)libbpf_set_print(NULL); /* it has words for a hook that is there, or not */
    enforce(&h.xdp.maps);
    while (fgets(order, sizeof(order), stdin) != NULL) {
        order[strcspn(order, "\n")] = '\0';
        r = obey(&h, order);
        if (r < 0) {
            fail(order, -r);
        }
        answer("done");
    }
    detach(&h);
    (void)close(h.empty);
    gate_program_close(&h.tc);
    gate_program_close(&h.xdp);
    return 0;
}

/* The sender */

static uint8_t frames[FRAMES][LENGTH];

static void put16(uint8_t *p, uint32_t n)
{
    p[0] = (uint8_t)(n >> 8);
    p[1] = (uint8_t)n;
}

static void build(const uint8_t to[6])
{
    uint64_t seed = 25;
    for (size_t i = 0; i < FRAMES; i++) {
        uint8_t *f = frames[i], *ip = f + 14, *tcp = ip + 20;
        uint64_t n = gate_set_draw(&seed);
        memcpy(f, to, 6);
        memcpy(f + 6, "\x02\x00\x00\x00\x01\x02", 6);
        put16(f + 12, ETHERTYPE_IP);
        ip[0] = 0x45;
        put16(ip + 2, LENGTH - 14);
        ip[8] = 64;
        ip[9] = 6;
        memcpy(ip + 12, (const uint8_t[]){198, 51, (uint8_t)(100 + (n & 3)), (uint8_t)(n >> 8)}, 4);
        memcpy(ip + 16, (const uint8_t[]){203, 0, 112, (uint8_t)(n >> 16)}, 4);
        uint32_t sum = 0;
        for (size_t k = 0; k < 20; k += 2) {
            sum += (uint32_t)ip[k] << 8 | ip[k + 1];
        }
        put16(ip + 10, ~(sum + (sum >> 16)));
        put16(tcp, 1024 + (uint32_t)(n >> 32 & 0x7fff));
        put16(tcp + 2, 443);
        tcp[12] = 0x50;
        tcp[13] = 0x10;
    }
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void send_frames(int fd, unsigned long count)
{
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    double cpu = seconds(CLOCK_THREAD_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
    unsigned long sent = 0;
    while (sent < count) {
        for (size_t i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){.iov_base = frames[(sent + i) % FRAMES], .iov_len = LENGTH};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
        }
        int n = sendmmsg(fd, messages, BATCH, 0);
        if (n <= 0 && errno != ENOBUFS) {
            fail("send", errno);
        }
        sent += n > 0 ? (unsigned long)n : 0;
    }
    cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
    wall = seconds(CLOCK_MONOTONIC) - wall;
    (void)printf("{\"sent\": %lu, \"cpu\": %.6f, \"wall\": %.6f}\n", sent, cpu, wall);
    (void)fflush(stdout);
}

static int do_send(const char *device, const char *mac)
{
    unsigned octets[6];
    uint8_t to[6];
    char order[64];
    int yes = 1, fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(device)};
    if (sscanf(mac, "%x:%x:%x:%x:%x:%x", &octets[0], &octets[1], &octets[2], &octets[3], &octets[4], &octets[5]) != 6) {
        return 64;
    }
    for (size_t i = 0; i < 6; i++) {
        to[i] = (uint8_t)octets[i];
    }
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof(yes)) < 0) {
        fail(device, errno);
    }
    build(to);
    while (fgets(order, sizeof(order), stdin) != NULL) {
        send_frames(fd, strtoul(order, NULL, 10));
    }
    (void)close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    log_open("gate-frames", LOG_LEVEL_INFO, -1);
    if (argc == 3 && strcmp(argv[1], "attach") == 0) {
        return do_attach(argv[2]);
    }
    return argc == 4 && strcmp(argv[1], "send") == 0 ? do_send(argv[2], argv[3]) : 64;
}

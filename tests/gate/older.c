/*
 * older: the gate's programs by rules that the verifier of Linux 6.1 has and later ones do not, so that a newer kernel
 * finds what the older one would not take: a walk over the program (check_cfg() there) in which only a jump may lead
 * back, and the octets of stack of calls within calls, each rounded up to 32. What 6.1 knows less of registers is not
 * told. And how much of what a verifier is ready to read it read here. Needs root. A line a program; the last counts.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "gate_tc.skel.h"
#include "gate_xdp.skel.h"

#define INSNS_MAX  16384
#define STACK_MAX  512
#define STACK_STEP 32
#define READ_MAX   700000 /* of 1,000,000: another kernel may read more */

enum { NEW, DISCOVERED, EXPLORED };

struct walk {
    const struct bpf_insn *insns;
    uint32_t count, back; /* how often something that is no jump leads back */
    uint8_t state[INSNS_MAX], edges[INSNS_MAX];
    uint32_t path[INSNS_MAX], deep;
};

static struct walk w;

static bool is_call(const struct bpf_insn *i)
{
    return i->code == (BPF_JMP | BPF_CALL) && i->src_reg == BPF_PSEUDO_CALL;
}

static bool is_jump(const struct bpf_insn *i)
{
    uint8_t class = BPF_CLASS(i->code), op = BPF_OP(i->code);
    return (class == BPF_JMP || class == BPF_JMP32) && op != BPF_CALL && op != BPF_EXIT;
}

/* Where the edge leads, of which there are at most two: what comes next first. False: no such edge. */
static bool edge_of(uint32_t at, uint32_t edge, uint32_t *ret)
{
    const struct bpf_insn *i = &w.insns[at];
    bool always = is_jump(i) && BPF_OP(i->code) == BPF_JA;
    if (i->code == (BPF_JMP | BPF_EXIT) || edge > 1 || (edge == 1 && (always || !(is_jump(i) || is_call(i))))) {
        return false;
    }
    int32_t by = edge == 1 && is_call(i) ? i->imm : edge == 1 || always ? i->off : 0;
    *ret = (uint32_t)((int32_t)at + 1 + by);
    return *ret < w.count;
}

static void step(void)
{
    uint32_t at = w.path[w.deep - 1], to;
    if (!edge_of(at, w.edges[at]++, &to)) {
        w.state[at] = EXPLORED;
        w.deep--;
    } else if (w.state[to] == NEW) {
        w.state[to] = DISCOVERED;
        w.path[w.deep++] = to;
    } else if (w.state[to] == DISCOVERED && !is_jump(&w.insns[at])) {
        (void)printf("instruction %u leads back to %u and is no jump\n", at, to);
        w.back++;
    }
}

static uint32_t own_stack(uint32_t from, uint32_t to)
{
    int32_t low = -1; /* a function without any counts, too */
    for (const struct bpf_insn *i = w.insns + from; i < w.insns + to; i++) {
        uint8_t class = BPF_CLASS(i->code);
        bool stores = (class == BPF_ST || class == BPF_STX) && i->dst_reg == BPF_REG_10;
        bool loads = class == BPF_LDX && i->src_reg == BPF_REG_10;
        bool points = i > w.insns && i->code == (BPF_ALU64 | BPF_ADD | BPF_K) && i[-1].src_reg == BPF_REG_10 &&
                      i[-1].dst_reg == i->dst_reg && i[-1].code == (BPF_ALU64 | BPF_MOV | BPF_X);
        int32_t at = points ? i->imm : stores || loads ? i->off : -1;
        low = at < low ? at : low;
    }
    return ((uint32_t)-low + STACK_STEP - 1) / STACK_STEP * STACK_STEP;
}

static uint32_t end_of(uint32_t from)
{
    uint32_t end = w.count;
    for (uint32_t i = 0; i < w.count; i++) {
        uint32_t start = is_call(&w.insns[i]) ? i + 1 + (uint32_t)w.insns[i].imm : 0;
        end = start > from && start < end ? start : end;
    }
    return end;
}

/* The kernel takes no recursion, and at most 8 deep. */
static uint32_t stack_from(uint32_t from)
{
    uint32_t end = end_of(from), most = 0;
    for (uint32_t i = from; i < end; i++) {
        uint32_t inner = is_call(&w.insns[i]) ? stack_from(i + 1 + (uint32_t)w.insns[i].imm) : 0;
        most = inner > most ? inner : most;
    }
    return own_stack(from, end) + most;
}

static uint32_t read_of(const struct bpf_program *p)
{
    struct bpf_prog_info info = {0};
    uint32_t size = sizeof(info);
    return bpf_obj_get_info_by_fd(bpf_program__fd(p), &info, &size) == 0 ? info.verified_insns : 0;
}

static bool check(const char *hook, const struct bpf_program *p)
{
    w = (struct walk){.insns = bpf_program__insns(p), .count = (uint32_t)bpf_program__insn_cnt(p), .deep = 1};
    if (w.count == 0 || w.count > INSNS_MAX) {
        (void)printf("%s %s: %u instructions\n", hook, bpf_program__name(p), w.count);
        return false;
    }
    w.state[0] = DISCOVERED;
    while (w.deep > 0) {
        step();
    }
    uint32_t stack = stack_from(0), verified = read_of(p);
    (void)printf("%s %s: %u instructions, %u read by the verifier, %u octets of stack\n", hook, bpf_program__name(p),
                 w.count, verified, stack);
    return w.back == 0 && stack <= STACK_MAX && verified > 0 && verified <= READ_MAX;
}

int main(void)
{
    struct gate_xdp_bpf *xdp = gate_xdp_bpf__open_and_load();
    struct gate_tc_bpf *tc = gate_tc_bpf__open_and_load();
    if (xdp == NULL || tc == NULL) {
        (void)fprintf(stderr, "older: the programs do not load\n");
        return 2;
    }
    unsigned good = check("XDP", xdp->progs.gate_ether) + check("XDP", xdp->progs.gate_ip) +
                    check("TC", tc->progs.gate_ether) + check("TC", tc->progs.gate_ip);
    gate_xdp_bpf__destroy(xdp);
    gate_tc_bpf__destroy(tc);
    (void)printf("%u passed, %u failed\n", good, 4 - good);
    return good == 4 ? 0 : 1;
}

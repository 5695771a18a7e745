/*
 * gate_kernel.h: packets judged by the program in the kernel, loaded for this alone: no interface, nothing pinned.
 */
#ifndef KIDOBAN_CLI_GATE_KERNEL_H
#define KIDOBAN_CLI_GATE_KERNEL_H

#include "policy/evaluate.h"

struct gate_kernel;

/* Loads the policy. 0 and *ret, or -errno: -EPERM without CAP_BPF and CAP_NET_ADMIN. The policy is borrowed. */
int gate_kernel_open(const struct policy *p, enum packet_side side, struct gate_kernel **ret);
void gate_kernel_close(struct gate_kernel **k);
/* As policy_evaluate(), but every connection is its subject's first, and the clock is the kernel's. A frame that no
 * device can hand over (under 14 octets) passes. 0 or -errno. */
int gate_kernel_judge(struct gate_kernel *k, const struct policy_question *q, struct policy_judgement *ret);
/* The program saw in place that it is not of port 25, and does not say more (the reference may: tail, unparsed). */
bool gate_kernel_agrees(const struct policy_judgement *reference, const struct policy_judgement *kernel);

#endif

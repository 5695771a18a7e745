/*
 * gate_loaded.h: what the programs in the kernel say of one packet, for `kidoban gate test`.
 */
#ifndef KIDOBAN_CLI_GATE_LOADED_H
#define KIDOBAN_CLI_GATE_LOADED_H

#include "policy/evaluate.h"

struct loaded_answer {
    enum policy_verdict verdict, would;
    enum policy_reason rule;
    bool has_rule; /* false: there was no policy to judge by */
    bool keeper;   /* by the keeper's program; else by one that was loaded for this, with the policy p */
};

/* Where the keeper has pinned its programs, its own is run on the packet and says what becomes of it: it counts it,
 * too, like any other packet. The rule is told by a copy that shares the policy in force with it and nothing else. q:
 * with an Ethernet header. 0 or -errno: -EPERM without CAP_BPF and CAP_NET_ADMIN. */
int gate_loaded_ask(const char *pins, const struct policy *p, const struct policy_question *q,
                    struct loaded_answer *ret);

#endif

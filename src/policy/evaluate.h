/*
 * evaluate.h: the reference: what docs/gate.md says of one frame, by plain and slow code. It reads the policy's
 * prefixes one by one as the operator wrote them, and shares no code with compile.c or the kernel's program, which are
 * compared with it.
 */
#ifndef KIDOBAN_POLICY_EVALUATE_H
#define KIDOBAN_POLICY_EVALUATE_H

#include "policy/packet.h"

/* How far ahead of the clock each subject of a rate is. At most POLICY_RATES_MAX subjects: beyond, the one that is the
 * least ahead is forgotten. */
#define POLICY_RATES_MAX 65536
struct policy_rates;

struct policy_rates *policy_rates_new(void); /* NULL: no memory */
void policy_rates_free(struct policy_rates **r);

struct policy_question {
    enum packet_side side;
    enum packet_link link;
    struct span frame;          /* borrowed */
    uint64_t now_boot_ns;       /* for exemptions and rates; CLOCK_BOOTTIME, or what stands for it */
    struct policy_rates *rates; /* NULL: every connection is its subject's first */
};

struct policy_judgement {
    enum policy_verdict verdict;
    enum policy_verdict would; /* what it would be if nothing were only monitored; else as verdict */
    enum policy_reason reason; /* of `would` */
    bool asked;                /* the subject's rule was asked: what follows is set */
    struct policy_address subject;
    size_t class_;          /* in policy->classes; 0: in none */
    const char *class_name; /* the policy's; "default": in none */
    uint64_t exemption;     /* its id when one holds, else 0 */
};

void policy_evaluate(const struct policy *p, const struct policy_question *q, struct policy_judgement *ret);

/* What holds for one address: also for the tests of compile.c. */
struct policy_standing {
    bool listed; /* in a class, or exempted now */
    size_t class_;
    const struct policy_exemption *exemption; /* that holds now, of the longest prefix; or NULL */
};
struct policy_standing policy_standing_of(const struct policy *p, const struct policy_address *a, uint64_t now_boot_ns);
bool policy_set_holds(const struct policy *p, unsigned set, const struct policy_address *a);

#endif

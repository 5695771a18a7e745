#include "cli/gate_kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gate/program.h"
#include "policy/compile.h"

struct gate_kernel {
    const struct policy *policy;
    enum packet_side side;
    struct policy_rows rows;
    struct gate_program programs[2]; /* by link */
    bool loaded[2];
};

void gate_kernel_close(struct gate_kernel **kp)
{
    struct gate_kernel *k = *kp;
    *kp = NULL;
    if (k == NULL) {
        return;
    }
    for (size_t i = 0; i < 2; i++) {
        if (k->loaded[i]) {
            gate_program_close(&k->programs[i]);
        }
    }
    policy_rows_fini(&k->rows);
    free(k);
}

/* The first is for Ethernet and makes the maps; the other only where it is needed: loading takes long. */
static int load(struct gate_kernel *k, enum packet_link link)
{
    struct gate_kind kind = {.ip = link == PACKET_IP, .uplink = k->side == PACKET_UPLINK, .explain = true};
    int r = k->loaded[link] ? 0 : gate_program_load(kind, link > 0 ? &k->programs[0].maps : NULL, &k->programs[link]);
    k->loaded[link] = r == 0;
    return r;
}

static int set_policy(struct gate_kernel *k)
{
    struct policy_blob blob;
    int r = policy_rows_assign(&k->rows, k->policy);
    r = r == 0 ? policy_compile(k->policy, &k->rows, 1, &blob) : r;
    if (r == 0) {
        r = gate_policy_set(&k->programs[0].maps, blob.cells, blob.count);
        free(blob.cells);
    }
    return r;
}

int gate_kernel_open(const struct policy *p, enum packet_side side, struct gate_kernel **ret)
{
    struct gate_kernel *k = calloc(1, sizeof(*k));
    if (k == NULL) {
        return -ENOMEM;
    }
    k->policy = p;
    k->side = side;
    int r = load(k, PACKET_ETHERNET);
    r = r == 0 ? set_policy(k) : r;
    if (r < 0) {
        gate_kernel_close(&k);
        return r;
    }
    *ret = k;
    return 0;
}

static size_t class_of(const struct gate_kernel *k, uint32_t number)
{
    for (size_t i = 0; i < k->policy->classes_count; i++) {
        if (number < BLOB_CLASSES_MAX && k->rows.names[number] != NULL &&
            strcmp(k->rows.names[number], k->policy->classes[i].name) == 0) {
            return i;
        }
    }
    return 0;
}

int gate_kernel_judge(struct gate_kernel *k, const struct policy_question *q, struct policy_judgement *ret)
{
    const struct gate_program *program = &k->programs[q->link];
    enum policy_verdict verdict;
    struct gate_judgement j;
    *ret = (struct policy_judgement){0};
    int r = load(k, q->link);
    r = r == 0 ? gate_program_run(program, q->frame, &verdict, &j, NULL) : r;
    if (r < 0) {
        return r;
    }
    if (j.reason == REASON_RATE) {
        gate_sources_forget(&program->maps);
    }
    ret->verdict = (enum policy_verdict)j.verdict;
    ret->would = (enum policy_verdict)j.would;
    ret->reason = (enum policy_reason)j.reason;
    ret->asked = j.reason > REASON_UNPARSED;
    ret->class_ = class_of(k, j.class_);
    ret->class_name = k->policy->classes[ret->class_].name;
    ret->exemption = j.exemption;
    return 0;
}

bool gate_kernel_agrees(const struct policy_judgement *reference, const struct policy_judgement *kernel)
{
    if (kernel->reason == REASON_OTHER && kernel->would == POLICY_PASS) {
        return reference->would == POLICY_PASS && reference->reason <= REASON_UNPARSED;
    }
    return reference->verdict == kernel->verdict && reference->would == kernel->would &&
           reference->reason == kernel->reason && (!reference->asked || reference->class_ == kernel->class_);
}

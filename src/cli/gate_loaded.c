#include "cli/gate_loaded.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/gate_kernel.h"
#include "gate/program.h"

static int open_pin(const char *pins, const char *name)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/%s", pins, name);
    return n > 0 && (size_t)n < sizeof(path) ? bpf_obj_get(path) : -ENAMETOOLONG;
}

/* One of this side for Ethernet, of whatever build: the keeper leaves only its own. */
static int open_program(const char *pins, enum packet_side side, bool *ret_tc)
{
    const char *kinds[] = {"tc", "xdp"};
    DIR *all = opendir(pins);
    int fd = -ENOENT;
    for (const struct dirent *e; fd < 0 && all != NULL && (e = readdir(all)) != NULL;) {
        for (size_t i = 0; i < 2 && fd < 0; i++) {
            char prefix[64];
            int len = snprintf(prefix, sizeof(prefix), "program-%s-%s-", kinds[i],
                               side == PACKET_UPLINK ? "uplink" : "subscriber");
            if (strncmp(e->d_name, prefix, (size_t)len) == 0) {
                fd = open_pin(pins, e->d_name);
                *ret_tc = i == 0;
            }
        }
    }
    if (all != NULL) {
        (void)closedir(all);
    }
    return fd;
}

/* A program tells passing from not passing; which of the two others it is depends on whether it could answer. */
static void take_verdict(enum policy_verdict verdict, const struct gate_judgement *j, struct loaded_answer *ret)
{
    bool same = (verdict == POLICY_PASS) == (j->verdict == POLICY_PASS);
    ret->verdict = same ? (enum policy_verdict)j->verdict : verdict;
    ret->would = (enum policy_verdict)j->would;
    ret->rule = (enum policy_reason)j->reason;
    ret->has_rule = same || j->runs > 0;
}

static int ask_keepers(const char *pins, int policy_fd, const struct policy_question *q, struct loaded_answer *ret)
{
    struct gate_maps shared;
    struct gate_program copy, keepers = {.kind = {.uplink = q->side == PACKET_UPLINK}};
    struct gate_judgement j, none;
    enum policy_verdict verdict;
    for (size_t i = 0; i < GATE_MAPS; i++) {
        shared.fd[i] = keepers.maps.fd[i] = -1;
    }
    shared.fd[GATE_MAP_POLICY] = policy_fd;
    int r = gate_program_load((struct gate_kind){.uplink = q->side == PACKET_UPLINK, .explain = true}, &shared, &copy);
    if (r < 0) {
        return r;
    }
    r = gate_program_run(&copy, q->frame, &verdict, &j, NULL);
    gate_program_close(&copy);
    keepers.fd = r == 0 ? open_program(pins, q->side, &keepers.kind.tc) : r;
    r = keepers.fd < 0 ? keepers.fd : gate_program_run(&keepers, q->frame, &verdict, &none, NULL);
    gate_program_close(&keepers);
    if (r == 0) {
        take_verdict(verdict, &j, ret);
        ret->keeper = true;
    }
    return r;
}

static int ask_fresh(const struct policy *p, const struct policy_question *q, struct loaded_answer *ret)
{
    struct gate_kernel *k = NULL;
    struct policy_judgement j = {0};
    int r = gate_kernel_open(p, q->side, &k);
    r = r == 0 ? gate_kernel_judge(k, q, &j) : r;
    gate_kernel_close(&k);
    if (r == 0) {
        *ret = (struct loaded_answer){.verdict = j.verdict, .would = j.would, .rule = j.reason, .has_rule = true};
    }
    return r;
}

int gate_loaded_ask(const char *pins, const struct policy *p, const struct policy_question *q,
                    struct loaded_answer *ret)
{
    char name[32];
    *ret = (struct loaded_answer){0};
    (void)snprintf(name, sizeof(name), "map-policy-%d", BLOB_VERSION);
    int fd = open_pin(pins, name);
    if (fd < 0) {
        return ask_fresh(p, q, ret);
    }
    int r = ask_keepers(pins, fd, q, ret);
    (void)close(fd);
    return r;
}

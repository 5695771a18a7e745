/*
 * program.h: the programs of gate.bpf.c in the kernel: load them, give them a policy, run them on a frame.
 *
 * A program is loaded for one hook, one kind of device and one side; all that share a set of maps share policy,
 * counters and sources. Needs CAP_BPF and CAP_NET_ADMIN. Functions return 0 or -errno; libbpf's own words go to the
 * log.
 */
#ifndef KIDOBAN_GATE_PROGRAM_H
#define KIDOBAN_GATE_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "gate/gate.h"
#include "policy/blob.h"

struct gate_kind {
    bool tc;      /* else XDP */
    bool ip;      /* a device without Ethernet headers */
    bool egress;  /* TC only: where packets leave the device */
    bool uplink;  /* judges the uplink side */
    bool explain; /* for tests and `gate test`: gate_program_run() gives the judgement */
};

enum gate_map {
    GATE_MAP_POLICY,
    GATE_MAP_ROWS,
    GATE_MAP_REASONS,
    GATE_MAP_SOURCES,
    GATE_MAP_EVENTS,
    GATE_MAP_JUDGEMENT,
    GATE_MAPS
};

struct gate_maps {
    int fd[GATE_MAPS];
};

struct gate_program {
    struct gate_kind kind;
    int fd;
    struct gate_maps maps;
};

/* shared: maps of a program loaded before, or NULL: new ones; new ones too where its descriptor is -1 or the map has
 * another shape, as one of another build may have. The descriptors in ret are its own (duplicates). */
int gate_program_load(struct gate_kind kind, const struct gate_maps *shared, struct gate_program *ret);
void gate_program_close(struct gate_program *p);
/* Of the object that programs of that kind come from: another build has another number. */
uint64_t gate_program_build(struct gate_kind kind);

/* A new array for that many cells; fill it (gate_cells_fill), then put it into force in one step. */
int gate_policy_set(const struct gate_maps *maps, const union blob_cell *cells, size_t count);

/* Forgets every source: what it did, its rate, its answers. */
void gate_sources_forget(const struct gate_maps *maps);

/* Runs the loaded program on that very frame. verdict: from its return value. judgement: only with explain; a frame
 * that took the short way is a pass for REASON_OTHER. out: the frame as it left (an answer), may be NULL. */
int gate_program_run(const struct gate_program *p, struct span frame, enum policy_verdict *ret_verdict,
                     struct gate_judgement *ret_judgement, struct buf *out);

#endif

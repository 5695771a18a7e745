/*
 * offline.h: the spool read without its daemon, for `kidoban spool verify` and `export`. Nothing is written to it, no
 * lock is taken: beside a running daemon, what is being written at that moment may look torn.
 */
#ifndef KIDOBAN_SPOOL_OFFLINE_H
#define KIDOBAN_SPOOL_OFFLINE_H

#include <stdint.h>

struct offline_finding {
    const char *words;        /* what is wrong, a sentence */
    uint64_t id;              /* of the message, or 0 */
    uint64_t segment, offset; /* segment 0: none */
    uint64_t length;
};

struct offline_ops {
    void (*finding)(void *arg, const struct offline_finding *f); /* may be NULL */
    void (*progress)(void *arg, uint64_t done, uint64_t of);     /* may be NULL; often, in no fixed unit */
};

struct offline_result {
    uint64_t segments, batches, records;
    uint64_t messages, held, octets;
    uint64_t findings; /* of them, torn unacknowledged batches are no loss but are told too */
    uint64_t written;  /* export: messages */
};

/* 0 and *ret, also with findings; -errno when the directory cannot be read as a spool. */
int offline_verify(const char *directory, const struct offline_ops *ops, void *arg, struct offline_result *ret);
/* The same, and every whole message goes to `to` (made when missing) as ID.eml and ID.json (envelope and states).
 * Existing files there are not overwritten: -EEXIST. */
int offline_export(const char *directory, const char *to, const struct offline_ops *ops, void *arg,
                   struct offline_result *ret);

#endif

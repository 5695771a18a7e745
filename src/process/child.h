/*
 * child.h: what every process but the master starts with: its loop, its configuration, its descriptors, its end.
 *
 * child_run() reads the master's frames until START, calls ops->start (make listeners, open files by the directory
 * descriptor, prepare threads), drops to the user given, applies the sandbox named by the role, tells READY and runs
 * the loop. A reload calls ops->reload with the new configuration; the old one is freed when its last reference goes.
 */
#ifndef KIDOBAN_PROCESS_CHILD_H
#define KIDOBAN_PROCESS_CHILD_H

#include <uv.h>

#include "config/config.h"
#include "process/channel.h"
#include "wire/master.h"

struct child_tls {
    struct master_tls what;
    struct buf pem; /* wiped when the reload is over */
    int fd;         /* TLS_PREFIXES: the memfd, closed when the reload is over; pem is empty. Else -1 */
};

/* A configuration with the number of those who hold it. */
struct config_ref {
    struct config *config;
    size_t holders;
};
struct config_ref *config_ref_hold(struct config_ref *ref);
void config_ref_drop(struct config_ref **ref);

struct child {
    uv_loop_t *loop;
    enum master_role role;
    uint32_t instance;
    struct config_ref *config; /* now */
    int directory_fd;          /* own state directory, or -1 */
    int control_fd;            /* listening unix socket, or -1 */
    int shared_fd;             /* submit: memory that all submits share, or -1 */
    int pins_fd;               /* gate: its directory of a bpffs, which ops->start opened, or -1 */
    bool again;                /* the house served before: what is missing now may come back */
    bool stopping;
    void *arg; /* the process's own */
};

struct child_ops {
    /* Before rights are dropped. 0, or -errno after logging why: the process exits 1. */
    int (*start)(struct child *c);
    /* In the loop, rights dropped, before READY. May be NULL. */
    int (*ready)(struct child *c);
    /* c->config is new; tls is what came with it (submit, gate). Also called once after start, before rights are
     * dropped. -errno: keep the old one (at the start: give up). May be NULL. */
    int (*reload)(struct child *c, struct child_tls *tls, size_t tls_count);
    /* A socket pair to a peer; replaces an older one. fd is the callee's. May be NULL where a role has no peers. */
    void (*peer)(struct child *c, enum master_role role, uint32_t instance, int fd);
    /* A listening socket for submission.listen[index]. fd is the callee's. May be NULL. */
    void (*listener)(struct child *c, uint32_t index, int fd);
    /* Take nothing new and finish; call child_exit() when done, at the latest after grace_ms. */
    void (*stop)(struct child *c, uint32_t grace_ms);
    /* Files or folders that may be read after the sandbox (NULL-terminated), or NULL. */
    const char *const *read_paths;
    /* Figures for `kidoban status`: appends a JSON object. May be NULL. */
    void (*status)(struct child *c, struct buf *json);
};

/* Never returns before the process should end; the exit status. Descriptor 3 is the master. */
int child_run(enum master_role role, uint32_t instance, const struct child_ops *ops, void *arg);
void child_exit(struct child *c, int status);
/* Tell the master that the channel to that peer is broken, and the log why; it sends a new one. Not while stopping. */
void child_peer_broken(struct child *c, enum master_role role, uint32_t instance, const char *why);

/* The mains of the processes: each folder has one. */
int submit_main(uint32_t instance);
int vault_main(uint32_t instance);
int guard_main(uint32_t instance);
int spool_main(uint32_t instance);
int deliver_main(uint32_t instance);
int gate_main(uint32_t instance);

#endif

/*
 * master.h (wire): the master and each child, over descriptor 3 of the child.
 */
#ifndef KIDOBAN_WIRE_MASTER_H
#define KIDOBAN_WIRE_MASTER_H

#include "wire/frame.h"

enum master_role { ROLE_MASTER, ROLE_SUBMIT, ROLE_VAULT, ROLE_GUARD, ROLE_SPOOL, ROLE_DELIVER, ROLE_GATE, ROLE_COUNT };

enum master_type {
    MASTER_CONFIG = 1, /* memfd with the YAML text; payload: its file name. Sent first, and again at each reload */
    MASTER_TLS, /* memfd with a file's octets; payload: struct master_tls. After CONFIG, before CONFIG_DONE. For submit
                 * what is PEM, for gate TLS_PREFIXES */
    MASTER_EVENT_FILE, /* descriptor of the event file; again after rotation */
    MASTER_DIRECTORY,  /* descriptor of the child's own state directory (vault, guard, spool, gate), opened O_PATH |
                          O_DIRECTORY */
    MASTER_LISTENER, /* a listening socket; payload: u32 index into submission.listen, or for control: LISTENER_CONTROL
                      */
    MASTER_PEER,  /* a socket pair end; payload: u8 role, u32 instance of the peer, u32 epoch of the pair. Replaces an
                     older one */
    MASTER_START, /* everything for the first start was sent: drop rights, begin. payload: nothing,
                   * or u8 1: the house served before */
    MASTER_CONFIG_DONE, /* all of the new configuration was sent: swap now. Listeners follow */
    MASTER_STOP,        /* payload: u32 grace in ms. Take nothing new, finish, exit 0 */
    MASTER_SHARED,      /* submit: memfd of MASTER_SHARED_SIZE octets that all submits map; random seeds, then zeros */
    MASTER_STATUS,      /* answered by MASTER_STATUS_REPLY with the same id */
    CHILD_READY,        /* child -> master after START: serving */
    CHILD_STATUS_REPLY, /* JSON object of figures */
    CHILD_PEER_BROKEN, /* child -> master: u8 role, u32 instance, u32 epoch: that channel closed or spoke nonsense; make
                        * a new pair
                        */
    MASTER_RELOADED,   /* after CONFIG_DONE and the listeners: has it swapped? Answered with the same id */
    CHILD_RELOADED,    /* JSON true, or false: it keeps the old one */
};

#define LISTENER_CONTROL       UINT32_MAX
#define MASTER_SHARED_SIZE     (8U * 1024U * 1024U)
#define MASTER_SHARED_FAMILIAR (6U * 1024U * 1024U) /* where submit/familiar.h has its part; before it, crowd.h */

/* What a file is that the configuration names and a child may not open. */
enum master_tls_kind { TLS_CERTIFICATE, TLS_KEY, TLS_CLIENT_CA, TLS_PREFIXES };

struct master_tls {
    uint8_t kind;    /* enum master_tls_kind */
    uint32_t number; /* 0: the default certificate; then submission.tls.certificates in order. TLS_PREFIXES: of the
                        class, in the file's order */
};

void master_tls_encode(struct wire_writer *w, const struct master_tls *m);
int master_tls_decode(struct span payload, struct master_tls *m);

const char *master_role_name(enum master_role role);                 /* "submit" */
int master_role_parse(const char *name, enum master_role *ret_role); /* 0 or -EINVAL */

#endif

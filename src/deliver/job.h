/*
 * job.h: one message and its recipients of one domain, from the JOB frame to the last OUTCOME; and the files that hold
 * the octets.
 *
 * A job is one allocation: the frame's payload is copied behind it and the envelope's views point there. It never holds
 * the message: its size has nothing to do with the message's.
 */
#ifndef KIDOBAN_DELIVER_JOB_H
#define KIDOBAN_DELIVER_JOB_H

#include <sys/queue.h>

#include "deliver/queue.h"
#include "wire/deliver.h"

/* Descriptors by the number that the spool gave them. */
struct files;
struct file;

struct files *files_new(void);                                /* NULL: out of memory */
void files_free(struct files **f);                            /* files still held by jobs stay open until those go */
int files_add(struct files *f, uint64_t number, int take_fd); /* 0, -EEXIST, -ENOMEM; the descriptor is taken anyway */
int files_forget(struct files *f, uint64_t number);           /* 0 or -ENOENT; closed when no job holds it any more */
size_t files_count(const struct files *f);

struct job {
    struct queue_item item; /* first: a job is its item */
    uint64_t id;            /* the message's */
    uint64_t generation;    /* of the channel that brought it */
    struct file *file;
    int fd;                  /* of the file: borrowed from it */
    struct deliver_job wire; /* views into the copy */
    unsigned tries;          /* new connections that broke under it */
    bool wants_fresh;        /* a used connection broke under it: only a new one tells whether it is the job */
    bool sending;            /* a connection has it */
    bool cancelled;          /* nobody wants it any more */
    TAILQ_ENTRY(job) in_all;
    uint16_t open; /* recipients without a result */
    bool *settled; /* by index in wire.envelope.recipients */
    size_t octets; /* of memory, for the bound */
};

/* 0 and *ret_job; -EBADMSG: the payload does not decode; -ENOENT: no such file; -ENOMEM. */
int job_new(uint64_t id, struct span payload, struct files *files, struct job **ret_job);
void job_free(struct job **j);
size_t job_memory(void); /* octets of all jobs there are */
/* The next job of that message after j, or the first when j is NULL; NULL: no other. A walk through all jobs. */
struct job *job_next(const struct job *j, uint64_t id);
void job_cancel_all(void); /* nobody wants any of those that there are now */

/* Reads len octets of the message from position at. 0, -EBADMSG when the file ends before, or -errno. Blocks for a
 * disk. */
int job_read(const struct job *j, uint64_t at, void *room, size_t len);

#endif

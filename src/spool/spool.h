/*
 * spool.h: the spool: takes messages, keeps its word about them, says what is to be delivered, and never forgets one.
 *
 * No sockets and no event loop here: a process (or a simulation) calls in, and is called back through struct spool_ops,
 * always on its own thread. Disk work happens on three workers; when one has results, ops->wake is called (from that
 * worker's thread) and the owner calls spool_poll(). All functions return at once, but for spool_open() and
 * spool_close().
 */
#ifndef KIDOBAN_SPOOL_SPOOL_H
#define KIDOBAN_SPOOL_SPOOL_H

#include "spool/disk.h"
#include "spool/index.h"
#include "spool/log.h"
#include "wire/deliver.h"
#include "wire/spool.h"

#define SPOOL_SHARDS_MAX 64

struct spool_config {
    struct schedule_config schedule;
    uint32_t shards;                        /* deliver processes, at most SPOOL_SHARDS_MAX */
    uint64_t lifetime_ms, delay_warning_ms; /* 0: no warning */
    uint64_t reserve_octets;                /* kept free; 0: two segments or 1 % of the disk */
    uint64_t reserve_inodes;
    uint64_t segment_size;         /* 0: by the size of the disk, at most 64 MiB */
    bool threaded;                 /* false: workers run inside spool_poll() */
    uint64_t (*random)(void *arg); /* NULL: the kernel's */
    void *random_arg;
    struct span hostname, from_domain, help_url; /* for DSNs; borrowed until the next spool_configure() */
};
struct spool_config spool_config_default(void);

struct spool_ops {
    /* The answer to a put or commit. refused NULL: stored. */
    void (*answer)(void *arg, uint64_t ticket, uint64_t id, const struct spool_refused *refused);
    void (*job)(void *arg, uint32_t shard, uint64_t id, const struct deliver_job *job);
    void (*forget)(void *arg, uint64_t file);                  /* no JOB will name it again */
    void (*cancel)(void *arg, uint32_t shard, uint64_t id);    /* its jobs that are out are not wanted any more */
    void (*state)(void *arg, const struct spool_state *state); /* admission has changed */
    void (*pressure)(void *arg, bool on);                      /* on: stop reading from submit for now */
    void (*wake)(void *arg);                                   /* from any thread */
};

struct spool;

/* Recovers, blocking. 0 and *ret, -EBUSY: another daemon has this spool, or -errno after logging why. disk and ops are
 * borrowed. */
int spool_open(const struct spool_disk *disk, const struct spool_config *config, const struct spool_ops *ops, void *arg,
               struct spool **ret);
/* Writes what has gathered (unless writing fails), then frees. Answers may still be called. */
void spool_close(struct spool **sp);
void spool_configure(struct spool *sp, const struct spool_config *config); /* times, reserves, names; not shards */
/* Does what there is to do. Returns when (clock_mono_ms) it should be called again at the latest. */
uint64_t spool_poll(struct spool *sp);
void spool_state(const struct spool *sp, struct spool_state *ret); /* admission now; text is static */

/* --- submit's side. ticket: the asker's channel; id: the message's --- */
void spool_put(struct spool *sp, uint64_t ticket, uint64_t id, const struct spool_put *put);
void spool_begin(struct spool *sp, uint64_t ticket, uint64_t id, const struct spool_begin *begin);
void spool_chunk(struct spool *sp, uint64_t ticket, uint64_t id, struct span octets);
void spool_commit(struct spool *sp, uint64_t ticket, uint64_t id, uint64_t total);
void spool_abort(struct spool *sp, uint64_t ticket, uint64_t id);
void spool_client_gone(struct spool *sp, uint64_t ticket); /* its streams are aborted, no answers any more */

/* --- deliver's side --- */
void spool_shard_up(struct spool *sp, uint32_t shard, bool up); /* down: all its jobs are queued again */
/* shards: a bit for each shard that the speaker serves. -1: nonsense, nothing was taken. */
int spool_outcome(struct spool *sp, uint64_t shards, uint64_t id, const struct deliver_outcome *o);
void spool_drain(struct spool *sp);                   /* no job goes out any more: the end is near */
int spool_file_open(struct spool *sp, uint64_t file); /* a read-only descriptor for FILE, the caller's; or -errno */

/*
 * --- the operator's and the guard's side: 0, -ENOENT, -EALREADY, -ENOMEM (nothing has changed) ---
 * Hold, remove and suspend call off what is being delivered, if its data was not sent. 1: it holds from the end of the
 * attempt that is under way, which is the last: a message that is removed is not queued again, nor told of.
 */
int spool_hold(struct spool *sp, uint64_t id, struct span words);
int spool_release(struct spool *sp, uint64_t id);
int spool_retry(struct spool *sp, uint64_t id);
int spool_remove(struct spool *sp, uint64_t id, struct span words);
/*
 * done is called once, from spool_poll or spool_close: 0 when every change made until now is on the disk; -errno when
 * the disk does not take it now (it holds in memory and is tried again). 0 or -ENOMEM.
 */
int spool_when_durable(struct spool *sp, void (*done)(void *arg, int error), void *arg);
int spool_suspend(struct spool *sp, struct span account, struct span words);
int spool_resume(struct spool *sp, struct span account);
/* The guard tells all suspensions anew: begin, spool_suspend() each, then settle: those not told again are resumed. */
void spool_suspensions_begin(struct spool *sp);
void spool_suspensions_settle(struct spool *sp);

struct spool_figures {
    struct index_figures index;
    struct log_figures log;
    struct disk_space space;
    uint64_t now_ms; /* spool time */
    uint64_t oldest_age_ms;
    uint32_t out;
    uint64_t ready, waiting, streams;
    uint64_t stored, delivered, deferred, failed, expired, reports, damaged; /* since the start */
    bool accepting;
};
void spool_figures(const struct spool *sp, struct spool_figures *ret);
struct index *spool_index(struct spool *sp);       /* to list and show; read only for others than the spool */
uint64_t spool_now(const struct spool *sp);        /* spool time, ms */
uint64_t spool_born_wall(const struct message *m); /* Unix ms of its arrival, by its envelope */

#endif

/*
 * master_int.h: the inside of the master. main.c reads the command line; master.c lives through signals, stop and
 * status; reload.c reads another configuration; upgrade.c gives way to a new program; family.c makes the children and
 * ties them together; question.c asks them all something; ground.c makes what they stand on: sockets, directories,
 * files.
 */
#ifndef KIDOBAN_MASTER_INT_H
#define KIDOBAN_MASTER_INT_H

#include <sys/stat.h>
#include <uv.h>

#include "config/config.h"
#include "process/channel.h"
#include "process/control.h"
#include "wire/master.h"

#define FAMILY_MAX 128
#define TIES_MAX   (4 * FAMILY_MAX)

enum relative_state { RELATIVE_DEAD, RELATIVE_STARTING, RELATIVE_READY, RELATIVE_STOPPING };

/* One child. */
struct relative {
    struct master *master;
    enum master_role role;
    uint32_t instance;
    enum relative_state state;
    pid_t pid;
    struct channel *channel;
    bool listening; /* submit: listeners were sent */
    uint64_t started_ms;
    uint32_t restarts;
    uint32_t delay_ms; /* before the next start, doubles while it dies young */
    uv_timer_t timer;
};

/* A file that a child is given, as last read: for TLS, or of the gate's prefixes. */
struct material {
    struct master_tls what;
    char *path; /* borrowed from the configuration */
    int fd;     /* memfd */
    struct stat seen;
};

/* The socket pair between two of them. */
struct tie {
    struct relative *one, *other;
    uint32_t epoch;
    uint64_t made_ms;
    uv_timer_t again;
};

struct ground_listener {
    char *text; /* as in the configuration, for the log and for an upgrade */
    struct net_address address;
    int fd;
};

/* Asked of all children. */
struct question {
    struct master *master;
    struct control_request *request; /* whose, or NULL */
    uint64_t id;
    bool unanswered[FAMILY_MAX];
    size_t waiting;
    json_t *answers[FAMILY_MAX]; /* NULL: none */
    void (*finish)(struct question *q);
    struct question *next;
    uv_timer_t limit;
};

struct master {
    uv_loop_t loop;
    const char *config_path;
    int exe_fd;     /* this very program, for children of the same build */
    char *exe_path; /* where it was, for an upgrade */
    char **argv;
    struct config *config;
    int config_fd; /* memfd with the text in force */
    struct material *materials;
    size_t materials_count;
    struct ground_listener *listeners;
    size_t listeners_count;
    int control_fds[ROLE_COUNT];
    int directory_fds[ROLE_COUNT];
    int event_fd, lock_fd, spool_lock_fd;
    int shared_fd; /* memory of all submits */
    struct control *control;
    struct relative family[FAMILY_MAX];
    size_t family_count;
    struct tie ties[TIES_MAX];
    size_t ties_count;
    uint32_t epoch; /* of socket pairs */
    uint64_t started_ms;
    bool ready_told, stopping, upgrading;
    bool again; /* after an upgrade: the house served before */
    size_t stop_phase;
    int status;
    uv_signal_t signals[8];
    uv_prepare_t log_flush;
    uv_timer_t watch, stop_timer;
    struct question *questions;
    struct reload *reloads; /* the first is being read, the others wait */
    pid_t upgrade_check;    /* the new program reads the configuration, or 0 */
    struct control_request *upgrade_request;
    uv_timer_t upgrade_limit;
};

/* ground.c. Each returns 0, or -errno after logging why. */
int ground_prepare(struct master *m); /* lock, runtime and state directories, control sockets, event file */
int ground_listen(const struct config *c, struct ground_listener *old, size_t old_count, struct ground_listener **ret,
                  size_t *ret_count); /* binds what is new, takes over what stays */
void ground_listeners_free(struct ground_listener *l, size_t count, const struct ground_listener *kept,
                           size_t kept_count);
/* From the program before an upgrade; *ret_again: there was one. */
int ground_adopt(struct ground_listener **ret, size_t *ret_count, bool *ret_again);
int ground_hand_over(const struct ground_listener *l, size_t count); /* before exec */
int ground_event_file(struct master *m); /* opens it, or rotates it when it is too long: 1 when it is another one now */
int ground_shared(void);                 /* a memfd of MASTER_SHARED_SIZE with random seeds, or -errno */
int ground_memfd(const char *name, struct span text);
int ground_memfd_of(const char *path, size_t max); /* the same of a file, or -errno */
int ground_read_file(const char *path, size_t max, struct buf *ret);

/* family.c */
/* Does a house with this configuration have such a process? Without submission it takes no mail, and needs few. */
bool family_has(const struct config *c, enum master_role role);
void family_start(struct master *m);
void family_reaped(struct master *m, pid_t pid, int wait_status);
void family_reload(struct master *m);
void family_event_file(struct master *m);
/* Tells the children of that role to stop; how many there are. */
size_t family_stop(struct master *m, enum master_role role, uint32_t grace_ms);
size_t family_alive(const struct master *m, enum master_role role);
void family_kill(struct master *m);
void family_ready(struct master *m, struct relative *r);

/* question.c */
/* Sends a frame of that type to all; finish is called once, when the last has answered or at the limit, and is followed
 * by the question's end. 0 or -ENOMEM. */
int question_ask(struct master *m, struct control_request *rq, enum master_type type, uint32_t limit_ms,
                 void (*finish)(struct question *q));
void question_answered(struct master *m, const struct relative *r, uint64_t id, struct span json);
void question_gone(struct master *m, const struct relative *r); /* it died */

/* reload.c */
/* Reads and checks everything; nothing is changed, nothing logged. 0, or -errno with complaints; then ret_text is
 * empty.
 */
int reload_read(const char *path, struct config **ret, struct buf *ret_text, struct config_complaints *complaints);
void reload_begin(struct master *m, struct control_request *rq); /* rq: answered when it is over; may be NULL */

/* upgrade.c */
void upgrade_begin(struct master *m, struct control_request *rq);  /* rq: answered later; may be NULL */
bool upgrade_reaped(struct master *m, pid_t pid, int wait_status); /* was it ours? */
int upgrade_become(const struct master *m);                        /* returns only when it fails: the exit status */

/* master.c */
int master_run(const char *config_path, char **argv);
int master_check(const char *config_path); /* 0 good, 1 not: complaints are on standard error */
void master_stop(struct master *m, bool upgrade);
/* Takes the new configuration into force, and with it config. On failure nothing has changed. */
int master_take(struct master *m, struct config *config, struct span text);
void master_child_gone(struct master *m);

#endif

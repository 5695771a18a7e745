/*
 * runtime.h: what operators have changed of the gate while it runs: exemptions, and modes other than the
 * configuration's. One structure, one JSON form: for the keeper's file and for who asks it
 * (docs/decisions/0005-runtime.md).
 *
 * Ends are times of the wall clock, in whole seconds; the kernel is given them on the boot clock. The wall clock is not
 * taken to be earlier than it was when the set was last changed, unless it is set while the keeper runs: a machine that
 * starts in 1970 makes no exemption longer.
 *
 * No files, clocks or sockets here, but runtime_load() and runtime_save(). Errors are -errno.
 */
#ifndef KIDOBAN_GATE_RUNTIME_H
#define KIDOBAN_GATE_RUNTIME_H

#include <jansson.h>

#include "policy/policy.h"

#define RUNTIME_EXEMPTIONS_MAX 10000
#define RUNTIME_BY_MAX         64U
#define RUNTIME_CLASS_MAX      64U

struct runtime_words {
    char *reason, *by; /* UTF-8, one line */
};

struct runtime_exemption {
    struct policy_prefix prefix;
    uint64_t id;       /* never 0, never used twice */
    uint64_t until_ms; /* wall clock; 0: without end */
    uint64_t added_ms;
    struct runtime_words words;
};

/* It holds until the configuration says of the mode something else than it did then. */
struct runtime_mode {
    char class_[RUNTIME_CLASS_MAX + 1]; /* "": the whole gate */
    bool monitor;
    bool was_monitor; /* in the configuration then */
    uint64_t since_ms;
    struct runtime_words words;
};

struct runtime {
    struct runtime_exemption *exemptions; /* in order of their ids; no prefix twice */
    size_t exemptions_count, exemptions_room;
    struct runtime_mode *modes; /* no class twice */
    size_t modes_count;
    uint64_t last_id;
    uint64_t known_ms; /* the wall clock at the last change */
};

struct runtime_moment {
    uint64_t wall_ms, boot_ns;
};

struct runtime *runtime_new(void); /* empty; NULL: no memory */
struct runtime *runtime_copy(const struct runtime *r);
void runtime_free(struct runtime **r);

/* Replaces what stands for the same prefix. e->id is set here; its words are copied. 0, -E2BIG, -ENOMEM. */
int runtime_exempt(struct runtime *r, const struct runtime_exemption *e, uint64_t now_ms);
/* The one for that very prefix, or NULL; runtime_covering(): the longest that contains it. */
const struct runtime_exemption *runtime_exemption_of(const struct runtime *r, const struct policy_prefix *prefix);
const struct runtime_exemption *runtime_covering(const struct runtime *r, const struct policy_prefix *prefix);
int runtime_unexempt(struct runtime *r, const struct policy_prefix *prefix, uint64_t now_ms); /* 0 or -ENOENT */
/* Those whose time has come are shown to `ended` and taken out; how many. now_ms: runtime_now(). */
size_t runtime_prune(struct runtime *r, uint64_t now_ms, void (*ended)(void *arg, const struct runtime_exemption *e),
                     void *arg);
uint64_t runtime_now(const struct runtime *r, uint64_t wall_ms); /* not before known_ms */
uint64_t runtime_next_end(const struct runtime *r);              /* wall clock in ms; 0: none has an end */

/* m->was_monitor as the mode: it is taken out again. Its words are copied. 0 or -ENOMEM. */
int runtime_mode_set(struct runtime *r, const struct runtime_mode *m, uint64_t now_ms);
/* "": of the whole. NULL: as the configuration says. */
const struct runtime_mode *runtime_mode_of(const struct runtime *r, const char *class_);
/* What the configuration says of it. -ENOENT: there is no such class; -EINVAL: it has none (it allows, or has a rate).
 */
int runtime_mode_written(const struct config_gate *g, const char *class_, bool *ret_monitor);
/* Modes of which the configuration now says something else, or nothing, are shown to `dropped` and taken out; how many.
 */
size_t runtime_reconcile(struct runtime *r, const struct config_gate *g,
                         void (*dropped)(void *arg, const struct runtime_mode *m), void *arg);

/* The policy in force: the configuration with all of this. Errors as policy_new(). */
int runtime_policy(const struct runtime *r, const struct config_gate *g, const struct runtime_moment *now,
                   struct policy **ret);

json_t *runtime_json(const struct runtime *r);                     /* NULL: no memory */
int runtime_parse(const json_t *json, struct runtime **ret);       /* 0, -EBADMSG, -ENOMEM */
json_t *runtime_exemption_json(const struct runtime_exemption *e); /* NULL: no memory */
json_t *runtime_mode_json(const struct runtime_mode *m);

/* directory_fd: not O_PATH. An empty set where there is no file. -EBADMSG: it is damaged; whoever goes on without it
 * sets it aside first: runtime_set_aside() renames it, ret_name says to what. */
int runtime_load(int directory_fd, struct runtime **ret);
int runtime_save(int directory_fd, const struct runtime *r); /* an error: what was saved before stands */
int runtime_set_aside(int directory_fd, uint64_t now_ms, char ret_name[static 64]);

/* A time as an operator writes it: "2026-12-01T00:00:00Z", also with another offset, or from now: "7d", "12h", "30m",
 * "45s", "2w". Whole seconds, rounded up; within ten years. 0 or -EINVAL, -ERANGE: past, or too far. */
int runtime_until_parse(const char *text, uint64_t now_ms, uint64_t *ret_ms);
int runtime_time_parse(const char *text, uint64_t *ret_ms);  /* absolute, past or not; 0 or an error */
void runtime_time_format(uint64_t ms, char text[static 24]); /* "2026-12-01T00:00:00Z" */

#endif

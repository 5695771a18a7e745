/*
 * history.h: what the gate saw, a file a day, for `kidoban gate impact`.
 *
 * One record for each line and day: how many packets and connections were refused or would have been, where to, when.
 * Only headers are counted and nothing of what was sent; a day is forgotten when it is older than the configuration
 * says. docs/decisions/0006-observations.md has the format. The keeper writes; `kidoban` reads the files, with the
 * daemon up or down. A file is written whole and renamed, so a reader sees one state of the day.
 *
 * The kernel counts for as long as it remembers a line. What is added to a day is the difference to what was counted
 * before, which stands in the record too: a keeper that was restarted adds nothing twice, and what happened while it
 * was down it finds in the kernel.
 */
#ifndef KIDOBAN_GATE_HISTORY_H
#define KIDOBAN_GATE_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gate/gate.h"

#define HISTORY_FARS      12
#define HISTORY_CLASS_MAX 64
#define HISTORY_SKETCH    (GATE_SKETCH_BITS / 64)
#define HISTORY_FILE_NAME "day-YYYY-MM-DD"
#define HISTORY_FILES_MAX 4096
#define HISTORY_DAY_MS    UINT64_C(86400000)
#define HISTORY_WAYS      2 /* what was refused, and what was only noted */

struct history_far {
    uint8_t address[16]; /* as in struct gate_event */
    uint32_t count;      /* how often it was told in events: at most events_per_second of them in a second */
    uint32_t over;       /* so many of them may be another's, whose place it took */
};

/* As it stands in the file. */
struct history_line {
    uint8_t key[16]; /* as struct gate_source_key */
    uint64_t first_ms, last_ms;
    uint64_t packets[HISTORY_WAYS], connections[HISTORY_WAYS]; /* [0]: refused or dropped; [1]: only noted */
    uint64_t sketch[HISTORY_SKETCH];
    uint64_t counted_first_ns, counted_packets, counted_connections; /* what of the kernel's figures is in already */
    uint32_t hours;                                                  /* bit h: something in that hour of the day, UTC */
    uint32_t peak;                                                   /* connections in the busiest minute */
    uint8_t reason, unused[3];
    struct history_far fars[HISTORY_FARS]; /* the most frequent, in no order; count 0: free */
    char class_[HISTORY_CLASS_MAX];        /* name; not terminated when it is that long */
};

/* Those of a day that had no room: the least busy. */
struct history_rest {
    uint64_t lines, packets, connections;
};

struct history_moment {
    uint64_t wall_ms, boot_ns;
};

struct history_settings {
    uint64_t retention_ms; /* days that ended longer ago are deleted */
    size_t lines;          /* of one day, at most */
    uint8_t boot_id[16];   /* figures of another boot are not compared with the kernel's; all zero: unknown */
};

struct history;

/* Reads today's file, or yesterday's. A damaged one is set aside as NAME.damaged, and the day begins anew:
 * *ret_damaged. directory_fd is borrowed until history_free(). 0 or -errno. */
int history_new(int directory_fd, const struct history_settings *settings, const struct history_moment *now,
                struct history **ret, bool *ret_damaged);
void history_free(struct history **h); /* does not save */
/* The settings may change while it runs; fewer lines take effect at the next history_begin(). 0 or -ENOMEM. */
int history_configure(struct history *h, const struct history_settings *settings);

/* Before the kernel's table is read through: a new day begins where one does. */
void history_begin(struct history *h, const struct history_moment *now);
/* One entry of the kernel's table. class_name: of its row, or NULL. */
void history_source(struct history *h, const struct gate_source_key *key, const struct gate_source *source,
                    const char *class_name);
/* An event's far end, count times; of a line that is not in the day: nothing. ours: the line began it. */
void history_far(struct history *h, const struct gate_source_key *key, const uint8_t far[16], uint32_t count,
                 bool ours);
/* When all was read: writes the day's file, and deletes what is too old. 0 or -errno: what was counted is still there,
 * for the next time. May wait for the disk. */
int history_save(struct history *h);
size_t history_lines(const struct history *h); /* of today, so far */

/* Reading. day: since 1970. 0 and *ret_lines (free()), -ENOENT, -EBADMSG: damaged, or -errno. */
int history_read(int directory_fd, uint32_t day, struct history_line **ret_lines, size_t *ret_count,
                 struct history_rest *ret_rest);
uint32_t history_day(uint64_t wall_ms);
void history_file_name(uint32_t day, char name[static sizeof(HISTORY_FILE_NAME)]);

#endif

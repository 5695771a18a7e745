/*
 * audit.h: the log of what operators did: "audit.jsonl" in a process's own state directory, JSON lines, only ever
 * appended to, each synced before the act is answered. An act that cannot be logged is not done.
 */
#ifndef KIDOBAN_PROCESS_AUDIT_H
#define KIDOBAN_PROCESS_AUDIT_H

#include <jansson.h>

#include "common/buf.h"

struct audit;

struct audit_entry {
    const char *what;    /* "account.suspend" */
    const char *account; /* whom it concerns, or NULL */
    const char *subject; /* what it concerns where that is no account, or NULL */
    const char *reason;  /* why: UTF-8; NULL: "" */
    const char *by;      /* who asked, as the kernel says: "root", "uid 1000" */
    unsigned uid;
    const char *on_behalf_of; /* who that says to act for, or NULL */
    uint64_t wall_ms;
};

/* directory_fd may be O_PATH, and stays the caller's. 0 or -errno. */
int audit_open(int directory_fd, struct audit **ret);
void audit_close(struct audit **a); /* may be NULL */

/* Appends {"time","by","uid","what","account" or "subject","reason"} and syncs. 0; -ENOMEM, also for text that is not
 * UTF-8; -EMSGSIZE; or -errno. */
int audit_append(struct audit *a, const struct audit_entry *e);
/* The last `count` lines that concern account (NULL: all), oldest first; takes nothing. NULL: cannot be read. */
json_t *audit_list(struct audit *a, const char *account, size_t count);

/* One line of UTF-8, not empty, of at most max octets: what an operator may give as a reason. */
bool audit_words_are_permitted(struct span words, size_t max);

void audit_time(uint64_t wall_ms, char text[static 32]); /* "2026-11-24T12:00:00Z"; 0: "" */

#endif

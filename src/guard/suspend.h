/*
 * suspend.h: which accounts may not send.
 *
 * The set is one small file (process/kept_file.h): a suspension that was answered survives everything.
 */
#ifndef KIDOBAN_GUARD_SUSPEND_H
#define KIDOBAN_GUARD_SUSPEND_H

#include <jansson.h>

#include "common/account_name.h"

#define SUSPEND_REASON_MAX 400U
#define SUSPEND_MAX        100000U

struct suspension {
    char account[ACCOUNT_NAME_MAX + 1]; /* normalised */
    char reason[SUSPEND_REASON_MAX + 1];
    char by[64];
    uint64_t since_ms; /* wall clock */
};

struct suspend;

/* Reads suspensions.json below directory_fd (may be O_PATH). 0; -EBADMSG: the file is there but does not read: the
 * caller must not go on as if nobody were suspended; or -errno. */
int suspend_open(int directory_fd, struct suspend **ret);
void suspend_close(struct suspend **s);

/* 0; -EEXIST (the same words stand already); -EINVAL: no name, or a reason that audit_words_are_permitted() does not
 * take; -E2BIG; -errno of the disk: nothing has changed. A second suspension replaces the words. */
int suspend_add(struct suspend *s, struct span account, struct span reason, const char *by, uint64_t wall_ms);
int suspend_remove(struct suspend *s, struct span account); /* 0, -ENOENT, -EINVAL, or -errno: still suspended */
const struct suspension *suspend_find(const struct suspend *s, struct span account); /* name as the vault gives it */
size_t suspend_count(const struct suspend *s);
/* In order of time. Start with NULL. */
const struct suspension *suspend_next(const struct suspend *s, const struct suspension *after);

#endif

#include "guard/suspend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hash.h"

#include "process/audit.h"
#include "process/kept_file.h"

#define FILE_NAME "suspensions.json"
#define FILE_MAX  (256U * 1024U * 1024U)

struct entry {
    struct suspension s;
    bool leaving; /* not to be written */
    UT_hash_handle hh;
};

struct suspend {
    int directory_fd;
    struct entry *entries;
};

static json_t *entry_json(const struct suspension *s)
{
    return json_pack("{s:s,s:s,s:s,s:I}", "account", s->account, "reason", s->reason, "by", s->by, "since_ms",
                     (json_int_t)s->since_ms);
}

static int save(const struct suspend *s)
{
    json_t *list = json_array();
    int r = list != NULL ? 0 : -ENOMEM;
    for (const struct entry *e = s->entries; e != NULL && r == 0; e = e->hh.next) {
        r = e->leaving || json_array_append_new(list, entry_json(&e->s)) == 0 ? 0 : -ENOMEM;
    }
    json_t *root = r == 0 ? json_pack("{s:i,s:O}", "version", 1, "suspensions", list) : NULL;
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(1)) : NULL;
    r = text != NULL ? kept_file_write(s->directory_fd, FILE_NAME, span_str(text)) : -ENOMEM;
    free(text);
    json_decref(root);
    json_decref(list);
    return r;
}

static void copy(char *to, size_t size, struct span from)
{
    size_t len = from.len < size - 1 ? from.len : size - 1;
    memcpy(to, from.ptr, len);
    to[len] = '\0';
}

static struct entry *find(const struct suspend *s, const char *name)
{
    struct entry *e;
    HASH_FIND_STR(s->entries, name, e);
    return e;
}

static void drop(struct suspend *s, struct entry *e)
{
    HASH_DEL(s->entries, e);
    free(e);
}

/* Takes e. */
static int insert(struct suspend *s, struct entry *e)
{
    HASH_ADD_STR(s->entries, s.account, e);
    if (!hash_added(e->hh)) {
        free(e);
        return -ENOMEM;
    }
    return 0;
}

static int load_entry(struct suspend *s, json_t *item)
{
    const char *account, *reason, *by;
    json_int_t since;
    char name[ACCOUNT_NAME_MAX + 1];
    if (json_unpack(item, "{s:s,s:s,s:s,s:I}", "account", &account, "reason", &reason, "by", &by, "since_ms", &since) !=
            0 ||
        since < 0 || account_name_normalise(span_str(account), name) < 0 || find(s, name) != NULL) {
        return -EBADMSG;
    }
    struct entry *e = calloc(1, sizeof(*e));
    if (e == NULL) {
        return -ENOMEM;
    }
    copy(e->s.account, sizeof(e->s.account), span_str(name));
    copy(e->s.reason, sizeof(e->s.reason), span_str(reason));
    copy(e->s.by, sizeof(e->s.by), span_str(by));
    e->s.since_ms = (uint64_t)since;
    return insert(s, e);
}

static int load(struct suspend *s)
{
    int fd = openat(s->directory_fd, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    struct stat st;
    json_t *root = NULL, *list = NULL;
    int version = 0, r = fstat(fd, &st) == 0 && st.st_size <= (off_t)FILE_MAX ? 0 : -EBADMSG;
    root = r == 0 ? json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (root == NULL || json_unpack(root, "{s:i,s:o}", "version", &version, "suspensions", &list) != 0 ||
        version != 1 || !json_is_array(list)) {
        r = -EBADMSG;
    }
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        r = r == 0 ? load_entry(s, item) : r;
    }
    json_decref(root);
    (void)close(fd);
    return r;
}

int suspend_open(int directory_fd, struct suspend **ret)
{
    struct suspend *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return -ENOMEM;
    }
    s->directory_fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = s->directory_fd < 0 ? -errno : load(s);
    if (r < 0) {
        suspend_close(&s);
        return r;
    }
    *ret = s;
    return 0;
}

void suspend_close(struct suspend **sp)
{
    struct suspend *s = *sp;
    if (s == NULL) {
        return;
    }
    *sp = NULL;
    struct entry *e, *next;
    HASH_ITER(hh, s->entries, e, next)
    {
        drop(s, e);
    }
    if (s->directory_fd >= 0) {
        (void)close(s->directory_fd);
    }
    free(s);
}

int suspend_add(struct suspend *s, struct span account, struct span reason, const char *by, uint64_t wall_ms)
{
    char name[ACCOUNT_NAME_MAX + 1];
    if (account_name_normalise(account, name) < 0 || !audit_words_are_permitted(reason, SUSPEND_REASON_MAX)) {
        return -EINVAL;
    }
    struct entry *old = find(s, name);
    if (old != NULL && span_eq(span_str(old->s.reason), reason)) {
        return -EEXIST;
    }
    if (old == NULL && HASH_COUNT(s->entries) >= SUSPEND_MAX) {
        return -E2BIG;
    }
    struct entry *e = calloc(1, sizeof(*e));
    if (e == NULL) {
        return -ENOMEM;
    }
    copy(e->s.account, sizeof(e->s.account), span_str(name));
    copy(e->s.reason, sizeof(e->s.reason), reason);
    copy(e->s.by, sizeof(e->s.by), span_str(by));
    e->s.since_ms = wall_ms;
    int r = insert(s, e); /* beside the old one, which is in nobody's way: one of them will go */
    if (r < 0) {
        return r;
    }
    if (old != NULL) {
        old->leaving = true;
    }
    r = save(s);
    if (old != NULL) {
        old->leaving = false;
    }
    if (r < 0) {
        drop(s, e);
    } else if (old != NULL) {
        drop(s, old);
    }
    return r;
}

int suspend_remove(struct suspend *s, struct span account)
{
    char name[ACCOUNT_NAME_MAX + 1];
    if (account_name_normalise(account, name) < 0) {
        return -EINVAL;
    }
    struct entry *e = find(s, name);
    if (e == NULL) {
        return -ENOENT;
    }
    e->leaving = true;
    int r = save(s);
    e->leaving = false;
    if (r == 0) {
        drop(s, e);
    }
    return r;
}

const struct suspension *suspend_find(const struct suspend *s, struct span account)
{
    char name[ACCOUNT_NAME_MAX + 1];
    if (HASH_COUNT(s->entries) == 0 || account_name_normalise(account, name) < 0) {
        return NULL;
    }
    const struct entry *e = find(s, name);
    return e != NULL ? &e->s : NULL;
}

size_t suspend_count(const struct suspend *s)
{
    return HASH_COUNT(s->entries);
}

const struct suspension *suspend_next(const struct suspend *s, const struct suspension *after)
{
    const struct entry *e = after == NULL ? s->entries : ((const struct entry *)after)->hh.next;
    return e != NULL ? &e->s : NULL;
}

#include "guard/suspend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/hash.h"

#define FILE_NAME  "suspensions.json"
#define ASIDE_NAME "suspensions.json.new"
#define AUDIT_NAME "audit.jsonl"
#define FILE_MAX   (256U * 1024U * 1024U)
#define AUDIT_TAIL (4U * 1024U * 1024U) /* as far back as audit_list() looks */

struct entry {
    struct suspension s;
    bool leaving; /* not to be written */
    UT_hash_handle hh;
};

struct suspend {
    int directory_fd, audit_fd;
    struct entry *entries;
};

static json_t *entry_json(const struct suspension *s)
{
    return json_pack("{s:s,s:s,s:s,s:I}", "account", s->account, "reason", s->reason, "by", s->by, "since_ms",
                     (json_int_t)s->since_ms);
}

static int write_whole(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        bytes += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int write_aside(const struct suspend *s, const char *text)
{
    int fd = openat(s->directory_fd, ASIDE_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    int r = write_whole(fd, text, strlen(text));
    if (r == 0 && fsync(fd) != 0) {
        r = -errno;
    }
    if (close(fd) != 0 && r == 0) {
        r = -errno;
    }
    if (r == 0 && renameat(s->directory_fd, ASIDE_NAME, s->directory_fd, FILE_NAME) != 0) {
        r = -errno;
    }
    if (r == 0 && fsync(s->directory_fd) != 0) {
        r = -errno;
    }
    return r;
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
    r = text != NULL ? write_aside(s, text) : -ENOMEM;
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

/* A power cut may have torn the last line: what is appended must not become part of it. */
static int audit_mend(int fd)
{
    struct stat st;
    char last;
    if (fstat(fd, &st) != 0) {
        return -errno;
    }
    bool whole = st.st_size == 0 || (pread(fd, &last, 1, st.st_size - 1) == 1 && last == '\n');
    return whole ? 0 : write_whole(fd, "\n", 1);
}

int suspend_open(int directory_fd, struct suspend **ret)
{
    struct suspend *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return -ENOMEM;
    }
    s->audit_fd = -1;
    s->directory_fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->directory_fd >= 0) {
        s->audit_fd = openat(s->directory_fd, AUDIT_NAME, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    int r = s->audit_fd < 0 ? -errno : audit_mend(s->audit_fd);
    r = r == 0 ? load(s) : r;
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
    if (s->audit_fd >= 0) {
        (void)close(s->audit_fd);
    }
    if (s->directory_fd >= 0) {
        (void)close(s->directory_fd);
    }
    free(s);
}

/* What jansson can write is UTF-8; control octets would break a reply line. */
bool suspend_reason_is_permitted(struct span reason)
{
    if (reason.len == 0 || reason.len > SUSPEND_REASON_MAX) {
        return false;
    }
    for (size_t i = 0; i < reason.len; i++) {
        if (reason.ptr[i] < 0x20 || reason.ptr[i] == 0x7f) {
            return false;
        }
    }
    json_t *probe = json_stringn((const char *)reason.ptr, reason.len);
    bool utf8 = probe != NULL;
    json_decref(probe);
    return utf8;
}

int suspend_add(struct suspend *s, struct span account, struct span reason, const char *by, uint64_t wall_ms)
{
    char name[ACCOUNT_NAME_MAX + 1];
    if (account_name_normalise(account, name) < 0 || !suspend_reason_is_permitted(reason)) {
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

static void time_text(uint64_t wall_ms, char *text, size_t size)
{
    struct tm tm;
    time_t s = (time_t)(wall_ms / 1000);
    (void)gmtime_r(&s, &tm);
    if (strftime(text, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        text[0] = '\0';
    }
}

int audit_append(struct suspend *s, const char *what, const char *account, struct span reason, const char *by,
                 unsigned uid, uint64_t wall_ms)
{
    char when[32];
    time_text(wall_ms, when, sizeof(when));
    json_t *words = json_stringn(reason.len > 0 ? (const char *)reason.ptr : "", reason.len);
    json_t *line = words != NULL ? json_pack("{s:s,s:s,s:I,s:s,s:s,s:O}", "time", when, "by", by, "uid",
                                             (json_int_t)uid, "what", what, "account", account, "reason", words)
                                 : NULL;
    char *text = line != NULL ? json_dumps(line, JSON_COMPACT) : NULL;
    int r = text != NULL ? 0 : -ENOMEM;
    struct buf b;
    buf_init(&b, 8192);
    if (r == 0) {
        r = buf_append_str(&b, text);
    }
    if (r == 0) {
        r = buf_append_byte(&b, '\n');
    }
    if (r == 0) {
        r = write_whole(s->audit_fd, (const char *)b.data, b.len);
    }
    if (r == 0 && fsync(s->audit_fd) != 0) {
        r = -errno;
    }
    buf_fini(&b);
    free(text);
    json_decref(line);
    json_decref(words);
    return r;
}

/* A line that was torn by a power cut is no line; it is passed over. */
static void take_line(json_t *list, const char *line, size_t len, const char *account, size_t count)
{
    json_t *item = json_loadb(line, len, 0, NULL);
    const char *whose = json_string_value(json_object_get(item, "account"));
    if (whose != NULL && (account == NULL || strcmp(account, whose) == 0)) {
        (void)json_array_append(list, item);
        if (json_array_size(list) > count) {
            (void)json_array_remove(list, 0);
        }
    }
    json_decref(item);
}

json_t *audit_list(struct suspend *s, const char *account, size_t count)
{
    struct stat st;
    if (fstat(s->audit_fd, &st) != 0) {
        return NULL;
    }
    off_t start = st.st_size > (off_t)AUDIT_TAIL ? st.st_size - (off_t)AUDIT_TAIL : 0;
    size_t size = (size_t)(st.st_size - start);
    char *text = malloc(size + 1);
    json_t *list = json_array();
    ssize_t n = text != NULL ? pread(s->audit_fd, text, size, start) : -1;
    if (n < 0 || list == NULL) {
        json_decref(list);
        free(text);
        return NULL;
    }
    const char *at = text, *end = text + n;
    while (at < end) {
        const char *nl = memchr(at, '\n', (size_t)(end - at));
        size_t len = nl != NULL ? (size_t)(nl - at) : (size_t)(end - at);
        take_line(list, at, len, account, count);
        at += len + 1;
    }
    free(text);
    return list;
}

#include "process/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "process/kept_file.h"

#define FILE_NAME       "audit.jsonl"
#define LINE_MAX_OCTETS 8192U
#define TAIL            (4U * 1024U * 1024U) /* as far back as audit_list() looks */

struct audit {
    int fd;
};

/* A power cut or a full disk may have torn the last line: what is appended must not become part of it. */
static int mend(int fd)
{
    struct stat st;
    char last;
    if (fstat(fd, &st) != 0) {
        return -errno;
    }
    bool whole = st.st_size == 0 || (pread(fd, &last, 1, st.st_size - 1) == 1 && last == '\n');
    return whole ? 0 : kept_file_append(fd, SPAN_LIT("\n"));
}

int audit_open(int directory_fd, struct audit **ret)
{
    struct audit *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        return -ENOMEM;
    }
    a->fd = openat(directory_fd, FILE_NAME, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (a->fd < 0) {
        int r = -errno;
        audit_close(&a);
        return r;
    }
    *ret = a;
    return 0;
}

void audit_close(struct audit **ap)
{
    struct audit *a = *ap;
    *ap = NULL;
    if (a != NULL && a->fd >= 0) {
        (void)close(a->fd);
    }
    free(a);
}

/* What jansson can write is UTF-8; control octets would break a reply line. */
bool audit_words_are_permitted(struct span words, size_t max)
{
    if (words.len == 0 || words.len > max) {
        return false;
    }
    for (size_t i = 0; i < words.len; i++) {
        if (words.ptr[i] < 0x20 || words.ptr[i] == 0x7f) {
            return false;
        }
    }
    json_t *probe = json_stringn((const char *)words.ptr, words.len);
    bool utf8 = probe != NULL;
    json_decref(probe);
    return utf8;
}

void audit_time(uint64_t wall_ms, char text[static 32])
{
    struct tm tm;
    time_t s = (time_t)(wall_ms / 1000);
    (void)gmtime_r(&s, &tm);
    if (wall_ms == 0 || strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        text[0] = '\0';
    }
}

static json_t *entry_json(const struct audit_entry *e)
{
    char when[32];
    audit_time(e->wall_ms, when);
    const char *reason = e->reason != NULL ? e->reason : "";
    json_t *line = json_pack("{s:s,s:s,s:I,s:s,s:s*,s:s*,s:s,s:s*}", "time", when, "by", e->by, "uid",
                             (json_int_t)e->uid, "what", e->what, "account", e->account, "subject", e->subject,
                             "reason", reason, "on_behalf_of", e->on_behalf_of);
    return line;
}

int audit_append(struct audit *a, const struct audit_entry *e)
{
    json_t *line = entry_json(e);
    char *text = line != NULL ? json_dumps(line, JSON_COMPACT) : NULL;
    int r = text != NULL ? 0 : -ENOMEM;
    struct buf b;
    buf_init(&b, LINE_MAX_OCTETS);
    r = r == 0 ? buf_append_str(&b, text) : r;
    r = r == 0 ? buf_append_byte(&b, '\n') : r;
    r = r == 0 ? mend(a->fd) : r;
    r = r == 0 ? kept_file_append(a->fd, buf_span(&b)) : r;
    if (r == 0 && fsync(a->fd) != 0) {
        r = -errno;
    }
    buf_fini(&b);
    free(text);
    json_decref(line);
    return r;
}

/* A line that was torn by a power cut is no line; it is passed over. */
static void take_line(json_t *list, const char *line, size_t len, const char *account, size_t count)
{
    json_t *item = json_loadb(line, len, 0, NULL);
    const char *whose = json_string_value(json_object_get(item, "account"));
    bool wanted = account == NULL ? json_is_object(item) : whose != NULL && strcmp(account, whose) == 0;
    if (wanted) {
        (void)json_array_append(list, item);
        if (json_array_size(list) > count) {
            (void)json_array_remove(list, 0);
        }
    }
    json_decref(item);
}

json_t *audit_list(struct audit *a, const char *account, size_t count)
{
    struct stat st;
    if (fstat(a->fd, &st) != 0) {
        return NULL;
    }
    off_t start = st.st_size > (off_t)TAIL ? st.st_size - (off_t)TAIL : 0;
    size_t size = (size_t)(st.st_size - start);
    char *text = malloc(size + 1);
    json_t *list = json_array();
    ssize_t n = text != NULL ? pread(a->fd, text, size, start) : -1;
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

/*
 * Which class counts in which row: the names of the rows, kept in a small file, so that a counter in the kernel means
 * the same class to the next process. The file is written aside, synced, and renamed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "gate/keeper_int.h"

#define FILE_NAME  "rows.json"
#define ASIDE_NAME "rows.json.new"
#define FILE_MAX   (1024U * 1024U)

static int failed(const char *what, int r)
{
    log_error("gate.state.failed", LF_STR("what", what), LF_STR("path", FILE_NAME), LF_ERR(r));
    return r;
}

static int take_names(struct policy_rows *rows, const json_t *names)
{
    size_t count = json_array_size(names);
    if (!json_is_array(names) || count > BLOB_CLASSES_MAX) {
        return -EBADMSG;
    }
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        rows->names[i] = name != NULL ? strdup(name) : NULL;
        if (name != NULL && rows->names[i] == NULL) {
            return -ENOMEM;
        }
    }
    rows->count = count;
    return 0;
}

int rows_load(struct policy_rows *rows, int directory_fd)
{
    struct stat st;
    int fd = openat(directory_fd, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT ? 0 : failed("open", -errno);
    }
    bool fits = fstat(fd, &st) == 0 && st.st_size <= (off_t)FILE_MAX;
    json_t *root = fits ? json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL) : NULL;
    (void)close(fd);
    int r = json_integer_value(json_object_get(root, "version")) == 1 ? 0 : -EBADMSG;
    r = r == 0 ? take_names(rows, json_object_get(root, "names")) : r;
    json_decref(root);
    return r < 0 ? failed("read", r) : 0;
}

static int write_aside(int directory_fd, const char *text)
{
    int fd = openat(directory_fd, ASIDE_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    int r = 0;
    for (size_t done = 0, len = strlen(text); r == 0 && done < len;) {
        ssize_t n = write(fd, text + done, len - done);
        r = n < 0 && errno != EINTR ? -errno : 0;
        done += n > 0 ? (size_t)n : 0;
    }
    r = r == 0 && fsync(fd) != 0 ? -errno : r;
    r = close(fd) != 0 && r == 0 ? -errno : r;
    r = r == 0 && renameat(directory_fd, ASIDE_NAME, directory_fd, FILE_NAME) != 0 ? -errno : r;
    return r;
}

int rows_save(const struct policy_rows *rows, int directory_fd)
{
    json_t *names = json_array();
    for (size_t i = 0; i < rows->count; i++) {
        (void)json_array_append_new(names, rows->names[i] != NULL ? json_string(rows->names[i]) : json_null());
    }
    json_t *root = json_pack("{s:i,s:o}", "version", 1, "names", names);
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(1)) : NULL;
    int r = text != NULL ? write_aside(directory_fd, text) : -ENOMEM;
    free(text);
    json_decref(root);
    return r < 0 ? failed("write", r) : 0;
}

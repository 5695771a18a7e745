/*
 * Which class counts in which row: the names of the rows, kept in a small file, so that a counter in the kernel means
 * the same class to the next process.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "gate/keeper_int.h"
#include "process/kept_file.h"

#define FILE_NAME "rows.json"
#define FILE_MAX  (1024U * 1024U)

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
    struct buf text;
    buf_init(&text, FILE_MAX);
    int r = kept_file_read(directory_fd, FILE_NAME, &text);
    if (r == 0) {
        json_t *root = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
        r = json_integer_value(json_object_get(root, "version")) == 1 ? 0 : -EBADMSG;
        r = r == 0 ? take_names(rows, json_object_get(root, "names")) : r;
        json_decref(root);
    }
    buf_fini(&text);
    return r < 0 && r != -ENOENT ? failed("read", r) : 0;
}

int rows_save(const struct policy_rows *rows, int directory_fd)
{
    json_t *names = json_array();
    for (size_t i = 0; i < rows->count; i++) {
        (void)json_array_append_new(names, rows->names[i] != NULL ? json_string(rows->names[i]) : json_null());
    }
    json_t *root = json_pack("{s:i,s:o}", "version", 1, "names", names);
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(1)) : NULL;
    int r = text != NULL ? kept_file_write(directory_fd, FILE_NAME, span_str(text)) : -ENOMEM;
    free(text);
    json_decref(root);
    return r < 0 ? failed("write", r) : 0;
}

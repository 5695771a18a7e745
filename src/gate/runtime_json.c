/*
 * The set as JSON, and as the file "runtime.json": the JSON in one line, and in a second the XXH3 of the first. A bit
 * that turned over in a prefix would open the gate to somebody else; so nothing of a file is believed whose sum is
 * wrong.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "gate/runtime.h"
#include "process/kept_file.h"

#define FILE_NAME   "runtime.json"
#define FILE_MAX    (32U * 1024U * 1024U)
#define SUM_LETTERS 16U
#define VERSION     1

/* To JSON */

static json_t *time_json(uint64_t ms)
{
    char text[24];
    runtime_time_format(ms, text);
    return ms != 0 ? json_string(text) : json_null();
}

json_t *runtime_exemption_json(const struct runtime_exemption *e)
{
    char prefix[POLICY_PREFIX_TEXT];
    policy_prefix_format(&e->prefix, prefix);
    return json_pack("{s:I,s:s,s:o,s:o,s:s,s:s}", "id", (json_int_t)e->id, "prefix", prefix, "until",
                     time_json(e->until_ms), "added", time_json(e->added_ms), "by", e->words.by, "reason",
                     e->words.reason);
}

static const char *mode_word(bool monitor)
{
    return monitor ? "monitor" : "enforce";
}

json_t *runtime_mode_json(const struct runtime_mode *m)
{
    return json_pack("{s:s?,s:s,s:s,s:o,s:s,s:s}", "class", m->class_[0] != '\0' ? m->class_ : NULL, "mode",
                     mode_word(m->monitor), "written", mode_word(m->was_monitor), "since", time_json(m->since_ms), "by",
                     m->words.by, "reason", m->words.reason);
}

json_t *runtime_json(const struct runtime *r)
{
    json_t *exemptions = json_array(), *modes = json_array();
    bool good = exemptions != NULL && modes != NULL;
    for (size_t i = 0; i < r->exemptions_count && good; i++) {
        good = json_array_append_new(exemptions, runtime_exemption_json(&r->exemptions[i])) == 0;
    }
    for (size_t i = 0; i < r->modes_count && good; i++) {
        good = json_array_append_new(modes, runtime_mode_json(&r->modes[i])) == 0;
    }
    json_t *root = good ? json_pack("{s:i,s:o,s:I,s:O,s:O}", "version", VERSION, "known", time_json(r->known_ms),
                                    "last_id", (json_int_t)r->last_id, "exemptions", exemptions, "modes", modes)
                        : NULL;
    json_decref(exemptions);
    json_decref(modes);
    return root;
}

/* From JSON */

static int parse_time(json_t *json, uint64_t *ret)
{
    *ret = 0;
    if (json_is_null(json)) {
        return 0;
    }
    return json_is_string(json) && runtime_time_parse(json_string_value(json), ret) == 0 ? 0 : -EBADMSG;
}

static int parse_words(const char *by, const char *reason, struct runtime_words *ret)
{
    ret->by = strdup(by);
    ret->reason = strdup(reason);
    return ret->by != NULL && ret->reason != NULL ? 0 : -ENOMEM;
}

static int parse_exemption(struct runtime *r, json_t *item)
{
    const char *prefix, *by, *reason;
    json_int_t id;
    json_t *until, *added;
    struct net_prefix net;
    struct runtime_exemption e = {0};
    if (json_unpack(item, "{s:I,s:s,s:o,s:o,s:s,s:s}", "id", &id, "prefix", &prefix, "until", &until, "added", &added,
                    "by", &by, "reason", &reason) != 0 ||
        id <= 0 || config_gate_prefix_parse(prefix, &net) != NULL || parse_time(until, &e.until_ms) < 0 ||
        parse_time(added, &e.added_ms) < 0) {
        return -EBADMSG;
    }
    e.prefix = policy_prefix_of(&net);
    if (runtime_exemption_of(r, &e.prefix) != NULL || r->exemptions_count >= RUNTIME_EXEMPTIONS_MAX) {
        return -EBADMSG;
    }
    int error = parse_words(by, reason, &e.words);
    r->last_id = (uint64_t)id - 1;
    error = error < 0 ? error : runtime_exempt(r, &e, 0);
    free(e.words.by);
    free(e.words.reason);
    return error;
}

static int parse_mode_word(const char *word, bool *ret_monitor)
{
    *ret_monitor = strcmp(word, "monitor") == 0;
    return *ret_monitor || strcmp(word, "enforce") == 0 ? 0 : -EBADMSG;
}

static int parse_mode(struct runtime *r, json_t *item)
{
    const char *mode, *written, *by, *reason;
    json_t *since, *class_;
    struct runtime_mode m = {0};
    if (json_unpack(item, "{s:o,s:s,s:s,s:o,s:s,s:s}", "class", &class_, "mode", &mode, "written", &written, "since",
                    &since, "by", &by, "reason", &reason) != 0 ||
        parse_mode_word(mode, &m.monitor) < 0 || parse_mode_word(written, &m.was_monitor) < 0 ||
        parse_time(since, &m.since_ms) < 0 || m.monitor == m.was_monitor ||
        (!json_is_null(class_) && json_string_length(class_) == 0)) {
        return -EBADMSG;
    }
    const char *name = json_is_null(class_) ? "" : json_string_value(class_);
    int n = snprintf(m.class_, sizeof(m.class_), "%s", name);
    if (n < 0 || (size_t)n >= sizeof(m.class_) || runtime_mode_of(r, m.class_) != NULL) {
        return -EBADMSG;
    }
    int error = parse_words(by, reason, &m.words);
    error = error < 0 ? error : runtime_mode_set(r, &m, 0);
    free(m.words.by);
    free(m.words.reason);
    return error;
}

static int parse_all(struct runtime *r, const json_t *exemptions, const json_t *modes)
{
    int error = json_is_array(exemptions) && json_is_array(modes) ? 0 : -EBADMSG;
    for (size_t i = 0; i < json_array_size(exemptions) && error == 0; i++) {
        error = parse_exemption(r, json_array_get(exemptions, i));
    }
    for (size_t i = 0; i < json_array_size(modes) && error == 0; i++) {
        error = parse_mode(r, json_array_get(modes, i));
    }
    return error;
}

int runtime_parse(const json_t *json, struct runtime **ret)
{
    struct runtime *r = runtime_new();
    int version = 0;
    json_int_t last_id = 0;
    json_t *known = NULL;
    int error = r != NULL ? 0 : -ENOMEM;
    if (error == 0 &&
        (json_unpack((json_t *)json, "{s:i,s:o,s:I}", "version", &version, "known", &known, "last_id", &last_id) != 0 ||
         version != VERSION || last_id < 0)) {
        error = -EBADMSG;
    }
    error = error < 0 ? error : parse_all(r, json_object_get(json, "exemptions"), json_object_get(json, "modes"));
    error = error == 0 && (uint64_t)last_id < r->last_id ? -EBADMSG : error;
    error = error < 0 ? error : parse_time(known, &r->known_ms);
    if (error < 0) {
        runtime_free(&r);
        return error;
    }
    r->last_id = (uint64_t)last_id;
    *ret = r;
    return 0;
}

/* The file */

static void sum_of(struct span text, char ret[static SUM_LETTERS + 1])
{
    (void)snprintf(ret, SUM_LETTERS + 1, "%016" PRIx64, (uint64_t)XXH3_64bits(text.ptr, text.len));
}

int runtime_save(int directory_fd, const struct runtime *r)
{
    json_t *json = runtime_json(r);
    char *text = json != NULL ? json_dumps(json, JSON_COMPACT) : NULL;
    char sum[SUM_LETTERS + 1];
    struct buf b;
    int error = text != NULL ? 0 : -ENOMEM;
    buf_init(&b, FILE_MAX);
    if (error == 0) {
        sum_of(span_str(text), sum);
        error = buf_append_str(&b, text);
    }
    error = error < 0 ? error : buf_printf(&b, "\n%s\n", sum);
    error = error < 0 ? error : kept_file_write(directory_fd, FILE_NAME, buf_span(&b));
    buf_fini(&b);
    free(text);
    json_decref(json);
    return error;
}

static int parse_file(struct span all, struct runtime **ret)
{
    char sum[SUM_LETTERS + 1];
    const size_t tail = SUM_LETTERS + 2; /* "\n", the sum, "\n" */
    if (all.len < tail) {
        return -EBADMSG;
    }
    struct span text = {all.ptr, all.len - tail};
    const uint8_t *end = all.ptr + text.len;
    sum_of(text, sum);
    if (end[0] != '\n' || memcmp(end + 1, sum, SUM_LETTERS) != 0 || end[tail - 1] != '\n') {
        return -EBADMSG;
    }
    json_t *json = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    int error = json != NULL ? runtime_parse(json, ret) : -EBADMSG;
    json_decref(json);
    return error;
}

int runtime_load(int directory_fd, struct runtime **ret)
{
    struct buf b;
    buf_init(&b, FILE_MAX);
    int error = kept_file_read(directory_fd, FILE_NAME, &b);
    if (error == -ENOENT) {
        *ret = runtime_new();
        error = *ret != NULL ? 0 : -ENOMEM;
    } else if (error == 0) {
        error = parse_file(buf_span(&b), ret);
    } else if (error == -EMSGSIZE || error == -EIO) {
        error = -EBADMSG;
    }
    buf_fini(&b);
    return error;
}

int runtime_set_aside(int directory_fd, uint64_t now_ms, char ret_name[static 64])
{
    (void)snprintf(ret_name, 64, FILE_NAME ".damaged-%" PRIu64, now_ms);
    return renameat(directory_fd, FILE_NAME, directory_fd, ret_name) == 0 ? 0 : -errno;
}

/*
 * control.c: what the operator asks and orders. A walk over the queue goes in slices between other work, with a cursor
 * that survives whatever happens to the messages meanwhile, so that a million of them answer at once and stop nobody.
 */
#include "spool/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/id.h"
#include "spool/json.h"

#define SLICE_MESSAGES 1000U
#define FILTER_MAX     1024U

enum action { ACTION_LIST, ACTION_HOLD, ACTION_RELEASE, ACTION_RETRY, ACTION_REMOVE };

struct walk {
    struct control_request *rq;
    struct spool *sp;
    enum action action;
    char *account, *domain, *words;
    struct index_cursor cursor;
    bool cursor_open, failed; /* an order found no memory */
    uint64_t count, delivering, missing;
    struct record_scratch scratch;
};

static void walk_free(void *arg)
{
    struct walk *w = arg;
    if (w->cursor_open) {
        index_cursor_close(spool_index(w->sp), &w->cursor);
    }
    free(w->account);
    free(w->domain);
    free(w->words);
    free(w);
}

static bool matches(const struct walk *w, const struct message *m)
{
    if ((m->state & INDEX_COMMITTING) != 0 || (m->removing && w->action != ACTION_LIST)) {
        return false;
    }
    if (w->account != NULL && !span_eq(schedule_account_name(m->jobs[0].account), span_str(w->account))) {
        return false;
    }
    bool found = w->domain == NULL;
    for (size_t i = 0; i < m->jobs_count && !found; i++) {
        found = span_eq_nocase(schedule_domain_name(m->jobs[i].domain), span_str(w->domain)) &&
                index_job_has_queued(m, &m->jobs[i]);
    }
    return found;
}

/* May end the message. */
static void act(struct walk *w, struct message *m)
{
    struct span words = span_str(w->words != NULL ? w->words : control_peer_name(w->rq));
    int r = 0;
    switch (w->action) {
    case ACTION_LIST:
        (void)control_line(w->rq, json_message_line(m, spool_now(w->sp), &w->scratch));
        break;
    case ACTION_HOLD:
        r = spool_hold(w->sp, m->id, words);
        break;
    case ACTION_RELEASE:
        r = spool_release(w->sp, m->id);
        break;
    case ACTION_RETRY:
        r = spool_retry(w->sp, m->id);
        break;
    case ACTION_REMOVE:
        r = spool_remove(w->sp, m->id, words);
        break;
    }
    w->count += r >= 0;
    w->failed |= r == -ENOMEM;
    w->delivering += r > 0;
}

/* When what was done is on the disk, as for everybody else. */
static void walk_answer(void *arg, int error)
{
    struct walk *w = arg;
    json_t *o = json_pack("{s:I,s:I,s:I}", "count", (json_int_t)w->count, "delivering", (json_int_t)w->delivering,
                          "missing", (json_int_t)w->missing);
    struct control_request *rq = w->rq;
    bool failed = w->failed;
    bool none = w->missing > 0 && w->count == 0 && w->action != ACTION_LIST;
    walk_free(w);
    if (none || failed || error < 0) {
        json_decref(o);
    }
    if (failed) {
        control_fail(rq, EX_TEMPFAIL, "not everything was taken: out of memory");
    } else if (error < 0) {
        control_fail(rq, EX_TEMPFAIL, "taken, but the disk has not taken it yet: %s", strerror(-error));
    } else if (none) {
        control_fail(rq, 1, "no such message in the queue");
    } else {
        control_done(rq, o);
    }
}

static void walk_end(struct walk *w)
{
    int r = 0;
    if (w->action == ACTION_LIST || w->count == 0 || (r = spool_when_durable(w->sp, walk_answer, w)) < 0) {
        walk_answer(w, r);
    }
}

static void walk_slice(struct control_request *rq, void *arg)
{
    struct walk *w = arg;
    for (size_t left = SLICE_MESSAGES; left > 0 && w->cursor.at != NULL && !control_is_full(rq); left--) {
        struct message *m = w->cursor.at;
        w->cursor.at = m->next;
        if (matches(w, m)) {
            act(w, m);
        }
    }
    if (w->cursor.at == NULL) {
        walk_end(w);
    } else {
        control_on_drain(rq, walk_slice, w, walk_free);
    }
}

static void walk_ids(struct walk *w, const json_t *ids)
{
    size_t i;
    const json_t *item;
    json_array_foreach(ids, i, item)
    {
        uint64_t id;
        const char *text = json_string_value(item);
        struct message *m = text != NULL && id_parse(text, &id) == 0 ? index_find(spool_index(w->sp), id) : NULL;
        if (m != NULL && matches(w, m)) {
            act(w, m);
        } else {
            w->missing++;
        }
    }
    walk_end(w);
}

/* NULL when it is not there; *bad when it is no string or too long. */
static char *filter_get(const json_t *request, const char *key, bool *bad)
{
    const json_t *v = json_object_get(request, key);
    if (v == NULL) {
        return NULL;
    }
    *bad |= !json_is_string(v) || json_string_length(v) > FILTER_MAX;
    return *bad ? NULL : strdup(json_string_value(v));
}

static void walk_start(struct spool *sp, struct control_request *rq, const json_t *request, enum action action)
{
    struct walk *w = calloc(1, sizeof(*w));
    const json_t *ids = json_object_get(request, "ids");
    bool bad = ids != NULL && !json_is_array(ids);
    if (w == NULL) {
        control_fail(rq, EX_TEMPFAIL, "out of memory");
        return;
    }
    *w = (struct walk){.rq = rq, .sp = sp, .action = action};
    w->account = filter_get(request, "account", &bad);
    w->domain = filter_get(request, "domain", &bad);
    w->words = filter_get(request, "words", &bad);
    if (bad) {
        walk_free(w);
        control_fail(rq, EX_USAGE, "ids is a list of ids; account, domain and words are strings");
    } else if (ids != NULL) {
        walk_ids(w, ids);
    } else if (action != ACTION_LIST && w->account == NULL && w->domain == NULL) {
        walk_free(w);
        control_fail(rq, EX_USAGE, "say which: ids, account or domain");
    } else {
        index_cursor_open(spool_index(sp), &w->cursor, index_first(spool_index(sp)));
        w->cursor_open = true;
        walk_slice(rq, w);
    }
}

static void verb_list(void *arg, struct control_request *rq, const json_t *request)
{
    walk_start(arg, rq, request, ACTION_LIST);
}

static void verb_hold(void *arg, struct control_request *rq, const json_t *request)
{
    walk_start(arg, rq, request, ACTION_HOLD);
}

static void verb_release(void *arg, struct control_request *rq, const json_t *request)
{
    walk_start(arg, rq, request, ACTION_RELEASE);
}

static void verb_retry(void *arg, struct control_request *rq, const json_t *request)
{
    walk_start(arg, rq, request, ACTION_RETRY);
}

static void verb_remove(void *arg, struct control_request *rq, const json_t *request)
{
    walk_start(arg, rq, request, ACTION_REMOVE);
}

static void verb_show(void *arg, struct control_request *rq, const json_t *request)
{
    struct spool *sp = arg;
    static struct record_scratch scratch;
    const char *text = json_string_value(json_object_get(request, "id"));
    uint64_t id;
    if (text == NULL || id_parse(text, &id) < 0) {
        control_fail(rq, EX_USAGE, "id is the id of a message");
        return;
    }
    struct message *m = index_find(spool_index(sp), id);
    if (m == NULL || (m->state & INDEX_COMMITTING) != 0) {
        control_fail(rq, 1, "no such message in the queue");
        return;
    }
    control_done(rq, json_message_full(m, spool_now(sp), &scratch));
}

json_t *spool_status_json(struct spool *sp)
{
    struct spool_figures f;
    spool_figures(sp, &f);
    return json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:b}", "messages",
        (json_int_t)f.index.messages, "held", (json_int_t)f.index.held, "octets", (json_int_t)f.index.octets,
        "recipients", (json_int_t)f.index.recipients_queued, "oldest_age_ms", (json_int_t)f.oldest_age_ms, "delivering",
        (json_int_t)f.out, "ready", (json_int_t)f.ready, "waiting", (json_int_t)f.waiting, "streams",
        (json_int_t)f.streams, "stored", (json_int_t)f.stored, "delivered", (json_int_t)f.delivered, "deferred",
        (json_int_t)f.deferred, "failed", (json_int_t)f.failed, "expired", (json_int_t)f.expired, "notifications",
        (json_int_t)f.reports, "damaged", (json_int_t)f.damaged, "segments", (json_int_t)f.log.segments,
        "segment_octets", (json_int_t)f.log.octets, "commits", (json_int_t)f.log.commits, "write_failures",
        (json_int_t)f.log.failures, "disk_free", (json_int_t)f.space.free, "inodes_free",
        (json_int_t)(f.space.inodes_free > INT64_MAX ? INT64_MAX : f.space.inodes_free), "accepting", f.accepting,
        "writing_down", f.log.down);
}

static void verb_status(void *arg, struct control_request *rq, const json_t *request)
{
    (void)request;
    control_done(rq, spool_status_json(arg));
}

const struct control_verb spool_verbs[] = {
    {"queue.list", verb_list},     {"queue.show", verb_show},
    {"queue.hold", verb_hold},     {"queue.release", verb_release},
    {"queue.retry", verb_retry},   {"queue.remove", verb_remove},
    {"spool.status", verb_status}, {NULL, NULL},
};

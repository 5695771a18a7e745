/*
 * Reload: the new file is read and checked whole, with the files it names, before anything changes; and so are the
 * sockets it wants. Reading is a thread's, so that the house does not wait while a million prefixes are checked; taking
 * it into force is the loop's. One after the other: who asks meanwhile gets a reading of their own, since the file may
 * be another by then.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>

#include "common/log.h"
#include "master/master_int.h"

#define TEXT_MAX        (8U * 1024U * 1024U)
#define RELOAD_LIMIT_MS 30000

struct reload {
    struct master *master;
    struct control_request *request; /* NULL: nobody waits for the answer */
    uv_work_t work;
    struct config *fresh;
    struct buf text;
    struct config_complaints complaints;
    int result;
    struct reload *next;
};

int reload_read(const char *path, struct config **ret, struct buf *ret_text, struct config_complaints *complaints)
{
    int r = ground_read_file(path, TEXT_MAX, ret_text);
    if (r < 0) {
        config_complaints_add(complaints, path, 0, 0, "%s", strerror(-r));
        return r;
    }
    r = config_load(buf_span(ret_text), path, ret, complaints);
    if (r == 0) {
        r = config_check_files(*ret, path, complaints);
        if (r < 0) {
            config_free(ret);
        }
    }
    if (r < 0) {
        buf_fini(ret_text);
    }
    return r;
}

static void warn_of_restart(const struct config *old, const struct config *fresh)
{
    if (old->submission.workers != fresh->submission.workers || old->delivery.workers != fresh->delivery.workers ||
        strcmp(old->processes.spool_directory, fresh->processes.spool_directory) != 0 ||
        strcmp(old->processes.vault_directory, fresh->processes.vault_directory) != 0 ||
        strcmp(old->processes.runtime_directory, fresh->processes.runtime_directory) != 0) {
        log_warn("config.partial", LF_STR("what", "numbers of workers and directories change at the next start only"));
    }
}

/* The processes of a section start and end with the house. */
static int refuse_other_house(const struct config *old, const struct config *fresh, const char *path,
                              struct config_complaints *complaints)
{
    const struct {
        const char *section;
        bool was, is;
    } sections[] = {{"submission", old->submission.present, fresh->submission.present},
                    {"gate", old->gate.present, fresh->gate.present}};
    int r = 0;
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        if (sections[i].was != sections[i].is) {
            config_complaints_add(complaints, path, 0, 0, "\"%s\" %s; that takes a restart", sections[i].section,
                                  sections[i].is ? "is new" : "is no longer there");
            r = -EINVAL;
        }
    }
    return r;
}

/* Every child has swapped, or not: only now is the reload over. */
static void reload_finish(struct question *q)
{
    const struct master *m = q->master;
    struct buf late;
    buf_init(&late, 4096);
    for (size_t i = 0; i < m->family_count; i++) {
        if (q->unanswered[i] || json_is_false(q->answers[i])) {
            (void)buf_printf(&late, "%s%s %u", late.len > 0 ? ", " : "", master_role_name(m->family[i].role),
                             m->family[i].instance);
        }
    }
    if (late.len == 0) {
        log_info("config.loaded", LF_STR("path", m->config_path));
    } else {
        log_error("config.kept", LF_SPAN("processes", buf_span(&late)));
    }
    if (q->request != NULL && late.len == 0) {
        control_done(q->request, NULL);
    } else if (q->request != NULL) {
        control_fail(q->request, EX_UNAVAILABLE, "the new configuration is in force, but not in: %.*s (see the log)",
                     (int)late.len, (const char *)late.data);
    }
    buf_fini(&late);
    (void)sd_notify(0, "READY=1");
}

static void refuse(struct reload *r)
{
    struct buf words;
    buf_init(&words, 65536);
    (void)config_complaints_format(&r->complaints, &words);
    log_error("config.refused", LF_STR("path", r->master->config_path), LF_SPAN("what", buf_span(&words)));
    if (r->request != NULL) {
        control_fail(r->request, EX_CONFIG, "%.*s", (int)words.len, (const char *)words.data);
    }
    buf_fini(&words);
    (void)sd_notify(0, "READY=1");
}

/* What was read, was good. */
static int put_into_force(struct reload *r)
{
    struct master *m = r->master;
    if (m->stopping) {
        config_complaints_add(&r->complaints, m->config_path, 0, 0, "the house ends");
        return -ECANCELED;
    }
    int e = refuse_other_house(m->config, r->fresh, m->config_path, &r->complaints);
    if (e < 0) {
        return e;
    }
    warn_of_restart(m->config, r->fresh);
    e = master_take(m, r->fresh, buf_span(&r->text));
    if (e < 0) {
        config_complaints_add(&r->complaints, m->config_path, 0, 0, "cannot be put into force: %s (see the log)",
                              strerror(-e));
        return e;
    }
    r->fresh = NULL;
    family_reload(m);
    return question_ask(m, r->request, MASTER_RELOADED, RELOAD_LIMIT_MS, reload_finish);
}

static void start(struct reload *r);

static void end(struct reload *r)
{
    struct master *m = r->master;
    if (r->result == 0) {
        r->result = put_into_force(r);
    }
    if (r->result < 0) {
        refuse(r);
    }
    config_free(&r->fresh);
    buf_fini(&r->text);
    config_complaints_fini(&r->complaints);
    m->reloads = r->next;
    free(r);
    if (m->reloads != NULL) {
        start(m->reloads);
    }
}

static void on_read(uv_work_t *w, int status)
{
    (void)status;
    end(w->data);
}

/* In a thread: touches nothing but its own. */
static void on_work(uv_work_t *w)
{
    struct reload *r = w->data;
    r->result = reload_read(r->master->config_path, &r->fresh, &r->text, &r->complaints);
}

static void start(struct reload *r)
{
    (void)sd_notify(0, "RELOADING=1");
    r->work.data = r;
    int e = uv_queue_work(&r->master->loop, &r->work, on_work, on_read); /* from here on the thread writes r->result */
    if (e < 0) {
        r->result = e;
        end(r);
    }
}

void reload_begin(struct master *m, struct control_request *rq)
{
    struct reload **at = &m->reloads;
    while (*at != NULL) {
        if (rq == NULL && at != &m->reloads && (*at)->request == NULL) {
            return; /* one is going to read anyway */
        }
        at = &(*at)->next;
    }
    struct reload *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        log_error("config.refused", LF_STR("path", m->config_path), LF_ERR(ENOMEM));
        if (rq != NULL) {
            control_fail(rq, EX_OSERR, "out of memory");
        }
        return;
    }
    *r = (struct reload){.master = m, .request = rq};
    buf_init(&r->text, TEXT_MAX);
    *at = r;
    if (r == m->reloads) {
        start(r);
    }
}

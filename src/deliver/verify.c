#include "deliver/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#define CHUNK (256U * 1024U)

struct verify {
    uv_work_t work;
    int fd;
    uint64_t offset, length, xxh3;
    int result;
    atomic_bool cancelled;
    verify_done done; /* the loop's side */
    void *arg;
};

/* In the worker. */
static int hash_all(struct verify *v, XXH3_state_t *state, uint8_t *room)
{
    uint64_t at = 0;
    while (at < v->length) {
        size_t len = v->length - at < CHUNK ? (size_t)(v->length - at) : CHUNK;
        ssize_t n = pread(v->fd, room, len, (off_t)(v->offset + at));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n == 0 ? -EBADMSG : -errno;
        }
        if (atomic_load(&v->cancelled)) {
            return -ECANCELED;
        }
        (void)XXH3_64bits_update(state, room, (size_t)n);
        at += (uint64_t)n;
    }
    return XXH3_64bits_digest(state) == v->xxh3 ? 0 : -EBADMSG;
}

static void on_work(uv_work_t *w)
{
    struct verify *v = w->data;
    XXH3_state_t *state = XXH3_createState();
    uint8_t *room = malloc(CHUNK);
    v->result = -ENOMEM;
    if (state != NULL && room != NULL) {
        (void)XXH3_64bits_reset(state);
        v->result = hash_all(v, state, room);
    }
    free(room);
    (void)XXH3_freeState(state);
}

static void on_after_work(uv_work_t *w, int status)
{
    struct verify *v = w->data;
    verify_done done = v->done;
    void *arg = v->arg;
    int result = status < 0 ? status : v->result;
    (void)close(v->fd);
    free(v);
    if (done != NULL) {
        done(arg, result);
    }
}

struct verify *verify_start(uv_loop_t *loop, const struct job *j, verify_done done, void *arg)
{
    struct verify *v = calloc(1, sizeof(*v));
    if (v == NULL) {
        return NULL;
    }
    v->fd = fcntl(j->fd, F_DUPFD_CLOEXEC, 0);
    v->offset = j->wire.offset;
    v->length = j->wire.length;
    v->xxh3 = j->wire.xxh3;
    v->done = done;
    v->arg = arg;
    v->work.data = v;
    if (v->fd < 0 || uv_queue_work(loop, &v->work, on_work, on_after_work) != 0) {
        if (v->fd >= 0) {
            (void)close(v->fd);
        }
        free(v);
        return NULL;
    }
    return v;
}

void verify_cancel(struct verify **vp)
{
    struct verify *v = *vp;
    *vp = NULL;
    if (v != NULL) {
        v->done = NULL;
        atomic_store(&v->cancelled, true);
        (void)uv_cancel((uv_req_t *)&v->work); /* not yet begun: on_after_work comes at once; else soon */
    }
}

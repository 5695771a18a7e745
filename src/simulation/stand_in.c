/*
 * stand_in.c: what stands in for deliver/settings.c and deliver/verify.c, and for the two system calls that
 * deliver/job.c makes on descriptors: the disk is ours (--wrap of the linker).
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include "deliver/settings.h"
#include "deliver/verify.h"
#include "simulation/sim.h"
#include "spool/memdisk.h"

#define MEMDISK_FD_MIN 999

struct settings *settings_hold(struct settings *s)
{
    s->holders++;
    return s;
}

void settings_drop(struct settings **s)
{
    (*s)->holders--; /* they are the house's */
    *s = NULL;
}

/* The linker's names for --wrap. NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
int __real_close(int fd);
ssize_t __real_pread64(int fd, void *to, size_t len, off_t offset);
int __wrap_close(int fd);
ssize_t __wrap_pread64(int fd, void *to, size_t len, off_t offset);
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */

int __wrap_close(int fd)
{
    if (sim_now == NULL || fd < MEMDISK_FD_MIN) {
        return __real_close(fd);
    }
    const struct spool_disk *disk = house_disk(sim_now);
    disk->close(disk->arg, fd);
    return 0;
}

ssize_t __wrap_pread64(int fd, void *to, size_t len, off_t offset)
{
    if (sim_now == NULL || fd < MEMDISK_FD_MIN) {
        return __real_pread64(fd, to, len, offset);
    }
    const struct spool_disk *disk = house_disk(sim_now);
    int64_t n = disk->read(disk->arg, fd, to, len, (uint64_t)offset);
    errno = n < 0 ? (int)-n : 0;
    return n < 0 ? -1 : (ssize_t)n;
}

struct verify {
    struct sim_event event;
    const struct job *job;
    verify_done done;
    void *arg;
};

static void on_verify(void *arg)
{
    struct verify v = *(struct verify *)arg;
    size_t len = (size_t)v.job->wire.length;
    uint8_t *octets = memdisk_alloc(NULL, len);
    int r = job_read(v.job, 0, octets, len);
    r = r == 0 && XXH3_64bits(octets, len) != v.job->wire.xxh3 ? -EBADMSG : r;
    free(octets);
    free(arg);
    v.done(v.arg, r);
}

struct verify *verify_start(uv_loop_t *loop, const struct job *j, verify_done done, void *arg)
{
    struct verify *v = memdisk_alloc(NULL, sizeof(*v));
    (void)loop;
    *v = (struct verify){.job = j, .done = done, .arg = arg};
    sim_in(sim_now, &v->event, 1 + sim_below(sim_now, 30), on_verify, v);
    return v;
}

void verify_cancel(struct verify **vp)
{
    if (*vp != NULL) {
        sim_cancel(sim_now, &(*vp)->event);
        free(*vp);
        *vp = NULL;
    }
}

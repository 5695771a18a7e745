/*
 * verify.h: the checksum of a long message, before its first octet leaves. It is read once in a worker thread, because
 * the disk may be slow and the loop has others to serve.
 */
#ifndef KIDOBAN_DELIVER_VERIFY_H
#define KIDOBAN_DELIVER_VERIFY_H

#include <uv.h>

#include "deliver/job.h"

struct verify;

/* result: 0 good, -EBADMSG damaged or too short, else -errno. Once, from the loop, unless cancelled. */
typedef void (*verify_done)(void *arg, int result);

/* The job's file may be closed meanwhile: verify holds its own descriptor. NULL: out of memory or descriptors. */
struct verify *verify_start(uv_loop_t *loop, const struct job *j, verify_done done, void *arg);
void verify_cancel(struct verify **v);

#endif

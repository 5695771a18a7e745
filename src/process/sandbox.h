/*
 * sandbox.h: the last act before a child's loop: its user, no new rights, Landlock, seccomp.
 *
 * Each role has a line in the table of sandbox.c: which kinds of system calls, whether its state directory may be
 * reached, whether it may open sockets, which capabilities it keeps. What is not in the line kills the process.
 */
#ifndef KIDOBAN_PROCESS_SANDBOX_H
#define KIDOBAN_PROCESS_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "wire/master.h"

/* user: NULL or unknown when not root: stays (after a clear word in the log). directories: what a role with a state
 * directory may write below; -1 among them is none. read_path: NULL-terminated files or folders that may be read
 * (deliver: /etc/resolv.conf, trust anchors). 0 or -errno: the caller must not go on. */
int sandbox_enter(enum master_role role, const char *user, const int *directories, size_t count,
                  const char *const *read_paths);
/* What the kernel offers: "landlock 4, seccomp". */
const char *sandbox_describe(void);

#endif

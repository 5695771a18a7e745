/*
 * kept_file.h: a small file of a process's own state directory that is written whole: aside, synced, renamed, its
 * folder synced. After a power cut there is the old one or the new one. Errors are -errno.
 */
#ifndef KIDOBAN_PROCESS_KEPT_FILE_H
#define KIDOBAN_PROCESS_KEPT_FILE_H

#include "common/buf.h"

/* An error: the old one stands, unless only the last sync failed: then either may be there after a power cut.
 * directory_fd: not O_PATH. */
int kept_file_write(int directory_fd, const char *name, struct span text);
/* Appends it to ret, which has a maximum (-EMSGSIZE). -ENOENT: there is none. */
int kept_file_read(int directory_fd, const char *name, struct buf *ret);
/* All of it, in as many writes as it takes. */
int kept_file_append(int fd, struct span text);

#endif

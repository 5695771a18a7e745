/*
 * history_int.h: the files of the history, below history.c.
 *
 * A file is the head and `count` lines, in host order: it lives on the machine that made it. The head's `sum` is XXH3
 * of the head with sum 0 and of all lines.
 */
#ifndef KIDOBAN_GATE_HISTORY_INT_H
#define KIDOBAN_GATE_HISTORY_INT_H

#include "gate/history.h"

#define HISTORY_FILE_MAGIC "kidoban gate day"

struct history_file_head {
    char magic[16];
    uint32_t version, line_size;
    uint32_t day, count;
    uint64_t swept_ns; /* boot clock: when the reading of the kernel's table began that is in it */
    uint8_t boot_id[16];
    struct history_rest rest;
    uint64_t sum;
};

/* magic, version, line_size, count and sum are filled in. 0 or -errno; then the file of before is still there. */
int history_file_write(int directory_fd, const struct history_file_head *head, const struct history_line *lines,
                       size_t count);
/* As history_read(). */
int history_file_read(int directory_fd, uint32_t day, struct history_file_head *ret_head,
                      struct history_line **ret_lines, size_t *ret_count);
void history_file_set_aside(int directory_fd, uint32_t day);
void history_file_forget(int directory_fd, uint32_t before_day); /* deletes the files of earlier days */

#endif

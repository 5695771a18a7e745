#include "process/kept_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define NAME_MAX_OCTETS 64

int kept_file_append(int fd, struct span text)
{
    for (size_t done = 0; done < text.len;) {
        ssize_t n = write(fd, text.ptr + done, text.len - done);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int write_aside(int directory_fd, const char *aside, struct span text)
{
    int fd = openat(directory_fd, aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    int r = kept_file_append(fd, text);
    if (r == 0 && fsync(fd) != 0) {
        r = -errno;
    }
    if (close(fd) != 0 && r == 0) {
        r = -errno;
    }
    return r;
}

int kept_file_write(int directory_fd, const char *name, struct span text)
{
    char aside[NAME_MAX_OCTETS];
    int n = snprintf(aside, sizeof(aside), "%s.new", name);
    int r = n > 0 && (size_t)n < sizeof(aside) ? write_aside(directory_fd, aside, text) : -ENAMETOOLONG;
    if (r == 0 && renameat(directory_fd, aside, directory_fd, name) != 0) {
        r = -errno;
    }
    if (r == 0 && fsync(directory_fd) != 0) {
        r = -errno;
    }
    return r;
}

int kept_file_read(int directory_fd, const char *name, struct buf *ret)
{
    int fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return -errno;
    }
    int r = 0;
    for (ssize_t n = 1; r == 0 && n != 0;) {
        uint8_t *room;
        r = buf_reserve(ret, 4096, &room);
        n = r == 0 ? read(fd, room, 4096) : 0;
        if (n > 0) {
            buf_commit(ret, (size_t)n);
        } else if (n < 0 && errno != EINTR) {
            r = -errno;
        }
    }
    (void)close(fd);
    return r;
}

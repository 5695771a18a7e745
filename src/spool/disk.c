#include "spool/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int dir_of(void *arg)
{
    return *(const int *)arg;
}

static int kernel_open(void *arg, const char *path, enum disk_open how)
{
    static const int flags[] = {
        [DISK_READ] = O_RDONLY,
        [DISK_WRITE] = O_RDWR,
        [DISK_CREATE] = O_RDWR | O_CREAT | O_EXCL,
        [DISK_RENEW] = O_RDWR | O_CREAT | O_TRUNC,
    };
    int fd = openat(dir_of(arg), path, flags[how] | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

static void kernel_close(void *arg, int fd)
{
    (void)arg;
    (void)close(fd);
}

static int64_t kernel_read(void *arg, int fd, void *to, size_t len, uint64_t offset)
{
    (void)arg;
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, (uint8_t *)to + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n == 0) {
            break;
        }
        done += (size_t)n;
    }
    return (int64_t)done;
}

/* Drops n written octets from the front of the vector; the number of entries left. */
static int iov_advance(struct iovec **iov, int count, size_t n)
{
    while (count > 0 && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        (*iov)++;
        count--;
    }
    if (count > 0) {
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
    return count;
}

static int kernel_write(void *arg, int fd, struct iovec *iov, int count, uint64_t offset)
{
    (void)arg;
    count = iov_advance(&iov, count, 0);
    while (count > 0) {
        ssize_t n = pwritev(fd, iov, count, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        offset += (uint64_t)n;
        count = iov_advance(&iov, count, (size_t)n);
    }
    return 0;
}

static int kernel_sync(void *arg, int fd)
{
    (void)arg;
    return fdatasync(fd) < 0 ? -errno : 0;
}

static int kernel_sync_dir(void *arg, const char *path)
{
    int fd = openat(dir_of(arg), path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return -errno;
    }
    int r = fsync(fd) < 0 ? -errno : 0;
    (void)close(fd);
    return r;
}

static int kernel_allocate(void *arg, int fd, uint64_t len)
{
    (void)arg;
    int r = fallocate(fd, 0, 0, (off_t)len) < 0 ? -errno : 0;
    return r == -EOPNOTSUPP ? 0 : r; /* then the writes themselves will tell */
}

static int64_t kernel_size(void *arg, int fd)
{
    (void)arg;
    struct stat st;
    return fstat(fd, &st) < 0 ? -errno : st.st_size;
}

static void kernel_write_behind(void *arg, int fd, uint64_t offset, uint64_t len)
{
    (void)arg;
    (void)sync_file_range(fd, (off_t)offset, (off_t)len, SYNC_FILE_RANGE_WRITE);
}

static int kernel_rename(void *arg, const char *from, const char *to)
{
    return renameat(dir_of(arg), from, dir_of(arg), to) < 0 ? -errno : 0;
}

static int kernel_unlink(void *arg, const char *path)
{
    return unlinkat(dir_of(arg), path, 0) < 0 ? -errno : 0;
}

static int kernel_mkdir(void *arg, const char *path)
{
    return mkdirat(dir_of(arg), path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int kernel_list(void *arg, const char *path, int (*each)(void *each_arg, const char *name), void *each_arg)
{
    int fd = openat(dir_of(arg), path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        int r = -errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return r;
    }
    int r = 0;
    errno = 0;
    for (struct dirent *e = readdir(dir); e != NULL && r == 0; e = readdir(dir)) {
        if (e->d_name[0] != '.') {
            r = each(each_arg, e->d_name);
        }
        errno = 0;
    }
    r = r == 0 && errno != 0 ? -errno : r;
    (void)closedir(dir);
    return r;
}

static int kernel_space(void *arg, struct disk_space *ret)
{
    struct statvfs st;
    if (fstatvfs(dir_of(arg), &st) < 0) {
        return -errno;
    }
    ret->total = (uint64_t)st.f_blocks * st.f_frsize;
    ret->free = (uint64_t)st.f_bavail * st.f_frsize;
    ret->inodes_free = st.f_files == 0 ? UINT64_MAX : st.f_favail;
    return 0;
}

static int kernel_lock(void *arg, const char *path)
{
    int fd = openat(dir_of(arg), path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        int r = errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
        (void)close(fd);
        return r;
    }
    return fd;
}

struct spool_disk disk_kernel(const int *directory_fd)
{
    return (struct spool_disk){
        .arg = (void *)directory_fd,
        .open = kernel_open,
        .close = kernel_close,
        .read = kernel_read,
        .write = kernel_write,
        .sync = kernel_sync,
        .sync_dir = kernel_sync_dir,
        .allocate = kernel_allocate,
        .size = kernel_size,
        .write_behind = kernel_write_behind,
        .rename = kernel_rename,
        .unlink = kernel_unlink,
        .mkdir = kernel_mkdir,
        .list = kernel_list,
        .space = kernel_space,
        .lock = kernel_lock,
    };
}

int disk_write(const struct spool_disk *d, int fd, const void *from, size_t len, uint64_t offset)
{
    struct iovec iov = {(void *)from, len};
    return d->write(d->arg, fd, &iov, 1, offset);
}

int disk_read_all(const struct spool_disk *d, int fd, void *to, size_t len, uint64_t offset)
{
    int64_t n = d->read(d->arg, fd, to, len, offset);
    return n < 0 ? (int)n : (size_t)n == len ? 0 : -EIO;
}

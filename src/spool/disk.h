/*
 * disk.h: every disk call of the spool goes through this table, so that a simulation or a test can own the disk.
 *
 * Paths are relative to the spool's directory. Results are 0 (or a descriptor, or a count) or -errno. Calls may block;
 * they may come from any of the spool's threads. Descriptors of the kernel's disk are the kernel's and can be passed to
 * deliver.
 */
#ifndef KIDOBAN_SPOOL_DISK_H
#define KIDOBAN_SPOOL_DISK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum disk_open {
    DISK_READ,   /* an existing file, read only */
    DISK_WRITE,  /* an existing file, read and write */
    DISK_CREATE, /* a new file, read and write; -EEXIST when it is there */
    DISK_RENEW,  /* created, or emptied when it is there */
};

struct disk_space {
    uint64_t total, free; /* octets; free: for an ordinary user */
    uint64_t inodes_free; /* UINT64_MAX where the file system does not count them */
};

struct spool_disk {
    void *arg;
    int (*open)(void *arg, const char *path, enum disk_open how);
    void (*close)(void *arg, int fd);
    int64_t (*read)(void *arg, int fd, void *to, size_t len, uint64_t offset);      /* less than len only at the end */
    int (*write)(void *arg, int fd, struct iovec *iov, int count, uint64_t offset); /* all or -errno; iov is used up */
    int (*sync)(void *arg, int fd);                                                 /* data and size */
    int (*sync_dir)(void *arg, const char *path);
    int (*allocate)(void *arg, int fd, uint64_t len);
    int64_t (*size)(void *arg, int fd);
    void (*write_behind)(void *arg, int fd, uint64_t offset, uint64_t len); /* a hint: begin writing this back */
    int (*rename)(void *arg, const char *from, const char *to);
    int (*unlink)(void *arg, const char *path);
    int (*mkdir)(void *arg, const char *path); /* 0 also when it is there */
    int (*list)(void *arg, const char *path, int (*each)(void *each_arg, const char *name), void *each_arg);
    int (*space)(void *arg, struct disk_space *ret);
    int (*lock)(void *arg, const char *path); /* a descriptor that holds it; -EBUSY: somebody else does */
};

/* The kernel's: directory_fd (O_PATH will do) is borrowed as long as the disk is used. */
struct spool_disk disk_kernel(const int *directory_fd);

/* Convenience over the table. */
int disk_write(const struct spool_disk *d, int fd, const void *from, size_t len, uint64_t offset);
/* All of it: -EIO when the file ends before. */
int disk_read_all(const struct spool_disk *d, int fd, void *to, size_t len, uint64_t offset);

#endif

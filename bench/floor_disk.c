/*
 * floor-disk DIRECTORY SECONDS: what the disk below DIRECTORY does at best, as one JSON object.
 *
 * sync_1, sync_50: 4 KiB records a second appended to a pre-written file, one or fifty a fdatasync. write_mb:
 * megabytes a second written in order in blocks of 1 MiB and made durable with one fdatasync at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RECORD   4096
#define PREPARED (64L << 20)
#define BLOCK    (1L << 20)
#define STREAM   (500L << 20)

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void need(int good, const char *what)
{
    if (good)
        return;
    (void)fprintf(stderr, "floor-disk: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int make(const char *directory)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/floor.XXXXXX", directory);
    int fd = mkstemp(path);
    need(fd >= 0 && unlink(path) == 0, path);
    return fd;
}

static void fill(int fd, long size)
{
    static char block[BLOCK];
    memset(block, 'x', sizeof block);
    for (long at = 0; at < size; at += BLOCK)
        need(pwrite(fd, block, BLOCK, at) == BLOCK, "write");
    need(fdatasync(fd) == 0, "fdatasync");
}

static double records(const char *directory, double seconds, long batch)
{
    static char record[RECORD];
    int fd = make(directory);
    long done = 0, at = 0;
    fill(fd, PREPARED);
    double begun = now();
    while (now() - begun < seconds) {
        for (long i = 0; i < batch; i++, at = (at + RECORD) % PREPARED)
            need(pwrite(fd, record, RECORD, at) == RECORD, "write");
        need(fdatasync(fd) == 0, "fdatasync");
        done += batch;
    }
    double rate = (double)done / (now() - begun);
    close(fd);
    return rate;
}

static double stream(const char *directory)
{
    int fd = make(directory);
    double begun = now();
    fill(fd, STREAM);
    double rate = (double)STREAM / 1e6 / (now() - begun);
    close(fd);
    return rate;
}

int main(int argc, char **argv)
{
    double seconds = argc == 3 ? strtod(argv[2], NULL) : 0;
    if (!(seconds > 0 && seconds <= 60)) {
        (void)fputs("usage: floor-disk DIRECTORY SECONDS\n", stderr);
        return 2;
    }
    double one = records(argv[1], seconds, 1), fifty = records(argv[1], seconds, 50);
    printf("{\"sync_1\":%.0f,\"sync_50\":%.0f,\"write_mb\":%.0f}\n", one, fifty, stream(argv[1]));
    return 0;
}

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/utf8.h"
#include "gate/history_int.h"

#define VERSION   1
#define LINES_MAX 200000U /* as many as the configuration may ask for; more is no file of ours */

void history_file_name(uint32_t day, char name[static sizeof(HISTORY_FILE_NAME)])
{
    time_t at = (time_t)day * 86400;
    struct tm tm;
    (void)gmtime_r(&at, &tm);
    (void)strftime(name, sizeof(HISTORY_FILE_NAME), "day-%Y-%m-%d", &tm);
}

static uint64_t sum_of(const struct history_file_head *head, const struct history_line *lines, size_t count)
{
    struct history_file_head h = *head;
    h.sum = 0;
    return XXH3_64bits_withSeed(lines, count * sizeof(*lines), XXH3_64bits(&h, sizeof(h)));
}

static int write_all(int fd, const void *octets, size_t len)
{
    const uint8_t *at = octets;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n <= 0 && errno != EINTR) {
            return n < 0 ? -errno : -EIO;
        }
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int history_file_write(int directory_fd, const struct history_file_head *head, const struct history_line *lines,
                       size_t count)
{
    static const char next[] = "day.new";
    struct history_file_head h = *head;
    char name[sizeof(HISTORY_FILE_NAME)];
    history_file_name(h.day, name);
    memcpy(h.magic, HISTORY_FILE_MAGIC, sizeof(h.magic));
    h.version = VERSION;
    h.line_size = sizeof(*lines);
    h.count = (uint32_t)count;
    h.sum = sum_of(&h, lines, count);
    int fd = openat(directory_fd, next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0) {
        return -errno;
    }
    int r = write_all(fd, &h, sizeof(h));
    r = r == 0 ? write_all(fd, lines, count * sizeof(*lines)) : r;
    r = r == 0 && fdatasync(fd) != 0 ? -errno : r;
    (void)close(fd);
    if (r == 0 && renameat(directory_fd, next, directory_fd, name) != 0) {
        r = -errno;
    }
    if (r < 0) {
        (void)unlinkat(directory_fd, next, 0);
    }
    return r;
}

static int read_all(int fd, void *octets, size_t len)
{
    uint8_t *at = octets;
    while (len > 0) {
        ssize_t n = read(fd, at, len);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n == 0) {
            return -EBADMSG;
        }
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* The sum proves no writer: anybody who may write here can make one. What readers rely on is looked at. */
static bool is_sound(const struct history_line *l)
{
    bool sound = l->hours >> 24 == 0;
    for (size_t i = 0; i < HISTORY_FARS; i++) {
        sound = sound && l->fars[i].over <= l->fars[i].count;
    }
    struct span name = {(const uint8_t *)l->class_, strnlen(l->class_, sizeof(l->class_))};
    return sound && utf8_valid(name);
}

static bool are_sound(const struct history_line *lines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_sound(&lines[i])) {
            return false;
        }
    }
    return true;
}

static int read_open(int fd, uint32_t day, struct history_file_head *head, struct history_line **ret_lines)
{
    struct stat st;
    int r = read_all(fd, head, sizeof(*head));
    if (r < 0) {
        return r;
    }
    if (memcmp(head->magic, HISTORY_FILE_MAGIC, sizeof(head->magic)) != 0 || head->version != VERSION ||
        head->line_size != sizeof(**ret_lines) || head->count > LINES_MAX || head->day != day || fstat(fd, &st) != 0 ||
        (uint64_t)st.st_size != sizeof(*head) + (uint64_t)head->count * sizeof(**ret_lines)) {
        return -EBADMSG;
    }
    struct history_line *lines = calloc((size_t)head->count + 1, sizeof(*lines));
    if (lines == NULL) {
        return -ENOMEM;
    }
    r = read_all(fd, lines, head->count * sizeof(*lines));
    bool good = r == 0 && sum_of(head, lines, head->count) == head->sum && are_sound(lines, head->count);
    r = r == 0 && !good ? -EBADMSG : r;
    if (r < 0) {
        free(lines);
        return r;
    }
    *ret_lines = lines;
    return 0;
}

int history_file_read(int directory_fd, uint32_t day, struct history_file_head *ret_head,
                      struct history_line **ret_lines, size_t *ret_count)
{
    char name[sizeof(HISTORY_FILE_NAME)];
    history_file_name(day, name);
    struct stat st;
    int fd =
        openat(directory_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); /* waits for no pipe's writer */
    if (fd < 0) {
        return errno == ELOOP ? -EBADMSG : -errno;
    }
    int r = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read_open(fd, day, ret_head, ret_lines) : -EBADMSG;
    (void)close(fd);
    *ret_count = r == 0 ? ret_head->count : 0;
    return r;
}

int history_read(int directory_fd, uint32_t day, struct history_line **ret_lines, size_t *ret_count,
                 struct history_rest *ret_rest)
{
    struct history_file_head head;
    *ret_lines = NULL;
    int r = history_file_read(directory_fd, day, &head, ret_lines, ret_count);
    if (r == 0) {
        *ret_rest = head.rest;
    }
    return r;
}

void history_file_set_aside(int directory_fd, uint32_t day)
{
    char name[sizeof(HISTORY_FILE_NAME)], aside[sizeof(HISTORY_FILE_NAME) + 8];
    history_file_name(day, name);
    (void)snprintf(aside, sizeof(aside), "%s.damaged", name);
    (void)renameat(directory_fd, name, directory_fd, aside);
}

/* Names sort as their days; those set aside go with their day. */
void history_file_forget(int directory_fd, uint32_t before_day)
{
    char oldest[sizeof(HISTORY_FILE_NAME)];
    history_file_name(before_day, oldest);
    int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (d == NULL) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return;
    }
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strncmp(e->d_name, "day-", 4) == 0 && strncmp(e->d_name, oldest, sizeof(oldest) - 1) < 0) {
            (void)unlinkat(directory_fd, e->d_name, 0);
        }
    }
    (void)closedir(d);
}

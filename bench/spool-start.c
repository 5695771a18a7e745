/*
 * spool-start: how long a spool with many queued messages takes to start, and what it needs in memory.
 *
 *     spool-start fill DIRECTORY MESSAGES [OCTETS]   queues so many and dies (no clean stop)
 *     spool-start open DIRECTORY                     recovers, stores one message, walks the queue; prints times and
 * memory
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "spool/quiet.h"

struct bench {
    struct spool *sp;
    int wake_fd;
    uint64_t next_id, stored, asked;
    uint8_t *octets;
    size_t length;
};

static void on_answer(void *arg, uint64_t ticket, uint64_t id, const struct spool_refused *refused)
{
    struct bench *b = arg;
    (void)ticket, (void)id;
    if (refused != NULL) {
        (void)fprintf(stderr, "refused: %.*s\n", (int)refused->text.len, (const char *)refused->text.ptr);
        exit(75);
    }
    b->stored++;
}

static void on_wake(void *arg)
{
    const struct bench *b = arg;
    (void)eventfd_write(b->wake_fd, 1);
}

static void send_one(struct bench *b)
{
    char to[64], from[64], mid[64];
    uint64_t id = b->next_id++;
    (void)snprintf(to, sizeof(to), "some.recipient%llu@domain%llu.example.org", (unsigned long long)(id % 100000),
                   (unsigned long long)(id % 5000));
    (void)snprintf(from, sizeof(from), "some.sender%llu@example.net", (unsigned long long)(id % 2000));
    (void)snprintf(mid, sizeof(mid), "%llx.abcdefgh@client.example.net", (unsigned long long)id);
    struct envelope_recipient recipient = {.address = span_str(to)};
    struct envelope e = {.session = id,
                         .arrived_ms = clock_wall_ms(),
                         .sender = span_str(from),
                         .account = span_str(from),
                         .message_id = span_str(mid),
                         .recipients_count = 1,
                         .recipients = &recipient};
    b->asked++;
    spool_put(b->sp, 1, id, &(struct spool_put){e, {b->octets, b->length}});
}

static void turn(struct bench *b)
{
    struct pollfd p = {.fd = b->wake_fd, .events = POLLIN};
    eventfd_t v;
    (void)spool_poll(b->sp);
    (void)poll(&p, 1, 10);
    (void)eventfd_read(b->wake_fd, &v);
    (void)spool_poll(b->sp);
    log_flush();
}

static void fill(struct bench *b, uint64_t count)
{
    while (b->stored < count) {
        for (int i = 0; i < 500 && b->asked < count && b->asked - b->stored < 2000; i++) {
            send_one(b);
        }
        turn(b);
    }
}

static long memory_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "VmRSS:", 6) == 0) {
            kib = strtol(line + 6, NULL, 10);
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return kib;
}

static double ms_since(uint64_t began)
{
    return (double)(clock_mono_ns() - began) / 1e6;
}

int main(int argc, char **argv)
{
    static struct bench b;
    bool filling = argc > 3 && strcmp(argv[1], "fill") == 0;
    if (argc < 3 || (!filling && strcmp(argv[1], "open") != 0)) {
        (void)fprintf(stderr, "usage: spool-start fill DIRECTORY MESSAGES [OCTETS] | open DIRECTORY\n");
        return 64;
    }
    b.length = argc > 4 ? strtoul(argv[4], NULL, 10) : 4096;
    b.octets = calloc(1, b.length + 1);
    b.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    b.next_id = clock_wall_ms() << 20;
    (void)mkdir(argv[2], 0700);
    static const struct spool_ops ops = {on_answer,   quiet_job,      quiet_forget, quiet_cancel,
                                         quiet_state, quiet_pressure, on_wake};
    int dir = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    log_open("spool-start", LOG_LEVEL_WARN, open("/dev/null", O_WRONLY | O_CLOEXEC));
    struct spool_disk disk = disk_kernel(&dir);
    struct spool_config config = spool_config_default();
    uint64_t began = clock_mono_ns();
    if (b.octets == NULL || dir < 0 || spool_open(&disk, &config, &ops, &b, &b.sp) < 0) {
        (void)fprintf(stderr, "cannot open the spool there\n");
        return 74;
    }
    double opened = ms_since(began);
    uint64_t before = clock_mono_ns();
    fill(&b, filling ? strtoull(argv[3], NULL, 10) : 1);
    double took = ms_since(before);
    before = clock_mono_ns();
    uint64_t seen = 0;
    for (const struct message *m = index_first(spool_index(b.sp)); m != NULL; m = m->next) {
        seen++;
    }
    (void)printf(
        "open %.0f ms, %llu stored in %.0f ms (%.0f/s), %llu in the queue (walked in %.0f ms), %ld MiB resident\n",
        opened, (unsigned long long)b.stored, took, (double)b.stored / took * 1e3, (unsigned long long)seen,
        ms_since(before), memory_kib() / 1024);
    (void)fflush(stdout);
    _exit(0); /* as a kill would: the next open recovers */
}

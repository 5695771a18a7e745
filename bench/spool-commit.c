/*
 * spool-commit: how many messages a second the spool makes durable, by itself: no network, no SMTP. `waiting` clients
 * have one message each in hand and send the next when it is stored; every stored message is delivered at once.
 *
 *     spool-commit DIRECTORY [seconds [waiting [octets]]]
 *
 * Prints messages/s, commits/s, messages a commit, CPU a message, and the floor: commits of one 4 KiB block on the same
 * disk. System calls: strace -c -f spool-commit ...
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "spool/quiet.h"

struct bench {
    struct spool *sp;
    int wake_fd, waiting;
    uint64_t next_id, stored, refused;
    uint8_t *octets;
    size_t length;
    bool stop;
    struct {
        uint64_t id;
        uint16_t number;
    } jobs[16384];
    size_t jobs_count;
};

static void send_one(struct bench *b)
{
    char to[32];
    uint64_t id = b->next_id++;
    (void)snprintf(to, sizeof(to), "user%llu@example.org", (unsigned long long)(id % 1000));
    struct envelope_recipient recipient = {.address = span_str(to)};
    struct envelope e = {.session = 1,
                         .arrived_ms = clock_wall_ms(),
                         .sender = SPAN_LIT("sender@example.net"),
                         .account = SPAN_LIT("account"),
                         .message_id = SPAN_LIT("20260101.abcdefgh@client.example.net"),
                         .recipients_count = 1,
                         .recipients = &recipient};
    spool_put(b->sp, 1, id, &(struct spool_put){e, {b->octets, b->length}});
}

static void on_answer(void *arg, uint64_t ticket, uint64_t id, const struct spool_refused *refused)
{
    struct bench *b = arg;
    (void)ticket, (void)id;
    b->stored += refused == NULL;
    b->refused += refused != NULL;
    b->waiting++;
}

static void on_job(void *arg, uint32_t shard, uint64_t id, const struct deliver_job *job)
{
    struct bench *b = arg;
    (void)shard;
    b->jobs[b->jobs_count].id = id;
    b->jobs[b->jobs_count++].number = job->envelope.recipients[0].number;
}

static void on_wake(void *arg)
{
    const struct bench *b = arg;
    (void)eventfd_write(b->wake_fd, 1);
}

static void deliver(struct bench *b)
{
    struct deliver_recipient_result result = {.result = DELIVER_DELIVERED, .code = 250, .text = SPAN_LIT("Ok")};
    struct deliver_outcome o = {.remote = SPAN_LIT("mx.example.org"), .results_count = 1, .results = &result};
    size_t count = b->jobs_count;
    b->jobs_count = 0;
    for (size_t i = 0; i < count; i++) {
        result.number = b->jobs[i].number;
        (void)spool_outcome(b->sp, 1, b->jobs[i].id, &o);
    }
}

static void turn(struct bench *b)
{
    struct pollfd p = {.fd = b->wake_fd, .events = POLLIN};
    eventfd_t v;
    for (int n = b->stop ? 0 : b->waiting; n > 0; n--) { /* who is refused waits for the next turn */
        b->waiting--;
        send_one(b);
    }
    deliver(b);
    (void)spool_poll(b->sp);
    if (b->waiting == 0 || b->stop) {
        (void)poll(&p, 1, 10);
        (void)eventfd_read(b->wake_fd, &v);
    }
    (void)spool_poll(b->sp);
    log_flush();
}

static double floor_commits(const char *directory)
{
    char path[4096], block[4096] = {0};
    (void)snprintf(path, sizeof(path), "%s/floor", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (int i = 0; i < 4096; i++) {
        (void)!pwrite(fd, block, sizeof(block), i * 4096L);
    }
    (void)fsync(fd);
    uint64_t began = clock_mono_ns(), count = 0;
    while (clock_mono_ns() - began < 1000000000U) {
        (void)!pwrite(fd, block, sizeof(block), (long)(count++ % 4096) * 4096);
        (void)fdatasync(fd);
    }
    (void)close(fd);
    (void)unlink(path);
    return (double)count;
}

static double cpu_seconds(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
    static struct bench b;
    if (argc < 2) {
        (void)fprintf(stderr, "usage: spool-commit DIRECTORY [seconds [waiting [octets]]]\n");
        return 64;
    }
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 5;
    b.waiting = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 50;
    b.length = argc > 4 ? strtoul(argv[4], NULL, 10) : 4096;
    b.octets = calloc(1, b.length + 1);
    b.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    b.next_id = clock_wall_ms() << 20;
    (void)mkdir(argv[1], 0700);
    static const struct spool_ops ops = {on_answer,   on_job,         quiet_forget, quiet_cancel,
                                         quiet_state, quiet_pressure, on_wake};
    int dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    double floor = floor_commits(argv[1]);
    log_open("spool-commit", LOG_LEVEL_WARN, open("/dev/null", O_WRONLY | O_CLOEXEC));
    struct spool_disk disk = disk_kernel(&dir);
    struct spool_config config = spool_config_default();
    if (b.octets == NULL || dir < 0 || spool_open(&disk, &config, &ops, &b, &b.sp) < 0) {
        (void)fprintf(stderr, "cannot open the spool there\n");
        return 74;
    }
    spool_shard_up(b.sp, 0, true);
    uint64_t began = clock_mono_ns();
    double cpu = cpu_seconds();
    while ((double)(clock_mono_ns() - began) < seconds * 1e9) {
        turn(&b);
    }
    double took = (double)(clock_mono_ns() - began) / 1e9;
    cpu = cpu_seconds() - cpu;
    struct spool_figures f;
    spool_figures(b.sp, &f);
    double stored = (double)b.stored, commits = (double)f.log.commits;
    (void)printf(
        "messages %.0f/s, refused %llu, commits %.0f/s, %.1f messages a commit, %.1f us CPU a message, floor %.0f "
        "commits/s\n",
        stored / took, (unsigned long long)b.refused, commits / took, stored / commits, cpu * 1e6 / stored, floor);
    b.stop = true;
    while (f.index.messages > 0) {
        turn(&b);
        spool_figures(b.sp, &f);
    }
    spool_close(&b.sp);
    return 0;
}

/*
 * A master and a spool for one deliver process, driven by lines on standard input; outcomes come as JSON lines. For
 * tests/system/test_deliver_alone.py, which brings the network.
 *
 *   job ID SENDER FILE RECIPIENT[,RECIPIENT...] [damaged] [8bit] [smtputf8] [anew] [account=NAME]   SENDER "-": null
 *   cancel ID
 *   reload FILE         a new configuration
 *   respool             the channel to the spool is cut and made new
 *   status              the process's figures
 *   stop MS             asks the process to stop within MS; its exit status is printed
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/log.h"
#include "process/child.h"
#include "wire/deliver.h"

#define MASTER_FD 3

static int master_fd = -1, spool_fd = -1;
static struct buf master_in, spool_in;
static uint64_t next_file;
static uint32_t epoch;
static pid_t child;

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(99);
}

static void send_frame(int fd, uint16_t type, uint64_t id, struct span payload, int pass)
{
    struct frame f = {.length = (uint32_t)payload.len, .type = type, .version = FRAME_VERSION, .id = id};
    f.flags = pass >= 0 ? FRAME_HAS_FD : 0;
    struct iovec iov[2] = {{.iov_base = &f, .iov_len = sizeof(f)},
                           {.iov_base = (void *)(uintptr_t)payload.ptr, .iov_len = payload.len}};
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    if (pass >= 0) {
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &pass, sizeof(int));
    }
    if (sendmsg(fd, &msg, MSG_NOSIGNAL) != (ssize_t)(sizeof(f) + payload.len)) {
        die("sendmsg");
    }
}

static void pair(int fds[static 2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
        die("socketpair");
    }
}

static int file_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        die(path);
    }
    return fd;
}

static void send_config(const char *path)
{
    int fd = file_open(path);
    send_frame(master_fd, MASTER_CONFIG, 0, span_str(path), fd);
    (void)close(fd);
}

static void make_spool_channel(void)
{
    int fds[2];
    struct buf payload;
    pair(fds);
    if (spool_fd >= 0) {
        (void)close(spool_fd);
    }
    spool_fd = fds[0];
    buf_clear(&spool_in);
    buf_init(&payload, 64);
    struct wire_writer w = {.out = &payload};
    wire_put_u8(&w, ROLE_SPOOL);
    wire_put_u32(&w, 0);
    wire_put_u32(&w, ++epoch);
    send_frame(master_fd, MASTER_PEER, 0, buf_span(&payload), fds[1]);
    (void)close(fds[1]);
    buf_fini(&payload);
}

static void start(const char *config)
{
    int fds[2];
    pair(fds);
    child = fork();
    if (child == 0) {
        if (dup2(fds[1], MASTER_FD) < 0) {
            die("dup2");
        }
        (void)fcntl(MASTER_FD, F_SETFD, FD_CLOEXEC);
        (void)close(STDIN_FILENO);
        exit(deliver_main(0));
    }
    master_fd = fds[0];
    (void)close(fds[1]);
    send_config(config);
    make_spool_channel();
    send_frame(master_fd, MASTER_START, 0, (struct span){0}, -1);
}

/* ---- commands ---- */

static uint64_t hash_file(int fd, uint64_t *ret_len)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        die("fstat");
    }
    *ret_len = (uint64_t)st.st_size;
    void *octets = st.st_size > 0 ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0) : NULL;
    if (octets == MAP_FAILED) {
        die("mmap");
    }
    uint64_t hash = XXH3_64bits(octets, (size_t)st.st_size);
    if (octets != NULL) {
        (void)munmap(octets, (size_t)st.st_size);
    }
    return hash;
}

static void number_payload(struct buf *b, uint64_t number)
{
    buf_init(b, 64);
    struct wire_writer w = {.out = b};
    wire_put_u64(&w, number);
}

static void job_flags(struct deliver_job *m, char **save)
{
    char *word;
    while ((word = strsep(save, " \n")) != NULL) {
        if (strcmp(word, "damaged") == 0) {
            m->xxh3 ^= 1;
        } else if (strcmp(word, "8bit") == 0) {
            m->envelope.flags |= ENVELOPE_8BIT;
        } else if (strcmp(word, "smtputf8") == 0) {
            m->envelope.flags |= ENVELOPE_SMTPUTF8;
        } else if (strcmp(word, "anew") == 0) {
            m->flags |= DELIVER_JOB_ANEW;
        } else if (strncmp(word, "account=", 8) == 0) {
            m->envelope.account = span_str(word + 8);
        }
    }
}

static void send_job(struct deliver_job *m, uint64_t id, int fd)
{
    struct buf payload;
    number_payload(&payload, m->file);
    send_frame(spool_fd, DELIVER_FILE, 0, buf_span(&payload), fd);
    buf_clear(&payload);
    payload.max = FRAME_PAYLOAD_MAX;
    struct wire_writer w = {.out = &payload};
    deliver_job_encode(&w, m);
    send_frame(spool_fd, DELIVER_JOB, id, buf_span(&payload), -1);
    buf_fini(&payload);
    number_payload(&payload, m->file);
    send_frame(spool_fd, DELIVER_FORGET, 0, buf_span(&payload), -1);
    buf_fini(&payload);
}

static void command_job(char **save)
{
    static struct envelope_recipient recipients[ENVELOPE_RECIPIENTS_MAX];
    const char *id = strsep(save, " \n"), *sender = strsep(save, " \n");
    const char *path = strsep(save, " \n");
    char *list = strsep(save, " \n");
    if (list == NULL) {
        errno = EINVAL;
        die("job");
    }
    struct deliver_job m = {.file = ++next_file, .attempt = 1, .envelope.recipients = recipients};
    int fd = file_open(path);
    m.xxh3 = hash_file(fd, &m.length);
    m.envelope.sender = strcmp(sender, "-") == 0 ? (struct span){0} : span_str(sender);
    for (char *to = strsep(&list, ","); to != NULL; to = strsep(&list, ",")) {
        uint16_t n = m.envelope.recipients_count++;
        recipients[n] = (struct envelope_recipient){.number = n, .address = span_str(to)};
        const char *at = strrchr(to, '@');
        m.domain = span_str(at != NULL ? at + 1 : "");
    }
    job_flags(&m, save);
    send_job(&m, strtoull(id, NULL, 10), fd);
    (void)close(fd);
}

static void command_stop(char **save)
{
    const char *ms = strsep(save, " \n");
    struct buf payload;
    buf_init(&payload, 64);
    struct wire_writer w = {.out = &payload};
    wire_put_u32(&w, ms != NULL ? (uint32_t)strtoul(ms, NULL, 10) : 1000);
    send_frame(master_fd, MASTER_STOP, 0, buf_span(&payload), -1);
    buf_fini(&payload);
}

static void run_command(char *line)
{
    char *save = line;
    const char *verb = strsep(&save, " \n");
    if (strcmp(verb, "job") == 0) {
        command_job(&save);
    } else if (strcmp(verb, "cancel") == 0) {
        send_frame(spool_fd, DELIVER_CANCEL, strtoull(save, NULL, 10), (struct span){0}, -1);
    } else if (strcmp(verb, "reload") == 0) {
        send_config(strsep(&save, " \n"));
        send_frame(master_fd, MASTER_CONFIG_DONE, 0, (struct span){0}, -1);
    } else if (strcmp(verb, "respool") == 0) {
        make_spool_channel();
    } else if (strcmp(verb, "status") == 0) {
        send_frame(master_fd, MASTER_STATUS, 1, (struct span){0}, -1);
    } else if (strcmp(verb, "stop") == 0) {
        command_stop(&save);
    }
}

/* ---- answers ---- */

static void print_text(const char *name, struct span text)
{
    struct buf b;
    buf_init(&b, 64U * 1024U);
    (void)log_escape(&b, text, 4096);
    printf(",\"%s\":\"%.*s\"", name, (int)b.len, b.len > 0 ? (const char *)b.data : "");
    buf_fini(&b);
}

static void print_outcome(uint64_t id, struct span payload)
{
    static struct deliver_recipient_result results[ENVELOPE_RECIPIENTS_MAX];
    static const struct {
        const char *result, *tells; /* who tells of a success */
    } words[] = {
        [DELIVER_DELIVERED] = {"delivered", "we, delivered"}, [DELIVER_TEMPORARY] = {"temporary", "nobody"},
        [DELIVER_PERMANENT] = {"permanent", "nobody"},        [DELIVER_DAMAGED] = {"damaged", "nobody"},
        [DELIVER_RELAYED] = {"delivered", "we, relayed"},     [DELIVER_HANDED_OVER] = {"delivered", "the next hop"},
        [DELIVER_CANCELLED] = {"cancelled", "nobody"}};
    struct deliver_outcome m = {.results = results};
    if (deliver_outcome_decode(payload, &m) < 0) {
        errno = EBADMSG;
        die("outcome");
    }
    for (size_t i = 0; i < m.results_count; i++) {
        const struct deliver_recipient_result *r = &results[i];
        printf(
            "{\"event\":\"outcome\",\"id\":%llu,\"number\":%u,\"result\":\"%s\",\"code\":%u,\"enhanced\":\"%u.%u.%u\"",
            (unsigned long long)id, r->number, words[r->result].result, r->code, r->enhanced[0], r->enhanced[1],
            r->enhanced[2]);
        print_text("tells", span_str(words[r->result].tells));
        print_text("text", r->text);
        print_text("remote", m.remote);
        print_text("address", m.address);
        print_text("tls", m.tls);
        printf("}\n");
    }
}

static void on_master_frame(const struct frame *f, struct span payload)
{
    if (f->type == CHILD_STATUS_REPLY) {
        printf("{\"event\":\"status\",\"figures\":%.*s}\n", (int)payload.len, (const char *)payload.ptr);
    } else if (f->type == CHILD_READY) {
        printf("{\"event\":\"ready\"}\n");
    } else if (f->type == CHILD_PEER_BROKEN) {
        printf("{\"event\":\"peer_broken\"}\n");
    }
}

static void on_spool_frame(const struct frame *f, struct span payload)
{
    print_outcome(f->id, payload);
}

/* false: the other side is gone. */
static bool read_frames(int fd, struct buf *in, void (*frame)(const struct frame *f, struct span payload))
{
    uint8_t *room;
    if (buf_reserve(in, 65536, &room) < 0) {
        die("buf_reserve");
    }
    ssize_t n = read(fd, room, 65536);
    if (n <= 0) {
        return false;
    }
    buf_commit(in, (size_t)n);
    struct frame f;
    while (frame_decode(buf_span(in), &f) == 1 && in->len >= sizeof(f) + f.length) {
        frame(&f, (struct span){in->data + sizeof(f), f.length});
        buf_consume(in, sizeof(f) + f.length);
    }
    return true;
}

static int finish(void)
{
    int status = 0;
    (void)waitpid(child, &status, 0);
    printf("{\"event\":\"exit\",\"status\":%d,\"signal\":%d}\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1,
           WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    return 0;
}

int main(int argc, char **argv)
{
    static char line[256 * 1024];
    size_t len = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: %s CONFIG < COMMANDS\n", argv[0]);
        return 64;
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    buf_init(&master_in, 2 * FRAME_PAYLOAD_MAX);
    buf_init(&spool_in, 4 * FRAME_PAYLOAD_MAX);
    start(argv[1]);
    for (;;) {
        struct pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {master_fd, POLLIN, 0}, {spool_fd, POLLIN, 0}};
        if (poll(fds, 3, -1) < 0) {
            die("poll");
        }
        if (fds[2].revents != 0 && !read_frames(spool_fd, &spool_in, on_spool_frame)) {
            (void)close(spool_fd);
            spool_fd = -1;
        }
        if (fds[1].revents != 0 && !read_frames(master_fd, &master_in, on_master_frame)) {
            return finish();
        }
        if (fds[0].revents != 0) {
            ssize_t n = read(STDIN_FILENO, line + len, sizeof(line) - 1 - len);
            if (n <= 0) {
                return 0;
            }
            len += (size_t)n;
            char *end;
            while ((end = memchr(line, '\n', len)) != NULL) {
                *end = '\0';
                size_t used = (size_t)(end - line) + 1;
                run_command(line);
                memmove(line, line + used, len - used);
                len -= used;
            }
        }
    }
}

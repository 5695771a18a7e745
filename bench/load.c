/*
 * load: bounded load for SMTP submission servers; `load --help` has the options. The result is one JSON object.
 *
 * Only a message with a 250 after its dot counts. Every message has a Message-ID of its own, so that loss and
 * duplicates can be found at the far end. Certificates are not checked, and every TLS session does a full handshake
 * unless --resume. Exit: 0 no errors, 1 some, 2 wrong use.
 */
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

struct load_run load_run = {.o = {.host = "127.0.0.1",
                                  .port = "587",
                                  .user = "",
                                  .pass = "",
                                  .from = "sender@client.example",
                                  .to = "rcpt@dest.example",
                                  .helo = "client.example",
                                  .sessions = 100,
                                  .messages = 1,
                                  .concurrency = 10,
                                  .threads = 1,
                                  .rcpts = 1,
                                  .size = 4096,
                                  .step_timeout = 30,
                                  .max_time = 120}};

const char *const load_error_names[LOAD_ERROR_COUNT] = {"connect", "tls",      "closed",   "timeout",   "greeting",
                                                        "ehlo",    "starttls", "auth",     "mail",      "rcpt",
                                                        "data",    "dot",      "protocol", "unfinished"};

double load_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void load_die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("load: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(2);
}

void *load_alloc(void *p, size_t n)
{
    p = realloc(p, n != 0 ? n : 1);
    if (p == NULL)
        load_die("out of memory");
    return p;
}

void load_samples_add(struct load_samples *s, double seconds)
{
    if (s->n == s->cap) {
        s->cap = s->cap != 0 ? s->cap * 2 : 1024;
        s->v = load_alloc(s->v, s->cap * sizeof *s->v);
    }
    s->v[s->n++] = (float)seconds;
}

static void merge(struct load_samples *to, const struct load_samples *from)
{
    for (size_t i = 0; i < from->n; i++)
        load_samples_add(to, (double)from->v[i]);
}

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Of sorted samples, by nearest rank; ms. */
static double percentile(const struct load_samples *s, double p)
{
    if (s->n == 0)
        return 0;
    size_t i = (size_t)(p / 100.0 * (double)s->n + 0.999999);
    if (i > 0)
        i--;
    return (double)s->v[i < s->n ? i : s->n - 1] * 1e3;
}

static void on_signal(int number)
{
    (void)number;
    atomic_store(&load_run.stop, 1);
}

/* ---- options ---- */

static long number(const char *text, long min, long max, const char *what)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    long unit = *end == 'k' ? 1024 : *end == 'm' ? 1024L * 1024 : 1;
    if (unit > 1)
        end++;
    if (errno != 0 || end == text || *end != '\0' || __builtin_mul_overflow(v, unit, &v) || v < min || v > max)
        load_die("%s must be %ld to %ld", what, min, max);
    return v;
}

static double seconds(const char *text, double max, const char *what)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !(v >= 0 && v <= max))
        load_die("%s must be 0 to %g", what, max);
    return v;
}

static const char usage[] =
    "usage: load [options]\n"
    "  --host H            server address (127.0.0.1)\n"
    "  --port P            port (587)\n"
    "  --tls MODE          none, starttls or implicit (none)\n"
    "  --resume            resume TLS sessions (default: a full handshake each)\n"
    "  --handshake-only    implicit TLS: a session is a handshake and a close\n"
    "  --user U --pass P   AUTH PLAIN\n"
    "  --users K           the users are U0, U1, ... by session; the senders U0@..., too\n"
    "  --wrong N           each session tries N wrong passwords, a new one each, and leaves\n"
    "  --sessions N        sessions in all (100)\n"
    "  --messages M        messages a session; 0: log in and QUIT (1)\n"
    "  --size B            octets a message, k and m allowed (4096)\n"
    "  --rcpts R           recipients a message (1)\n"
    "  --concurrency C     sessions at once (10)\n"
    "  --threads T         loops, sharing the concurrency (1)\n"
    "  --rate R            sessions begun a second; what finds no place among C is counted, not waited for\n"
    "  --pipeline          MAIL, RCPT and DATA in one write, if offered\n"
    "  --from A --to A --helo NAME\n"
    "  --spread K          K source addresses 127.1.x.y\n"
    "  --hold S            set up the sessions, hold them idle for S seconds or until a signal\n"
    "  --step-timeout S    no reply or progress for so long fails (30)\n"
    "  --max-time S        the whole run, without --hold (120)\n";

enum {
    O_HOST = 256,
    O_PORT,
    O_TLS,
    O_RESUME,
    O_HANDSHAKE,
    O_USER,
    O_PASS,
    O_USERS,
    O_WRONG,
    O_SESSIONS,
    O_MESSAGES,
    O_SIZE,
    O_RCPTS,
    O_CONCURRENCY,
    O_THREADS,
    O_RATE,
    O_PIPELINE,
    O_FROM,
    O_TO,
    O_HELO,
    O_SPREAD,
    O_HOLD,
    O_STEP,
    O_MAX,
    O_HELP
};

static const struct option long_options[] = {
    {"host", 1, 0, O_HOST},
    {"port", 1, 0, O_PORT},
    {"tls", 1, 0, O_TLS},
    {"resume", 0, 0, O_RESUME},
    {"handshake-only", 0, 0, O_HANDSHAKE},
    {"user", 1, 0, O_USER},
    {"pass", 1, 0, O_PASS},
    {"users", 1, 0, O_USERS},
    {"wrong", 1, 0, O_WRONG},
    {"sessions", 1, 0, O_SESSIONS},
    {"messages", 1, 0, O_MESSAGES},
    {"size", 1, 0, O_SIZE},
    {"rcpts", 1, 0, O_RCPTS},
    {"concurrency", 1, 0, O_CONCURRENCY},
    {"threads", 1, 0, O_THREADS},
    {"rate", 1, 0, O_RATE},
    {"pipeline", 0, 0, O_PIPELINE},
    {"from", 1, 0, O_FROM},
    {"to", 1, 0, O_TO},
    {"helo", 1, 0, O_HELO},
    {"spread", 1, 0, O_SPREAD},
    {"hold", 1, 0, O_HOLD},
    {"step-timeout", 1, 0, O_STEP},
    {"max-time", 1, 0, O_MAX},
    {"help", 0, 0, O_HELP},
    {0, 0, 0, 0},
};

static enum load_tls tls_of(const char *word)
{
    if (strcmp(word, "none") == 0)
        return LOAD_TLS_NONE;
    if (strcmp(word, "starttls") == 0)
        return LOAD_TLS_STARTTLS;
    if (strcmp(word, "implicit") == 0)
        return LOAD_TLS_IMPLICIT;
    load_die("--tls none|starttls|implicit");
}

static void set_word(struct load_options *o, int option, const char *word)
{
    const char **to = option == O_HOST   ? &o->host
                      : option == O_PORT ? &o->port
                      : option == O_USER ? &o->user
                      : option == O_PASS ? &o->pass
                      : option == O_FROM ? &o->from
                      : option == O_TO   ? &o->to
                                         : &o->helo;
    if (strlen(word) > 200)
        load_die("%.20s... is too long", word);
    *to = word;
}

static void set_option(struct load_options *o, int option, const char *word)
{
    switch (option) {
    case O_HOST:
    case O_PORT:
    case O_PASS:
    case O_FROM:
    case O_TO:
    case O_HELO:
        set_word(o, option, word);
        break;
    case O_USER:
        set_word(o, option, word);
        o->auth = true;
        break;
    case O_TLS:
        o->tls = tls_of(word);
        break;
    case O_RESUME:
        o->resume = true;
        break;
    case O_HANDSHAKE:
        o->tls = LOAD_TLS_IMPLICIT;
        o->handshake_only = true;
        break;
    case O_USERS:
        o->users = number(word, 1, 100000, "--users");
        break;
    case O_WRONG:
        o->wrong = number(word, 1, 1000, "--wrong");
        break;
    case O_SESSIONS:
        o->sessions = number(word, 1, 100000000, "--sessions");
        break;
    case O_MESSAGES:
        o->messages = number(word, 0, 1000000, "--messages");
        break;
    case O_SIZE:
        o->size = (size_t)number(word, 400, 1L << 30, "--size");
        break;
    case O_RCPTS:
        o->rcpts = number(word, 1, 1000, "--rcpts");
        break;
    case O_CONCURRENCY:
        o->concurrency = number(word, 1, 100000, "--concurrency");
        break;
    case O_THREADS:
        o->threads = number(word, 1, 64, "--threads");
        break;
    case O_RATE:
        o->rate = seconds(word, 1e6, "--rate");
        break;
    case O_PIPELINE:
        o->pipeline = true;
        break;
    case O_SPREAD:
        o->spread = number(word, 1, 60000, "--spread");
        break;
    case O_HOLD:
        o->hold = seconds(word, 86400, "--hold");
        o->holding = true;
        break;
    case O_STEP:
        o->step_timeout = seconds(word, 3600, "--step-timeout");
        break;
    case O_MAX:
        o->max_time = seconds(word, 86400, "--max-time");
        break;
    case O_HELP:
        fputs(usage, stdout);
        exit(0);
    default:
        fputs(usage, stderr);
        exit(2);
    }
}

static void read_options(struct load_options *o, int argc, char **argv)
{
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;)
        set_option(o, option, optarg);
    if (optind != argc) {
        fputs(usage, stderr);
        exit(2);
    }
    if (o->threads > o->concurrency)
        o->threads = o->concurrency;
}

/* ---- the ground ---- */

static void resolve(struct load_run *r)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int rc = getaddrinfo(r->o.host, r->o.port, &hints, &found);
    if (rc != 0)
        load_die("%s:%s: %s", r->o.host, r->o.port, gai_strerror(rc));
    memcpy(&r->to, found->ai_addr, found->ai_addrlen);
    r->to_length = found->ai_addrlen;
    freeaddrinfo(found);
}

/* Lines of 76 letters, so that the message with its header has the size that was asked for. */
static void make_body(struct load_run *r)
{
    char head[1024];
    size_t header = load_header(head, sizeof head, 1000, 10);
    size_t want = r->o.size > header + 4 ? r->o.size - header : 4, n = 2;
    r->body = load_alloc(NULL, want + 128);
    memcpy(r->body, "\r\n", 2);
    while (n < want) {
        size_t line = want - n < 78 ? want - n : 78;
        for (size_t i = 0; i < line; i++)
            r->body[n + i] = (char)('a' + (n + i) % 26);
        n += line > 2 ? line : line + 2;
        memcpy(r->body + n - 2, "\r\n", 2);
    }
    r->body_length = n;
}

static void make_tls(struct load_run *r)
{
    if (r->o.tls == LOAD_TLS_NONE)
        return;
    r->tls = SSL_CTX_new(TLS_client_method());
    if (r->tls == NULL || SSL_CTX_set_min_proto_version(r->tls, TLS1_3_VERSION) != 1)
        load_die("no TLS");
    SSL_CTX_set_verify(r->tls, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_mode(r->tls,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(r->tls, r->o.resume ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL
                                                       : SSL_SESS_CACHE_OFF);
    if (r->o.resume)
        SSL_CTX_sess_set_new_cb(r->tls, load_on_new_session);
}

static void make_ground(struct load_run *r)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    struct sigaction action = {.sa_handler = on_signal};
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    r->id = (uint32_t)time(NULL) ^ (uint32_t)getpid() << 12;
    resolve(r);
    make_body(r);
    make_tls(r);
}

static struct load_worker *start_workers(struct load_run *r)
{
    struct load_worker *workers = calloc((size_t)r->o.threads, sizeof *workers);
    if (workers == NULL)
        load_die("out of memory");
    r->begin = load_now();
    for (long i = 0; i < r->o.threads; i++) {
        struct load_worker *w = &workers[i];
        w->limit = r->o.concurrency / r->o.threads + (i < r->o.concurrency % r->o.threads);
        w->last = r->begin;
        w->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (w->epoll < 0 || pthread_create(&w->thread, NULL, load_worker_run, w) != 0)
            load_die("no thread: %s", strerror(errno));
    }
    return workers;
}

/* Says "ready" when all sessions are there, then keeps them. */
static void hold(struct load_run *r)
{
    while (atomic_load(&r->stop) == 0 && r->held + r->setup_failed + r->dropped < r->o.sessions &&
           load_now() - r->begin <= r->o.max_time)
        usleep(20000);
    double ready = load_now();
    printf("{\"ready\":true,\"held\":%ld,\"failed\":%ld,\"dropped\":%ld,\"setup_s\":%.3f}\n", (long)r->held,
           (long)r->setup_failed, (long)r->dropped, ready - r->begin);
    (void)fflush(stdout);
    while (atomic_load(&r->stop) == 0 && load_now() - ready < r->o.hold)
        usleep(50000);
    printf("{\"end\":true,\"held\":%ld,\"dropped\":%ld}\n", (long)r->held, (long)r->dropped);
    (void)fflush(stdout);
    atomic_store(&r->stop, 1);
}

/* ---- the report ---- */

static void add_worker(struct load_worker *sum, struct load_worker *w)
{
    (void)pthread_join(w->thread, NULL);
    sum->ok_messages += w->ok_messages;
    sum->ok_sessions += w->ok_sessions;
    sum->refused_logins += w->refused_logins;
    sum->resumed += w->resumed;
    sum->unoffered += w->unoffered;
    sum->started += w->started;
    sum->last = w->last > sum->last ? w->last : sum->last;
    for (size_t i = 0; i < LOAD_ERROR_COUNT; i++)
        sum->errors[i] += w->errors[i];
    for (size_t i = 0; i < sizeof w->codes / sizeof w->codes[0]; i++)
        sum->codes[i] += w->codes[i];
    merge(&sum->message, &w->message);
    merge(&sum->session, &w->session);
    merge(&sum->setup, &w->setup);
    if (sum->first_error[0] == '\0')
        memcpy(sum->first_error, w->first_error, sizeof sum->first_error);
    if (sum->tls[0] == '\0')
        memcpy(sum->tls, w->tls, sizeof sum->tls);
}

static void print_samples(const char *name, struct load_samples *s)
{
    if (s->n > 0)
        qsort(s->v, s->n, sizeof(float), compare);
    printf("\"%s_p50_ms\":%.3f,\"%s_p99_ms\":%.3f,\"%s_max_ms\":%.3f,", name, percentile(s, 50), name,
           percentile(s, 99), name, percentile(s, 100));
}

static long print_errors(const struct load_worker *sum)
{
    long all = 0;
    printf("\"errors\":{");
    for (size_t i = 0; i < LOAD_ERROR_COUNT; i++) {
        if (sum->errors[i] != 0)
            printf("%s\"%s\":%ld", all != 0 ? "," : "", load_error_names[i], sum->errors[i]);
        all += sum->errors[i];
    }
    printf("},\"codes\":{");
    const char *comma = "";
    for (int i = 0; i < 600; i++) {
        if (sum->codes[i] == 0)
            continue;
        printf("%s\"%d\":%ld", comma, i, sum->codes[i]);
        comma = ",";
    }
    printf("},");
    return all;
}

static double cpu_seconds(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* 1 when there were errors. */
static int report(const struct load_run *r, struct load_worker *sum)
{
    double elapsed = sum->last - r->begin > 0 ? sum->last - r->begin : 1e-9;
    for (char *p = sum->first_error; *p != '\0'; p++)
        if (*p == '"' || *p == '\\' || (unsigned char)*p < ' ' || (unsigned char)*p > '~')
            *p = '\'';
    printf("{\"elapsed_s\":%.4f,\"messages\":%ld,\"sessions\":%ld,\"started\":%ld,\"refused_logins\":%ld,"
           "\"unoffered\":%ld,\"resumed\":%ld,\"messages_s\":%.1f,\"sessions_s\":%.1f,\"mb_s\":%.2f,",
           elapsed, sum->ok_messages, sum->ok_sessions, sum->started, sum->refused_logins, sum->unoffered, sum->resumed,
           (double)sum->ok_messages / elapsed, (double)sum->ok_sessions / elapsed,
           (double)sum->ok_messages * (double)r->o.size / elapsed / 1e6);
    print_samples("message", &sum->message);
    print_samples("session", &sum->session);
    print_samples("setup", &sum->setup);
    long errors = print_errors(sum);
    printf("\"cpu_s\":%.3f,\"tls\":\"%s\",\"run\":\"%08x\",\"first_error\":\"%s\"}\n", cpu_seconds(), sum->tls, r->id,
           sum->first_error);
    return errors != 0;
}

int main(int argc, char **argv)
{
    struct load_run *r = &load_run;
    static struct load_worker sum;
    read_options(&r->o, argc, argv);
    make_ground(r);
    struct load_worker *workers = start_workers(r);
    if (r->o.holding)
        hold(r);
    for (long i = 0; i < r->o.threads; i++)
        add_worker(&sum, &workers[i]);
    free(workers);
    return report(r, &sum);
}

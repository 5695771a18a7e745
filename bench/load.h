/*
 * load.h: the load generator's parts. load.c has the options and the report, load_session.c plays the sessions.
 *
 * One epoll loop a thread drives sessions that never block: connect, greeting, EHLO, [STARTTLS, EHLO], [AUTH PLAIN],
 * messages, QUIT; each step after the reply to the one before. It reads the replies of the server under test and
 * believes it as far as a client must: a reply that is none ends the session.
 */
#ifndef KIDOBAN_BENCH_LOAD_H
#define KIDOBAN_BENCH_LOAD_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum load_tls { LOAD_TLS_NONE, LOAD_TLS_STARTTLS, LOAD_TLS_IMPLICIT };

struct load_options {
    const char *host, *port, *user, *pass, *from, *to, *helo;
    enum load_tls tls;
    bool auth, pipeline, resume, handshake_only, holding;
    long sessions, messages, concurrency, threads, rcpts, spread, users, wrong;
    size_t size;
    double step_timeout, max_time, hold, rate;
};

/* What ends a session badly; a counter each. */
enum load_error {
    LOAD_ERROR_CONNECT,
    LOAD_ERROR_TLS,
    LOAD_ERROR_CLOSED,
    LOAD_ERROR_TIMEOUT,
    LOAD_ERROR_GREETING,
    LOAD_ERROR_EHLO,
    LOAD_ERROR_STARTTLS,
    LOAD_ERROR_AUTH,
    LOAD_ERROR_MAIL,
    LOAD_ERROR_RCPT,
    LOAD_ERROR_DATA,
    LOAD_ERROR_DOT,
    LOAD_ERROR_PROTOCOL,
    LOAD_ERROR_UNFINISHED,
    LOAD_ERROR_COUNT
};

struct load_samples {
    float *v; /* seconds */
    size_t n, cap;
};

/* One thread's loop and what it has counted. */
struct load_worker {
    pthread_t thread;
    int epoll;
    long limit; /* sessions at once; with --hold: being set up at once */
    long active, setting_up, started;
    struct load_session *list;
    struct load_samples message, session, setup;
    long ok_messages, ok_sessions, refused_logins, resumed, unoffered;
    long errors[LOAD_ERROR_COUNT];
    long codes[600]; /* replies that ended a session or refused a message, by code */
    double last;     /* when the last session ended */
    char first_error[256];
    char tls[64];
    SSL_SESSION *saved;
};

/* Shared by all threads. */
struct load_run {
    struct load_options o;
    struct sockaddr_storage to;
    socklen_t to_length;
    SSL_CTX *tls;
    char *body; /* what follows the header of every message */
    size_t body_length;
    uint32_t id; /* of this run: part of every Message-ID */
    double begin;
    atomic_long next_session, held, setup_failed, dropped;
    atomic_int stop;
};

extern struct load_run load_run;
extern const char *const load_error_names[LOAD_ERROR_COUNT];

double load_now(void); /* seconds, monotonic */
void load_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void *load_alloc(void *p, size_t n);
void load_samples_add(struct load_samples *s, double seconds);

/* The header of a message; its Message-ID tells run, session and message. */
size_t load_header(char *to, size_t cap, long session, long message);
/* Keeps the newest session for --resume; SSL_get_app_data() is the worker. */
int load_on_new_session(SSL *ssl, SSL_SESSION *session);
/* The thread. arg: struct load_worker. */
void *load_worker_run(void *arg);

#endif

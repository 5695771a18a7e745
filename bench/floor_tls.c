/*
 * floor-tls PORT CERTIFICATE KEY PROCESSES [535]: the least a TLS server does, on 127.0.0.1, until it is killed.
 *
 * Each process accepts, does the handshake, reads until the client closes, and closes. What a load of bare handshakes
 * reaches against it is the floor under every server that speaks TLS on this machine beside this load. With 535 it
 * speaks the least SMTP there is, and every password is wrong: what guessers cost a machine whose server does nothing
 * for them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void need(int good, const char *what)
{
    if (good)
        return;
    (void)fprintf(stderr, "floor-tls: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int listen_at(int port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    need(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) == 0 &&
             bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 1024) == 0,
         "listen");
    return fd;
}

static int says_535;

static void say(SSL *ssl, const char *text)
{
    (void)SSL_write(ssl, text, (int)strlen(text));
}

/* The client waits for each reply, so a command comes in one piece. */
static void answer(SSL *ssl, const char *command)
{
    say(ssl, strncmp(command, "EHLO", 4) == 0   ? "250-floor\r\n250 AUTH PLAIN\r\n"
             : strncmp(command, "AUTH", 4) == 0 ? "535 5.7.8 No\r\n"
                                                : "221 2.0.0 Bye\r\n");
}

static void accept_all(int epoll, int listener, SSL_CTX *context)
{
    for (int fd, one = 1; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        SSL *ssl = SSL_new(context);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = ssl};
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        need(ssl != NULL && SSL_set_fd(ssl, fd) == 1 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) == 0, "accept");
        SSL_set_accept_state(ssl);
    }
}

static void serve_one(SSL *ssl)
{
    char octets[4096] = "";
    int before = SSL_is_init_finished(ssl), n = SSL_read(ssl, octets, sizeof octets - 1);
    if (says_535 && !before && SSL_is_init_finished(ssl))
        say(ssl, "220 floor\r\n");
    if (says_535 && n > 0)
        answer(ssl, octets);
    if (n > 0 || SSL_get_error(ssl, n) == SSL_ERROR_WANT_READ)
        return;
    ERR_clear_error();
    close(SSL_get_fd(ssl));
    SSL_free(ssl);
}

static void serve(int port, SSL_CTX *context)
{
    struct epoll_event events[64], e = {.events = EPOLLIN, .data.ptr = NULL};
    int epoll = epoll_create1(EPOLL_CLOEXEC), listener = listen_at(port);
    need(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e) == 0, "epoll");
    for (;;) {
        int n = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                accept_all(epoll, listener, context);
            else
                serve_one(events[i].data.ptr);
        }
    }
}

int main(int argc, char **argv)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    says_535 = argc == 6 && strcmp(argv[5], "535") == 0;
    if (argc != 5 && !says_535) {
        (void)fputs("usage: floor-tls PORT CERTIFICATE KEY PROCESSES [535]\n", stderr);
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN); /* the load closes behind its Finished, while our tickets are under way */
    need(context != NULL && SSL_CTX_use_certificate_chain_file(context, argv[2]) == 1 &&
             SSL_CTX_use_PrivateKey_file(context, argv[3], SSL_FILETYPE_PEM) == 1,
         "certificate");
    for (long i = strtol(argv[4], NULL, 10); i > 0; i--) {
        pid_t child = fork();
        need(child >= 0, "fork");
        if (child == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
            serve((int)strtol(argv[1], NULL, 10), context);
        }
    }
    while (wait(NULL) > 0)
        ;
    return 1;
}

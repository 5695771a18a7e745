/*
 * What the children stand on: directories, sockets, the event file. Made as root, given away as descriptors.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "master/master_int.h"

#define BACKLOG       4096
#define HAND_OVER_ENV "KIDOBAND_LISTENERS"

static int failed(const char *what, const char *path, int err)
{
    log_error("start.failed", LF_STR("what", what), LF_STR("path", path), LF_ERR(err));
    return -err;
}

/* mkdir -p, the last one with the mode and owner given. */
static int make_directory(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
    char part[PATH_MAX];
    size_t len = strlen(path);
    if (len >= sizeof(part)) {
        return failed("make directory", path, ENAMETOOLONG);
    }
    for (size_t i = 1; i <= len; i++) {
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            if (mkdir(part, i == len ? mode : 0755) != 0 && errno != EEXIST) {
                return failed("make directory", part, errno);
            }
        }
    }
    if (geteuid() == 0 && (chown(path, uid, gid) != 0 || chmod(path, mode) != 0)) {
        return failed("own directory", path, errno);
    }
    return 0;
}

static void user_of(const struct config *c, enum master_role role, uid_t *ret_uid, gid_t *ret_gid)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "%s%s", c->processes.user_prefix, master_role_name(role));
    const struct passwd *pw = getpwnam(name);
    *ret_uid = pw != NULL ? pw->pw_uid : geteuid();
    *ret_gid = pw != NULL ? pw->pw_gid : getegid();
}

static int state_directory(struct master *m, enum master_role role, const char *path)
{
    uid_t uid;
    gid_t gid;
    user_of(m->config, role, &uid, &gid);
    int r = make_directory(path, 0700, uid, gid);
    if (r < 0) {
        return r;
    }
    m->directory_fds[role] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return m->directory_fds[role] >= 0 ? 0 : failed("open directory", path, errno);
}

/* Held until the master ends or becomes another program; children do not inherit it. */
static int take_lock(const char *path, int flags, const char *taken, int *ret_fd)
{
    *ret_fd = open(path, flags | O_CLOEXEC, 0600);
    if (*ret_fd < 0) {
        return failed("open lock", path, errno);
    }
    return flock(*ret_fd, LOCK_EX | LOCK_NB) == 0 ? 0 : failed(taken, path, errno);
}

static int runtime_lock(struct master *m)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/kidoband.lock", m->config->processes.runtime_directory);
    return take_lock(path, O_RDWR | O_CREAT, "another kidoband runs with this runtime directory", &m->lock_fd);
}

/* The spool process has a lock of its own; this one says so before anything is started. */
static int spool_lock(struct master *m)
{
    return take_lock(m->config->processes.spool_directory, O_RDONLY | O_DIRECTORY,
                     "another kidoband runs with this spool directory", &m->spool_lock_fd);
}

static int control_socket(struct master *m, enum master_role role)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int n = snprintf(un.sun_path, sizeof(un.sun_path), "%s/%s.sock", m->config->processes.runtime_directory,
                     master_role_name(role));
    if (n < 0 || (size_t)n >= sizeof(un.sun_path)) {
        return failed("control socket", m->config->processes.runtime_directory, ENAMETOOLONG);
    }
    (void)unlink(un.sun_path); /* the lock is ours: nobody listens there any more */
    if (!family_has(m->config, role)) {
        return 0;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) != 0 || listen(fd, 64) != 0) {
        int err = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return failed("control socket", un.sun_path, err);
    }
    const struct group *gr = getgrnam("kidoban");
    if (geteuid() == 0 && chown(un.sun_path, 0, gr != NULL ? gr->gr_gid : 0) != 0) {
        log_warn("start.failed", LF_STR("what", "own control socket"), LF_ERR(errno));
    }
    (void)chmod(un.sun_path, 0660);
    m->control_fds[role] = fd;
    return 0;
}

int ground_event_file(struct master *m)
{
    const char *path = m->config->processes.event_file;
    struct stat st;
    if (m->event_fd >= 0 && stat(path, &st) == 0 && (uint64_t)st.st_size < m->config->processes.event_file_size) {
        return 0;
    }
    char from[PATH_MAX], to[PATH_MAX];
    for (unsigned i = m->event_fd >= 0 ? m->config->processes.event_files : 0; i > 0; i--) {
        (void)snprintf(to, sizeof(to), "%s.%u", path, i);
        (void)snprintf(from, sizeof(from), i > 1 ? "%s.%u" : "%s", path, i - 1);
        (void)rename(from, to);
    }
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0) {
        return failed("open event file", path, errno);
    }
    const struct group *gr = getgrnam("kidoban");
    if (gr != NULL && fchown(fd, geteuid(), gr->gr_gid) != 0) {
        log_warn("start.failed", LF_STR("what", "own event file"), LF_ERR(errno));
    }
    m->event_fd = fd;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    log_set_event_fd(own);
    return 1;
}

static int event_directory(const struct config *c)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s", c->processes.event_file);
    char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path) {
        return 0;
    }
    *slash = '\0';
    const struct group *gr = getgrnam("kidoban");
    return make_directory(path, 0750, geteuid(), gr != NULL ? gr->gr_gid : getegid());
}

int ground_prepare(struct master *m)
{
    static const enum master_role controlled[] = {ROLE_MASTER, ROLE_VAULT, ROLE_GUARD, ROLE_SPOOL, ROLE_GATE};
    int r = make_directory(m->config->processes.runtime_directory, 0755, geteuid(), getegid());
    if (r == 0) {
        r = runtime_lock(m);
    }
    if (r == 0) {
        r = event_directory(m->config);
    }
    if (r == 0) {
        int opened = ground_event_file(m);
        r = opened < 0 ? opened : 0;
    }
    for (size_t i = 0; r == 0 && i < sizeof(controlled) / sizeof(controlled[0]); i++) {
        r = control_socket(m, controlled[i]);
    }
    if (r == 0) {
        r = state_directory(m, ROLE_VAULT, m->config->processes.vault_directory);
    }
    if (r == 0) {
        r = state_directory(m, ROLE_GUARD, m->config->processes.guard_directory);
    }
    if (r == 0) {
        r = state_directory(m, ROLE_SPOOL, m->config->processes.spool_directory);
    }
    if (r == 0 && family_has(m->config, ROLE_GATE)) {
        r = state_directory(m, ROLE_GATE, m->config->processes.gate_directory);
    }
    if (r == 0) {
        r = spool_lock(m);
    }
    return r;
}

/* Listeners. */

static int bind_address(const struct net_address *a)
{
    static const uint8_t any[16] = {0};
    struct sockaddr_storage ss = {0};
    socklen_t len;
    int on = 1, off = 0;
    bool v4 = net_address_is_v4(a);
    if (v4) {
        struct sockaddr_in *in = (struct sockaddr_in *)&ss;
        in->sin_family = AF_INET;
        in->sin_port = htons(a->port);
        memcpy(&in->sin_addr, a->bytes + 12, 4);
        len = sizeof(*in);
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(a->port);
        memcpy(&in6->sin6_addr, a->bytes, 16);
        len = sizeof(*in6);
    }
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* these two, every connection inherits */
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    if (!v4) { /* [::] takes both families; a named address takes its own */
        bool both = memcmp(a->bytes, any, sizeof(any)) == 0;
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, both ? &off : &on, sizeof(on));
    }
    if (bind(fd, (struct sockaddr *)&ss, len) != 0 || listen(fd, BACKLOG) != 0) {
        int err = errno;
        (void)close(fd);
        return -err;
    }
    return fd;
}

static bool same_address(const struct net_address *a, const struct net_address *b)
{
    return a->port == b->port && memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static void address_text(const struct net_address *a, char *text, size_t size)
{
    char host[NET_ADDRESS_TEXT];
    net_address_format(a, host);
    (void)snprintf(text, size, net_address_is_v4(a) ? "%s:%u" : "[%s]:%u", host, a->port);
}

void ground_listeners_free(struct ground_listener *l, size_t count, const struct ground_listener *kept,
                           size_t kept_count)
{
    for (size_t i = 0; i < count; i++) {
        bool keep = false;
        for (size_t k = 0; k < kept_count; k++) {
            keep |= kept[k].fd == l[i].fd;
        }
        if (!keep && l[i].fd >= 0) {
            (void)close(l[i].fd);
        }
        free(l[i].text);
    }
    free(l);
}

int ground_listen(const struct config *c, struct ground_listener *old, size_t old_count, struct ground_listener **ret,
                  size_t *ret_count)
{
    size_t count = c->submission.listen_count;
    struct ground_listener *fresh = calloc(count > 0 ? count : 1, sizeof(*fresh));
    if (fresh == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        char text[NET_ADDRESS_TEXT + 10];
        fresh[i].address = c->submission.listen[i].address;
        fresh[i].fd = -1;
        address_text(&fresh[i].address, text, sizeof(text));
        fresh[i].text = strdup(text);
        for (size_t k = 0; k < old_count; k++) {
            if (same_address(&old[k].address, &fresh[i].address)) {
                fresh[i].fd = old[k].fd;
            }
        }
        if (fresh[i].fd < 0) {
            fresh[i].fd = bind_address(&fresh[i].address);
        }
        if (fresh[i].fd < 0) {
            int err = -fresh[i].fd;
            (void)failed("listen", text, err);
            ground_listeners_free(fresh, i + 1, old, old_count);
            return -err;
        }
    }
    *ret = fresh;
    *ret_count = count;
    return 0;
}

/* Upgrade: "fd=port/32 hex digits of the address;..." in the environment. */
int ground_hand_over(const struct ground_listener *l, size_t count)
{
    struct buf b;
    buf_init(&b, 65536);
    int r = 0;
    for (size_t i = 0; i < count && r == 0; i++) {
        r = buf_printf(&b, "%d=%u/", l[i].fd, l[i].address.port);
        for (size_t k = 0; k < sizeof(l[i].address.bytes) && r == 0; k++) {
            r = buf_printf(&b, "%02x", l[i].address.bytes[k]);
        }
        r = r == 0 ? buf_append_byte(&b, ';') : r;
        (void)fcntl(l[i].fd, F_SETFD, 0);
    }
    r = r == 0 ? buf_append_byte(&b, 0) : r;
    if (r == 0 && setenv(HAND_OVER_ENV, (const char *)b.data, 1) != 0) {
        r = -errno;
    }
    buf_fini(&b);
    return r;
}

/* A number and the character behind it; *at is moved on. */
static bool adopt_number(const char **at, int base, size_t digits, char behind, unsigned long max, unsigned long *ret)
{
    char text[16], *end = NULL;
    size_t len = digits > 0 ? digits : strcspn(*at, "=/;");
    if (len == 0 || len >= sizeof(text) || strnlen(*at, len) < len) {
        return false;
    }
    memcpy(text, *at, len);
    text[len] = '\0';
    *ret = strtoul(text, &end, base);
    *at += len;
    if (*end != '\0' || *ret > max || (behind != '\0' && **at != behind)) {
        return false;
    }
    *at += behind != '\0' ? 1 : 0;
    return true;
}

static bool adopt_one(const char **at, struct ground_listener *ret)
{
    unsigned long fd, port, octet;
    if (!adopt_number(at, 10, 0, '=', INT_MAX, &fd) || !adopt_number(at, 10, 0, '/', 65535, &port)) {
        return false;
    }
    ret->fd = (int)fd;
    ret->address.port = (uint16_t)port;
    for (size_t k = 0; k < sizeof(ret->address.bytes); k++) {
        bool last = k + 1 == sizeof(ret->address.bytes);
        if (!adopt_number(at, 16, 2, last ? ';' : '\0', 255, &octet)) {
            return false;
        }
        ret->address.bytes[k] = (uint8_t)octet;
    }
    return fcntl(ret->fd, F_SETFD, FD_CLOEXEC) == 0;
}

int ground_adopt(struct ground_listener **ret, size_t *ret_count, bool *ret_again)
{
    const char *env = getenv(HAND_OVER_ENV);
    struct ground_listener *l = calloc(256, sizeof(*l));
    size_t count = 0;
    if (l == NULL) {
        return -ENOMEM;
    }
    for (const char *at = env; at != NULL && *at != '\0' && count < 256 && adopt_one(&at, &l[count]);) {
        count++;
    }
    *ret_again = env != NULL;
    (void)unsetenv(HAND_OVER_ENV);
    *ret = l;
    *ret_count = count;
    return 0;
}

/* Files. */

int ground_memfd(const char *name, struct span text)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -errno;
    }
    for (size_t done = 0; done < text.len;) {
        ssize_t n = write(fd, text.ptr + done, text.len - done);
        if (n < 0) {
            int err = errno;
            (void)close(fd);
            return -err;
        }
        done += (size_t)n;
    }
    (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
    return fd;
}

/* Within the kernel: a file of a million prefixes takes no time to speak of. */
static int copy_whole(int from, int to, size_t max)
{
    for (size_t done = 0; done <= max;) {
        ssize_t n = sendfile(to, from, NULL, 1U << 20);
        if (n <= 0) {
            return n == 0 ? 0 : -errno;
        }
        done += (size_t)n;
    }
    return -EFBIG;
}

int ground_memfd_of(const char *path, size_t max)
{
    int from = open(path, O_RDONLY | O_CLOEXEC);
    int fd = from >= 0 ? memfd_create("file", MFD_CLOEXEC | MFD_ALLOW_SEALING) : -1;
    int r = fd >= 0 ? copy_whole(from, fd, max) : -errno;
    if (from >= 0) {
        (void)close(from);
    }
    if (r == 0) {
        (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
        return fd;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return r;
}

int ground_shared(void)
{
    uint64_t seed[2];
    int fd = memfd_create("shared", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, MASTER_SHARED_SIZE) != 0 || getrandom(seed, sizeof(seed), 0) != (ssize_t)sizeof(seed) ||
        pwrite(fd, seed, sizeof(seed), 0) != (ssize_t)sizeof(seed)) {
        return -errno;
    }
    return fd;
}

int ground_read_file(const char *path, size_t max, struct buf *ret)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int r = fd < 0 ? -errno : 0;
    buf_init(ret, max);
    while (r == 0) {
        uint8_t *room;
        r = buf_reserve(ret, 4096, &room);
        ssize_t n = r == 0 ? read(fd, room, 4096) : 0;
        if (r < 0 || n <= 0) {
            r = n < 0 ? -errno : r == -EMSGSIZE ? -EFBIG : r;
            break;
        }
        buf_commit(ret, (size_t)n);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (r < 0) {
        buf_wipe(ret);
    }
    return r;
}

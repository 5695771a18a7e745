#include "process/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"

/* What a role may ask of the kernel, beyond what all need. */
enum right {
    RIGHT_DIRECTORY = 1, /* read and write files below its state directory */
    RIGHT_SOCKETS = 2,   /* make sockets and connect */
    RIGHT_READ = 4,      /* open files for reading (read_paths) */
    RIGHT_BPF = 8,       /* bpf(), sockets of netlink, and the capabilities for both: CAP_BPF, CAP_NET_ADMIN */
};

static const unsigned rights[ROLE_COUNT] = {
    [ROLE_SUBMIT] = 0,
    [ROLE_VAULT] = RIGHT_DIRECTORY,
    [ROLE_GUARD] = RIGHT_DIRECTORY,
    [ROLE_SPOOL] = RIGHT_DIRECTORY,
    [ROLE_DELIVER] = RIGHT_SOCKETS | RIGHT_READ,
    [ROLE_GATE] = RIGHT_DIRECTORY | RIGHT_BPF,
};

/* Loop, memory, threads, clocks, sockets that were given. */
static const int calls_all[] = {
    SCMP_SYS(read),
    SCMP_SYS(readv),
    SCMP_SYS(pread64),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(pwrite64),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(lseek),
    SCMP_SYS(dup),
    SCMP_SYS(fcntl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_create1),
    SCMP_SYS(eventfd2),
    SCMP_SYS(pipe2),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(select),
    SCMP_SYS(pselect6),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendto),
    SCMP_SYS(accept4),
    SCMP_SYS(accept),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(futex),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(tgkill),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(getppid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_getres),
    SCMP_SYS(time),
    SCMP_SYS(getrandom),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(setpriority), /* threads that work long step back */
    SCMP_SYS(getrusage),
    SCMP_SYS(sysinfo),
    SCMP_SYS(uname),
    SCMP_SYS(prlimit64),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(prctl),
    SCMP_SYS(ioctl),
    SCMP_SYS(membarrier),
};

static const int calls_directory[] = {
    SCMP_SYS(openat),          SCMP_SYS(open),       SCMP_SYS(stat),
    SCMP_SYS(lstat),           SCMP_SYS(statx),      SCMP_SYS(access),
    SCMP_SYS(faccessat),       SCMP_SYS(faccessat2), SCMP_SYS(unlink),
    SCMP_SYS(unlinkat),        SCMP_SYS(rename),     SCMP_SYS(renameat),
    SCMP_SYS(renameat2),       SCMP_SYS(linkat),     SCMP_SYS(mkdir),
    SCMP_SYS(mkdirat),         SCMP_SYS(fsync),      SCMP_SYS(fdatasync),
    SCMP_SYS(sync_file_range), SCMP_SYS(fallocate),  SCMP_SYS(ftruncate),
    SCMP_SYS(pwritev),         SCMP_SYS(pwritev2),   SCMP_SYS(preadv),
    SCMP_SYS(flock),           SCMP_SYS(statfs),     SCMP_SYS(fstatfs),
    SCMP_SYS(getdents64),      SCMP_SYS(getcwd),     SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),      SCMP_SYS(msync),      SCMP_SYS(fadvise64),
    SCMP_SYS(fchmod),          SCMP_SYS(fchown),     SCMP_SYS(geteuid),
    SCMP_SYS(copy_file_range), SCMP_SYS(openat2),    SCMP_SYS(umask),
};

/* NSS reads files and asks a name service by socket: only for the names of those who ask at the control socket. */
static const int calls_sockets[] = {SCMP_SYS(socket),   SCMP_SYS(connect),  SCMP_SYS(bind),       SCMP_SYS(socketpair),
                                    SCMP_SYS(sendmmsg), SCMP_SYS(recvmmsg), SCMP_SYS(getpeername)};
static const int calls_read[] = {SCMP_SYS(openat),     SCMP_SYS(open),    SCMP_SYS(stat),      SCMP_SYS(lstat),
                                 SCMP_SYS(statx),      SCMP_SYS(access),  SCMP_SYS(faccessat), SCMP_SYS(faccessat2),
                                 SCMP_SYS(getdents64), SCMP_SYS(readlink)};

/* The sanitizers look at /proc and trace themselves at the end: their builds run with the walls of users and files
 * only. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SECCOMP_POSSIBLE 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SECCOMP_POSSIBLE 0
#endif
#endif
#ifndef SECCOMP_POSSIBLE
#define SECCOMP_POSSIBLE 1
#endif

static int allow(scmp_filter_ctx ctx, const int *calls, size_t count)
{
    int r = 0;
    for (size_t i = 0; i < count && r == 0; i++) {
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
        r = r == -EEXIST || r == -EDOM ? 0 : r;
    }
    return r;
}

/* Threads, never processes or namespaces. The flags of clone3 lie in memory, where a filter cannot look: the C library
 * takes "no such call" for an old kernel and uses clone. */
static int allow_threads(scmp_filter_ctx ctx)
{
    const scmp_datum_t apart =
        CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
    int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD | apart, CLONE_THREAD));
    return r == 0 ? seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) : r;
}

/* Sockets of one family only; others are refused, as to everybody. */
static int allow_bpf(scmp_filter_ctx ctx)
{
    static const int calls[] = {SCMP_SYS(bpf), SCMP_SYS(bind)};
    int r = allow(ctx, calls, sizeof(calls) / sizeof(calls[0]));
    r = r == 0 ? seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, AF_NETLINK)) : r;
    return r == 0 ? seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_NE, AF_NETLINK))
                  : r;
}

static int seccomp_enter(unsigned right)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (ctx == NULL) {
        return -ENOMEM;
    }
    int r = allow(ctx, calls_all, sizeof(calls_all) / sizeof(calls_all[0]));
    r = r == 0 ? allow_threads(ctx) : r;
    if (r == 0 && (right & RIGHT_DIRECTORY) != 0) {
        r = allow(ctx, calls_directory, sizeof(calls_directory) / sizeof(calls_directory[0]));
    }
    if (r == 0 && (right & RIGHT_SOCKETS) != 0) {
        r = allow(ctx, calls_sockets, sizeof(calls_sockets) / sizeof(calls_sockets[0]));
    }
    if (r == 0 && (right & RIGHT_READ) != 0) {
        r = allow(ctx, calls_read, sizeof(calls_read) / sizeof(calls_read[0]));
    }
    if (r == 0 && (right & RIGHT_BPF) != 0) {
        r = allow_bpf(ctx);
    }
    /* A process without files or sockets that asks for one all the same gets a refusal, so that libraries which only
     * try (the resolver's NSS, OpenSSL's configuration) go on without. */
    static const int tried[] = {SCMP_SYS(openat),   SCMP_SYS(open),   SCMP_SYS(socket),
                                SCMP_SYS(connect),  SCMP_SYS(access), SCMP_SYS(stat),
                                SCMP_SYS(readlink), SCMP_SYS(statx),  SCMP_SYS(bind)};
    for (size_t i = 0; i < sizeof(tried) / sizeof(tried[0]) && r == 0; i++) {
        if ((right & RIGHT_BPF) != 0 && tried[i] == SCMP_SYS(socket)) {
            continue; /* said above */
        }
        r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), tried[i], 0);
        r = r == -EEXIST ? 0 : r;
    }
    if (r == 0) {
        r = seccomp_load(ctx);
    }
    seccomp_release(ctx);
    return r;
}

#define LANDLOCK_READ     (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define LANDLOCK_REFER    ((uint64_t)1 << 13)
#define LANDLOCK_TRUNCATE ((uint64_t)1 << 14)
#define LANDLOCK_V1       ((((uint64_t)1) << 13) - 1)

static int landlock_add(int ruleset, int fd, uint64_t access)
{
    struct landlock_path_beneath_attr beneath = {.allowed_access = access, .parent_fd = fd};
    return (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0);
}

/* A file is not a directory: only its own rights may be asked for it. */
static void landlock_add_read(int ruleset, const char *path)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd >= 0) {
        if (landlock_add(ruleset, fd, LANDLOCK_READ) != 0) {
            (void)landlock_add(ruleset, fd, LANDLOCK_ACCESS_FS_READ_FILE);
        }
        (void)close(fd);
    }
}

/* Asked once, before seccomp forbids the question. */
static int landlock_version(void)
{
    static int version;
    if (version == 0) {
        version = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, 1U /* LANDLOCK_CREATE_RULESET_VERSION */);
    }
    return version;
}

static int landlock_enter(unsigned right, const int *directories, size_t count, const char *const *read_paths)
{
    int version = landlock_version();
    if (version < 1) {
        log_warn("sandbox.reduced", LF_STR("what", "this kernel has no Landlock; users and seccomp still hold"));
        return 0;
    }
    uint64_t handled = LANDLOCK_V1 | (version >= 2 ? LANDLOCK_REFER : 0) | (version >= 3 ? LANDLOCK_TRUNCATE : 0);
    struct landlock_ruleset_attr attr = {.handled_access_fs = handled};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);
    if (ruleset < 0) {
        return -errno;
    }
    int r = 0;
    uint64_t all = handled & ~(uint64_t)(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                                         LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM);
    for (size_t i = 0; i < count && r == 0 && (right & RIGHT_DIRECTORY) != 0; i++) {
        r = directories[i] < 0 || landlock_add(ruleset, directories[i], all) == 0 ? 0 : -errno;
    }
    for (size_t i = 0; read_paths != NULL && read_paths[i] != NULL; i++) {
        landlock_add_read(ruleset, read_paths[i]);
    }
    if (!SECCOMP_POSSIBLE) {
        landlock_add_read(ruleset, "/proc");
    }
    if (r == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) != 0) {
        r = -errno;
    }
    (void)close(ruleset);
    return r;
}

/* These two and no other, whoever the process is. */
static int capabilities_keep(void)
{
    const uint32_t kept = 1U << CAP_NET_ADMIN, more = 1U << (CAP_BPF - 32);
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{.effective = kept, .permitted = kept},
                                             {.effective = more, .permitted = more}};
    return syscall(SYS_capset, &head, data) == 0 ? 0 : -errno;
}

static int user_enter(const char *user)
{
    if (geteuid() != 0) {
        log_warn("sandbox.reduced", LF_STR("what", "not started as root: this process keeps the starter's user"));
        return 0;
    }
    struct passwd *pw = user != NULL ? getpwnam(user) : NULL;
    if (pw == NULL) {
        log_warn("sandbox.reduced", LF_STR("what", "the user does not exist: this process keeps running as root"),
                 LF_STR("user", user != NULL ? user : ""));
        return 0;
    }
    if (setgroups(0, NULL) != 0 || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) != 0 ||
        setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) != 0) {
        return -errno;
    }
    return setuid(0) == 0 ? -EPERM : 0; /* if it can be taken back, it was not given up */
}

int sandbox_enter(enum master_role role, const char *user, const int *directories, size_t count,
                  const char *const *read_paths)
{
    bool keeps = (rights[role] & RIGHT_BPF) != 0 && geteuid() == 0;
    int r = keeps && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 ? -errno : user_enter(user);
    r = r == 0 && keeps ? capabilities_keep() : r;
    if (r < 0) {
        return r;
    }
    struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, SECCOMP_POSSIBLE ? 0 : 1); /* the leak checker reads its own process */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return -errno;
    }
    r = landlock_enter(rights[role], directories, count, read_paths);
    if (r == 0 && SECCOMP_POSSIBLE) {
        r = seccomp_enter(rights[role]);
    }
    return r;
}

const char *sandbox_describe(void)
{
    static char text[64];
    int version = landlock_version();
    (void)snprintf(text, sizeof(text), "landlock %d, seccomp %s", version > 0 ? version : 0,
                   SECCOMP_POSSIBLE ? "on" : "off (sanitizer build)");
    return text;
}

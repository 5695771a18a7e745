/*
 * Upgrade in place: the program that now stands at our path checks our configuration; only when it finds it good do we
 * stop as at an end, keep the listening sockets, and become that program.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/log.h"
#include "master/master_int.h"

#define CHECK_LIMIT_MS 30000

static void refuse(struct master *m, const char *why)
{
    log_error("upgrade.refused", LF_STR("path", m->exe_path), LF_STR("what", why));
    if (m->upgrade_request != NULL) {
        control_fail(m->upgrade_request, EX_CONFIG, "%s %s; nothing was changed", m->exe_path, why);
    }
    m->upgrade_request = NULL;
}

static void on_limit(uv_timer_t *t)
{
    const struct master *m = t->data;
    (void)kill(m->upgrade_check, SIGKILL);
}

void upgrade_begin(struct master *m, struct control_request *rq)
{
    if (m->stopping || m->upgrade_check > 0) {
        if (rq != NULL) {
            control_fail(rq, EX_TEMPFAIL, "an upgrade or the end has begun already");
        }
        return;
    }
    m->upgrade_request = rq;
    log_flush(); /* or the child would write it again */
    pid_t pid = fork();
    if (pid == 0) {
        sigset_t none;
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)execl(m->exe_path, "kidoband", "--check", "-c", m->config_path, (char *)NULL);
        _exit(126);
    }
    if (pid < 0) {
        refuse(m, "could not be started");
        return;
    }
    m->upgrade_check = pid;
    m->upgrade_limit.data = m;
    (void)uv_timer_start(&m->upgrade_limit, on_limit, CHECK_LIMIT_MS, 0);
}

bool upgrade_reaped(struct master *m, pid_t pid, int wait_status)
{
    if (pid != m->upgrade_check) {
        return false;
    }
    m->upgrade_check = 0;
    (void)uv_timer_stop(&m->upgrade_limit);
    if (m->stopping) {
        refuse(m, "was not waited for");
    } else if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != 0) {
        refuse(m, "does not start with this configuration");
    } else {
        if (m->upgrade_request != NULL) {
            control_done(m->upgrade_request, NULL);
        }
        m->upgrade_request = NULL;
        master_stop(m, true);
    }
    return true;
}

int upgrade_become(const struct master *m)
{
    if (ground_hand_over(m->listeners, m->listeners_count) < 0) {
        log_error("upgrade.refused", LF_STR("path", m->exe_path), LF_STR("what", "sockets could not be handed over"));
    }
    log_flush();
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)execv(m->exe_path, m->argv);
    log_error("upgrade.failed", LF_STR("path", m->exe_path), LF_ERR(errno));
    log_flush();
    return EX_OSERR;
}

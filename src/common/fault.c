/* Built only with -Dfaults=true. */
#include "common/fault.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static struct fault_slot *plan;
static char prefix[FAULT_NAME_MAX]; /* "ROLE/" */

/* What follows --role in our own command line; without it this is the master. */
static void prefix_find(void)
{
    char line[512] = "";
    const char *role = "master";
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, line, sizeof(line) - 1) : 0;
    for (const char *word = line, *next; n > 0 && word < line + n; word = next) {
        next = word + strlen(word) + 1;
        role = strcmp(word, "--role") == 0 ? next : role;
    }
    (void)snprintf(prefix, sizeof(prefix), "%s/", role);
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* Before main: later the process may not open files any more. */
__attribute__((constructor)) static void plan_map(void)
{
    const char *path = getenv("KIDOBAN_FAULT_PLAN");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    size_t size = FAULT_SLOTS * sizeof(struct fault_slot);
    if (fd < 0) {
        return;
    }
    if (lseek(fd, 0, SEEK_END) >= (off_t)size) {
        void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        plan = map == MAP_FAILED ? NULL : map;
        prefix_find();
    }
    (void)close(fd);
}

static int slot_act(const struct fault_slot *s)
{
    switch ((enum fault_action)s->action) {
    case FAULT_KILL:
        (void)raise(SIGKILL); /* kill() is outside the rights of most roles */
        break;
    case FAULT_ERROR:
        return -(int)s->value;
    case FAULT_DELAY: {
        struct timespec ts = {(time_t)(s->value / 1000), (long)(s->value % 1000) * 1000000};
        (void)nanosleep(&ts, NULL);
        break;
    }
    }
    return 0;
}

static bool slot_is_for(const struct fault_slot *s, const char *name)
{
    size_t len = strlen(prefix);
    const char *rest = strncmp(s->name, prefix, len) == 0 ? s->name + len : s->name;
    return strcmp(rest, name) == 0;
}

/* Whether it is this hit's turn. */
static bool slot_take(struct fault_slot *s)
{
    uint64_t hit = __atomic_add_fetch(&s->hits, 1, __ATOMIC_SEQ_CST);
    uint64_t left = __atomic_load_n(&s->left, __ATOMIC_SEQ_CST);
    while (left > 0 && hit >= s->nth) {
        if (left == UINT64_MAX ||
            __atomic_compare_exchange_n(&s->left, &left, left - 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            return true;
        }
    }
    return false;
}

int fault_hit(const char *name)
{
    int result = 0;
    for (size_t i = 0; plan != NULL && i < FAULT_SLOTS && plan[i].name[0] != '\0'; i++) {
        if (slot_is_for(&plan[i], name) && slot_take(&plan[i])) {
            int r = slot_act(&plan[i]);
            result = r < 0 ? r : result;
        }
    }
    return result;
}

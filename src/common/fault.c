/* Built only with -Dfaults=true. */
#include "common/fault.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static struct fault_slot *plan;

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
    }
    (void)close(fd);
}

static int slot_act(const struct fault_slot *s)
{
    switch ((enum fault_action)s->action) {
    case FAULT_COUNT:
        break;
    case FAULT_KILL:
        (void)kill(getpid(), SIGKILL);
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

int fault_hit(const char *name)
{
    int result = 0;
    for (size_t i = 0; plan != NULL && i < FAULT_SLOTS && plan[i].name[0] != '\0'; i++) {
        if (strncmp(plan[i].name, name, FAULT_NAME_MAX) == 0) {
            uint64_t hit = __atomic_add_fetch(&plan[i].hits, 1, __ATOMIC_SEQ_CST);
            if (hit >= plan[i].nth && (plan[i].times == 0 || hit - plan[i].nth < plan[i].times)) {
                int r = slot_act(&plan[i]);
                result = r < 0 ? r : result;
            }
        }
    }
    return result;
}

#include "gate/pins.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/log.h"
#include "gate/hook.h"

#define NAME_SIZE 64

static const char *const map_names[GATE_MAPS] = {
    [GATE_MAP_POLICY] = "policy",   [GATE_MAP_ROWS] = "rows",     [GATE_MAP_REASONS] = "reasons",
    [GATE_MAP_SOURCES] = "sources", [GATE_MAP_EVENTS] = "events", [GATE_MAP_JUDGEMENT] = "judgement",
};

static const struct {
    const char *name;
    struct gate_kind kind;
} kinds[PINS_KINDS] = {
    [PINS_XDP] = {"xdp", {0}},
    [PINS_TC] = {"tc", {.tc = true}},
    [PINS_TC_IP] = {"tc-ip", {.tc = true, .ip = true}},
    [PINS_TC_OUT] = {"tc-out", {.tc = true, .egress = true}},
    [PINS_TC_IP_OUT] = {"tc-ip-out", {.tc = true, .ip = true, .egress = true}},
};

static int failed(const char *what, const char *path, int r)
{
    log_error("gate.pins.failed", LF_STR("what", what), LF_STR("path", path), LF_ERR(r));
    return r;
}

const char *pins_kind_name(enum pins_kind kind)
{
    return kinds[kind].name;
}

bool pins_have_policy(const struct pins *p)
{
    uint32_t zero = 0, id = 0;
    return bpf_map_lookup_elem(p->maps.fd[GATE_MAP_POLICY], &zero, &id) == 0 && id != 0;
}

void pins_init(struct pins *p)
{
    *p = (struct pins){0};
    for (size_t i = 0; i < GATE_MAPS; i++) {
        p->maps.fd[i] = -1;
    }
    for (size_t i = 0; i < PINS_KINDS; i++) {
        p->programs[i][0] = p->programs[i][1] = -1;
    }
}

int pins_enter(const char *directory, int *ret_fd)
{
    char parent[PATH_MAX];
    struct statfs fs;
    if (snprintf(parent, sizeof(parent), "%s", directory) >= (int)sizeof(parent)) {
        return failed("the directory's name", directory, -ENAMETOOLONG);
    }
    if (statfs(dirname(parent), &fs) != 0) {
        return failed("the directory above", directory, -errno);
    }
    if (fs.f_type != BPF_FS_MAGIC) {
        return failed("is not on a BPF file system (mount -t bpf bpf /sys/fs/bpf)", directory, -EINVAL);
    }
    if ((mkdir(directory, 0700) != 0 && errno != EEXIST) || chdir(directory) != 0) {
        return failed("the directory", directory, -errno);
    }
    *ret_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd >= 0 ? 0 : failed("the directory", directory, -errno);
}

int pins_leave_to(uid_t uid, gid_t gid)
{
    return chown(".", uid, gid) == 0 ? 0 : failed("own the directory", ".", -errno);
}

/* The new one stands under the name at once, or the old one still does. */
static int pin(int fd, const char *name)
{
    static const char aside[] = "aside";
    (void)unlink(aside);
    if (bpf_obj_pin(fd, aside) != 0 || rename(aside, name) != 0) {
        return failed("pin", name, -errno);
    }
    return 0;
}

static void map_pin_name(size_t i, char name[static NAME_SIZE])
{
    (void)snprintf(name, NAME_SIZE, "map-%s-%d", map_names[i], BLOB_VERSION);
}

static void program_pin_name(size_t i, int uplink, char name[static NAME_SIZE])
{
    (void)snprintf(name, NAME_SIZE, "program-%s-%s-%016" PRIx64, kinds[i].name, uplink ? "uplink" : "subscriber",
                   gate_program_build(kinds[i].kind));
}

/* 0: it is no map of that name. Whatever else is pinned there, a program even, has another name where a map has its. */
static uint32_t map_id(int fd, size_t i)
{
    struct bpf_map_info info = {0};
    uint32_t size = sizeof(info);
    bool ours = fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0 &&
                strncmp(info.name, map_names[i], sizeof(info.name)) == 0;
    return ours ? info.id : 0;
}

/* Fills *ret_id. Is it a program of that kind that reads these very maps? */
static bool reads(int program, struct gate_kind kind, const struct gate_maps *maps, uint32_t *ret_id)
{
    uint32_t ids[64] = {0};
    struct bpf_prog_info info = {.map_ids = (uintptr_t)ids, .nr_map_ids = sizeof(ids) / sizeof(ids[0])};
    uint32_t size = sizeof(info);
    if (bpf_obj_get_info_by_fd(program, &info, &size) != 0 ||
        info.type != (uint32_t)(kind.tc ? BPF_PROG_TYPE_SCHED_CLS : BPF_PROG_TYPE_XDP)) {
        return false;
    }
    *ret_id = info.id;
    for (size_t i = 0; i < GATE_MAPS; i++) {
        uint32_t id = map_id(maps->fd[i], i);
        bool found = false;
        for (size_t k = 0; k < info.nr_map_ids && k < sizeof(ids) / sizeof(ids[0]); k++) {
            found = found || (id != 0 && ids[k] == id);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

/* The maps that the loaded program was given or has made become ours, and are pinned. */
static int take_maps(struct pins *p, struct gate_program *loaded)
{
    int r = 0;
    for (size_t i = 0; i < GATE_MAPS && r == 0; i++) {
        if (map_id(p->maps.fd[i], i) == map_id(loaded->maps.fd[i], i)) {
            continue;
        }
        char name[NAME_SIZE];
        map_pin_name(i, name);
        if (p->maps.fd[i] >= 0) {
            (void)close(p->maps.fd[i]);
        }
        p->maps.fd[i] = loaded->maps.fd[i];
        loaded->maps.fd[i] = -1;
        r = pin(p->maps.fd[i], name);
    }
    return r;
}

static int load_one(struct pins *p, size_t i, int uplink)
{
    struct gate_kind kind = kinds[i].kind;
    struct gate_program loaded;
    char name[NAME_SIZE];
    program_pin_name(i, uplink, name);
    int fd = bpf_obj_get(name);
    if (fd >= 0 && reads(fd, kind, &p->maps, &p->ids[i][uplink])) {
        p->programs[i][uplink] = fd;
        return 0;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    kind.uplink = uplink != 0;
    int r = gate_program_load(kind, &p->maps, &loaded);
    if (r < 0) {
        return failed("load", name, r);
    }
    r = take_maps(p, &loaded);
    r = r == 0 ? pin(loaded.fd, name) : r;
    if (r == 0) {
        p->programs[i][uplink] = loaded.fd;
        loaded.fd = -1;
        (void)reads(p->programs[i][uplink], kind, &p->maps, &p->ids[i][uplink]);
    }
    gate_program_close(&loaded);
    return r;
}

int pins_load(struct pins *p, bool outward)
{
    int r = 0;
    for (size_t i = 0; i < GATE_MAPS; i++) {
        char name[NAME_SIZE];
        map_pin_name(i, name);
        p->maps.fd[i] = bpf_obj_get(name);
    }
    for (size_t i = 0; i < PINS_KINDS; i++) {
        for (int uplink = 0; uplink < 2 && r == 0 && (outward || !kinds[i].kind.egress); uplink++) {
            r = load_one(p, i, uplink);
        }
    }
    return r;
}

void pins_each(const char *prefix, void (*seen)(void *arg, const char *name), void *arg)
{
    DIR *all = opendir(".");
    for (const struct dirent *e; all != NULL && (e = readdir(all)) != NULL;) {
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0) {
            seen(arg, e->d_name);
        }
    }
    if (all != NULL) {
        (void)closedir(all);
    }
}

static void tidy_one(void *arg, const char *name)
{
    const struct pins *p = arg;
    if (strncmp(name, HOOK_PIN_TCX, strlen(HOOK_PIN_TCX)) == 0) {
        return;
    }
    for (size_t i = 0; i < PINS_KINDS; i++) {
        for (int uplink = 0; uplink < 2; uplink++) {
            char kept[NAME_SIZE];
            program_pin_name(i, uplink, kept);
            if (p->programs[i][uplink] >= 0 && strcmp(kept, name) == 0) {
                return;
            }
        }
    }
    (void)unlink(name);
}

void pins_tidy(const struct pins *p)
{
    pins_each("program-", tidy_one, (void *)p);
}

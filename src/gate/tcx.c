#include "gate/tcx.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of the enumerations in include/uapi/linux/bpf.h, since Linux 6.6. */
enum { TCX_INGRESS = 46, TCX_EGRESS = 47, LINK_TYPE_TCX = 11, FLAG_BEFORE = 1 << 3, PROGRAMS_MAX = 64 };

/* Each is a member of union bpf_attr, as far as it is used here; what the kernel writes back lies within. */
struct link_create {
    uint32_t program_fd, index, attach_type, flags, relative_fd, none;
    uint64_t expected_revision;
};

struct program_query {
    uint32_t index, attach_type, query_flags, attach_flags;
    uint64_t program_ids;
    uint32_t count, none;
    uint64_t program_attach_flags, link_ids, link_attach_flags, revision;
};

/* The beginning of struct bpf_link_info, with what tcx has in its union. */
struct link_info {
    uint32_t type, id, program_id, none, index, attach_type;
};

struct info_by_fd {
    uint32_t fd, size;
    uint64_t info;
};

_Static_assert(sizeof(struct link_create) == 32 && sizeof(struct program_query) == 64 && sizeof(struct link_info) == 24,
               "without holes");

static int call(enum bpf_cmd command, void *attributes, size_t size)
{
    long r = syscall(SYS_bpf, command, attributes, size);
    return r < 0 ? -errno : (int)r;
}

int tcx_link_new(int program_fd, uint32_t index, bool egress)
{
    struct link_create a = {.program_fd = (uint32_t)program_fd,
                            .index = index,
                            .attach_type = egress ? TCX_EGRESS : TCX_INGRESS,
                            .flags = FLAG_BEFORE};
    return call(BPF_LINK_CREATE, &a, sizeof(a));
}

int tcx_link_read(int fd, struct tcx_link *ret)
{
    struct link_info info = {0};
    struct info_by_fd a = {.fd = (uint32_t)fd, .size = sizeof(info), .info = (uintptr_t)&info};
    int r = call(BPF_OBJ_GET_INFO_BY_FD, &a, sizeof(a));
    if (r < 0 || info.type != LINK_TYPE_TCX) {
        return r < 0 ? r : -EINVAL;
    }
    *ret =
        (struct tcx_link){.index = info.index, .program_id = info.program_id, .egress = info.attach_type == TCX_EGRESS};
    return 0;
}

int tcx_place_of(uint32_t program_id, uint32_t index, bool egress)
{
    uint32_t ids[PROGRAMS_MAX] = {0};
    struct program_query a = {.index = index,
                              .attach_type = egress ? TCX_EGRESS : TCX_INGRESS,
                              .program_ids = (uintptr_t)ids,
                              .count = PROGRAMS_MAX};
    int r = call(BPF_PROG_QUERY, &a, sizeof(a));
    for (uint32_t i = 0; r == 0 && i < a.count && i < PROGRAMS_MAX; i++) {
        if (ids[i] == program_id) {
            return (int)i;
        }
    }
    return r < 0 ? r : -ENOENT;
}

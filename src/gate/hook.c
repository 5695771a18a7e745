#include "gate/hook.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PRIORITY 1

static const char *const place_names[] = {[HOOK_NONE] = "none",
                                          [HOOK_NATIVE] = "native",
                                          [HOOK_GENERIC] = "generic",
                                          [HOOK_INGRESS] = "ingress",
                                          [HOOK_EGRESS] = "egress"};

const char *hook_place_name(enum hook_place place)
{
    return place_names[place];
}

static void pin_name(uint32_t index, char name[static 24])
{
    (void)snprintf(name, 24, "link-%u", index);
}

static uint32_t id_of(int program_fd)
{
    struct bpf_prog_info info = {0};
    uint32_t size = sizeof(info);
    return bpf_obj_get_info_by_fd(program_fd, &info, &size) == 0 ? info.id : 0;
}

/* XDP */

static int attach_link(enum hook_place place, uint32_t index, int program_fd, struct hook *ret)
{
    LIBBPF_OPTS(bpf_link_create_opts, options, .flags = place == HOOK_NATIVE ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);
    char pin[24];
    int fd = bpf_link_create(program_fd, (int)index, BPF_XDP, &options);
    if (fd < 0) {
        return -errno;
    }
    pin_name(index, pin);
    (void)unlink(pin); /* of a device that had this number */
    if (bpf_obj_pin(fd, pin) != 0) {
        int err = errno;
        (void)close(fd);
        return -err;
    }
    *ret = (struct hook){.place = place, .index = index, .program_id = id_of(program_fd), .link_fd = fd};
    return 0;
}

int hook_find_link(const char *pin, struct hook *ret)
{
    struct bpf_link_info info = {0};
    uint32_t size = sizeof(info);
    int fd = bpf_obj_get(pin);
    if (fd < 0) {
        return -errno;
    }
    int r = bpf_obj_get_info_by_fd(fd, &info, &size) == 0 ? 0 : -errno;
    r = r == 0 && info.type != BPF_LINK_TYPE_XDP ? -EINVAL : r;
    r = r == 0 && info.xdp.ifindex == 0 ? -ENODEV : r;
    if (r < 0) {
        (void)close(fd);
        return r;
    }
    *ret = (struct hook){.place = HOOK_NATIVE, .index = info.xdp.ifindex, .program_id = info.prog_id, .link_fd = fd};
    return 0;
}

/* TC */

/* libbpf refuses a structure whose padding is not zero. */
static void tc_hook(enum hook_place place, uint32_t index, struct bpf_tc_hook *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->sz = sizeof(*ret);
    ret->ifindex = (int)index;
    ret->attach_point = place == HOOK_EGRESS ? BPF_TC_EGRESS : BPF_TC_INGRESS;
}

/* Answers no once rights were dropped: the kernel gives programs by number to CAP_SYS_ADMIN only. */
static bool is_ours(uint32_t program_id)
{
    struct bpf_prog_info info = {0};
    uint32_t size = sizeof(info);
    int fd = bpf_prog_get_fd_by_id(program_id);
    int r = fd >= 0 ? bpf_obj_get_info_by_fd(fd, &info, &size) : -1;
    if (fd >= 0) {
        (void)close(fd);
    }
    return r == 0 && strncmp(info.name, "gate_", 5) == 0;
}

/* 0; -ENODEV: no such device, -ENOENT or -EINVAL: no filter there. */
static int filter_program(enum hook_place place, uint32_t index, uint32_t *ret_id)
{
    struct bpf_tc_hook h;
    tc_hook(place, index, &h);
    LIBBPF_OPTS(bpf_tc_opts, options, .handle = HOOK_HANDLE, .priority = PRIORITY);
    libbpf_print_fn_t words = libbpf_set_print(NULL); /* none there is no matter to warn of */
    int r = bpf_tc_query(&h, &options);
    (void)libbpf_set_print(words);
    *ret_id = r == 0 ? options.prog_id : 0;
    return r;
}

int hook_find_filter(enum hook_place place, uint32_t index, struct hook *ret)
{
    uint32_t id;
    if (filter_program(place, index, &id) < 0 || !is_ours(id)) {
        return -ENOENT;
    }
    *ret = (struct hook){.place = place, .index = index, .program_id = id, .link_fd = -1};
    return 0;
}

static int put_filter(enum hook_place place, uint32_t index, int program_fd, uint32_t flags, struct hook *ret)
{
    struct bpf_tc_hook h;
    tc_hook(place, index, &h);
    LIBBPF_OPTS(bpf_tc_opts, options, .handle = HOOK_HANDLE, .priority = PRIORITY, .prog_fd = program_fd,
                .flags = flags);
    int r = bpf_tc_attach(&h, &options);
    if (r == 0) {
        *ret = (struct hook){.place = place, .index = index, .program_id = options.prog_id, .link_fd = -1};
    }
    return r;
}

static int attach_filter(enum hook_place place, uint32_t index, int program_fd, struct hook *ret)
{
    struct bpf_tc_hook h;
    tc_hook(place, index, &h);
    libbpf_print_fn_t words = libbpf_set_print(NULL);
    int r = bpf_tc_hook_create(&h);
    r = r == -EEXIST ? 0 : r;
    r = r == 0 ? put_filter(place, index, program_fd, 0, ret) : r;
    (void)libbpf_set_print(words);
    if (r == -EEXIST && hook_find_filter(place, index, ret) == 0) {
        r = put_filter(place, index, program_fd, BPF_TC_F_REPLACE, ret);
    }
    return r;
}

bool hook_stands(const struct hook *h)
{
    uint32_t id;
    return filter_program(h->place, h->index, &id) == -ENODEV || id == h->program_id;
}

static int remove_filter(const struct hook *h)
{
    struct bpf_tc_hook at;
    tc_hook(h->place, h->index, &at);
    LIBBPF_OPTS(bpf_tc_opts, options, .handle = HOOK_HANDLE, .priority = PRIORITY);
    uint32_t id;
    (void)filter_program(h->place, h->index, &id);
    return id == h->program_id ? bpf_tc_detach(&at, &options) : 0;
}

/* Both */

int hook_attach(enum hook_place place, uint32_t index, int program_fd, struct hook *ret)
{
    return (place <= HOOK_GENERIC ? attach_link : attach_filter)(place, index, program_fd, ret);
}

int hook_replace(struct hook *h, int program_fd)
{
    if (h->place > HOOK_GENERIC) {
        return put_filter(h->place, h->index, program_fd, BPF_TC_F_REPLACE, h);
    }
    if (bpf_link_update(h->link_fd, program_fd, NULL) != 0) {
        return -errno;
    }
    h->program_id = id_of(program_fd);
    return 0;
}

int hook_remove(struct hook *h)
{
    char pin[24];
    int r = 0;
    if (h->place > HOOK_GENERIC) {
        r = remove_filter(h);
    } else if (h->place != HOOK_NONE) {
        pin_name(h->index, pin);
        r = unlink(pin) == 0 || errno == ENOENT ? 0 : -errno;
        r = r == 0 && bpf_link_detach(h->link_fd) != 0 && errno != ENOLINK ? -errno : r;
    }
    if (r == 0) {
        hook_forget(h);
    }
    return r;
}

void hook_forget(struct hook *h)
{
    if (h->place != HOOK_NONE && h->link_fd >= 0) {
        (void)close(h->link_fd);
    }
    *h = (struct hook){.place = HOOK_NONE, .link_fd = -1};
}

#include "gate/hook.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gate/tcx.h"

#define PRIORITY 1
#define PIN_SIZE 40

static const struct {
    const char *kind, *name;
} places[] = {
    [HOOK_NONE] = {"none", "none"},          [HOOK_NATIVE] = {"xdp", "native"},     [HOOK_GENERIC] = {"xdp", "generic"},
    [HOOK_TCX_INGRESS] = {"tcx", "ingress"}, [HOOK_TCX_EGRESS] = {"tcx", "egress"}, [HOOK_INGRESS] = {"tc", "ingress"},
    [HOOK_EGRESS] = {"tc", "egress"},
};

const char *hook_place_kind(enum hook_place place)
{
    return places[place].kind;
}

const char *hook_place_name(enum hook_place place)
{
    return places[place].name;
}

static bool is_tcx(enum hook_place place)
{
    return place == HOOK_TCX_INGRESS || place == HOOK_TCX_EGRESS;
}

static bool is_filter(enum hook_place place)
{
    return place == HOOK_INGRESS || place == HOOK_EGRESS;
}

static void pin_name(enum hook_place place, uint32_t index, char name[static PIN_SIZE])
{
    if (is_tcx(place)) {
        (void)snprintf(name, PIN_SIZE, HOOK_PIN_TCX "%u-%s", index, places[place].name);
    } else {
        (void)snprintf(name, PIN_SIZE, HOOK_PIN_XDP "%u", index);
    }
}

static uint32_t id_of(int program_fd)
{
    struct bpf_prog_info info = {0};
    uint32_t size = sizeof(info);
    return bpf_obj_get_info_by_fd(program_fd, &info, &size) == 0 ? info.id : 0;
}

/* Links: XDP and tcx */

static int new_link(enum hook_place place, uint32_t index, int program_fd)
{
    LIBBPF_OPTS(bpf_link_create_opts, options, .flags = place == HOOK_NATIVE ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);
    if (is_tcx(place)) {
        return tcx_link_new(program_fd, index, place == HOOK_TCX_EGRESS);
    }
    int fd = bpf_link_create(program_fd, (int)index, BPF_XDP, &options);
    return fd < 0 ? -errno : fd;
}

static int attach_link(enum hook_place place, uint32_t index, int program_fd, struct hook *ret)
{
    char pin[PIN_SIZE];
    int fd = new_link(place, index, program_fd);
    if (fd < 0) {
        return fd;
    }
    pin_name(place, index, pin);
    (void)unlink(pin); /* of a device that had this number */
    if (bpf_obj_pin(fd, pin) != 0) {
        int err = errno;
        (void)close(fd);
        return -err;
    }
    *ret = (struct hook){.place = place, .index = index, .program_id = id_of(program_fd), .link_fd = fd};
    return 0;
}

static int read_link(int fd, struct hook *ret)
{
    struct bpf_link_info info = {0};
    struct tcx_link tcx;
    uint32_t size = sizeof(info);
    if (tcx_link_read(fd, &tcx) == 0) {
        *ret = (struct hook){.place = tcx.egress ? HOOK_TCX_EGRESS : HOOK_TCX_INGRESS,
                             .index = tcx.index,
                             .program_id = tcx.program_id,
                             .link_fd = fd};
        return 0;
    }
    int r = bpf_obj_get_info_by_fd(fd, &info, &size) == 0 ? 0 : -errno;
    *ret = (struct hook){.place = HOOK_NATIVE, .index = info.xdp.ifindex, .program_id = info.prog_id, .link_fd = fd};
    return r == 0 && info.type != BPF_LINK_TYPE_XDP ? -EINVAL : r;
}

int hook_find_link(const char *pin, struct hook *ret)
{
    int fd = bpf_obj_get(pin);
    int r = fd < 0 ? -errno : read_link(fd, ret);
    r = r == 0 && ret->index == 0 ? -ENODEV : r;
    if (r < 0 && fd >= 0) {
        (void)close(fd);
    }
    return r;
}

/* TC filters */

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
    if (is_tcx(h->place)) {
        int r = tcx_place_of(h->program_id, h->index, h->place == HOOK_TCX_EGRESS);
        return r >= 0 || r == -ENODEV;
    }
    return filter_program(h->place, h->index, &id) == -ENODEV || id == h->program_id;
}

bool hook_is_preceded(const struct hook *h)
{
    return is_tcx(h->place) && tcx_place_of(h->program_id, h->index, h->place == HOOK_TCX_EGRESS) > 0;
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

/* All */

int hook_attach(enum hook_place place, uint32_t index, int program_fd, struct hook *ret)
{
    return (is_filter(place) ? attach_filter : attach_link)(place, index, program_fd, ret);
}

int hook_replace(struct hook *h, int program_fd)
{
    if (is_filter(h->place)) {
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
    char pin[PIN_SIZE];
    int r = 0;
    if (is_filter(h->place)) {
        r = remove_filter(h);
    } else if (h->place != HOOK_NONE) {
        pin_name(h->place, h->index, pin);
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

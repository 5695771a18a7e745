#include "gate/program.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/log.h"
#include "gate_tc.skel.h"
#include "gate_xdp.skel.h"

#define FRAME_MIN 14 /* the kernel takes no shorter one */

__attribute__((format(printf, 2, 0))) static int on_words(enum libbpf_print_level level, const char *format,
                                                          va_list arguments)
{
    char text[1024];
    if (level == LIBBPF_DEBUG) {
        return 0;
    }
    (void)vsnprintf(text, sizeof(text), format, arguments);
    text[strcspn(text, "\n")] = '\0';
    log_warn("gate.kernel.said", LF_STR("what", text));
    return 0;
}

#define MAPS GATE_MAPS

static bool same_shape(const struct bpf_map *map, int fd)
{
    struct bpf_map_info info = {0};
    uint32_t size = sizeof(info);
    return fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.type == bpf_map__type(map) &&
           info.key_size == bpf_map__key_size(map) && info.value_size == bpf_map__value_size(map) &&
           info.max_entries == bpf_map__max_entries(map);
}

static int reuse(struct bpf_map *const maps[MAPS], const struct gate_maps *shared)
{
    int r = 0;
    for (size_t i = 0; shared != NULL && i < MAPS && r == 0; i++) {
        r = same_shape(maps[i], shared->fd[i]) ? bpf_map__reuse_fd(maps[i], shared->fd[i]) : 0;
    }
    return r;
}

static int keep(struct gate_kind kind, const struct bpf_program *program, struct bpf_map *const maps[MAPS],
                struct gate_program *ret)
{
    *ret = (struct gate_program){.kind = kind, .fd = fcntl(bpf_program__fd(program), F_DUPFD_CLOEXEC, 3)};
    bool good = ret->fd >= 0;
    for (size_t i = 0; i < MAPS; i++) {
        ret->maps.fd[i] = fcntl(bpf_map__fd(maps[i]), F_DUPFD_CLOEXEC, 3);
        good = good && ret->maps.fd[i] >= 0;
    }
    if (!good) {
        gate_program_close(ret);
    }
    return good ? 0 : -EMFILE;
}

/* The two objects have the same maps and constants, but skeletons of two types. */
#define LOAD_BODY(NAME)                                                                                                \
    struct NAME *o = NAME##__open();                                                                                   \
    if (o == NULL) {                                                                                                   \
        return -errno;                                                                                                 \
    }                                                                                                                  \
    o->rodata->gate_uplink = kind.uplink;                                                                              \
    o->rodata->gate_egress = kind.egress;                                                                              \
    o->rodata->gate_explain = kind.explain;                                                                            \
    struct bpf_program *wanted = kind.ip ? o->progs.gate_ip : o->progs.gate_ether;                                     \
    struct bpf_map *const maps[] = {o->maps.policy,  o->maps.rows,   o->maps.reasons,                                  \
                                    o->maps.sources, o->maps.events, o->maps.judgement};                               \
    (void)bpf_program__set_autoload(kind.ip ? o->progs.gate_ether : o->progs.gate_ip, false);                          \
    int r = reuse(maps, shared);                                                                                       \
    r = r == 0 ? NAME##__load(o) : r;                                                                                  \
    if (r == 0) {                                                                                                      \
        r = keep(kind, wanted, maps, ret);                                                                             \
    }                                                                                                                  \
    NAME##__destroy(o);                                                                                                \
    return r

static int load_xdp(struct gate_kind kind, const struct gate_maps *shared, struct gate_program *ret)
{
    LOAD_BODY(gate_xdp_bpf);
}

static int load_tc(struct gate_kind kind, const struct gate_maps *shared, struct gate_program *ret)
{
    LOAD_BODY(gate_tc_bpf);
}

int gate_program_load(struct gate_kind kind, const struct gate_maps *shared, struct gate_program *ret)
{
    (void)libbpf_set_print(on_words);
    return (kind.tc ? load_tc : load_xdp)(kind, shared, ret);
}

uint64_t gate_program_build(struct gate_kind kind)
{
    size_t size;
    const void *octets = kind.tc ? gate_tc_bpf__elf_bytes(&size) : gate_xdp_bpf__elf_bytes(&size);
    return XXH3_64bits(octets, size);
}

void gate_program_close(struct gate_program *p)
{
    if (p->fd >= 0) {
        (void)close(p->fd);
    }
    for (size_t i = 0; i < MAPS; i++) {
        if (p->maps.fd[i] >= 0) {
            (void)close(p->maps.fd[i]);
        }
        p->maps.fd[i] = -1;
    }
    p->fd = -1;
}

int gate_policy_set(const struct gate_maps *maps, const union blob_cell *cells, size_t count)
{
    LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_INNER_MAP | BPF_F_MMAPABLE);
    int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "cells", sizeof(uint32_t), sizeof(*cells), (uint32_t)count, &options);
    if (fd < 0) {
        return -errno;
    }
    void *room = mmap(NULL, count * sizeof(*cells), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int r = room != MAP_FAILED ? 0 : -errno;
    if (r == 0) {
        memcpy(room, cells, count * sizeof(*cells));
        (void)munmap(room, count * sizeof(*cells));
        uint32_t zero = 0;
        r = bpf_map_update_elem(maps->fd[GATE_MAP_POLICY], &zero, &fd,
                                BPF_ANY); /* returns when no packet reads the old one */
    }
    (void)close(fd);
    return r;
}

void gate_sources_forget(const struct gate_maps *maps)
{
    struct gate_source_key key;
    while (bpf_map_get_next_key(maps->fd[GATE_MAP_SOURCES], NULL, &key) == 0) {
        (void)bpf_map_delete_elem(maps->fd[GATE_MAP_SOURCES], &key);
    }
}

static enum policy_verdict verdict_of(const struct gate_program *p, uint32_t returned)
{
    if (p->kind.tc) {
        return (int32_t)returned == -1 ? POLICY_PASS : (int32_t)returned == 7 ? POLICY_REFUSE : POLICY_DROP;
    }
    return returned == XDP_PASS ? POLICY_PASS : returned == XDP_TX ? POLICY_REFUSE : POLICY_DROP;
}

static int read_judgement(const struct gate_program *p, struct gate_judgement *ret)
{
    struct gate_judgement all[256];
    int cpus = libbpf_num_possible_cpus();
    uint32_t zero = 0;
    if (cpus < 0 || cpus > 256) {
        return -E2BIG;
    }
    int r = bpf_map_lookup_elem(p->maps.fd[GATE_MAP_JUDGEMENT], &zero, all);
    for (int i = 0; r == 0 && i < cpus; i++) {
        if (all[i].runs > 0) {
            *ret = all[i];
        }
    }
    return r;
}

static int clear_judgement(const struct gate_program *p)
{
    static const struct gate_judgement none[256];
    uint32_t zero = 0;
    return bpf_map_update_elem(p->maps.fd[GATE_MAP_JUDGEMENT], &zero, none, BPF_ANY);
}

int gate_program_run(const struct gate_program *p, struct span frame, enum policy_verdict *ret_verdict,
                     struct gate_judgement *ret_judgement, struct buf *out)
{
    *ret_judgement = (struct gate_judgement){.verdict = POLICY_PASS, .reason = REASON_OTHER};
    if (frame.len < FRAME_MIN) {
        *ret_verdict = POLICY_PASS; /* no device hands it over */
        return 0;
    }
    uint8_t *room = NULL;
    size_t most = frame.len + 512;
    int r = out != NULL ? buf_reserve(out, most, &room) : 0;
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.ptr, .data_size_in = (uint32_t)frame.len, .data_out = room,
                .data_size_out = room != NULL ? (uint32_t)most : 0, .repeat = 1);
    r = r == 0 && p->kind.explain ? clear_judgement(p) : r;
    r = r == 0 ? bpf_prog_test_run_opts(p->fd, &options) : r;
    if (r < 0) {
        return r;
    }
    if (out != NULL) {
        buf_commit(out, options.data_size_out);
    }
    *ret_verdict = verdict_of(p, options.retval);
    return p->kind.explain ? read_judgement(p, ret_judgement) : 0;
}

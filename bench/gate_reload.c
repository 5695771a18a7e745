/*
 * gate_reload write SET COUNT SEED FILE | gate_reload time CONFIG ROUNDS | gate_reload memory SET COUNT SEED
 *
 * What a reload of the gate's policy takes, step by step, and what it holds in the kernel; see bench/gate. "write"
 * makes a file of prefixes in no order. "time" is what a reload does: the configuration and its files are read and
 * checked, the policy made and compiled, a new map filled and put into force. Each line is JSON.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "gate/program.h"
#include "gate_set.h"
#include "policy/compile.h"

static void fail(const char *what, int error)
{
    log_flush();
    (void)fprintf(stderr, "gate-reload: %s: %s\n", what, strerror(error));
    exit(2);
}

enum step { READ, MAKE, COMPILE, SWAP, STEPS };

static const char *const step_names[STEPS] = {
    [READ] = "read and check", [MAKE] = "make the policy", [COMPILE] = "compile", [SWAP] = "fill and swap"};

struct watch {
    double wall, cpu;
};

static struct watch now(void)
{
    struct timespec wall, cpu;
    (void)clock_gettime(CLOCK_MONOTONIC, &wall);
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    return (struct watch){(double)wall.tv_sec + (double)wall.tv_nsec / 1e9,
                          (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9};
}

static struct config *read_config(const char *path)
{
    struct config *c = NULL;
    struct config_complaints complaints = {0};
    struct buf text, words;
    FILE *f = fopen(path, "re");
    uint8_t *room = NULL;
    buf_init(&text, 1 << 20);
    buf_init(&words, 1 << 20);
    if (f == NULL || buf_reserve(&text, 65536, &room) < 0) {
        fail(path, errno);
    }
    buf_commit(&text, fread(room, 1, 65536, f));
    (void)fclose(f);
    int r = config_load((struct span){text.data, text.len}, path, &c, &complaints);
    r = r == 0 ? config_gate_read_files(c, path, NULL, &complaints) : r;
    if (r < 0) {
        (void)config_complaints_format(&complaints, &words);
        (void)fprintf(stderr, "%.*s\n", (int)words.len, (const char *)words.data);
        fail(path, -r);
    }
    buf_fini(&text);
    buf_fini(&words);
    return c;
}

static int time_reload(const char *path, const struct gate_maps *maps)
{
    struct watch at[STEPS + 1];
    struct policy *p = NULL;
    struct policy_rows rows = {0};
    struct policy_blob blob = {0};
    at[0] = now();
    struct config *c = read_config(path);
    at[1] = now();
    int r = policy_new(&c->gate, NULL, 0, &p);
    at[2] = now();
    r = r == 0 ? policy_rows_assign(&rows, p) : r;
    r = r == 0 ? policy_compile(p, &rows, 1, &blob) : r;
    at[3] = now();
    r = r == 0 ? gate_policy_set(maps, blob.cells, blob.count) : r;
    at[4] = now();
    if (r < 0) {
        fail("the reload", -r);
    }
    (void)printf("{\"prefixes\": %zu, \"octets\": %zu, \"whole\": [%.4f, %.4f]", p->sources_count,
                 blob.count * sizeof(*blob.cells), at[STEPS].wall - at[0].wall, at[STEPS].cpu - at[0].cpu);
    for (size_t i = 0; i < STEPS; i++) {
        (void)printf(", \"%s\": [%.4f, %.4f]", step_names[i], at[i + 1].wall - at[i].wall, at[i + 1].cpu - at[i].cpu);
    }
    (void)printf("}\n");
    free(blob.cells);
    policy_rows_fini(&rows);
    policy_free(&p);
    config_free(&c);
    return 0;
}

static int time_reloads(const char *path, int rounds)
{
    struct gate_program program;
    int r = gate_program_load((struct gate_kind){0}, NULL, &program);
    if (r < 0) {
        fail("the program does not load", -r);
    }
    for (int i = 0; i < rounds; i++) {
        (void)time_reload(path, &program.maps);
    }
    gate_program_close(&program);
    return 0;
}

static enum gate_set set_named(const char *name)
{
    for (size_t i = 0; i < GATE_SETS; i++) {
        if (strcmp(gate_set_names[i], name) == 0) {
            return (enum gate_set)i;
        }
    }
    fail(name, EINVAL);
    return GATE_SETS;
}

static struct net_prefix *prefixes_of(char **argv, size_t *ret_count)
{
    uint64_t seed = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15U + 1;
    *ret_count = strtoull(argv[1], NULL, 10);
    struct net_prefix *all = gate_set_new(set_named(argv[0]), *ret_count, &seed);
    if (all == NULL) {
        fail("no memory", ENOMEM);
    }
    return all;
}

static int write_file(char **argv)
{
    size_t count;
    struct net_prefix *all = prefixes_of(argv, &count);
    FILE *f = fopen(argv[3], "we");
    if (f == NULL) {
        fail(argv[3], errno);
    }
    for (size_t i = 0; i < count; i++) {
        struct policy_prefix p = policy_prefix_of(&all[i]);
        char text[POLICY_PREFIX_TEXT];
        policy_prefix_format(&p, text);
        (void)fprintf(f, "%s\n", text);
    }
    free(all);
    return fclose(f) == 0 ? 0 : 1;
}

/* What the policy takes in the kernel: its map's cells. */
static int print_memory(char **argv)
{
    struct config_gate_class lines = {.name = (char *)(uintptr_t) "lines", .port25 = PORT25_DENY};
    struct config_gate gate = {.present = true, .classes = &lines, .classes_count = 1};
    struct policy *p = NULL;
    struct policy_rows rows = {0};
    struct policy_blob blob;
    lines.prefixes.list = prefixes_of(argv, &lines.prefixes.count);
    int r = policy_new(&gate, NULL, 0, &p);
    r = r == 0 ? policy_rows_assign(&rows, p) : r;
    r = r == 0 ? policy_compile(p, &rows, 1, &blob) : r;
    if (r < 0) {
        fail("the policy", -r);
    }
    (void)printf("{\"set\": \"%s\", \"prefixes\": %zu, \"octets\": %zu}\n", argv[0], lines.prefixes.count,
                 blob.count * sizeof(*blob.cells));
    free(blob.cells);
    policy_rows_fini(&rows);
    policy_free(&p);
    free(lines.prefixes.list);
    return 0;
}

int main(int argc, char **argv)
{
    log_open("gate-reload", LOG_LEVEL_INFO, -1);
    if (argc == 6 && strcmp(argv[1], "write") == 0) {
        return write_file(argv + 2);
    }
    if (argc == 4 && strcmp(argv[1], "time") == 0) {
        return time_reloads(argv[2], (int)strtol(argv[3], NULL, 10));
    }
    if (argc == 5 && strcmp(argv[1], "memory") == 0) {
        return print_memory(argv + 2);
    }
    return 64;
}

/*
 * What the kernel has counted, and what stands where: read when somebody asks.
 */
#include <bpf/bpf.h>
#include <stdlib.h>
#include <string.h>

#include "gate/keeper_int.h"

/* Adds up the processors' parts of one element of `words` 64-bit numbers. */
static void sum_element(const struct keeper *k, enum gate_map map, uint32_t key, uint64_t *ret, size_t words)
{
    uint64_t *all = k->loaded ? calloc(k->cpus, words * sizeof(*all)) : NULL;
    memset(ret, 0, words * sizeof(*ret));
    if (all != NULL && bpf_map_lookup_elem(k->pins.maps.fd[map], &key, all) == 0) {
        for (size_t i = 0; i < k->cpus * words; i++) {
            ret[i % words] += all[i];
        }
    }
    free(all);
}

static void read_row(const struct keeper *k, uint32_t row, struct gate_row *ret)
{
    uint64_t count[GATE_COLUMNS];
    sum_element(k, GATE_MAP_ROWS, row, count, GATE_COLUMNS);
    for (size_t i = 0; i < GATE_COLUMNS; i++) {
        ret->count[i] = count[i];
    }
}

static const char *const column_names[GATE_COLUMNS] = {[GATE_PASSED] = "passed",
                                                       [GATE_REFUSED] = "refused",
                                                       [GATE_DROPPED] = "dropped",
                                                       [GATE_WOULD_REFUSE] = "would_refuse",
                                                       [GATE_WOULD_DROP] = "would_drop"};

/* In force. NULL: the class is not in the configuration any more; its counters stay. */
static const char *rule_of(const struct keeper *k, const char *name)
{
    const struct config_gate *g = &k->child->config->config->gate;
    const struct runtime_mode *m = runtime_mode_of(k->runtime, name);
    static const enum blob_rule rules[] = {[PORT25_ALLOW] = BLOB_ALLOW,
                                           [PORT25_DENY] = BLOB_DENY,
                                           [PORT25_MONITOR] = BLOB_MONITOR,
                                           [PORT25_RATE] = BLOB_RATE};
    if (strcmp(name, "default") == 0) {
        return policy_rule_name(rules[g->default_]);
    }
    for (size_t i = 0; i < g->classes_count; i++) {
        if (strcmp(g->classes[i].name, name) == 0) {
            return policy_rule_name(m == NULL ? rules[g->classes[i].port25] : m->monitor ? BLOB_MONITOR : BLOB_DENY);
        }
    }
    return NULL;
}

json_t *figures_classes(const struct keeper *k)
{
    json_t *list = json_array();
    for (uint32_t row = 0; row < k->rows.count; row++) {
        struct gate_row counts;
        const char *name = k->rows.names[row];
        if (name == NULL) {
            continue;
        }
        read_row(k, row, &counts);
        json_t *one = json_pack("{s:s,s:s?}", "class", name, "port25", rule_of(k, name));
        for (size_t i = 0; i < GATE_COLUMNS; i++) {
            (void)json_object_set_new(one, column_names[i], json_integer((json_int_t)counts.count[i]));
        }
        (void)json_array_append_new(list, one);
    }
    return list;
}

json_t *figures_reasons(const struct keeper *k)
{
    json_t *all = json_object();
    for (uint32_t reason = 0; reason < REASON_COUNT; reason++) {
        uint64_t count;
        sum_element(k, GATE_MAP_REASONS, reason, &count, 1);
        (void)json_object_set_new(all, policy_reason_name((enum policy_reason)reason), json_integer((json_int_t)count));
    }
    return all;
}

json_t *figures_interfaces(const struct keeper *k)
{
    json_t *list = json_array();
    for (const struct interface *i = k->interfaces; i != NULL; i = i->next) {
        for (int slot = 0; slot < SLOTS; slot++) {
            const struct hook *h = &i->hooks[slot];
            if (h->place != HOOK_NONE) {
                (void)json_array_append_new(
                    list, json_pack("{s:s,s:I,s:s,s:s,s:s,s:I}", "interface", i->link.name, "index",
                                    (json_int_t)i->link.index, "side", i->uplink ? "uplink" : "subscriber", "hook",
                                    hook_place_kind(h->place), "mode", hook_place_name(h->place), "program",
                                    (json_int_t)h->program_id));
            }
        }
    }
    return list;
}

/* Run time is there where the kernel measures it (sysctl kernel.bpf_stats_enabled=1). */
json_t *figures_programs(const struct keeper *k)
{
    json_t *list = json_array();
    for (size_t i = 0; i < PINS_KINDS; i++) {
        for (size_t side = 0; side < 2; side++) {
            struct bpf_prog_info info = {0};
            uint32_t size = sizeof(info);
            int fd = k->pins.programs[i][side];
            if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) != 0) {
                continue;
            }
            json_t *one = json_pack("{s:I,s:s,s:s,s:I,s:I}", "program", (json_int_t)info.id, "kind",
                                    pins_kind_name((enum pins_kind)i), "side", side == 1 ? "uplink" : "subscriber",
                                    "octets", (json_int_t)info.jited_prog_len, "runs", (json_int_t)info.run_cnt);
            if (info.run_cnt > 0) {
                (void)json_object_set_new(one, "ns_per_packet",
                                          json_integer((json_int_t)(info.run_time_ns / info.run_cnt)));
            }
            (void)json_array_append_new(list, one);
        }
    }
    return list;
}

json_t *figures_policy(const struct keeper *k)
{
    const struct keeper_policy *p = &k->in_force;
    return json_pack("{s:I,s:I,s:s,s:I,s:I,s:I,s:I,s:I,s:I}", "generation", (json_int_t)p->generation, "since_ms",
                     (json_int_t)p->since_ms, "mode", p->monitor ? "monitor" : "enforce", "classes",
                     (json_int_t)p->classes, "prefixes", (json_int_t)p->prefixes, "destinations",
                     (json_int_t)p->destinations, "exemptions", (json_int_t)p->exemptions, "cells",
                     (json_int_t)p->cells, "octets", (json_int_t)p->cells * (json_int_t)sizeof(union blob_cell));
}

json_t *figures_brief(const struct keeper *k)
{
    uint64_t sums[GATE_COLUMNS] = {0};
    json_t *interfaces = figures_interfaces(k);
    json_t *all = json_pack("{s:I,s:s,s:I,s:I,s:I}", "places", (json_int_t)json_array_size(interfaces), "mode",
                            k->open               ? "open"
                            : k->in_force.monitor ? "monitor"
                                                  : "enforce",
                            "classes", (json_int_t)k->in_force.classes, "prefixes", (json_int_t)k->in_force.prefixes,
                            "exemptions", (json_int_t)k->in_force.exemptions);
    json_decref(interfaces);
    for (uint32_t row = 0; row < k->rows.count; row++) {
        struct gate_row one;
        read_row(k, row, &one);
        for (size_t i = 0; i < GATE_COLUMNS; i++) {
            sums[i] += one.count[i];
        }
    }
    for (size_t i = 0; i < GATE_COLUMNS; i++) {
        (void)json_object_set_new(all, column_names[i], json_integer((json_int_t)sums[i]));
    }
    return all;
}

/*
 * gate.top: the lines that are refused just now, the fastest first. Who is active is known from the events, how much
 * from the kernel's table, which is asked for those only.
 */
#include <bpf/bpf.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "gate/observe_int.h"
#include "policy/behaviour.h"

#define RECENT_NS   UINT64_C(60000000000)
#define COUNT_USUAL 20
#define COUNT_MAX   1000

struct top_row {
    const struct active_line *line;
    struct gate_source source;
    uint64_t rate_milli;
};

static int compare_rows(const void *a, const void *b)
{
    const struct top_row *x = a, *y = b;
    if (x->rate_milli != y->rate_milli) {
        return x->rate_milli > y->rate_milli ? -1 : 1;
    }
    if (x->source.packets != y->source.packets) {
        return x->source.packets > y->source.packets ? -1 : 1;
    }
    return memcmp(&x->line->key, &y->line->key, sizeof(x->line->key));
}

static size_t gather(const struct observe *o, uint64_t now, struct top_row *rows)
{
    size_t position = 0, count = 0;
    for (const struct active_line *l; (l = active_next(o->active, &position)) != NULL;) {
        struct top_row *row = &rows[count];
        bool recent = now < l->last.boot_ns || now - l->last.boot_ns < RECENT_NS;
        *row = (struct top_row){.line = l};
        if (recent &&
            bpf_map_lookup_elem(o->keeper->pins.maps.fd[GATE_MAP_SOURCES], l->key.address, &row->source) == 0) {
            row->rate_milli = active_rate_milli(l, now, row->source.packets);
            count++;
        }
    }
    return count;
}

static json_t *row_json(const struct observe *o, const struct top_row *row, uint64_t now, uint64_t wall_ms)
{
    const struct gate_event *e = &row->line->last;
    const struct gate_source *s = &row->source;
    const char *name = s->row < BLOB_CLASSES_MAX ? o->keeper->rows.names[s->row] : NULL;
    uint64_t ago_ms = now > s->last_ns ? (now - s->last_ns) / 1000000U : 0;
    char address[NET_ADDRESS_TEXT], far[NET_ADDRESS_TEXT];
    struct net_address a = {0};
    memcpy(a.bytes, e->subject, sizeof(a.bytes));
    net_address_format(&a, address);
    memcpy(a.bytes, e->far, sizeof(a.bytes));
    net_address_format(&a, far);
    return json_pack("{s:s,s:s?,s:s,s:s,s:f,s:I,s:I,s:I,s:I,s:s}", "address", address, "class", name, "verdict",
                     policy_verdict_name(s->verdict <= POLICY_DROP ? s->verdict : POLICY_DROP), "would",
                     policy_verdict_name(s->would <= POLICY_DROP ? s->would : POLICY_DROP), "rate",
                     (double)row->rate_milli / 1000.0, "packets", (json_int_t)s->packets, "connections",
                     (json_int_t)s->connections, "destinations",
                     (json_int_t)behaviour_estimate((const uint64_t *)s->sketch, GATE_SKETCH_BITS), "last_ms",
                     (json_int_t)(wall_ms > ago_ms ? wall_ms - ago_ms : 0), "far", far);
}

void observe_verb_top(struct observe *o, struct control_request *rq, const json_t *request)
{
    json_int_t most = json_integer_value(json_object_get(request, "count"));
    struct top_row *rows = o != NULL && o->started ? calloc(ACTIVE_LINES, sizeof(*rows)) : NULL;
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    uint64_t now = (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec, wall_ms = clock_wall_ms();
    size_t count = rows != NULL ? gather(o, now, rows) : 0;
    most = most < 1 ? COUNT_USUAL : most < COUNT_MAX ? most : COUNT_MAX;
    if (rows != NULL) {
        qsort(rows, count, sizeof(*rows), compare_rows);
    }
    for (size_t i = 0; i < count && i < (size_t)most; i++) {
        if (control_line(rq, row_json(o, &rows[i], now, wall_ms)) < 0) {
            break;
        }
    }
    free(rows);
    control_done(rq, json_pack("{s:I}", "active", (json_int_t)count));
}

#include "gate/history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "gate/history_int.h"

#define EMPTY        UINT32_MAX
#define MINUTE_MS    60000U
#define HOUR_MS      3600000U
#define PEAK_LONGEST (10 * MINUTE_MS) /* of a longer pause nothing is known of its minutes */

struct history {
    int directory_fd;
    struct history_settings settings;
    struct history_moment now;
    uint32_t day;
    uint64_t swept_ns,
        sweep_before_ns; /* boot clock: when the last reading began that is on disk, and the one before */
    struct history_rest rest;
    struct history_line *lines; /* twice as many as are kept: the least busy go when it is full */
    size_t count, room;
    uint32_t *slots; /* open addressing, by key: number of a line */
    size_t slots_count;
};

/* The table */

static uint64_t hash_of(const uint8_t key[16])
{
    return XXH3_64bits(key, 16);
}

static uint32_t *slot_of(const struct history *h, const uint8_t key[16])
{
    size_t at = hash_of(key) & (h->slots_count - 1);
    while (h->slots[at] != EMPTY && memcmp(h->lines[h->slots[at]].key, key, 16) != 0) {
        at = (at + 1) & (h->slots_count - 1);
    }
    return &h->slots[at];
}

static struct history_line *find(const struct history *h, const uint8_t key[16])
{
    uint32_t number = *slot_of(h, key);
    return number != EMPTY ? &h->lines[number] : NULL;
}

static uint64_t connections_of(const struct history_line *l)
{
    return l->connections[0] + l->connections[1];
}

static uint64_t packets_of(const struct history_line *l)
{
    return l->packets[0] + l->packets[1];
}

/* The busiest first; among equals who was there first, so that a flood of forged addresses drives nobody out. */
static int compare_busy(const void *a, const void *b)
{
    const struct history_line *x = a, *y = b;
    uint64_t cx = connections_of(x), cy = connections_of(y), px = packets_of(x), py = packets_of(y);
    if (cx != cy) {
        return cx > cy ? -1 : 1;
    }
    if (px != py) {
        return px > py ? -1 : 1;
    }
    return x->first_ms != y->first_ms ? (x->first_ms < y->first_ms ? -1 : 1) : memcmp(x->key, y->key, 16);
}

static void index_all(struct history *h)
{
    memset(h->slots, 0xff, h->slots_count * sizeof(*h->slots));
    for (size_t i = 0; i < h->count; i++) {
        *slot_of(h, h->lines[i].key) = (uint32_t)i;
    }
}

static void keep_busiest(struct history *h)
{
    qsort(h->lines, h->count, sizeof(*h->lines), compare_busy);
    for (size_t i = h->settings.lines; i < h->count; i++) {
        if (packets_of(&h->lines[i]) > 0) {
            h->rest.lines++;
            h->rest.packets += packets_of(&h->lines[i]);
            h->rest.connections += connections_of(&h->lines[i]);
        }
    }
    h->count = h->count < h->settings.lines ? h->count : h->settings.lines;
    index_all(h);
}

static struct history_line *take(struct history *h, const uint8_t key[16])
{
    struct history_line *l = find(h, key);
    if (l != NULL) {
        return l;
    }
    if (h->count == h->room) {
        keep_busiest(h);
    }
    uint32_t *slot = slot_of(h, key);
    *slot = (uint32_t)h->count;
    l = &h->lines[h->count++];
    *l = (struct history_line){0};
    memcpy(l->key, key, 16);
    return l;
}

static int make_room(struct history *h, size_t lines)
{
    size_t slots = 64;
    while (slots < 4 * lines) {
        slots *= 2;
    }
    struct history_line *table = calloc(2 * lines, sizeof(*table));
    uint32_t *index = malloc(slots * sizeof(*index));
    if (table == NULL || index == NULL) {
        free(table);
        free(index);
        return -ENOMEM;
    }
    size_t kept = h->count < 2 * lines ? h->count : 2 * lines;
    if (kept > 0) {
        memcpy(table, h->lines, kept * sizeof(*table));
    }
    free(h->lines);
    free(h->slots);
    h->lines = table;
    h->slots = index;
    h->room = 2 * lines;
    h->slots_count = slots;
    h->count = kept;
    index_all(h);
    return 0;
}

int history_configure(struct history *h, const struct history_settings *settings)
{
    size_t before = h->settings.lines;
    h->settings.lines = settings->lines;
    if (h->count > settings->lines) {
        keep_busiest(h);
    }
    int r = settings->lines != before ? make_room(h, settings->lines) : 0;
    if (r < 0) {
        h->settings.lines = before;
        return r;
    }
    h->settings = *settings;
    return 0;
}

/* Days */

uint32_t history_day(uint64_t wall_ms)
{
    return (uint32_t)(wall_ms / HISTORY_DAY_MS);
}

/* Keeps what the kernel's figures are compared with. */
static void forget_day(struct history *h)
{
    h->rest = (struct history_rest){0};
    for (size_t i = 0; i < h->count; i++) {
        struct history_line *l = &h->lines[i], before = *l;
        *l = (struct history_line){.counted_first_ns = before.counted_first_ns,
                                   .counted_packets = before.counted_packets,
                                   .counted_connections = before.counted_connections};
        memcpy(l->key, before.key, sizeof(l->key));
    }
}

static void forget_counted(struct history *h)
{
    h->swept_ns = 0;
    for (size_t i = 0; i < h->count; i++) {
        h->lines[i].counted_first_ns = h->lines[i].counted_packets = h->lines[i].counted_connections = 0;
    }
}

void history_begin(struct history *h, const struct history_moment *now)
{
    uint32_t day = history_day(now->wall_ms);
    if (day != h->day) {
        forget_day(h);
        h->day = day;
    }
    h->now = *now;
    h->sweep_before_ns = h->swept_ns;
    h->swept_ns = now->boot_ns;
}

/* Sources */

static uint64_t wall_of(const struct history *h, uint64_t boot_ns)
{
    uint64_t ago_ms = boot_ns < h->now.boot_ns ? (h->now.boot_ns - boot_ns) / 1000000U : 0;
    return ago_ms < h->now.wall_ms ? h->now.wall_ms - ago_ms : 0;
}

static void note_peak(const struct history *h, struct history_line *l, uint64_t connections)
{
    uint64_t from = l->counted_first_ns > h->sweep_before_ns ? l->counted_first_ns : h->sweep_before_ns;
    uint64_t span_ms = h->swept_ns > from ? (h->swept_ns - from) / 1000000U : 0;
    uint64_t minutes = span_ms > PEAK_LONGEST ? span_ms / MINUTE_MS : (span_ms + MINUTE_MS - 1) / MINUTE_MS;
    uint64_t peak = connections / (minutes > 0 ? minutes : 1);
    peak = peak == 0 && connections > 0 ? 1 : peak < UINT32_MAX ? peak : UINT32_MAX;
    l->peak = peak > l->peak ? (uint32_t)peak : l->peak;
}

static void note_time(const struct history *h, struct history_line *l, const struct gate_source *s, bool fresh)
{
    uint64_t midnight = (uint64_t)h->day * HISTORY_DAY_MS;
    uint64_t last = wall_of(h, s->last_ns), first = fresh ? wall_of(h, s->first_ns) : last;
    first = first > midnight ? first : midnight;
    last = last > midnight ? last : midnight;
    l->first_ms = l->first_ms == 0 || first < l->first_ms ? first : l->first_ms;
    l->last_ms = last > l->last_ms ? last : l->last_ms;
    l->hours |= 1U << (last / HOUR_MS % 24);
    if (fresh) {
        l->hours |= 1U << (first / HOUR_MS % 24);
    }
}

void history_source(struct history *h, const struct gate_source_key *key, const struct gate_source *s,
                    const char *class_name)
{
    struct history_line *l = find(h, key->address);
    bool known = l != NULL && l->counted_first_ns == s->first_ns;
    uint64_t packets = s->packets - (known ? l->counted_packets : 0);
    uint64_t connections = s->connections - (known ? l->counted_connections : 0);
    bool old = l == NULL && h->sweep_before_ns != 0 && s->last_ns < h->sweep_before_ns;
    if (packets == 0 || packets > s->packets || connections > s->connections || old) {
        return; /* nothing new: counted before, and since then one of the least busy */
    }
    l = l != NULL ? l : take(h, key->address);
    size_t when = s->verdict == 0 ? 1 : 0;
    l->counted_first_ns = s->first_ns;
    l->counted_packets = s->packets;
    l->counted_connections = s->connections;
    l->packets[when] += packets;
    l->connections[when] += connections;
    l->reason = s->reason;
    note_peak(h, l, connections);
    note_time(h, l, s, !known);
    if (history_day(wall_of(h, s->first_ns)) == h->day) {
        for (size_t i = 0; i < HISTORY_SKETCH; i++) {
            l->sketch[i] |= s->sketch[i];
        }
    }
    if (class_name != NULL) {
        memset(l->class_, 0, sizeof(l->class_));
        memcpy(l->class_, class_name, strnlen(class_name, sizeof(l->class_)));
    }
}

/* Far ends: a summary that never forgets who comes often (Metwally and others, 2005: a newcomer takes the place and the
 * count of the least frequent). */

static uint32_t sketch_bit(const uint8_t far[16])
{
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    uint64_t hi = 0, lo = 0;
    bool mapped = memcmp(far, v4, sizeof(v4)) == 0;
    for (size_t i = 0; i < 8; i++) {
        hi = hi << 8 | (mapped ? (i < 4 ? far[12 + i] : 0) : far[i]);
        lo = lo << 8 | (mapped ? 0 : far[8 + i]);
    }
    return gate_sketch_bit(hi, lo);
}

void history_far(struct history *h, const struct gate_source_key *key, const uint8_t far[16], uint32_t count, bool ours)
{
    struct history_line *l = find(h, key->address);
    if (l == NULL || packets_of(l) == 0) {
        return;
    }
    struct history_far *least = &l->fars[0];
    bool there = false;
    for (size_t i = 0; i < HISTORY_FARS && !there; i++) {
        struct history_far *f = &l->fars[i];
        there = f->count > 0 && memcmp(f->address, far, 16) == 0;
        least = there || f->count < least->count ? f : least;
    }
    least->over = there ? least->over : least->count;
    memcpy(least->address, far, 16);
    least->count = UINT32_MAX - least->count > count ? least->count + count : UINT32_MAX;
    if (ours) {
        uint32_t bit = sketch_bit(far);
        l->sketch[bit / 64 % HISTORY_SKETCH] |= UINT64_C(1) << (bit % 64);
    }
}

/* Life */

static struct history_file_head head_of(const struct history *h)
{
    struct history_file_head head = {.day = h->day, .swept_ns = h->swept_ns, .rest = h->rest};
    memcpy(head.boot_id, h->settings.boot_id, sizeof(head.boot_id));
    return head;
}

int history_save(struct history *h)
{
    if (h->count > h->settings.lines) {
        keep_busiest(h);
    }
    const struct history_file_head head = head_of(h);
    int r = history_file_write(h->directory_fd, &head, h->lines, h->count);
    if (r == 0) {
        uint32_t days = (uint32_t)((h->settings.retention_ms + HISTORY_DAY_MS - 1) / HISTORY_DAY_MS);
        history_file_forget(h->directory_fd, h->day > days ? h->day - days : 0);
    }
    return r;
}

size_t history_lines(const struct history *h)
{
    size_t lines = 0;
    for (size_t i = 0; i < h->count; i++) {
        lines += packets_of(&h->lines[i]) > 0 ? 1 : 0;
    }
    return lines;
}

static void adopt(struct history *h, const struct history_file_head *head, const struct history_line *lines,
                  size_t count)
{
    static const uint8_t unknown[16];
    h->count = count < h->room ? count : h->room;
    memcpy(h->lines, lines, h->count * sizeof(*lines));
    h->swept_ns = head->swept_ns;
    if (memcmp(head->boot_id, h->settings.boot_id, 16) != 0 || memcmp(head->boot_id, unknown, 16) == 0 ||
        head->swept_ns > h->now.boot_ns) {
        forget_counted(h);
    }
    h->rest = head->rest;
    if (head->day != h->day) {
        forget_day(h);
    }
    index_all(h);
}

/* Today's, else the last one: its figures are needed. */
static int load(struct history *h, bool *ret_damaged)
{
    for (uint32_t day = h->day, oldest = day > 7 ? day - 7 : 0; day > oldest; day--) {
        struct history_file_head head;
        struct history_line *lines = NULL;
        size_t count = 0;
        int r = history_file_read(h->directory_fd, day, &head, &lines, &count);
        if (r == -EBADMSG) {
            *ret_damaged = true;
            history_file_set_aside(h->directory_fd, day);
        } else if (r == 0) {
            adopt(h, &head, lines, count);
            free(lines);
            return 0;
        } else if (r != -ENOENT) {
            return r;
        }
    }
    return 0;
}

int history_new(int directory_fd, const struct history_settings *settings, const struct history_moment *now,
                struct history **ret, bool *ret_damaged)
{
    struct history *h = calloc(1, sizeof(*h));
    *ret_damaged = false;
    if (h == NULL) {
        return -ENOMEM;
    }
    *h = (struct history){
        .directory_fd = directory_fd, .settings = *settings, .now = *now, .day = history_day(now->wall_ms)};
    int r = make_room(h, settings->lines);
    r = r == 0 ? load(h, ret_damaged) : r;
    if (r < 0) {
        history_free(&h);
        return r;
    }
    *ret = h;
    return 0;
}

void history_free(struct history **hp)
{
    struct history *h = *hp;
    *hp = NULL;
    if (h != NULL) {
        free(h->lines);
        free(h->slots);
        free(h);
    }
}

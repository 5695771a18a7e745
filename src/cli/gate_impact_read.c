/*
 * The history of several days as one list: a line's figures are added up, its far ends are joined, and it is judged.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/gate_impact.h"

#define FARS_MAX  64      /* of a line, over all days */
#define LINES_MAX 1000000 /* over all days: forged addresses are others every day */

static bool is_v4(const uint8_t address[16])
{
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(address, v4, sizeof(v4)) == 0;
}

void impact_address(const uint8_t address[16], char text[static 64])
{
    bool v4 = is_v4(address);
    (void)inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? address + 12 : address, text, 64);
}

void impact_key(const uint8_t key[16], char text[static 64])
{
    impact_address(key, text);
    if (!is_v4(key)) {
        (void)snprintf(text + strlen(text), 64 - strlen(text), "/64");
    }
}

void impact_network(const uint8_t address[16], char text[static 64])
{
    uint8_t network[16];
    bool v4 = is_v4(address);
    memcpy(network, address, sizeof(network));
    memset(network + (v4 ? 15 : 6), 0, v4 ? 1 : 10);
    impact_address(network, text);
    (void)snprintf(text + strlen(text), 64 - strlen(text), v4 ? "/24" : "/48");
}

static int compare_fars(const void *a, const void *b)
{
    const struct impact_far *x = a, *y = b;
    return x->count != y->count ? (x->count > y->count ? -1 : 1) : memcmp(x->address, y->address, 16);
}

/* Most lines have few: of a flood of forged addresses each has one. */
static bool has_room(struct impact_line *l)
{
    if (l->fars_count == l->fars_room) {
        size_t room = l->fars_room > 0 ? 2 * l->fars_room : 1;
        struct impact_far *fars = reallocarray(l->fars, room, sizeof(*fars));
        if (fars == NULL) {
            return false;
        }
        l->fars = fars;
        l->fars_room = room;
    }
    return true;
}

static int add_far(struct impact_line *l, const struct history_far *f)
{
    uint32_t sure = f->count - f->over;
    size_t i = 0;
    while (i < l->fars_count && memcmp(l->fars[i].address, f->address, 16) != 0) {
        i++;
    }
    if (f->count == 0 || (i == l->fars_count && i == FARS_MAX)) {
        return 0;
    }
    if (i == l->fars_count) {
        if (!has_room(l)) {
            return -ENOMEM;
        }
        l->fars[l->fars_count++] = (struct impact_far){0};
        memcpy(l->fars[i].address, f->address, 16);
    }
    l->fars[i].count += sure;
    return 0;
}

/* NULL and *ret_r 0: there are too many already. */
static struct impact_line *take(struct impact *all, const uint8_t key[16], int *ret_r)
{
    struct impact_line *l = NULL;
    *ret_r = 0;
    HASH_FIND(hh, all->lines, key, 16, l);
    if (l != NULL || all->count == LINES_MAX) {
        return l;
    }
    *ret_r = -ENOMEM;
    l = calloc(1, sizeof(*l));
    if (l == NULL) {
        return NULL;
    }
    memcpy(l->key, key, 16);
    HASH_ADD(hh, all->lines, key, 16, l);
    if (!hash_added(l->hh)) {
        free(l);
        return NULL;
    }
    all->count++;
    *ret_r = 0;
    return l;
}

static int add_line(struct impact *all, const struct history_line *h)
{
    int r;
    struct impact_line *l = take(all, h->key, &r);
    if (l == NULL) {
        all->rest.lines += r == 0 ? 1 : 0;
        all->rest.packets += h->packets[0] + h->packets[1];
        all->rest.connections += h->connections[0] + h->connections[1];
        return r;
    }
    l->first_ms = l->first_ms == 0 || h->first_ms < l->first_ms ? h->first_ms : l->first_ms;
    if (h->last_ms >= l->last_ms) {
        l->last_ms = h->last_ms;
        (void)snprintf(l->class_, sizeof(l->class_), "%.*s", HISTORY_CLASS_MAX, h->class_);
    }
    for (size_t i = 0; i < HISTORY_WAYS; i++) {
        l->packets[i] += h->packets[i];
        l->connections[i] += h->connections[i];
    }
    for (size_t i = 0; i < HISTORY_SKETCH; i++) {
        l->sketch[i] |= h->sketch[i];
    }
    for (size_t i = 0; i < HISTORY_FARS && r == 0; i++) {
        r = add_far(l, &h->fars[i]);
    }
    l->behaviour.days++;
    l->behaviour.hours += (uint32_t)__builtin_popcount(h->hours);
    l->behaviour.peak = h->peak > l->behaviour.peak ? h->peak : l->behaviour.peak;
    return r;
}

static int add_day(struct impact *all, int directory_fd, uint32_t day)
{
    struct history_line *lines = NULL;
    struct history_rest rest;
    size_t count = 0;
    int r = history_read(directory_fd, day, &lines, &count, &rest);
    if (r == -ENOENT || r == -EBADMSG) {
        all->damaged_days += r == -EBADMSG ? 1 : 0;
        return 0;
    }
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < count && r == 0; i++) {
        if (lines[i].packets[0] + lines[i].packets[1] > 0) {
            r = add_line(all, &lines[i]);
        }
    }
    all->days++;
    all->rest.lines += rest.lines;
    all->rest.packets += rest.packets;
    all->rest.connections += rest.connections;
    free(lines);
    return r;
}

static int compare_lines(struct impact_line *a, struct impact_line *b)
{
    uint64_t ca = a->connections[0] + a->connections[1], cb = b->connections[0] + b->connections[1];
    uint64_t pa = a->packets[0] + a->packets[1], pb = b->packets[0] + b->packets[1];
    return ca != cb ? (ca > cb ? -1 : 1) : pa != pb ? (pa > pb ? -1 : 1) : memcmp(a->key, b->key, 16);
}

int impact_read(int directory_fd, uint32_t from_day, uint32_t to_day, struct impact *ret)
{
    *ret = (struct impact){.from_day = from_day, .to_day = to_day};
    int r = 0;
    for (uint32_t day = from_day; day <= to_day && r == 0; day++) {
        r = add_day(ret, directory_fd, day);
    }
    for (struct impact_line *l = ret->lines; l != NULL; l = l->hh.next) {
        if (l->fars_count > 1) {
            qsort(l->fars, l->fars_count, sizeof(*l->fars), compare_fars);
        }
    }
    HASH_SORT(ret->lines, compare_lines);
    if (r < 0) {
        impact_fini(ret);
    }
    return r;
}

/* Who it is: by name where there is one, else the network. */
static void provider_of(const uint8_t address[16], const struct names *names, char text[static NAMES_TEXT])
{
    const struct far_name *name = names != NULL ? names_find(names, address) : NULL;
    char network[64];
    impact_network(address, network);
    (void)snprintf(text, NAMES_TEXT, "%s", name != NULL ? names_registered(name->host) : network);
}

static uint32_t count_networks(const struct impact_line *l, const struct names *names)
{
    char seen[FARS_MAX][NAMES_TEXT];
    uint32_t count = 0;
    for (size_t i = 0; i < l->fars_count; i++) {
        uint32_t k = 0;
        provider_of(l->fars[i].address, names, seen[count]);
        while (k < count && strcmp(seen[k], seen[count]) != 0) {
            k++;
        }
        count += k == count ? 1 : 0;
    }
    return count;
}

void impact_judge(struct impact *all, const struct names *names)
{
    for (struct impact_line *l = all->lines; l != NULL; l = l->hh.next) {
        struct behaviour *b = &l->behaviour;
        b->packets = l->packets[0] + l->packets[1];
        b->connections = l->connections[0] + l->connections[1];
        b->destinations = behaviour_estimate(l->sketch, GATE_SKETCH_BITS);
        if (b->connections > 0 && b->destinations < l->fars_count) {
            b->destinations = (uint32_t)l->fars_count;
        }
        /* A line that is quick is told once a second: the others may be anywhere. */
        b->networks = 2 * l->fars_count >= b->destinations ? count_networks(l, names) : 0;
        behaviour_judge(b, &l->judgement);
    }
}

void impact_fini(struct impact *all)
{
    struct impact_line *l, *next;
    HASH_ITER(hh, all->lines, l, next)
    {
        HASH_DEL(all->lines, l);
        free(l->fars);
        free(l);
    }
    *all = (struct impact){0};
}

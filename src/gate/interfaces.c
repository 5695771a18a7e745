/*
 * Who is gated where. The configuration names interfaces, the kernel has some; between them stands the state of each:
 * what of ours sits there, and which program should. The same few steps serve at the start, at a reload, and when an
 * interface comes.
 */
#include <errno.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "gate/keeper_int.h"

/* What the configuration says of names. */

bool interfaces_named(const struct config_gate *g)
{
    return g->subscriber_interfaces.count + g->uplink_interfaces.count > 0;
}

bool interfaces_outward(const struct config_gate *g)
{
    return (g->subscriber_interfaces.count == 0) != (g->uplink_interfaces.count == 0);
}

static bool listed(const struct config_strings *patterns, const char *name)
{
    bool found = false;
    for (size_t i = 0; i < patterns->count; i++) {
        found = found || config_interface_matches(patterns->list[i], name);
    }
    return found;
}

static void ask_config(const struct config_gate *g, struct interface *i)
{
    i->uplink = listed(&g->uplink_interfaces, i->link.name);
    i->wanted = i->uplink || listed(&g->subscriber_interfaces, i->link.name);
}

/* What a device takes. */

#ifndef ARPHRD_IP6GRE
#define ARPHRD_IP6GRE 823 /* linux/if_arp.h, which does not go with net/if.h */
#endif

enum frames { FRAMES_ETHERNET, FRAMES_IP, FRAMES_UNKNOWN };

static enum frames frames_of(const struct link *l)
{
    switch (l->type) {
    case ARPHRD_ETHER:
    case ARPHRD_LOOPBACK:
        return FRAMES_ETHERNET;
    case ARPHRD_PPP:
    case ARPHRD_NONE:
    case ARPHRD_RAWIP:
    case ARPHRD_TUNNEL:
    case ARPHRD_TUNNEL6:
    case ARPHRD_SIT:
        return FRAMES_IP;
    case ARPHRD_IPGRE:
    case ARPHRD_IP6GRE: /* without one far end it shows TC the outer packet, and IP somewhere in it */
        return l->point_to_point ? FRAMES_IP : FRAMES_UNKNOWN;
    default:
        return FRAMES_UNKNOWN;
    }
}

/* Where to try, in order; what the kernel does not have (tcx before Linux 6.6) refuses itself. Generic XDP comes last
 * in auto: it copies every packet first, which TC does not. A device without Ethernet takes no XDP: the kernel would
 * take the first octets of an answer for an Ethernet header. A veth sends no answer back by native XDP unless its peer
 * happens to be set up for it. */
static size_t places(enum config_gate_attach attach, const struct link *l, enum hook_place ret[static 4])
{
    size_t n = 0;
    bool ethernet = frames_of(l) == FRAMES_ETHERNET;
    bool any = attach == GATE_ATTACH_AUTO;
    if (ethernet && (attach == GATE_ATTACH_NATIVE || (any && strcmp(l->kind, "veth") != 0))) {
        ret[n++] = HOOK_NATIVE;
    }
    if (any || attach == GATE_ATTACH_TCX) {
        ret[n++] = HOOK_TCX_INGRESS;
    }
    if (any || attach == GATE_ATTACH_TC) {
        ret[n++] = HOOK_INGRESS;
    }
    if (ethernet && (any || attach == GATE_ATTACH_GENERIC)) {
        ret[n++] = HOOK_GENERIC;
    }
    return n;
}

static bool may_stay(enum config_gate_attach attach, const struct link *l, enum hook_place place)
{
    enum hook_place all[4];
    bool found = place == HOOK_NATIVE && attach == GATE_ATTACH_AUTO;
    for (size_t i = 0, n = places(attach, l, all); i < n; i++) {
        found = found || all[i] == place;
    }
    return found;
}

static enum interface_slot slot_of(enum hook_place place)
{
    static const enum interface_slot slots[] = {[HOOK_NONE] = SLOT_XDP,
                                                [HOOK_NATIVE] = SLOT_XDP,
                                                [HOOK_GENERIC] = SLOT_XDP,
                                                [HOOK_TCX_INGRESS] = SLOT_TCX_INGRESS,
                                                [HOOK_TCX_EGRESS] = SLOT_TCX_EGRESS,
                                                [HOOK_INGRESS] = SLOT_INGRESS,
                                                [HOOK_EGRESS] = SLOT_EGRESS};
    return slots[place];
}

static bool is_outward(enum interface_slot slot)
{
    return slot == SLOT_TCX_EGRESS || slot == SLOT_EGRESS;
}

/* What leaves at an interface goes the other way than what arrives. */
static void program_for(const struct keeper *k, const struct interface *i, enum hook_place place, int *ret_fd,
                        uint32_t *ret_id)
{
    bool ip = frames_of(&i->link) == FRAMES_IP, out = is_outward(slot_of(place));
    enum pins_kind kind = slot_of(place) == SLOT_XDP ? PINS_XDP
                          : out                      ? (ip ? PINS_TC_IP_OUT : PINS_TC_OUT)
                                                     : (ip ? PINS_TC_IP : PINS_TC);
    int side = i->uplink != out ? 1 : 0;
    *ret_fd = k->pins.programs[kind][side];
    *ret_id = k->pins.ids[kind][side];
}

/* One interface. */

static const char *words_of(int r, enum hook_place place)
{
    enum interface_slot slot = slot_of(place);
    bool xdp = slot == SLOT_XDP;
    if (r == -EINVAL && (slot == SLOT_TCX_INGRESS || slot == SLOT_TCX_EGRESS)) {
        return "this kernel has no tcx (Linux 6.6 has); use attach: auto, tcx or tc";
    }
    switch (r) {
    case -EBUSY:
    case -EEXIST:
    case -EINVAL:
        return xdp ? "another XDP program sits there, or the driver takes none as it is set up (its MTU, say)"
                   : "something that is not ours has the first place of its TC filters";
    case -EOPNOTSUPP:
        return "the driver takes no program there";
    case -ENODEV:
        return "the interface is gone";
    default:
        return "the kernel said no";
    }
}

static int attach_at(struct keeper *k, struct interface *i, enum hook_place place)
{
    int fd;
    uint32_t id;
    program_for(k, i, place, &fd, &id);
    int r = fd >= 0 ? hook_attach(place, i->link.index, fd, &i->hooks[slot_of(place)]) : -ENOENT;
    if (r == 0) {
        log_info("gate.attached", LF_STR("interface", i->link.name),
                 LF_STR("side", i->uplink ? "uplink" : "subscriber"), LF_STR("hook", hook_place_kind(place)),
                 LF_STR("place", hook_place_name(place)), LF_UINT("program", i->hooks[slot_of(place)].program_id));
    }
    return r;
}

static int refuse(const struct interface *i, const char *what, int r)
{
    log_error("gate.attach.failed", LF_STR("interface", i->link.name), LF_STR("what", what), LF_ERR(r));
    return r;
}

static int attach_main(struct keeper *k, struct interface *i)
{
    enum hook_place all[4], last = HOOK_NONE;
    size_t n = places(k->child->config->config->gate.attach, &i->link, all);
    int r = -EOPNOTSUPP;
    if (frames_of(&i->link) == FRAMES_UNKNOWN) {
        return refuse(i, "it carries neither Ethernet frames nor bare IP packets, or is GRE without one remote address",
                      -EPROTONOSUPPORT);
    }
    if (n == 0) {
        return refuse(i, "it carries bare IP packets: only TC answers them; use attach: auto, tcx or tc", -EOPNOTSUPP);
    }
    for (size_t p = 0; p < n && r < 0; p++) {
        last = all[p];
        r = attach_at(k, i, last);
    }
    return r < 0 ? refuse(i, words_of(r, last), r) : 0;
}

/* By a link where the configuration and the kernel know them, else by a filter. A filter that sits there stays until
 * the link is there. */
static int attach_tc(struct keeper *k, struct interface *i, bool out)
{
    enum config_gate_attach attach = k->child->config->config->gate.attach;
    enum hook_place ways[] = {out ? HOOK_TCX_EGRESS : HOOK_TCX_INGRESS, out ? HOOK_EGRESS : HOOK_INGRESS};
    int r = -EOPNOTSUPP;
    for (size_t w = attach == GATE_ATTACH_TC ? 1 : 0; w < (attach == GATE_ATTACH_TCX ? 1 : 2) && r < 0; w++) {
        r = i->hooks[slot_of(ways[w])].place == ways[w] ? 0 : attach_at(k, i, ways[w]);
    }
    return r;
}

/* Which of those it is. */
static struct hook *outward_hook(const struct keeper *k, struct interface *i)
{
    bool link = k->child->config->config->gate.attach != GATE_ATTACH_TC;
    return &i->hooks[link && i->hooks[SLOT_TCX_EGRESS].place != HOOK_NONE ? SLOT_TCX_EGRESS : SLOT_EGRESS];
}

static struct hook *main_hook(struct keeper *k, struct interface *i)
{
    enum config_gate_attach attach = k->child->config->config->gate.attach;
    for (int slot = SLOT_XDP; slot <= SLOT_INGRESS; slot++) {
        struct hook *h = &i->hooks[slot];
        if (h->place != HOOK_NONE && may_stay(attach, &i->link, h->place)) {
            return h;
        }
    }
    return NULL;
}

static int exchange(struct keeper *k, struct interface *i, struct hook *h)
{
    int fd;
    uint32_t id;
    program_for(k, i, h->place, &fd, &id);
    if (h->place == HOOK_NONE || h->program_id == id) {
        return 0;
    }
    int r = hook_replace(h, fd);
    if (r < 0) {
        return refuse(i, "its program cannot be exchanged", r);
    }
    log_info("gate.exchanged", LF_STR("interface", i->link.name), LF_STR("side", i->uplink ? "uplink" : "subscriber"),
             LF_STR("place", hook_place_name(h->place)), LF_UINT("program", h->program_id));
    return 0;
}

static int take_away(struct interface *i, enum interface_slot slot)
{
    enum hook_place place = i->hooks[slot].place;
    if (place == HOOK_NONE) {
        return 0;
    }
    int r = hook_remove(&i->hooks[slot]);
    if (r < 0) {
        return refuse(i, "its program cannot be taken away", r);
    }
    log_info("gate.detached", LF_STR("interface", i->link.name), LF_STR("hook", hook_place_kind(place)),
             LF_STR("place", hook_place_name(place)));
    return 0;
}

/* A device has XDP in one mode only: what may not stay goes first, while TC holds its place. */
static int make_way(struct keeper *k, struct interface *i)
{
    int r = 0;
    if (i->hooks[SLOT_XDP].place == HOOK_NONE) {
        return 0;
    }
    if (i->hooks[SLOT_TCX_INGRESS].place == HOOK_NONE && i->hooks[SLOT_INGRESS].place == HOOK_NONE) {
        r = attach_tc(k, i, false);
        r = r < 0 ? refuse(i, words_of(r, HOOK_INGRESS), r) : 0;
    }
    return r == 0 ? take_away(i, SLOT_XDP) : r;
}

static void lost(const struct interface *i)
{
    log_error("gate.interface.lost", LF_STR("interface", i->link.name),
              LF_STR("what", "its program was taken away by somebody else; it is put back"));
}

/* Whoever may set up TC may take filters away, with the whole qdisc, and put others in their place; and links, by
 * force.
 */
static bool lost_tc(struct interface *i)
{
    bool any = false;
    for (int slot = SLOT_XDP + 1; slot < SLOTS; slot++) {
        struct hook *h = &i->hooks[slot];
        if (h->place != HOOK_NONE && !hook_stands(h)) {
            lost(i);
            (void)hook_remove(h); /* its pin */
            hook_forget(h);
            any = true;
        }
    }
    return any;
}

/* The new one comes before the old one goes. */
static int settle(struct keeper *k, struct interface *i)
{
    bool outward = interfaces_outward(&k->child->config->config->gate);
    (void)lost_tc(i);
    int r = main_hook(k, i) == NULL ? make_way(k, i) : 0;
    const struct hook *kept = main_hook(k, i);
    if (r == 0 && kept == NULL) {
        r = attach_main(k, i);
    } else if (r == 0 && kept->place == HOOK_INGRESS) {
        r = attach_tc(k, i, false);
    }
    if (r == 0 && outward) {
        r = attach_tc(k, i, true);
        r = r < 0 ? refuse(i, words_of(r, HOOK_EGRESS), r) : 0;
    }
    kept = r == 0 ? main_hook(k, i) : NULL;
    for (int slot = 0; slot < SLOTS && r == 0; slot++) {
        struct hook *h = &i->hooks[slot];
        bool stays = is_outward((enum interface_slot)slot) ? outward && h == outward_hook(k, i) : h == kept;
        r = stays ? exchange(k, i, h) : 0;
    }
    for (int slot = 0; slot < SLOTS && r == 0; slot++) {
        const struct hook *h = &i->hooks[slot];
        bool stays = is_outward((enum interface_slot)slot) ? outward && h == outward_hook(k, i) : h == kept;
        r = stays ? 0 : take_away(i, (enum interface_slot)slot);
    }
    return r;
}

static bool has_hooks(const struct interface *i)
{
    bool any = false;
    for (int slot = 0; slot < SLOTS; slot++) {
        any = any || i->hooks[slot].place != HOOK_NONE;
    }
    return any;
}

static int let_go(struct interface *i)
{
    int r = 0;
    for (int slot = 0; slot < SLOTS; slot++) {
        int one = take_away(i, (enum interface_slot)slot);
        r = one < 0 ? one : r;
    }
    return r;
}

/* All of them. */

static struct interface *find(const struct keeper *k, uint32_t index)
{
    struct interface *i = k->interfaces;
    while (i != NULL && i->link.index != index) {
        i = i->next;
    }
    return i;
}

static struct interface *add(struct keeper *k, const struct link *l)
{
    struct interface *i = calloc(1, sizeof(*i));
    if (i == NULL) {
        log_error("gate.attach.failed", LF_STR("interface", l->name), LF_ERR(ENOMEM));
        return NULL;
    }
    i->link = *l;
    for (int slot = 0; slot < SLOTS; slot++) {
        i->hooks[slot] = (struct hook){.place = HOOK_NONE, .link_fd = -1};
    }
    i->next = k->interfaces;
    k->interfaces = i;
    return i;
}

static void drop(struct keeper *k, struct interface *i)
{
    struct interface **at = &k->interfaces;
    while (*at != i) {
        at = &(*at)->next;
    }
    *at = i->next;
    for (int slot = 0; slot < SLOTS; slot++) {
        hook_forget(&i->hooks[slot]);
    }
    free(i);
}

void interfaces_free(struct keeper *k)
{
    while (k->interfaces != NULL) {
        drop(k, k->interfaces);
    }
}

/* Without acting on it. */
static void learn(void *arg, const struct link *l)
{
    struct keeper *k = arg;
    struct interface *i = find(k, l->index);
    if (i != NULL) {
        i->link = *l;
    } else {
        (void)add(k, l);
    }
}

static const struct links_ops learning = {.seen = learn};

static void adopt_link(void *arg, const char *pin)
{
    struct keeper *k = arg;
    struct hook h;
    int r = hook_find_link(pin, &h);
    struct interface *i = r == 0 ? find(k, h.index) : NULL;
    if (r == -ENODEV || (r == 0 && i == NULL)) {
        (void)unlink(pin); /* its device is gone */
    } else if (r < 0) {
        log_warn("gate.pins.failed", LF_STR("what", "adopt"), LF_STR("path", pin), LF_ERR(r));
    }
    if (i != NULL) {
        h.place = h.place == HOOK_NATIVE && i->link.generic_id == h.program_id ? HOOK_GENERIC : h.place;
        i->hooks[slot_of(h.place)] = h;
    } else if (r == 0) {
        hook_forget(&h);
    }
}

int interfaces_adopt(struct keeper *k)
{
    int r = links_list(&learning, k);
    if (r < 0) {
        log_error("gate.links.failed", LF_ERR(r));
        return r;
    }
    pins_each(HOOK_PIN_XDP, adopt_link, k);
    pins_each(HOOK_PIN_TCX, adopt_link, k);
    for (struct interface *i = k->interfaces; i != NULL; i = i->next) {
        (void)hook_find_filter(HOOK_INGRESS, i->link.index, &i->hooks[SLOT_INGRESS]);
        (void)hook_find_filter(HOOK_EGRESS, i->link.index, &i->hooks[SLOT_EGRESS]);
        if (has_hooks(i)) {
            log_info("gate.adopted", LF_STR("interface", i->link.name));
        }
    }
    return 0;
}

/* A name without a star must be there when it is first named. Later it may come and go: the house does not end with a
 * cable. */
static int check_names(const struct keeper *k, const struct config_strings *names)
{
    const struct config_gate *before = k->before != NULL ? &k->before->config->gate : NULL;
    int r = 0;
    for (size_t n = 0; n < names->count; n++) {
        bool found = strchr(names->list[n], '*') != NULL;
        for (const struct interface *i = k->interfaces; i != NULL; i = i->next) {
            found = found || strcmp(i->link.name, names->list[n]) == 0;
        }
        if (!found) {
            log_error("gate.interface.missing", LF_STR("interface", names->list[n]),
                      LF_STR("what", "there is no such interface; a pattern like \"eth*\" may match none"));
            bool known =
                k->child->again || (before != NULL && (listed(&before->subscriber_interfaces, names->list[n]) ||
                                                       listed(&before->uplink_interfaces, names->list[n])));
            r = known ? r : -ENODEV;
        }
    }
    return r;
}

/* What is there now, and only that. */
static int look(struct keeper *k)
{
    for (struct interface *i = k->interfaces; i != NULL; i = i->next) {
        i->link.gone = true;
    }
    int r = links_list(&learning, k);
    if (r < 0) {
        log_error("gate.links.failed", LF_ERR(r));
        return r;
    }
    for (struct interface *i = k->interfaces, *next; i != NULL; i = next) {
        next = i->next;
        if (i->link.gone) {
            drop(k, i);
        }
    }
    return 0;
}

int interfaces_try(struct keeper *k)
{
    const struct config_gate *g = &k->child->config->config->gate;
    int r = look(k);
    r = r == 0 ? check_names(k, &g->subscriber_interfaces) : r;
    r = r == 0 ? check_names(k, &g->uplink_interfaces) : r;
    for (struct interface *i = k->interfaces; i != NULL; i = i->next) {
        ask_config(g, i);
        i->fresh = r == 0 && i->wanted && !k->open && !has_hooks(i);
        r = i->fresh ? settle(k, i) : r;
    }
    for (struct interface *i = k->interfaces; i != NULL && r < 0; i = i->next) {
        (void)(i->fresh ? let_go(i) : 0);
    }
    return r;
}

int interfaces_follow(struct keeper *k)
{
    int r = 0;
    for (struct interface *i = k->interfaces, *next; i != NULL; i = next) {
        next = i->next;
        ask_config(&k->child->config->config->gate, i);
        int one = i->wanted && !k->open ? settle(k, i) : let_go(i);
        r = one < 0 ? one : r;
        if (!i->wanted && !has_hooks(i)) {
            drop(k, i);
        }
    }
    return r;
}

int interfaces_again(struct keeper *k)
{
    int r = look(k);
    return r == 0 ? interfaces_follow(k) : r;
}

/* By force, or by a driver that starts anew. */
static bool lost_xdp(const struct interface *i)
{
    const struct hook *h = &i->hooks[SLOT_XDP];
    return h->place != HOOK_NONE && i->link.native_id != h->program_id && i->link.generic_id != h->program_id;
}

static void gone(struct keeper *k, struct interface *i)
{
    log_info("gate.interface.gone", LF_STR("interface", i->link.name));
    for (int slot = 0; slot < SLOTS; slot++) {
        (void)hook_remove(&i->hooks[slot]);
    }
    drop(k, i);
}

/* A new name changes nothing where something of ours sits: that is for a reload to say. */
static void renamed(const struct interface *i, const char *now)
{
    log_warn("gate.interface.renamed", LF_STR("interface", i->link.name), LF_STR("name", now));
}

void interfaces_seen(void *arg, const struct link *l)
{
    struct keeper *k = arg;
    struct interface *i = find(k, l->index);
    if (l->gone) {
        if (i != NULL) {
            gone(k, i);
        }
        return;
    }
    if (i != NULL && strcmp(i->link.name, l->name) != 0) {
        renamed(i, l->name);
    }
    learn(k, l);
    i = find(k, l->index);
    if (i == NULL) {
        return;
    }
    bool had = has_hooks(i);
    ask_config(&k->child->config->config->gate, i);
    if (lost_xdp(i)) {
        lost(i);
        (void)hook_remove(&i->hooks[SLOT_XDP]);
    }
    if (i->wanted && !k->open) {
        (void)settle(k, i);
    } else if (!i->wanted && !had) {
        drop(k, i);
    }
}

void interfaces_filters(void *arg, uint32_t index)
{
    struct keeper *k = arg;
    struct interface *i = find(k, index);
    if (i != NULL && i->wanted && !k->open && lost_tc(i)) {
        (void)settle(k, i);
    }
}

/* A link of TC is taken off, or passed in front of, without a word of the kernel's. */
void interfaces_check(struct keeper *k)
{
    for (struct interface *i = k->interfaces; i != NULL; i = i->next) {
        bool before = i->preceded;
        i->preceded = hook_is_preceded(&i->hooks[SLOT_TCX_INGRESS]) || hook_is_preceded(&i->hooks[SLOT_TCX_EGRESS]);
        if (i->preceded && !before) {
            log_warn(
                "gate.interface.preceded", LF_STR("interface", i->link.name),
                LF_STR("what", "somebody else's program sees its packets first, and what that lets by we never see"));
        }
        interfaces_filters(k, i->link.index);
    }
}

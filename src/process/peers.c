#include "process/peers.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

static void drop(struct peer *p)
{
    struct peer **at = &p->all->first;
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    if (p->all->ops->gone != NULL) {
        p->all->ops->gone(p);
    }
    channel_free(&p->channel);
    free(p);
}

static int on_frame(void *arg, const struct frame *f, struct span payload, int fd)
{
    struct peer *p = arg;
    if (fd >= 0) {
        (void)close(fd);
    }
    return p->all->ops->frame(p, f, payload);
}

static void on_closed(void *arg, const char *why)
{
    struct peer *p = arg;
    child_peer_broken(p->all->child, p->role, p->instance, why);
    drop(p);
}

static const struct channel_ops ops = {.frame = on_frame, .closed = on_closed};

struct peer *peers_take(struct peers *ps, struct child *c, enum master_role role, uint32_t instance, int fd)
{
    assert(ps->size >= sizeof(struct peer));
    ps->child = c;
    for (struct peer *old = ps->first; old != NULL; old = old->next) {
        if (old->role == role && old->instance == instance) {
            drop(old);
            break;
        }
    }
    struct peer *p = calloc(1, ps->size);
    if (p == NULL) {
        (void)close(fd);
        return NULL;
    }
    *p = (struct peer){.all = ps, .role = role, .instance = instance};
    p->channel = channel_new(ps->child->loop, fd, &ops, p);
    if (p->channel == NULL) {
        free(p);
        return NULL;
    }
    p->next = ps->first;
    ps->first = p;
    return p;
}

bool peers_has(const struct peers *ps, enum master_role role)
{
    const struct peer *p = ps->first;
    while (p != NULL && p->role != role) {
        p = p->next;
    }
    return p != NULL;
}

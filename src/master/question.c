/*
 * What the master asks of every child at once: how are you (status), have you swapped (reload). A question ends when
 * all have answered or died, or its time is over; who died gets the configuration in force when it starts again.
 */
#include <errno.h>
#include <stdlib.h>

#include "master/master_int.h"

static void on_closed(uv_handle_t *h)
{
    free(h->data);
}

static void end(struct question *q)
{
    struct question **at = &q->master->questions;
    while (*at != q) {
        at = &(*at)->next;
    }
    *at = q->next;
    (void)uv_timer_stop(&q->limit);
    q->finish(q);
    for (size_t i = 0; i < FAMILY_MAX; i++) {
        json_decref(q->answers[i]);
    }
    uv_close((uv_handle_t *)&q->limit, on_closed);
}

static void on_limit(uv_timer_t *t)
{
    end(t->data);
}

int question_ask(struct master *m, struct control_request *rq, enum master_type type, uint32_t limit_ms,
                 void (*finish)(struct question *q))
{
    static uint64_t last;
    struct question *q = calloc(1, sizeof(*q));
    if (q == NULL) {
        return -ENOMEM;
    }
    *q = (struct question){.master = m, .request = rq, .id = ++last, .finish = finish, .next = m->questions};
    m->questions = q;
    (void)uv_timer_init(&m->loop, &q->limit);
    q->limit.data = q;
    for (size_t i = 0; i < m->family_count; i++) {
        const struct relative *r = &m->family[i];
        if ((r->state == RELATIVE_READY || r->state == RELATIVE_STARTING) && r->channel != NULL &&
            channel_send(r->channel, (uint16_t)type, q->id, (struct span){0}, -1) == 0) {
            q->unanswered[i] = true;
            q->waiting++;
        }
    }
    (void)uv_timer_start(&q->limit, on_limit, q->waiting > 0 ? limit_ms : 0, 0);
    return 0;
}

static void settle(struct question *q, size_t at)
{
    q->unanswered[at] = false;
    if (--q->waiting == 0) {
        end(q);
    }
}

void question_answered(struct master *m, const struct relative *r, uint64_t id, struct span json)
{
    size_t at = (size_t)(r - m->family);
    for (struct question *q = m->questions; q != NULL; q = q->next) {
        if (q->id == id && q->unanswered[at]) {
            q->answers[at] = json_loadb((const char *)json.ptr, json.len, JSON_DECODE_ANY, NULL);
            settle(q, at);
            return;
        }
    }
}

void question_gone(struct master *m, const struct relative *r)
{
    size_t at = (size_t)(r - m->family);
    for (struct question *q = m->questions, *next; q != NULL; q = next) {
        next = q->next;
        if (q->unanswered[at]) {
            settle(q, at);
        }
    }
}

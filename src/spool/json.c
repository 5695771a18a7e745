#include "spool/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/id.h"

#define TIME_SIZE 32

static json_t *text(struct span s)
{
    json_t *good = json_stringn((const char *)s.ptr, s.len); /* NULL when it is no UTF-8 */
    if (good != NULL || s.ptr == NULL) {
        return good != NULL ? good : json_string("");
    }
    struct buf b;
    buf_init(&b, s.len * 4 + 1);
    for (size_t i = 0; i < s.len; i++) {
        bool plain = s.ptr[i] >= 0x20 && s.ptr[i] < 0x7f;
        (void)(plain ? buf_append_byte(&b, s.ptr[i]) : buf_printf(&b, "\\x%02x", s.ptr[i]));
    }
    good = json_stringn((const char *)b.data, b.len);
    buf_fini(&b);
    return good;
}

static void set(json_t *o, const char *key, json_t *take_value)
{
    (void)json_object_set_new(o, key, take_value);
}

static void set_time(json_t *o, const char *key, uint64_t wall_ms)
{
    char out[TIME_SIZE];
    time_t t = (time_t)(wall_ms / 1000);
    struct tm tm;
    if (gmtime_r(&t, &tm) != NULL && strftime(out, sizeof(out), "%Y-%m-%dT%H:%M:%SZ", &tm) > 0) {
        set(o, key, json_string(out));
    }
}

/* "45s", "12m", "3h05m", "4d02h": for tables. */
static void set_age(json_t *o, const char *key, uint64_t ms)
{
    char out[TIME_SIZE];
    uint64_t s = ms / 1000;
    if (s < 60) {
        (void)snprintf(out, sizeof(out), "%" PRIu64 "s", s);
    } else if (s < 3600) {
        (void)snprintf(out, sizeof(out), "%" PRIu64 "m", s / 60);
    } else if (s < 86400) {
        (void)snprintf(out, sizeof(out), "%" PRIu64 "h%02" PRIu64 "m", s / 3600, s / 60 % 60);
    } else {
        (void)snprintf(out, sizeof(out), "%" PRIu64 "d%02" PRIu64 "h", s / 86400, s / 3600 % 24);
    }
    set(o, key, json_string(out));
}

static const char *state_name(const struct message *m)
{
    if (m->removing) {
        return "removing";
    }
    if (m->out > 0) {
        return "delivering";
    }
    if ((m->state & INDEX_HELD) != 0) {
        return "held";
    }
    if (schedule_account_suspended(m->jobs[0].account)) {
        return "suspended";
    }
    for (size_t i = 0; i < m->jobs_count; i++) {
        if (m->jobs[i].state == JOB_READY) {
            return "ready";
        }
    }
    return m->queued == 0 ? "reporting" : "waiting";
}

/* The earliest next try, or UINT64_MAX. */
static uint64_t next_try(const struct message *m)
{
    uint64_t at = UINT64_MAX;
    for (size_t i = 0; i < m->jobs_count; i++) {
        if (m->jobs[i].state == JOB_WAITING && m->jobs[i].wait.key < at) {
            at = m->jobs[i].wait.key;
        }
    }
    return at;
}

static void head_set(json_t *o, const struct message *m, const struct envelope *e, uint64_t now_ms)
{
    char id[ID_TEXT_LEN + 1];
    uint32_t attempts = 0;
    uint64_t next = next_try(m);
    id_format(m->id, id);
    for (size_t i = 0; i < m->jobs_count; i++) {
        attempts = m->jobs[i].attempts > attempts ? m->jobs[i].attempts : attempts;
    }
    set(o, "id", json_string(id));
    set(o, "state", json_string(state_name(m)));
    set_age(o, "age", now_ms > m->born_ms ? now_ms - m->born_ms : 0);
    set(o, "age_ms", json_integer((json_int_t)(now_ms > m->born_ms ? now_ms - m->born_ms : 0)));
    set(o, "size", json_integer((json_int_t)m->length));
    set(o, "attempts", json_integer(attempts));
    if (next != UINT64_MAX) {
        set_time(o, "next", clock_wall_ms() + (next > now_ms ? next - now_ms : 0));
    }
    set(o, "account", text(e->account));
    set(o, "sender", text(e->sender));
    if ((m->state & INDEX_HELD) != 0) {
        set(o, "words", text(span_str(m->words)));
    }
}

json_t *json_message_line(const struct message *m, uint64_t now_ms, struct record_scratch *scratch)
{
    struct envelope e;
    json_t *o = json_object(), *recipients = json_array();

    index_envelope(m, &e, scratch);
    head_set(o, m, &e, now_ms);
    for (uint16_t i = 0; i < m->recipients_count; i++) {
        if (m->recipients[i].state == RECIPIENT_QUEUED) {
            (void)json_array_append_new(recipients, text(e.recipients[i].address));
        }
    }
    set(o, "recipients", recipients);
    return o;
}

static json_t *recipient_full(const struct message *m, const struct envelope *e, uint16_t i, uint64_t now_ms)
{
    static const char *const names[] = {
        [RECIPIENT_QUEUED] = "queued",   [RECIPIENT_DELIVERED] = "delivered", [RECIPIENT_FAILED] = "failed",
        [RECIPIENT_EXPIRED] = "expired", [RECIPIENT_RELAYED] = "delivered",   [RECIPIENT_HANDED_OVER] = "delivered"};
    const struct index_recipient *r = &m->recipients[i];
    const struct schedule_job *j = &m->jobs[r->job];
    json_t *o = json_object();
    char status[16];
    set(o, "address", text(e->recipients[i].address));
    set(o, "state", json_string(r->out ? "delivering" : names[r->state]));
    set(o, "attempts", json_integer(j->attempts));
    if (j->state == JOB_WAITING) {
        set_time(o, "next", clock_wall_ms() + (j->wait.key > now_ms ? j->wait.key - now_ms : 0));
    }
    if (r->words != NULL) {
        (void)snprintf(status, sizeof(status), "%u.%u.%u", r->enhanced[0], r->enhanced[1], r->enhanced[2]);
        set(o, "code", json_integer(r->code));
        set(o, "status", json_string(status));
        const char *said = strchr(r->words, '\n'); /* "next hop LF words" */
        struct span hop = {(const uint8_t *)r->words, said != NULL ? (size_t)(said - r->words) : 0};
        set(o, "remote", text(hop));
        set(o, "words", text(span_str(said != NULL ? said + 1 : r->words)));
    }
    set(o, "notify", json_integer(r->notify));
    set(o, "orcpt", text(e->recipients[i].orcpt));
    return o;
}

json_t *json_message_full(const struct message *m, uint64_t now_ms, struct record_scratch *scratch)
{
    struct envelope e;
    json_t *o = json_object(), *recipients = json_array();
    char session[ID_TEXT_LEN + 1], peer[NET_ADDRESS_TEXT];

    index_envelope(m, &e, scratch);
    head_set(o, m, &e, now_ms);
    id_format(e.session, session);
    net_address_format(&e.peer, peer);
    set_time(o, "arrived", e.arrived_ms);
    set(o, "session", json_string(session));
    set(o, "peer", json_string(peer));
    set(o, "envid", text(e.envid));
    set(o, "message_id", text(e.message_id));
    set(o, "flags", json_integer(e.flags));
    set(o, "segment", json_integer((json_int_t)m->segment));
    set(o, "offset", json_integer((json_int_t)m->offset));
    for (uint16_t i = 0; i < m->recipients_count; i++) {
        (void)json_array_append_new(recipients, recipient_full(m, &e, i, now_ms));
    }
    set(o, "recipients", recipients);
    return o;
}

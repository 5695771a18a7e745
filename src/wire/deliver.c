#include "wire/deliver.h"

#define TLS_TEXT_MAX 128

void deliver_job_encode(struct wire_writer *w, const struct deliver_job *m)
{
    wire_put_u64(w, m->file);
    wire_put_u64(w, m->offset);
    wire_put_u64(w, m->length);
    wire_put_u64(w, m->xxh3);
    wire_put_u32(w, m->attempt);
    wire_put_u8(w, m->flags);
    wire_put_bytes(w, m->domain);
    envelope_encode(w, &m->envelope);
}

int deliver_job_decode(struct span payload, struct deliver_job *m)
{
    struct wire_reader r = wire_reader(payload);
    m->file = wire_get_u64(&r);
    m->offset = wire_get_u64(&r);
    m->length = wire_get_u64(&r);
    m->xxh3 = wire_get_u64(&r);
    m->attempt = wire_get_u32(&r);
    m->flags = wire_get_u8(&r);
    m->domain = wire_get_bytes(&r, ENVELOPE_ADDRESS_MAX);
    (void)envelope_decode(&r, &m->envelope);
    r.bad |= m->offset > INT64_MAX || m->length > INT64_MAX - m->offset;
    return wire_reader_end(&r);
}

static void result_encode(struct wire_writer *w, const struct deliver_recipient_result *m)
{
    wire_put_u16(w, m->number);
    wire_put_u8(w, m->result);
    wire_put_u16(w, m->code);
    wire_put_fixed(w, m->enhanced, sizeof(m->enhanced));
    wire_put_bytes(w, m->text);
}

static void result_decode(struct wire_reader *r, struct deliver_recipient_result *m)
{
    m->number = wire_get_u16(r);
    m->result = wire_get_u8(r);
    m->code = wire_get_u16(r);
    wire_get_fixed(r, m->enhanced, sizeof(m->enhanced));
    m->text = wire_get_bytes(r, DELIVER_TEXT_MAX);
    r->bad |= m->result < DELIVER_DELIVERED || m->result > DELIVER_RESULT_MAX || m->code > 599;
}

void deliver_outcome_encode(struct wire_writer *w, const struct deliver_outcome *m)
{
    wire_put_bytes(w, m->remote);
    wire_put_bytes(w, m->address);
    wire_put_bytes(w, m->tls);
    wire_put_u16(w, m->results_count);
    for (size_t i = 0; i < m->results_count; i++) {
        result_encode(w, &m->results[i]);
    }
}

int deliver_outcome_decode(struct span payload, struct deliver_outcome *m)
{
    struct wire_reader r = wire_reader(payload);
    m->remote = wire_get_bytes(&r, DELIVER_HOST_MAX);
    m->address = wire_get_bytes(&r, NET_ADDRESS_TEXT);
    m->tls = wire_get_bytes(&r, TLS_TEXT_MAX);
    m->results_count = wire_get_u16(&r);
    r.bad |= m->results_count == 0 || m->results_count > ENVELOPE_RECIPIENTS_MAX;
    for (size_t i = 0; i < m->results_count && !r.bad; i++) {
        result_decode(&r, &m->results[i]);
    }
    return wire_reader_end(&r);
}

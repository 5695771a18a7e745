#include "wire/spool.h"

void spool_put_encode(struct wire_writer *w, const struct spool_put *m)
{
    envelope_encode(w, &m->envelope);
    wire_put_bytes(w, m->octets);
}

int spool_put_decode(struct span payload, struct spool_put *m)
{
    struct wire_reader r = wire_reader(payload);
    (void)envelope_decode(&r, &m->envelope);
    m->octets = wire_get_bytes(&r, SPOOL_INLINE_MAX);
    return wire_reader_end(&r);
}

void spool_begin_encode(struct wire_writer *w, const struct spool_begin *m)
{
    envelope_encode(w, &m->envelope);
    wire_put_u64(w, m->declared);
}

int spool_begin_decode(struct span payload, struct spool_begin *m)
{
    struct wire_reader r = wire_reader(payload);
    (void)envelope_decode(&r, &m->envelope);
    m->declared = wire_get_u64(&r);
    return wire_reader_end(&r);
}

void spool_refused_encode(struct wire_writer *w, const struct spool_refused *m)
{
    wire_put_u16(w, m->code);
    wire_put_fixed(w, m->enhanced, sizeof(m->enhanced));
    wire_put_bytes(w, m->text);
    wire_put_u8(w, m->duplicate);
}

int spool_refused_decode(struct span payload, struct spool_refused *m)
{
    struct wire_reader r = wire_reader(payload);
    m->code = wire_get_u16(&r);
    wire_get_fixed(&r, m->enhanced, sizeof(m->enhanced));
    m->text = wire_get_bytes(&r, SPOOL_TEXT_MAX);
    m->duplicate = wire_get_u8(&r);
    r.bad |= m->code < 400 || m->code > 599;
    return wire_reader_end(&r);
}

void spool_state_encode(struct wire_writer *w, const struct spool_state *m)
{
    wire_put_u8(w, m->accepting);
    wire_put_u16(w, m->code);
    wire_put_bytes(w, m->text);
}

int spool_state_decode(struct span payload, struct spool_state *m)
{
    struct wire_reader r = wire_reader(payload);
    m->accepting = wire_get_u8(&r);
    m->code = wire_get_u16(&r);
    m->text = wire_get_bytes(&r, SPOOL_TEXT_MAX);
    r.bad |= m->accepting == 0 && (m->code < 400 || m->code > 499);
    return wire_reader_end(&r);
}

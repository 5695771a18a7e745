#include "wire/guard.h"

#include "wire/envelope.h"

void guard_check_encode(struct wire_writer *w, const struct guard_check *m)
{
    wire_put_u64(w, m->session);
    wire_put_address(w, &m->peer);
    wire_put_u32(w, m->recipients);
    wire_put_u64(w, m->octets);
    wire_put_bytes(w, m->account);
    wire_put_bytes(w, m->network);
    wire_put_bytes(w, m->sender);
}

int guard_check_decode(struct span payload, struct guard_check *m)
{
    struct wire_reader r = wire_reader(payload);
    m->session = wire_get_u64(&r);
    wire_get_address(&r, &m->peer);
    m->recipients = wire_get_u32(&r);
    m->octets = wire_get_u64(&r);
    m->account = wire_get_bytes(&r, GUARD_NAME_MAX);
    m->network = wire_get_bytes(&r, GUARD_NAME_MAX);
    m->sender = wire_get_bytes(&r, ENVELOPE_ADDRESS_MAX);
    r.bad |= m->recipients == 0 || m->recipients > ENVELOPE_RECIPIENTS_MAX;
    return wire_reader_end(&r);
}

void guard_answer_encode(struct wire_writer *w, const struct guard_answer *m)
{
    wire_put_u8(w, m->verdict);
    wire_put_bytes(w, m->limit);
    wire_put_bytes(w, m->text);
}

int guard_answer_decode(struct span payload, struct guard_answer *m)
{
    struct wire_reader r = wire_reader(payload);
    m->verdict = wire_get_u8(&r);
    m->limit = wire_get_bytes(&r, GUARD_NAME_MAX);
    m->text = wire_get_bytes(&r, GUARD_TEXT_MAX);
    r.bad |= m->verdict < GUARD_PASS || m->verdict > GUARD_HOLD;
    return wire_reader_end(&r);
}

void guard_suspension_encode(struct wire_writer *w, const struct guard_suspension *m)
{
    wire_put_bytes(w, m->account);
    wire_put_bytes(w, m->words);
}

int guard_suspension_decode(struct span payload, struct guard_suspension *m)
{
    struct wire_reader r = wire_reader(payload);
    m->account = wire_get_bytes(&r, GUARD_NAME_MAX);
    m->words = wire_get_bytes(&r, GUARD_TEXT_MAX);
    r.bad |= m->account.len == 0;
    return wire_reader_end(&r);
}

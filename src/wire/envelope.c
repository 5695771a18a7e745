#include "wire/envelope.h"

#include <errno.h>

#include "wire/guard.h"

#define ENVELOPE_FLAGS_KNOWN 63U

void envelope_encode(struct wire_writer *w, const struct envelope *e)
{
    wire_put_u64(w, e->session);
    wire_put_u64(w, e->arrived_ms);
    wire_put_u16(w, e->flags);
    wire_put_address(w, &e->peer);
    wire_put_bytes(w, e->sender);
    wire_put_bytes(w, e->account);
    wire_put_bytes(w, e->envid);
    wire_put_bytes(w, e->message_id);
    wire_put_bytes(w, e->hold_words);
    wire_put_u16(w, e->recipients_count);
    for (size_t i = 0; i < e->recipients_count; i++) {
        wire_put_u16(w, e->recipients[i].number);
        wire_put_u8(w, e->recipients[i].notify);
        wire_put_bytes(w, e->recipients[i].address);
        wire_put_bytes(w, e->recipients[i].orcpt);
    }
}

static void recipient_decode(struct wire_reader *r, struct envelope_recipient *to)
{
    to->number = wire_get_u16(r);
    to->notify = wire_get_u8(r);
    to->address = wire_get_bytes(r, ENVELOPE_ADDRESS_MAX);
    to->orcpt = wire_get_bytes(r, ENVELOPE_ORCPT_MAX);
    bool never_and_more = (to->notify & NOTIFY_NEVER) != 0 && to->notify != NOTIFY_NEVER;
    r->bad |= to->address.len == 0 || to->notify > 15 || never_and_more;
}

int envelope_decode(struct wire_reader *r, struct envelope *e)
{
    e->session = wire_get_u64(r);
    e->arrived_ms = wire_get_u64(r);
    e->flags = wire_get_u16(r);
    wire_get_address(r, &e->peer);
    e->sender = wire_get_bytes(r, ENVELOPE_ADDRESS_MAX);
    e->account = wire_get_bytes(r, GUARD_NAME_MAX);
    e->envid = wire_get_bytes(r, ENVELOPE_ENVID_MAX);
    e->message_id = wire_get_bytes(r, ENVELOPE_ADDRESS_MAX);
    e->hold_words = wire_get_bytes(r, GUARD_TEXT_MAX);
    e->recipients_count = wire_get_u16(r);
    r->bad |= e->recipients_count == 0 || e->recipients_count > ENVELOPE_RECIPIENTS_MAX ||
              (e->flags & ~ENVELOPE_FLAGS_KNOWN) != 0;
    for (size_t i = 0; i < e->recipients_count && !r->bad; i++) {
        recipient_decode(r, &e->recipients[i]);
    }
    return r->bad ? -EBADMSG : 0;
}

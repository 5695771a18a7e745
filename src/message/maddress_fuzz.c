/*
 * An address list. Each mailbox that comes out must be its own fixed point: parsed again, alone or in a list, it is
 * the same mailbox; and it matches itself and its domain as an identity.
 */
#include <assert.h>
#include <string.h>

#include "message/address.h"
#include "message/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(const struct message_mailbox *m)
{
    struct span address = {(const uint8_t *)m->address, m->address_len};
    struct message_mailbox again;
    struct message_address_list list;
    assert(m->address_len <= MESSAGE_ADDRESS_MAX && m->address[m->address_len] == '\0');
    assert(message_mailbox_parse(address, &again) == 0);
    assert(again.address_len == m->address_len && memcmp(again.address, m->address, m->address_len) == 0);
    assert(again.local_len == m->local_len && memcmp(again.local, m->local, m->local_len) == 0);
    message_address_list_init(&list, address);
    assert(message_address_next(&list, &again) == 1);
    assert(again.address_len == m->address_len && memcmp(again.address, m->address, m->address_len) == 0);
    assert(message_address_next(&list, &again) == 0);
    if (!m->utf8 && m->address[0] != '*') {
        assert(message_identity_matches(address, address, false));
        assert(message_identity_matches(address, (struct span){m->domain.ptr - 1, m->domain.len + 1}, false));
    } else {
        (void)message_identity_matches(address, address, true);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message_address_list list;
    struct message_mailbox m;
    struct span in = {data, size};
    int r;
    size_t count = 0;
    message_address_list_init(&list, in);
    while ((r = message_address_next(&list, &m)) > 0) {
        same(&m);
        count++;
        assert(count <= size);
    }
    assert(message_address_next(&list, &m) == r);
    if (message_mailbox_parse(in, &m) == 0) {
        same(&m);
    }
    (void)message_identity_valid(in);
    (void)message_identity_matches(SPAN_LIT("a@example.net"), in, true);
    return 0;
}

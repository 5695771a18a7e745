/* First octet: flags. The rest: a path; then the same octets as mailbox, domain and xtext. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/address.h"
#include "smtp/xtext.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool within(struct span part, struct span whole)
{
    return part.len == 0 || (part.ptr >= whole.ptr && part.ptr + part.len <= whole.ptr + whole.len);
}

static void check_path(struct span in, unsigned flags)
{
    struct smtp_path p, again;
    size_t used = 0;
    if (smtp_path_parse(in, flags, &p, &used) != SMTP_PATH_OK) {
        return;
    }
    assert(used >= 2 && used <= in.len && in.ptr[used - 1] == '>');
    assert(within(p.mailbox, in) && within(p.local, p.mailbox) && within(p.domain, p.mailbox));
    assert(p.local.len <= SMTP_LOCAL_MAX && p.domain.len <= SMTP_DOMAIN_MAX && p.mailbox.len + 2 <= SMTP_PATH_MAX);
    assert(!p.null || p.mailbox.len == 0);
    assert(p.null || p.local.len > 0);
    for (size_t i = 0; i < p.mailbox.len; i++) {
        assert(p.mailbox.ptr[i] >= 32 && p.mailbox.ptr[i] != 127);
    }
    if (p.domain.len > 0) {
        assert(smtp_mailbox_parse(p.mailbox, flags, &again) == SMTP_PATH_OK);
        assert(smtp_domain_parse(p.domain, (flags & SMTP_PATH_UTF8) != 0) == p.kind);
    }
}

static void check_xtext(struct span in)
{
    struct buf out;
    struct span type, address;
    buf_init(&out, 1U << 20);
    if (smtp_xtext_decode(in, &out) == 0) {
        assert(out.len <= in.len);
        for (size_t i = 0; i < out.len; i++) {
            assert(out.data[i] >= 32 && out.data[i] < 127);
        }
    }
    buf_fini(&out);
    if (smtp_orcpt_parse(in, true, &type, &address)) {
        assert(within(type, in) && within(address, in) && type.len > 0 && address.len > 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct smtp_path p;
    struct span in = {data + 1, size - 1};
    check_path(in, data[0] & 7U);
    (void)smtp_mailbox_parse(in, data[0] & 7U, &p);
    (void)smtp_domain_parse(in, (data[0] & 4U) != 0);
    check_xtext(in);
    return 0;
}

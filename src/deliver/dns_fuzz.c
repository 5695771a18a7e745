/* The first octet says what the rest is: MX records (each with a length octet before it), an address, a literal or
 * a domain. */
#include <assert.h>
#include <string.h>

#include "deliver/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t fixed(void *arg)
{
    uint32_t *n = arg;
    return *n += 2654435761U;
}

static void fuzz_list(struct span in)
{
    struct span rdata[DNS_MX_READ_MAX];
    size_t count = 0;
    while (in.len > 0 && count < DNS_MX_READ_MAX) {
        size_t len = in.ptr[0] < in.len ? in.ptr[0] : in.len - 1;
        rdata[count++] = (struct span){in.ptr + 1, len};
        in.ptr += 1 + len;
        in.len -= 1 + len;
    }
    struct dns_mx_list list;
    uint32_t seed = 1;
    dns_mx_list_build(&list, rdata, count);
    dns_mx_list_order(&list, fixed, &seed);
    for (size_t i = 0; i < list.count; i++) {
        assert(strlen(list.entries[i].host) > 0);
        assert(i == 0 || list.entries[i - 1].preference <= list.entries[i].preference);
    }
    assert(!list.null_mx || list.count == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct span in = {data + 1, size - 1};
    struct net_address address;
    char text[DNS_NAME_MAX + 1];
    switch (data[0] % 5) {
    case 0:
        fuzz_list(in);
        break;
    case 1:
        (void)dns_address_parse(DNS_TYPE_A, in, &address);
        break;
    case 2:
        (void)dns_address_parse(DNS_TYPE_AAAA, in, &address);
        break;
    case 3:
        (void)dns_literal_parse(in, &address);
        break;
    default:
        if (dns_domain_to_ascii(in, text) == 0) {
            assert(text[0] != '\0' && strchr(text, '.') != text);
        }
        break;
    }
    return 0;
}

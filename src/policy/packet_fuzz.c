/* The reference: any octets, on either side and link, under every policy of the law's table: it reads nothing outside
 * of them, says the same twice, and gives a reason that goes with its verdict. The first octet chooses. */
#include <assert.h>
#include <string.h>

#include "policy/evaluate.h"
#include "policy/law_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct policy_judgement *j)
{
    assert(j->verdict == j->would || j->verdict == POLICY_PASS);
    assert(j->would != POLICY_PASS || j->reason <= REASON_RATE);
    assert(j->would != POLICY_REFUSE || j->reason == REASON_CLASS || j->reason == REASON_DEFAULT ||
           j->reason == REASON_INBOUND || j->reason == REASON_DYNAMIC);
    assert(j->would != POLICY_DROP || j->reason == REASON_RETURN_PATH || j->reason >= REASON_FIRST_FRAGMENT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct policy *policies[LAW_POLICIES];
    if (size == 0) {
        return 0;
    }
    struct policy **p = &policies[(data[0] >> 2) % LAW_POLICIES];
    if (*p == NULL) {
        *p = law_policy_new((enum law_policy)((data[0] >> 2) % LAW_POLICIES));
    }
    struct policy_question q = {.side = (data[0] & 1) != 0 ? PACKET_UPLINK : PACKET_SUBSCRIBER,
                                .link = (data[0] & 2) != 0 ? PACKET_IP : PACKET_ETHERNET,
                                .frame = {data + 1, size - 1},
                                .now_boot_ns = LAW_NOW_NS};
    struct policy_judgement one, two;
    policy_evaluate(*p, &q, &one);
    policy_evaluate(*p, &q, &two);
    assert(one.verdict == two.verdict && one.would == two.would && one.reason == two.reason &&
           one.class_ == two.class_ && one.exemption == two.exemption);
    check(&one);
    return 0;
}

#include "policy/law_fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char classes[] =
    "  classes:\n"
    "    - {name: denied, port25: deny, prefixes: [198.51.100.0/24, \"2001:db8:100::/40\"]}\n"
    "    - {name: fixed, port25: allow, prefixes: [198.51.100.128/25, \"2001:db8:180::/48\"]}\n"
    "    - {name: watched, port25: monitor, prefixes: [198.51.101.0/24, \"2001:db8:201::/48\"]}\n"
    "    - {name: metered, port25: rate 2/h, prefixes: [198.51.102.0/24, \"2001:db8:202::/48\"]}\n"
    "    - {name: scoped, port25: deny, prefixes: [198.51.103.0/24, \"2001:db8:203::/48\"],\n"
    "       to: [203.0.115.0/24, \"2001:db8:cc::/48\"]}\n"
    "    - {name: watched-scoped, port25: monitor, prefixes: [198.51.104.0/24, \"2001:db8:204::/48\"],\n"
    "       to: [203.0.115.0/24, \"2001:db8:cc::/48\"]}\n"
    "    - {name: renewed, port25: deny, prefixes: [198.51.100.200, \"2001:db8:180::200\"]}\n";

static const char common[] = "gate:\n"
                             "  subscriber_interfaces: []\n"
                             "  allow_to: [192.0.2.25, \"2001:db8:25::25\"]\n";

static const char tunnels[] = "  tunnel_endpoints: [192.0.2.9, \"2001:db8:9::9\"]\n";
static const char dynamic[] = "  dynamic_ranges: [203.0.114.0/24, \"2001:db8:d000::/36\"]\n";

static const struct {
    const char *switches;
    bool tunnels, dynamic;
} policies[LAW_POLICIES] = {
    [LAW_PLAIN] = {"", true, false},
    [LAW_STRICT] = {"  inbound: deny\n", true, true},
    [LAW_OPEN_BACK] = {"  return_path: allow\n", true, false},
    [LAW_MONITOR] = {"  mode: monitor\n  inbound: deny\n", true, true},
    [LAW_DEFAULT_DENY] = {"  default: deny\n", true, false},
    [LAW_DEFAULT_MONITOR] = {"  default: monitor\n", true, false},
    [LAW_NO_TUNNELS] = {"", false, false},
};

static struct policy_exemption exemption(const char *address, bool v6, uint64_t until_ns, uint64_t id)
{
    struct policy_address a = {0};
    struct policy_exemption e = {.until_ns = until_ns, .id = id};
    (void)policy_address_parse(address, &a);
    memcpy(e.prefix.bytes, a.bytes, sizeof(a.bytes));
    e.prefix.v6 = v6;
    e.prefix.bits = v6 ? 128 : 32;
    return e;
}

struct policy *law_policy_new(enum law_policy which)
{
    const struct policy_exemption exemptions[] = {
        exemption("198.51.100.7", false, POLICY_NO_END, 1),    exemption("2001:db8:100::7", true, POLICY_NO_END, 2),
        exemption("198.51.100.8", false, LAW_NOW_NS, 3),       exemption("2001:db8:100::8", true, LAW_NOW_NS, 4),
        exemption("198.51.100.200", false, LAW_NOW_NS + 1, 5), exemption("2001:db8:180::200", true, LAW_NOW_NS + 1, 6),
    };
    char text[4096];
    struct config *c = NULL;
    struct config_complaints complaints = {0};
    struct policy *p = NULL;
    (void)snprintf(text, sizeof(text), "%s%s%s%s%s", common, policies[which].switches,
                   policies[which].tunnels ? tunnels : "", policies[which].dynamic ? dynamic : "", classes);
    if (config_load(span_str(text), "law", &c, &complaints) < 0 ||
        policy_new(&c->gate, exemptions, sizeof(exemptions) / sizeof(exemptions[0]), &p) < 0) {
        abort();
    }
    config_free(&c);
    return p;
}

#define DENY    "eth / ip deny world / "
#define TEN_DST "dst / dst / dst / dst / dst / dst / dst / dst / dst / dst / "
#define TEN_AH  "ah / ah / ah / ah / ah / ah / ah / ah / ah / ah / "

const struct law_row law_rows[] = {
    /* Sides and subjects */
    {LAW_PLAIN, 's', 'b', DENY "tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "ip deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / ip fixed world / tcp 1024 25 S", "pass class"},
    {LAW_PLAIN, 's', 'b', "eth / ip exempt world / tcp 1024 25 S", "pass exemption"},
    {LAW_PLAIN, 's', 'b', "eth / ip lapsing world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / ip renewed world / tcp 1024 25 S", "pass exemption"},
    {LAW_PLAIN, 's', 'b', "eth / ip unlisted world / tcp 1024 25 S", "pass default"},
    {LAW_DEFAULT_DENY, 's', 'b', "eth / ip unlisted world / tcp 1024 25 S", "refuse default"},
    {LAW_DEFAULT_MONITOR, 's', 'b', "eth / ip unlisted world / tcp 1024 25 S", "pass default (refuse)"},
    {LAW_PLAIN, 's', '6', "eth / ip mapped world / tcp 1024 25 S", "pass default"},
    {LAW_PLAIN, 's', 'b', "eth / ip world deny / tcp 1024 25 S", "pass default"},
    {LAW_PLAIN, 'u', 'b', "eth / ip world deny / tcp 25 1024 SA", "drop return-path"},
    {LAW_PLAIN, 'u', 'b', "eth / ip deny world / tcp 25 1024 SA", "pass default"},
    /* Any other port, either way */
    {LAW_PLAIN, 's', 'b', DENY "tcp 25 1024 SA", "pass other"},
    {LAW_PLAIN, 's', 'b', DENY "tcp 1024 587 S", "pass other"},
    {LAW_PLAIN, 's', 'b', DENY "tcp 1024 465 S", "pass other"},
    {LAW_PLAIN, 's', 'b', DENY "tcp 1024 6400 S", "pass other"}, /* 25 in the other order */
    {LAW_PLAIN, 's', 'b', DENY "udp 1024 25", "pass other"},
    {LAW_PLAIN, 's', 'b', DENY "esp", "pass other"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world proto=132 / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world nh=59 / tcp 1024 25 S", "pass other"},
    /* Every segment, not only the first of a connection */
    {LAW_PLAIN, 's', 'b', DENY "tcp 1024 25 A / data 100", "refuse class"},
    {LAW_PLAIN, 's', 'b', DENY "tcp 1024 25 R", "refuse class"},
    {LAW_PLAIN, 's', 'b', DENY "tcp 1024 25", "refuse class"},
    /* Link */
    {LAW_PLAIN, 's', 'b', "eth / tag / ip deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / tag type=88a8 / tag / ip deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / tag type=9100 / tag type=9200 / tag type=9300 / tag / ip deny world / tcp 1024 25 S",
     "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / tag / tag / tag / tag / tag / ip deny world / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth / tag type=88e5 / ip deny world / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth / pppoe / ip deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / pppoe short / ip deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / tag / tag / pppoe / ip deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth pad=20 / pppoe / ip deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / pppoe vt=12 / ip deny world / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth / pppoe code=a7 / ip deny world / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth / pppoe proto=c021 / ip deny world / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth / pppoe plen=1 / ip deny world / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth / pppoe plen=0 / ip deny world / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth / pppoe plen=200 / ip deny world / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth / pppoe plen=8 / ip deny world / tcp 1024 25 S", "pass unparsed"},
    {LAW_PLAIN, 's', '4', "eth / pppoe plen=24 / ip4 deny world / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', 'b', "eth type=0806 / ip deny world / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth keep=13", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth type=8100 / tag keep=3", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth type=8864 / hex 1100000700", "pass other"},
    {LAW_PLAIN, 's', '4', "eth type=0800", "pass unparsed"},
    {LAW_PLAIN, 's', '4', "hex 5500", "pass other"},
    {LAW_PLAIN, 's', '4', "hex 45", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "hex 60", "pass unparsed"},
    {LAW_PLAIN, 's', '4', "eth type=86dd / ip4 deny world / tcp 1024 25 S", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "eth type=0800 / ip6 deny world / tcp 1024 25 S", "pass unparsed"},
    /* IPv4: 1, 2 */
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world ver=5 / tcp 1024 25 S", "pass unparsed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world keep=19", "pass unparsed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world ihl=4 / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world ihl=4 / udp 1024 25", "pass unparsed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world tot=19 / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world tot=41 / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world tot=41 / udp 1024 25 / data 12", "pass unparsed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world ihl=15 tot=60 / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world ihl=4 mf / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world ihl=4 off=100 / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 fixed world ihl=4 / tcp 1024 25 S", "pass unparsed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 watched world ihl=4 / tcp 1024 25 S", "pass malformed (drop)"},
    {LAW_PLAIN, 's', '4', "eth / ip4 metered world ihl=4 / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', '4', "eth pad=6 / ip4 deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth pad=4 / ip4 deny world proto=6", "drop malformed"}, /* padding is never read */
    /* IPv4: 3 */
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world opt=9404000001010101 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny mx / tcp 1024 25 S", "pass allow-to"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny mx opt=94040000 / tcp 1024 25 S", "pass allow-to"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny mx opt=830704cb007350 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny mx opt=01890704cb00735000 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny mx opt=94040000830304 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny mx opt=94010000 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny mx opt=94050000 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny mx opt=01010194 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny mx opt=00830704 / tcp 1024 25 S", "pass allow-to"}, /* behind the end */
    {LAW_PLAIN, 's', '4', "eth / ip4 scoped world opt=830704cb007350 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 exempt mx opt=830704cb007350 / tcp 1024 25 S", "pass exemption"},
    /* IPv4: 4 */
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world off=1 / data 12", "drop overwrite"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world off=1 mf / data 16", "drop overwrite"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world off=1 proto=17 / data 12", "pass tail"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world off=2 / tcp 1024 25 S", "pass tail"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world off=8191 mf / tcp 1024 25 S", "pass tail"},
    {LAW_PLAIN, 's', '4', "eth / ip4 fixed world off=1 / data 12", "pass tail"},
    {LAW_PLAIN, 's', '4', "eth / ip4 exempt world off=1 / data 12", "pass tail"},
    {LAW_PLAIN, 's', '4', "eth / ip4 watched world off=1 / data 12", "pass overwrite (drop)"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world mf / tcp 1024 25 keep=8", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world mf / tcp 1024 25 keep=4", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world mf / tcp 1024 80 keep=8", "pass other"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world mf / tcp 1024 25 keep=3", "drop first-fragment"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world mf proto=6", "drop first-fragment"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world mf proto=17", "pass other"},
    {LAW_PLAIN, 's', '4', "eth / ip4 metered world mf proto=6", "drop first-fragment"},
    {LAW_PLAIN, 's', '4', "eth / ip4 watched world mf proto=6", "pass first-fragment (drop)"},
    {LAW_PLAIN, 's', '4', "eth / ip4 fixed world mf proto=6", "pass unparsed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 exempt world mf proto=6", "pass unparsed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 unlisted world mf proto=6", "pass unparsed"},
    {LAW_DEFAULT_DENY, 's', '4', "eth / ip4 unlisted world mf proto=6", "drop first-fragment"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny mx mf proto=6", "drop first-fragment"},
    /* IPv4: 5 */
    {LAW_PLAIN, 's', 'b', DENY "ah / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', DENY "ah n=4 / ah / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', DENY "ah / udp 1024 25", "pass other"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world / ah keep=1", "pass unparsed"},
    {LAW_PLAIN, 's', 'b', DENY "ah n=9 keep=12", "pass unparsed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world mf / ah n=9 keep=12", "drop first-fragment"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world mf / ah nh=6", "drop first-fragment"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world mf / ah / tcp 1024 25 keep=4", "refuse class"},
    {LAW_PLAIN, 's', 'b', DENY TEN_AH TEN_AH TEN_AH "ah / ah / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', DENY TEN_AH TEN_AH TEN_AH "ah / ah / ah / udp 1024 25", "drop malformed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny world / dst / tcp 1024 25 S", "pass other"},
    /* IPv6: 1, 2 */
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world ver=5 / tcp 1024 25 S", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world keep=39", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world plen=21 / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world plen=21 / udp 1024 25 / data 12", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world plen=29 / dst / tcp 1024 25 S", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world plen=0 / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world plen=3 / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world plen=4 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world plen=0 / hbh / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world plen=0 / hbh / udp 1024 25", "pass other"},
    {LAW_PLAIN, 's', '6', "eth pad=6 / ip6 deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '6', "eth pad=4 / ip6 deny world nh=6", "drop malformed"},
    /* IPv6: 3 */
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / hbh / dst / rh / mob / hip / shim6 / ah / dst n=3 / tcp 1024 25 S",
     "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / dst / hbh / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / " TEN_DST TEN_DST TEN_DST "dst / dst / tcp 1024 25 S",
     "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / " TEN_DST TEN_DST TEN_DST "dst / dst / dst / udp 1024 25",
     "drop malformed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / " TEN_DST TEN_DST TEN_DST "dst / dst nh=44", "drop malformed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 fixed world / " TEN_DST TEN_DST TEN_DST "dst / dst nh=44", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / dst n=1 keep=8", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag keep=7", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag m / dst n=1 keep=8", "drop first-fragment"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag m nh=60", "drop first-fragment"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag m nh=17", "pass other"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag m / dst nh=43", "drop first-fragment"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag m / dst nh=50", "pass other"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny mx / tcp 1024 25 S", "pass allow-to"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny mx / rh left=0 / tcp 1024 25 S", "pass allow-to"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny mx / rh left=1 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny mx / rh left=1 / rh left=0 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 scoped world / rh left=1 / tcp 1024 25 S", "refuse class"},
    /* IPv6: 4 */
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag off=1 nh=6 / data 12", "drop overwrite"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / dst / frag off=1 nh=6 / data 12", "drop overwrite"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag off=1 nh=60 / data 16", "pass tail"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag off=2 / tcp 1024 25 S", "pass tail"},
    {LAW_PLAIN, 's', '6', "eth / ip6 fixed world / frag off=1 nh=6 / data 12", "pass tail"},
    {LAW_PLAIN, 's', '6', "eth / ip6 watched world / frag off=1 nh=6 / data 12", "pass overwrite (drop)"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag m / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag / tcp 1024 25 keep=8", "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag / frag m / dst / tcp 1024 25 S", "refuse class"},
    /* TCP */
    {LAW_PLAIN, 's', 'b', DENY "tcp 1024 25 keep=4", "refuse class"},
    {LAW_PLAIN, 's', 'b', DENY "tcp 1024 25 keep=3", "drop malformed"},
    {LAW_PLAIN, 's', 'b', "eth / ip fixed world / tcp 1024 25 keep=3", "pass unparsed"},
    {LAW_PLAIN, 's', 'b', "eth / ip unlisted world / tcp 1024 25 keep=3", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag m / tcp 1024 25 keep=19", "drop first-fragment"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag m / tcp 1024 80 keep=16", "drop first-fragment"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny world / frag m nh=6", "drop first-fragment"},
    {LAW_PLAIN, 's', '6', "eth / ip6 exempt world / frag m / tcp 1024 25 keep=8", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 watched world / frag m / tcp 1024 25 keep=8", "pass first-fragment (drop)"},
    /* Tunnels */
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip4 unlisted world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip6 unlisted world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny world / ip4 deny world / tcp 1024 25 S", "pass other"},
    {LAW_NO_TUNNELS, 's', 'b', "eth / ip deny aftr / ip4 deny world / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth / ip unlisted aftr / ip4 deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / ip unlisted aftr / ip6 deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / ip fixed aftr / ip4 deny world / tcp 1024 25 S", "pass class"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip4 fixed world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / ip exempt aftr / ip4 deny world / tcp 1024 25 S", "pass exemption"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip4 exempt world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / ip lapsing aftr / ip4 fixed world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip4 deny mx / tcp 1024 25 S", "pass allow-to"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip4 deny aftr / ip6 deny world / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip4 deny aftr / ip6 deny aftr / ip4 deny world / tcp 1024 25 S",
     "pass other"},
    {LAW_PLAIN, 's', 'b', "eth / ip unlisted aftr / ip4 unlisted aftr / ip6 deny world / tcp 1024 25 S",
     "refuse class"},
    {LAW_DEFAULT_DENY, 's', 'b', "eth / ip unlisted aftr / ip4 unlisted world / tcp 1024 25 S", "refuse default"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip4 deny world / udp 1024 25", "pass other"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip4 deny world keep=19", "pass unparsed"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip4 deny world mf proto=6", "drop first-fragment"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip4 deny world off=1 / data 12", "drop overwrite"},
    {LAW_PLAIN, 's', 'b', "eth / ip deny aftr / ip4 deny world off=2 / data 12", "pass tail"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny aftr mf / ip6 deny world / tcp 1024 25 keep=4", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny aftr mf / ip6 deny world plen=20 / tcp 1024 25 keep=3",
     "drop first-fragment"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny aftr mf / ip6 deny world keep=39", "drop first-fragment"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny aftr mf / ip4 deny world tot=400 / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny aftr mf / ip4 deny world tot=400 ihl=15 / tcp 1024 25 S",
     "drop first-fragment"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny aftr mf / ip4 deny world keep=19", "drop first-fragment"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny aftr mf / ip4 deny world ihl=4 tot=400 / tcp 1024 25 S", "drop malformed"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny aftr mf proto=4 / ip4 deny world tot=19 keep=20", "pass unparsed"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny aftr / frag m / ip4 deny world / tcp 1024 25 keep=4", "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny aftr / frag m / ip6 deny world plen=20 / tcp 1024 25 keep=8", "refuse class"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny aftr / frag m nh=4", "drop first-fragment"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny aftr / frag m / ip6 deny world plen=400 / dst n=9 keep=8",
     "drop first-fragment"},
    {LAW_PLAIN, 's', '6', "eth / ip6 deny aftr / frag off=2 nh=4 / data 40", "pass tail"},
    {LAW_PLAIN, 's', '4', "eth / ip4 deny aftr opt=830704cb007350 / ip4 deny mx / tcp 1024 25 S", "pass allow-to"},
    {LAW_PLAIN, 'u', 'b', "eth / ip aftr deny / ip4 world unlisted / tcp 25 1024 SA", "drop return-path"},
    {LAW_PLAIN, 'u', 'b', "eth / ip aftr unlisted / ip6 world deny / tcp 25 1024 SA", "drop return-path"},
    {LAW_PLAIN, 'u', 'b', "eth / ip aftr deny / ip4 mx unlisted / tcp 25 1024 SA", "pass allow-to"},
    {LAW_PLAIN, 'u', 'b', "eth / ip world deny / ip4 world deny / tcp 25 1024 SA", "pass other"},
    {LAW_PLAIN, 'u', 'b', "eth / ip deny aftr / ip4 deny world / tcp 25 1024 SA", "pass other"},
    /* Decision, subscriber side */
    {LAW_PLAIN, 's', 'b', "eth / ip deny mx / tcp 1024 25 S", "pass allow-to"},
    {LAW_PLAIN, 's', 'b', "eth / ip fixed mx / tcp 1024 25 S", "pass class"},
    {LAW_PLAIN, 's', 'b', "eth / ip exempt mx / tcp 1024 25 S", "pass exemption"},
    {LAW_PLAIN, 's', 'b', "eth / ip metered mx / tcp 1024 25 S", "pass allow-to"},
    {LAW_PLAIN, 's', 'b', "eth / ip scoped world / tcp 1024 25 S", "pass scope"},
    {LAW_PLAIN, 's', 'b', "eth / ip scoped target / tcp 1024 25 S", "refuse class"},
    {LAW_PLAIN, 's', 'b', "eth / ip watched-scoped world / tcp 1024 25 S", "pass scope"},
    {LAW_PLAIN, 's', 'b', "eth / ip watched-scoped target / tcp 1024 25 S", "pass class (refuse)"},
    {LAW_PLAIN, 's', 'b', "eth / ip watched world / tcp 1024 25 S", "pass class (refuse)"},
    {LAW_PLAIN, 's', 'b', "eth / ip watched mx / tcp 1024 25 S", "pass allow-to"},
    {LAW_PLAIN, 's', 'b', "eth / ip metered world / tcp 1024 25 S", "pass rate"},
    {LAW_PLAIN, 's', 'b', "eth / ip metered world / tcp 1024 25 A", "pass rate"},
    {LAW_DEFAULT_DENY, 's', 'b', "eth / ip unlisted mx / tcp 1024 25 S", "pass allow-to"},
    /* Decision, uplink side */
    {LAW_PLAIN, 'u', '4', "eth / ip4 world deny mf proto=6", "pass unparsed"},
    {LAW_PLAIN, 'u', '6', "eth / ip6 world deny / frag m nh=6", "drop first-fragment"},
    {LAW_PLAIN, 'u', '6', "eth / ip6 world deny / frag m / tcp 25 1024 keep=8", "drop first-fragment"},
    {LAW_PLAIN, 'u', '6', "eth / ip6 world watched / frag m nh=6", "pass first-fragment (drop)"},
    {LAW_PLAIN, 'u', '6', "eth / ip6 world metered / frag m nh=6", "pass unparsed"},
    {LAW_PLAIN, 'u', '6', "eth / ip6 world fixed / frag m nh=6", "pass unparsed"},
    {LAW_PLAIN, 'u', '6', "eth / ip6 world exempt / frag m nh=6", "pass unparsed"},
    {LAW_PLAIN, 'u', '6', "eth / ip6 world lapsing / frag m nh=6", "drop first-fragment"},
    {LAW_OPEN_BACK, 'u', '6', "eth / ip6 world deny / frag m nh=6", "pass unparsed"},
    {LAW_STRICT, 'u', '6', "eth / ip6 world deny / frag m nh=6", "drop first-fragment"},
    {LAW_PLAIN, 'u', '4', "eth / ip4 aftr deny mf / ip6 world unlisted keep=39", "drop first-fragment"},
    {LAW_PLAIN, 'u', '6', "eth / ip6 aftr deny / frag m / ip4 world unlisted keep=19", "pass unparsed"},
    {LAW_PLAIN, 'u', '4', "eth / ip4 world deny ihl=4 / tcp 25 1024 SA", "pass unparsed"},
    {LAW_PLAIN, 'u', 'b', "eth / ip world deny / tcp 25 1024 keep=3", "pass unparsed"},
    {LAW_PLAIN, 'u', '4', "eth / ip4 world deny off=1 / data 12", "pass tail"},
    {LAW_PLAIN, 'u', '6', "eth / ip6 world deny / frag off=1 nh=6 / data 12", "pass tail"},
    {LAW_PLAIN, 'u', 'b', "eth / ip world watched / tcp 25 1024 SA", "pass return-path (drop)"},
    {LAW_PLAIN, 'u', 'b', "eth / ip world metered / tcp 25 1024 SA", "pass class"},
    {LAW_PLAIN, 'u', 'b', "eth / ip world fixed / tcp 25 1024 SA", "pass class"},
    {LAW_PLAIN, 'u', 'b', "eth / ip world unlisted / tcp 25 1024 SA", "pass default"},
    {LAW_DEFAULT_DENY, 'u', 'b', "eth / ip world unlisted / tcp 25 1024 SA", "drop return-path"},
    {LAW_PLAIN, 'u', 'b', "eth / ip world exempt / tcp 25 1024 SA", "pass exemption"},
    {LAW_PLAIN, 'u', 'b', "eth / ip mx exempt / tcp 25 1024 SA", "pass exemption"},
    {LAW_PLAIN, 'u', 'b', "eth / ip mx deny / tcp 25 1024 SA", "pass allow-to"},
    {LAW_PLAIN, 'u', 'b', "eth / ip mx fixed / tcp 25 1024 SA", "pass allow-to"},
    {LAW_PLAIN, 'u', 'b', "eth / ip mx scoped / tcp 25 1024 SA", "pass allow-to"},
    {LAW_PLAIN, 'u', 'b', "eth / ip world scoped / tcp 25 1024 SA", "pass scope"},
    {LAW_PLAIN, 'u', 'b', "eth / ip target scoped / tcp 25 1024 SA", "drop return-path"},
    {LAW_PLAIN, 'u', 'b', "eth / ip target watched-scoped / tcp 25 1024 SA", "pass return-path (drop)"},
    {LAW_OPEN_BACK, 'u', 'b', "eth / ip world deny / tcp 25 1024 SA", "pass other"},
    {LAW_OPEN_BACK, 'u', 'b', "eth / ip world exempt / tcp 25 1024 SA", "pass other"},
    {LAW_PLAIN, 'u', 'b', "eth / ip world deny / tcp 1024 25 S", "pass other"},
    {LAW_STRICT, 'u', 'b', "eth / ip world deny / tcp 1024 25 S", "refuse inbound"},
    {LAW_STRICT, 'u', 'b', "eth / ip mx deny / tcp 1024 25 S", "refuse inbound"},
    {LAW_STRICT, 'u', 'b', "eth / ip world exempt / tcp 1024 25 S", "pass other"},
    {LAW_STRICT, 'u', 'b', "eth / ip world fixed / tcp 1024 25 S", "pass other"},
    {LAW_STRICT, 'u', 'b', "eth / ip world metered / tcp 1024 25 S", "pass other"},
    {LAW_STRICT, 'u', 'b', "eth / ip world watched / tcp 1024 25 S", "pass inbound (refuse)"},
    {LAW_STRICT, 'u', 'b', "eth / ip dynamic fixed / tcp 1024 25 S", "refuse dynamic-range"},
    {LAW_STRICT, 'u', 'b', "eth / ip dynamic deny / tcp 1024 25 S", "refuse dynamic-range"},
    {LAW_STRICT, 'u', 'b', "eth / ip dynamic exempt / tcp 1024 25 S", "refuse dynamic-range"},
    {LAW_STRICT, 'u', 'b', "eth / ip dynamic unlisted / tcp 1024 25 S", "refuse dynamic-range"},
    {LAW_STRICT, 'u', 'b', "eth / ip dynamic fixed / tcp 1024 587 S", "pass other"},
    {LAW_STRICT, 'u', 'b', "eth / ip dynamic deny / tcp 25 25 S", "drop return-path"},
    {LAW_STRICT, 'u', 'b', "eth / ip dynamic watched / tcp 25 25 S", "refuse dynamic-range"},
    {LAW_STRICT, 'u', 'b', "eth / ip world watched / tcp 25 25 S", "pass return-path (drop)"},
    {LAW_STRICT, 'u', 'b', "eth / ip mx deny / tcp 25 25 S", "refuse inbound"},
    {LAW_PLAIN, 'u', 'b', "eth / ip dynamic deny / tcp 1024 25 S", "pass other"},
    {LAW_PLAIN, 'u', 'b', "eth / ip world deny / tcp 1024 1025 S", "pass other"},
    /* mode: monitor */
    {LAW_MONITOR, 's', 'b', DENY "tcp 1024 25 S", "pass class (refuse)"},
    {LAW_MONITOR, 's', '4', "eth / ip4 deny world mf proto=6", "pass first-fragment (drop)"},
    {LAW_MONITOR, 'u', 'b', "eth / ip world deny / tcp 25 1024 SA", "pass return-path (drop)"},
    {LAW_MONITOR, 'u', 'b', "eth / ip world deny / tcp 1024 25 S", "pass inbound (refuse)"},
    {LAW_MONITOR, 'u', 'b', "eth / ip dynamic fixed / tcp 1024 25 S", "pass dynamic-range (refuse)"},
    {LAW_MONITOR, 's', 'b', "eth / ip watched world / tcp 1024 25 S", "pass class (refuse)"},
    {LAW_MONITOR, 's', 'b', "eth / ip exempt world / tcp 1024 25 S", "pass exemption"},
};
const size_t law_rows_count = sizeof(law_rows) / sizeof(law_rows[0]);

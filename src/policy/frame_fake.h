/*
 * frame_fake.h: frames as words, for tests: layers from the outermost on, with " / " between them.
 *
 *   eth [type=HEX]                                the type follows from the next layer
 *   tag [type=HEX]                                VLAN tag; type: its own, 8100
 *   pppoe [short] [vt=HEX] [code=HEX] [plen=N] [proto=HEX]    short: the protocol in one octet
 *   ip4 FROM TO [mf] [off=N] [ihl=N] [tot=N] [proto=N] [ver=N] [opt=HEX]
 *   ip6 FROM TO [plen=N] [nh=N] [ver=N]
 *   ip FROM TO                                    ip4 or ip6, as frame_fake_build() is told
 *   hbh dst mob hip shim6 [n=N] [nh=N]            n: the length field, 0
 *   rh [left=N] [n=N] [nh=N]                      left: segments
 *   ah [n=N] [nh=N]                               n: 1
 *   frag [off=N] [m] [nh=N]
 *   tcp FROM TO [FLAGS]                           20 octets; FLAGS: of FSRPA
 *   udp FROM TO, esp, data N                      N octets of 0
 *   hex HEX                                       just these
 *
 * keep=N on any layer keeps N octets of it and nothing of what follows, before the lengths around it are counted; on
 * the first layer, cut=N takes N octets from the end of the frame and pad=N adds some, when all lengths stand. FROM and
 * TO of IP are names: frame_fake_names.
 */
#ifndef KIDOBAN_POLICY_FRAME_FAKE_H
#define KIDOBAN_POLICY_FRAME_FAKE_H

#include "policy/packet.h"

#define FRAME_FAKE_MAX 4096

struct frame_fake_name {
    const char *name, *v4, *v6;
};

extern const struct frame_fake_name frame_fake_names[]; /* ended by a NULL name */

/* The length of what is in out. family: 4 or 6, what "ip" stands for. Words that mean nothing end the program. */
size_t frame_fake_build(const char *words, int family, uint8_t out[static FRAME_FAKE_MAX]);

#endif

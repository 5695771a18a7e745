/*
 * frame.h: what every message between our processes looks like: a header of fixed size and a payload.
 *
 * Both ends are the same binary on the same machine, so integers are in host order. The reader still believes nothing:
 * a process that reads the network may have been taken over, and what it sends is checked like a stranger's bytes.
 */
#ifndef KIDOBAN_WIRE_FRAME_H
#define KIDOBAN_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define FRAME_VERSION     1
#define FRAME_PAYLOAD_MAX (512U * 1024U)

enum frame_flag { FRAME_HAS_FD = 1 }; /* one descriptor travels with it */

struct frame {
    uint32_t length; /* octets of payload that follow */
    uint16_t type;   /* an enum of the pair */
    uint8_t version; /* FRAME_VERSION */
    uint8_t flags;
    uint64_t id;       /* chosen by the asker, repeated in the answer; or the message's id */
    uint64_t reserved; /* 0 */
};
_Static_assert(sizeof(struct frame) == 24, "frame header is 24 octets");

/* 1 and *ret_frame when a whole header stands in `in`, 0 when more is needed, -1 when it is not ours. */
int frame_decode(struct span in, struct frame *ret_frame);

/* Payload writer: appends to a buf, remembers the first failure. Strings and octets carry a 32-bit length. */
struct wire_writer {
    struct buf *out;
    int error; /* 0 or -errno of the first failure */
};
void wire_put_u8(struct wire_writer *w, uint8_t v);
void wire_put_u16(struct wire_writer *w, uint16_t v);
void wire_put_u32(struct wire_writer *w, uint32_t v);
void wire_put_u64(struct wire_writer *w, uint64_t v);
void wire_put_bytes(struct wire_writer *w, struct span v);
void wire_put_fixed(struct wire_writer *w, const void *bytes, size_t len); /* no length before it */

/* Payload reader: views into the payload. After the first failure every value is 0 or empty and `bad` is set. */
struct wire_reader {
    const uint8_t *at, *end;
    bool bad;
};
struct wire_reader wire_reader(struct span payload);
uint8_t wire_get_u8(struct wire_reader *r);
uint16_t wire_get_u16(struct wire_reader *r);
uint32_t wire_get_u32(struct wire_reader *r);
uint64_t wire_get_u64(struct wire_reader *r);
struct span wire_get_bytes(struct wire_reader *r, size_t max); /* longer than max: bad */
void wire_get_fixed(struct wire_reader *r, void *bytes, size_t len);
/* 0 when everything was read and nothing is left over, else -EBADMSG. */
int wire_reader_end(struct wire_reader *r);

#endif

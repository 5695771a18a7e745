#include "wire/frame.h"

#include <errno.h>
#include <string.h>

int frame_decode(struct span in, struct frame *ret_frame)
{
    if (in.len < sizeof(struct frame)) {
        return 0;
    }
    struct frame f;
    memcpy(&f, in.ptr, sizeof(f));
    if (f.version != FRAME_VERSION || f.length > FRAME_PAYLOAD_MAX || f.reserved != 0 ||
        (f.flags & ~(unsigned)FRAME_HAS_FD) != 0) {
        return -1;
    }
    *ret_frame = f;
    return 1;
}

void wire_put_fixed(struct wire_writer *w, const void *bytes, size_t len)
{
    if (w->error == 0) {
        w->error = buf_append(w->out, bytes, len);
    }
}

void wire_put_u8(struct wire_writer *w, uint8_t v)
{
    wire_put_fixed(w, &v, sizeof(v));
}

void wire_put_u16(struct wire_writer *w, uint16_t v)
{
    wire_put_fixed(w, &v, sizeof(v));
}

void wire_put_u32(struct wire_writer *w, uint32_t v)
{
    wire_put_fixed(w, &v, sizeof(v));
}

void wire_put_u64(struct wire_writer *w, uint64_t v)
{
    wire_put_fixed(w, &v, sizeof(v));
}

void wire_put_bytes(struct wire_writer *w, struct span v)
{
    if (v.len > FRAME_PAYLOAD_MAX) {
        w->error = w->error == 0 ? -EMSGSIZE : w->error;
        return;
    }
    wire_put_u32(w, (uint32_t)v.len);
    wire_put_fixed(w, v.ptr, v.len);
}

struct wire_reader wire_reader(struct span payload)
{
    return (struct wire_reader){.at = payload.ptr, .end = payload.len > 0 ? payload.ptr + payload.len : payload.ptr};
}

void wire_get_fixed(struct wire_reader *r, void *bytes, size_t len)
{
    if (r->bad || (size_t)(r->end - r->at) < len) {
        r->bad = true;
        memset(bytes, 0, len);
        return;
    }
    if (len > 0) {
        memcpy(bytes, r->at, len);
        r->at += len;
    }
}

uint8_t wire_get_u8(struct wire_reader *r)
{
    uint8_t v;
    wire_get_fixed(r, &v, sizeof(v));
    return v;
}

uint16_t wire_get_u16(struct wire_reader *r)
{
    uint16_t v;
    wire_get_fixed(r, &v, sizeof(v));
    return v;
}

uint32_t wire_get_u32(struct wire_reader *r)
{
    uint32_t v;
    wire_get_fixed(r, &v, sizeof(v));
    return v;
}

uint64_t wire_get_u64(struct wire_reader *r)
{
    uint64_t v;
    wire_get_fixed(r, &v, sizeof(v));
    return v;
}

struct span wire_get_bytes(struct wire_reader *r, size_t max)
{
    uint32_t len = wire_get_u32(r);
    if (r->bad || len > max || (size_t)(r->end - r->at) < len) {
        r->bad = true;
        return (struct span){0};
    }
    struct span v = {r->at, len};
    r->at += len;
    return v;
}

int wire_reader_end(struct wire_reader *r)
{
    return r->bad || r->at != r->end ? -EBADMSG : 0;
}

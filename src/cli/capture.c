#include "cli/capture.h"

#include <stdlib.h>
#include <string.h>

#define NS_PER_S UINT64_C(1000000000)

enum { MAGIC_US = 0xa1b2c3d4U, MAGIC_NS = 0xa1b23c4dU, MAGIC_NG = 0x0a0d0d0aU, ORDER_NG = 0x1a2b3c4dU };
enum { BLOCK_INTERFACE = 1, BLOCK_PACKET = 2, BLOCK_SIMPLE = 3, BLOCK_ENHANCED = 6 };
enum { OPTION_END = 0, OPTION_RESOLUTION = 9, OPTION_OFFSET = 14 };
enum {
    LINK_ETHERNET = 1,
    LINK_RAW_12 = 12,
    LINK_RAW_14 = 14,
    LINK_RAW = 101,
    LINK_SLL = 113,
    LINK_IPV4 = 228,
    LINK_IPV6 = 229,
    LINK_SLL2 = 276
};

struct interface {
    uint16_t link;
    uint32_t snap;      /* 0: no limit */
    uint8_t resolution; /* if_tsresol */
    uint64_t offset_s;
};

struct capture {
    FILE *file;
    bool swapped; /* of the file, or of this section */
    bool ng;
    struct interface *interfaces; /* pcap: one */
    size_t count;
    uint8_t *data; /* the block, or the packet */
    size_t room;
    const char *error;
};

static int fail(struct capture *c, const char *words)
{
    c->error = words;
    return -1;
}

static uint32_t u32(const struct capture *c, const uint8_t *at)
{
    uint32_t big = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    return c->swapped ? __builtin_bswap32(big) : big;
}

static uint16_t u16(const struct capture *c, const uint8_t *at)
{
    uint16_t big = (uint16_t)(at[0] << 8 | at[1]);
    return c->swapped ? __builtin_bswap16(big) : big;
}

/* "swapped" against reading the first octet as the highest. */
static bool magic(struct capture *c, const uint8_t *at, uint32_t wanted)
{
    c->swapped = false;
    if (u32(c, at) == wanted) {
        return true;
    }
    c->swapped = true;
    return u32(c, at) == wanted;
}

/* len octets to data + at. Grows as octets come, so a length that lies costs nothing. false: they are not all there. */
static bool take(struct capture *c, size_t at, size_t len)
{
    size_t end = at + len;
    while (at < end) {
        if (at == c->room) {
            size_t room = c->room * 2 < end ? (c->room == 0 ? 4096 : c->room * 2) : end;
            room = room <= at ? at + 1 : room;
            uint8_t *grown = realloc(c->data, room);
            if (grown == NULL) {
                return false;
            }
            c->data = grown;
            c->room = room;
        }
        size_t want = (c->room < end ? c->room : end) - at;
        size_t n = fread(c->data + at, 1, want, c->file);
        if (n == 0) {
            return false;
        }
        at += n;
    }
    return true;
}

static int add_interface(struct capture *c, struct interface one)
{
    if (c->count == CAPTURE_INTERFACES_MAX) {
        return fail(c, "more interfaces than a capture has");
    }
    struct interface *grown = realloc(c->interfaces, (c->count + 1) * sizeof(*grown));
    if (grown == NULL) {
        return fail(c, "out of memory");
    }
    c->interfaces = grown;
    c->interfaces[c->count++] = one;
    return 0;
}

/* What the link's header says, as Ethernet or bare IP. frame is in data, which may be written. */
static int set_link(struct capture *c, uint16_t link, size_t at, size_t len, struct capture_packet *ret)
{
    uint8_t *frame = c->data + at;
    ret->link = PACKET_ETHERNET;
    ret->frame = (struct span){frame, len};
    switch (link) {
    case LINK_ETHERNET:
        return 1;
    case LINK_RAW_12:
    case LINK_RAW_14:
    case LINK_RAW:
    case LINK_IPV4:
    case LINK_IPV6:
        ret->link = PACKET_IP;
        return 1;
    case LINK_SLL: /* 16 octets, the last two an Ethernet type */
        ret->frame = len >= 16 ? (struct span){frame + 2, len - 2} : (struct span){frame, 0};
        return 1;
    case LINK_SLL2: /* 20 octets, the first two an Ethernet type */
        if (len >= 20) {
            memcpy(frame + 18, frame, 2);
        }
        ret->frame = len >= 20 ? (struct span){frame + 6, len - 6} : (struct span){frame, 0};
        return 1;
    default:
        return fail(c, "a link that is neither Ethernet, bare IP nor Linux cooked");
    }
}

/* pcap */

static int open_pcap(struct capture *c, bool nanoseconds)
{
    if (!take(c, 4, 20)) {
        return fail(c, "ends in its header");
    }
    if (u16(c, c->data + 4) != 2) {
        return fail(c, "another version of pcap than 2");
    }
    /* The upper bits of the link say whether there is a checksum behind the frame: padding to us. */
    return add_interface(c,
                         (struct interface){.link = (uint16_t)u32(c, c->data + 20), .resolution = nanoseconds ? 9 : 6});
}

static int next_pcap(struct capture *c, struct capture_packet *ret)
{
    int first = fgetc(c->file);
    if (first == EOF) {
        return ferror(c->file) ? fail(c, "cannot be read") : 0;
    }
    c->data[0] = (uint8_t)first;
    if (!take(c, 1, 15)) {
        return fail(c, "ends within a packet");
    }
    uint32_t seconds = u32(c, c->data), part = u32(c, c->data + 4), len = u32(c, c->data + 8),
             wire = u32(c, c->data + 12);
    if (len > CAPTURE_FRAME_MAX) {
        return fail(c, "a packet is longer than any can be");
    }
    if (!take(c, 0, len)) {
        return fail(c, "ends within a packet");
    }
    ret->time_ns = seconds * NS_PER_S + part * (uint64_t)(c->interfaces[0].resolution == 9 ? 1 : 1000);
    ret->truncated = wire > len;
    return set_link(c, c->interfaces[0].link, 0, len, ret);
}

/* pcapng */

static uint64_t time_of(const struct interface *i, uint64_t ticks)
{
    uint64_t whole, rest, per;
    unsigned power = i->resolution & 0x7f;
    if ((i->resolution & 0x80) != 0) {
        if (power > 32) {
            return 0;
        }
        per = UINT64_C(1) << power;
    } else {
        if (power > 9) { /* finer than nanoseconds */
            for (; power > 9; power--) {
                ticks /= 10;
            }
        }
        for (per = 1; power > 0; power--) {
            per *= 10;
        }
    }
    whole = ticks / per;
    rest = ticks % per;
    return (whole + i->offset_s) * NS_PER_S +
           (per > NS_PER_S ? rest * (NS_PER_S >> 9) / (per >> 9) : rest * NS_PER_S / per);
}

static void read_options(const struct capture *c, size_t at, size_t end, struct interface *i)
{
    while (at + 4 <= end) {
        uint16_t code = u16(c, c->data + at), len = u16(c, c->data + at + 2);
        at += 4;
        if (code == OPTION_END || len > end - at) {
            return;
        }
        if (code == OPTION_RESOLUTION && len == 1) {
            i->resolution = c->data[at];
        } else if (code == OPTION_OFFSET && len == 8) {
            uint64_t high = u32(c, c->data + at), low = u32(c, c->data + at + 4);
            i->offset_s = c->swapped ? low << 32 | high : high << 32 | low;
        }
        size_t padded = (size_t)(len + 3U) / 4 * 4;
        at += padded < end - at ? padded : end - at;
    }
}

/* Type and length of the section's header are read; its order is not known before the next four octets are. */
static int read_section(struct capture *c)
{
    if (!take(c, 8, 4) || !magic(c, c->data + 8, ORDER_NG)) {
        return fail(c, "a section without its byte order");
    }
    c->count = 0;
    return 0;
}

/* The whole next block, from data on, its length in *ret_len without the length at the end. 1, 0: the end, -1. */
static int read_block(struct capture *c, uint32_t *ret_type, size_t *ret_len)
{
    int first = fgetc(c->file);
    if (first == EOF) {
        return ferror(c->file) ? fail(c, "cannot be read") : 0;
    }
    c->data[0] = (uint8_t)first;
    if (!take(c, 1, 7)) {
        return fail(c, "ends within a block");
    }
    size_t have = 8;
    bool section = u32(c, c->data) == MAGIC_NG; /* reads the same both ways */
    if (section && read_section(c) < 0) {
        return -1;
    }
    have += section ? 4 : 0;
    uint32_t len = u32(c, c->data + 4);
    if (len < have + 4 || len % 4 != 0 || len > CAPTURE_FRAME_MAX + 1024) {
        return fail(c, "a block whose length cannot be");
    }
    if (!take(c, have, len - have)) {
        return fail(c, "ends within a block");
    }
    if (u32(c, c->data + len - 4) != len) {
        return fail(c, "a block whose two lengths differ");
    }
    *ret_type = u32(c, c->data);
    *ret_len = len - 4;
    return 1;
}

static int on_interface(struct capture *c, size_t len)
{
    if (len < 16) {
        return fail(c, "an interface without its fields");
    }
    struct interface i = {.link = u16(c, c->data + 8), .snap = u32(c, c->data + 12), .resolution = 6};
    read_options(c, 16, len, &i);
    return add_interface(c, i);
}

/* Both packet blocks with a time: interface, time, and lengths stand alike but for the interface's width. */
static int on_packet(struct capture *c, uint32_t type, size_t len, struct capture_packet *ret)
{
    if (len < 28) {
        return fail(c, "a packet without its fields");
    }
    uint32_t interface = type == BLOCK_PACKET ? u16(c, c->data + 8) : u32(c, c->data + 8);
    uint64_t ticks = (uint64_t)u32(c, c->data + 12) << 32 | u32(c, c->data + 16);
    uint32_t there = u32(c, c->data + 20), wire = u32(c, c->data + 24);
    if (interface >= c->count || there > len - 28) {
        return fail(c, "a packet of no interface, or longer than its block");
    }
    ret->time_ns = time_of(&c->interfaces[interface], ticks);
    ret->truncated = wire > there;
    return set_link(c, c->interfaces[interface].link, 28, there, ret);
}

static int on_simple(struct capture *c, size_t len, struct capture_packet *ret)
{
    if (len < 12 || c->count == 0) {
        return fail(c, "a packet without its fields, or of no interface");
    }
    uint32_t wire = u32(c, c->data + 8), snap = c->interfaces[0].snap;
    size_t there = snap > 0 && wire > snap ? snap : wire;
    if (there > len - 12) {
        return fail(c, "a packet longer than its block");
    }
    ret->time_ns = 0;
    ret->truncated = wire > there;
    return set_link(c, c->interfaces[0].link, 12, there, ret);
}

static int next_ng(struct capture *c, struct capture_packet *ret)
{
    for (;;) {
        uint32_t type;
        size_t len;
        int r = read_block(c, &type, &len);
        if (r <= 0) {
            return r;
        }
        switch (type) {
        case BLOCK_INTERFACE:
            if (on_interface(c, len) < 0) {
                return -1;
            }
            break;
        case BLOCK_PACKET:
        case BLOCK_ENHANCED:
            return on_packet(c, type, len, ret);
        case BLOCK_SIMPLE:
            return on_simple(c, len, ret);
        default: /* sections, names, statistics, what is to come */
            break;
        }
    }
}

/* The first block is read like the others, so its first octets go back in front of it. */
static int open_ng(struct capture *c)
{
    if (!take(c, 4, 4) || read_section(c) < 0) {
        return fail(c, "ends in its header, or has no byte order");
    }
    uint32_t len = u32(c, c->data + 4);
    if (len < 28 || len % 4 != 0 || len > CAPTURE_FRAME_MAX || !take(c, 12, len - 12) ||
        u32(c, c->data + len - 4) != len) {
        return fail(c, "a section's header that is not whole");
    }
    c->ng = true;
    return 0;
}

static int open_file(struct capture *c)
{
    if (!take(c, 0, 4)) {
        return fail(c, "is no capture: it is too short");
    }
    if (magic(c, c->data, MAGIC_NG)) {
        return open_ng(c);
    }
    if (magic(c, c->data, MAGIC_US)) {
        return open_pcap(c, false);
    }
    if (magic(c, c->data, MAGIC_NS)) {
        return open_pcap(c, true);
    }
    return fail(c, "is no capture: neither pcap nor pcapng");
}

int capture_open(FILE *file, struct capture **ret, const char **error)
{
    struct capture *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        *error = "out of memory";
        return -1;
    }
    c->file = file;
    if (open_file(c) < 0) {
        *error = c->error;
        capture_close(&c);
        return -1;
    }
    *ret = c;
    return 0;
}

int capture_next(struct capture *c, struct capture_packet *ret, const char **error)
{
    *ret = (struct capture_packet){0};
    int r = c->error != NULL ? -1 : c->ng ? next_ng(c, ret) : next_pcap(c, ret);
    *error = c->error;
    return r;
}

void capture_close(struct capture **cp)
{
    struct capture *c = *cp;
    *cp = NULL;
    if (c != NULL) {
        free(c->interfaces);
        free(c->data);
        free(c);
    }
}

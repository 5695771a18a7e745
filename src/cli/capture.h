/*
 * capture.h: packets from a capture file: pcap (either byte order, micro- and nanoseconds) and pcapng (any number of
 * sections and interfaces). The file may come from anybody: every length is checked, and no more memory is taken than
 * octets were read. Reads a stream, so a pipe will do.
 * https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html, draft-ietf-opsawg-pcapng-02
 */
#ifndef KIDOBAN_CLI_CAPTURE_H
#define KIDOBAN_CLI_CAPTURE_H

#include <stdio.h>

#include "policy/packet.h"

#define CAPTURE_FRAME_MAX      (64U << 20)
#define CAPTURE_INTERFACES_MAX 4096

struct capture;

struct capture_packet {
    enum packet_link link;
    struct span frame; /* valid until the next call */
    uint64_t time_ns;  /* Unix time; 0 where the file has none */
    bool truncated;    /* the wire had more octets than the file */
};

/* file is borrowed, and read from where it stands. 0 and *ret, or -1 and *error: words that follow the file's name. */
int capture_open(FILE *file, struct capture **ret, const char **error);
/* 1: a packet; 0: the end; -1: broken, and *error; nothing more can be read then. */
int capture_next(struct capture *c, struct capture_packet *ret, const char **error);
void capture_close(struct capture **c);

#endif

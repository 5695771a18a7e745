/*
 * address.h: reverse-paths, forward-paths and mailboxes as SMTP writes them (RFC 5321 section 4.1.2, RFC 6531
 * section 3.3).
 *
 * Strict: no white space, no comments, no empty labels. Everything returned is a view into the input. Reads hostile
 * octets; allocates nothing. Limits are those of RFC 5321 section 4.5.3.1: local part 64, domain 255, path 256 octets.
 */
#ifndef KIDOBAN_SMTP_ADDRESS_H
#define KIDOBAN_SMTP_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define SMTP_LOCAL_MAX  64
#define SMTP_DOMAIN_MAX 255
#define SMTP_PATH_MAX   256 /* with angle brackets, without source route */

enum smtp_domain_kind {
    SMTP_DOMAIN_NONE, /* <> or <postmaster> */
    SMTP_DOMAIN_NAME,
    SMTP_DOMAIN_IPV4,    /* [192.0.2.1] */
    SMTP_DOMAIN_IPV6,    /* [IPv6:2001:db8::1] */
    SMTP_DOMAIN_GENERAL, /* [tag:text] */
};

struct smtp_path {
    struct span mailbox; /* local@domain without brackets and source route; empty when null */
    struct span local;   /* as written: a quoted string keeps its quotes */
    struct span domain;  /* as written: a literal keeps its brackets */
    enum smtp_domain_kind kind;
    bool null; /* <> */
    bool utf8; /* some octet is over 0x7f */
};

enum smtp_path_flag {
    SMTP_PATH_NULL = 1,       /* <> is good (MAIL FROM) */
    SMTP_PATH_POSTMASTER = 2, /* <postmaster> without domain is good (RCPT TO) */
    SMTP_PATH_UTF8 = 4,       /* UTF-8 is good where RFC 6531 has it; checked to be well-formed */
};

enum smtp_path_error {
    SMTP_PATH_OK,
    SMTP_PATH_NO_BRACKETS,
    SMTP_PATH_SYNTAX,     /* of the whole, or a source route that is none */
    SMTP_PATH_LOCAL,      /* local part malformed or empty */
    SMTP_PATH_DOMAIN,     /* domain malformed, empty or missing */
    SMTP_PATH_LONG,       /* a limit of section 4.5.3.1 */
    SMTP_PATH_NEEDS_UTF8, /* 8-bit octets without SMTP_PATH_UTF8 */
    SMTP_PATH_INVALID_UTF8,
    SMTP_PATH_NULL_REFUSED,
};
/* "<...>" at the start of in; *ret_used octets were it. A source route "@a,@b:" is checked and left out. */
enum smtp_path_error smtp_path_parse(struct span in, unsigned flags, struct smtp_path *ret, size_t *ret_used);
/* The whole of in is local@domain, without brackets. */
enum smtp_path_error smtp_mailbox_parse(struct span in, unsigned flags, struct smtp_path *ret);
/* A domain or address literal, whole. utf8: U-labels are good. SMTP_DOMAIN_NONE when it is none. */
enum smtp_domain_kind smtp_domain_parse(struct span in, bool utf8);

#endif

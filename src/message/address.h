/*
 * address.h: the mailboxes in an address field (RFC 5322 sections 3.4 and 4.4, RFC 6532, RFC 6854).
 *
 * Reads the value of From, Sender and the like as a stranger wrote it: display names, comments (nested at most
 * MESSAGE_COMMENT_DEPTH), quoted strings, groups, source routes, folds. Every mailbox comes out in one form, so that
 * two ways of writing it compare equal: comments and folds gone, the local part quoted only where it must be.
 * Encoded words stand in display names, which are not looked at. Time is linear; nothing is allocated.
 *
 * It is strict where readers differ: a display name with an "@" or a "," that is not quoted, a mailbox without
 * domain, text behind the ">" are malformed, because another reader would see another author.
 */
#ifndef KIDOBAN_MESSAGE_ADDRESS_H
#define KIDOBAN_MESSAGE_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

#define MESSAGE_LOCAL_MAX     256 /* octets, unquoted */
#define MESSAGE_DOMAIN_MAX    255
#define MESSAGE_ADDRESS_MAX   (2 * MESSAGE_LOCAL_MAX + 3 + MESSAGE_DOMAIN_MAX)
#define MESSAGE_COMMENT_DEPTH 64

struct message_mailbox {
    char address[MESSAGE_ADDRESS_MAX + 1]; /* local@domain, NUL-terminated, as an SMTP path would have it */
    size_t address_len;
    char local[MESSAGE_LOCAL_MAX + 1]; /* quotes and escapes undone */
    size_t local_len;
    struct span domain; /* in address; a literal keeps its brackets; case as written */
    bool utf8;          /* some octet is over 0x7f */
};

struct message_address_list {
    struct span rest;
    bool in_group;
};
void message_address_list_init(struct message_address_list *list, struct span value);
/* 1: the next mailbox; 0: no more; -1: malformed, and the whole field with it. */
int message_address_next(struct message_address_list *list, struct message_mailbox *ret);

/* The whole of text is one local@domain and nothing else (what MAIL and RCPT carry). 0 or -1. */
int message_mailbox_parse(struct span text, struct message_mailbox *ret);

#endif

/*
 * blob_read.h: look-ups in a compiled policy in user space, for tests and for showing what is loaded. Not the kernel's
 * program and not the reference: a third reader of the format in policy/blob.h.
 */
#ifndef KIDOBAN_POLICY_BLOB_READ_H
#define KIDOBAN_POLICY_BLOB_READ_H

#include "policy/policy.h"

struct blob {
    const union blob_cell *cells; /* borrowed */
    struct blob_header header;
};

/* A view of cells that stay the caller's. 0, or -EINVAL: another version, or a header whose parts do not lie within
 * count cells. Look-ups stay within them whatever the nodes say. */
int blob_open(struct blob *ret, const union blob_cell *cells, size_t count);
/* Source leaf: BLOB_CLASS(), BLOB_EXEMPTION(). Destination leaf: bit n is set n. 0 as well where the blob is damaged.
 */
uint32_t blob_source_find(const struct blob *b, const struct policy_address *a);
uint32_t blob_destination_find(const struct blob *b, const struct policy_address *a);
const struct blob_class *blob_class_at(const struct blob *b, uint32_t number);         /* NULL: there is none */
const struct blob_exemption *blob_exemption_at(const struct blob *b, uint32_t number); /* NULL: there is none */

#endif

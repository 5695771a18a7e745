/*
 * compile.h: the policy as the kernel's program reads it (policy/blob.h). A million prefixes take a fifth of a second:
 * they are sorted, and each trie is built by one walk.
 *
 * Classes keep their numbers from compile to compile by their names, since a class's number is its row in the counters.
 *
 * Exemptions are flattened into the leaves: an address has one, the last to end of those that cover it with no class's
 * prefix between (a longer prefix that ends sooner leaves the shorter one in force), and the class that comes into its
 * own again when that has ended.
 */
#ifndef KIDOBAN_POLICY_COMPILE_H
#define KIDOBAN_POLICY_COMPILE_H

#include "policy/policy.h"

/* Who has which class number and row of the counters. Row 0 is "default". Zeroed to begin with. */
struct policy_rows {
    char *names[BLOB_CLASSES_MAX]; /* NULL: never used */
    size_t count;                  /* rows in use are below */
};

/* Every class of p has a row afterwards. A name that was there keeps its row, also while the policy has no such class;
 * only when all rows are taken is the row of such a name given to another, which finds the counters as they were.
 * 0 or -ENOMEM; then some classes may have rows. */
int policy_rows_assign(struct policy_rows *rows, const struct policy *p);
void policy_rows_fini(struct policy_rows *rows);

struct policy_blob {
    union blob_cell *cells; /* free() */
    size_t count;
};

/* rows: after policy_rows_assign(rows, p). 0 and *ret, -ENOMEM, or -E2BIG: more cells than their numbers can say. */
int policy_compile(const struct policy *p, const struct policy_rows *rows, uint64_t generation,
                   struct policy_blob *ret);

#endif

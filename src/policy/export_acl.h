/*
 * export_acl.h: filters of hardware and software routers, as they have them in common: named lists of prefixes and, for
 * each direction, rules of which the first that matches decides. export_acl.c says what the policy comes to in that
 * form; a dialect says how it is written.
 */
#ifndef KIDOBAN_POLICY_EXPORT_ACL_H
#define KIDOBAN_POLICY_EXPORT_ACL_H

#include "policy/export_int.h"

enum acl_chain { ACL_FROM_LINES, ACL_TO_LINES };

enum acl_action { ACL_ACCEPT, ACL_REFUSE, ACL_DROP };

struct acl_rule {
    unsigned number;                  /* from 10, in steps of 10, anew in each chain */
    const char *source, *destination; /* names of lists; NULL: any */
    bool from_25;                     /* the source port is 25; else the destination port */
    enum acl_action action;
};

struct acl_dialect {
    const char *title, *comment;
    void (*notes)(struct export_text *t);
    /* A list: begins, its prefixes, ends. end_list may be NULL. left_s: seconds until it ends, 0: without end. */
    void (*begin_list)(struct export_text *t, const char *name, bool v6);
    void (*prefix)(struct export_text *t, const char *name, const struct policy_prefix *p, uint64_t left_s);
    void (*end_list)(struct export_text *t, bool v6);
    void (*begin_chain)(struct export_text *t, enum acl_chain chain, bool v6);
    void (*rule)(struct export_text *t, enum acl_chain chain, bool v6, const struct acl_rule *r);
    void (*end_chain)(struct export_text *t, enum acl_chain chain, bool v6, unsigned number); /* all else passes */
};

int export_acl(const struct acl_dialect *d, const struct export_input *in, struct buf *out, size_t budget);
const char *acl_chain_name(enum acl_chain chain); /* "from-lines", "to-lines" */

#endif

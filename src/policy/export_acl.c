#include "policy/export_acl.h"

#include <stdio.h>
#include <string.h>

/* Of one family: what has been written. Lists without a prefix are not, and rules about them are left out. */
struct acl {
    struct export_text *t;
    const struct acl_dialect *d;
    bool v6;
    bool has_class[BLOB_CLASSES_MAX], has_set[BLOB_SETS_MAX], has_exempt;
    enum acl_chain chain;
    unsigned number;
};

const char *acl_chain_name(enum acl_chain chain)
{
    return chain == ACL_FROM_LINES ? "from-lines" : "to-lines";
}

/* Lists */

#define LIST_NAME (EXPORT_NAME + 4)

struct list {
    struct acl *a;
    char name[LIST_NAME];
    bool begun, exemptions;
    uint64_t left_s;
};

static void write_prefix(void *arg, const struct policy_prefix *p, uint32_t leaf)
{
    struct list *l = arg;
    (void)leaf;
    if (!l->begun) {
        l->a->d->begin_list(l->a->t, l->name, l->a->v6);
        l->begun = true;
    }
    export_count(l->a->t);
    l->a->d->prefix(l->a->t, l->name, p, l->left_s);
}

static void write_range(void *arg, const struct policy_range *r)
{
    struct list *l = arg;
    if (l->exemptions) {
        l->left_s = export_left_s(l->a->t, &l->a->t->in->policy->exemptions[r->leaf - 1]);
    }
    policy_range_prefixes(r->first, r->last, l->a->v6, r->leaf, write_prefix, l);
}

static bool end_list(const struct list *l)
{
    if (l->begun && l->a->d->end_list != NULL) {
        l->a->d->end_list(l->a->t, l->a->v6);
    }
    return l->begun;
}

static void set_name(const struct acl *a, unsigned set, char name[static LIST_NAME])
{
    char class_[EXPORT_NAME];
    (void)snprintf(name, LIST_NAME, "%s", set == BLOB_SET_ALLOW_TO ? "allow-to" : "dynamic-ranges");
    for (size_t i = 1; i < a->t->in->policy->classes_count && set >= BLOB_SET_SCOPES; i++) {
        if (a->t->in->policy->classes[i].set == set) {
            export_name(a->t, i, class_);
            (void)snprintf(name, LIST_NAME, "%s-to", class_);
        }
    }
}

static void write_lists(struct acl *a)
{
    struct list exempt = {.a = a, .name = "exempt", .exemptions = true};
    export_exempt_ranges(a->t, a->v6, write_range, &exempt);
    a->has_exempt = end_list(&exempt);
    for (size_t i = 1; i < a->t->in->policy->classes_count; i++) {
        struct list l = {.a = a};
        export_name(a->t, i, l.name);
        export_class_ranges(a->t, i, a->v6, write_range, &l);
        a->has_class[i] = end_list(&l);
    }
    for (unsigned set = 0; set < BLOB_SETS_MAX; set++) {
        struct list l = {.a = a};
        if (set != BLOB_SET_TUNNELS && export_has_set(a->t, set)) {
            set_name(a, set, l.name);
            export_set_ranges(a->t, set, a->v6, write_range, &l);
            a->has_set[set] = end_list(&l);
        }
    }
}

/* Rules */

static void say(struct acl *a, const char *source, const char *destination, bool from_25, enum acl_action action)
{
    bool watched = (a->t->in->policy->flags & BLOB_MODE_MONITOR) != 0;
    a->number += 10;
    export_count(a->t);
    const struct acl_rule r = {.number = a->number,
                               .source = source,
                               .destination = destination,
                               .from_25 = from_25,
                               .action = watched ? ACL_ACCEPT : action};
    a->d->rule(a->t, a->chain, a->v6, &r);
}

static enum blob_rule rule_of(const struct acl *a, size_t class_)
{
    return a->t->in->policy->classes[class_].rule;
}

static void from_class(struct acl *a, size_t class_)
{
    char name[EXPORT_NAME], to[LIST_NAME];
    unsigned set = a->t->in->policy->classes[class_].set;
    if (!a->has_class[class_]) {
        return;
    }
    export_name(a->t, class_, name);
    if (rule_of(a, class_) != BLOB_DENY) {
        say(a, name, NULL, false, ACL_ACCEPT);
    } else if (set == 0) {
        say(a, name, NULL, false, ACL_REFUSE);
    } else {
        set_name(a, set, to);
        if (a->has_set[set]) {
            say(a, name, to, false, ACL_REFUSE);
        }
        say(a, name, NULL, false, ACL_ACCEPT);
    }
}

static void write_from_lines(struct acl *a)
{
    if (a->has_exempt) {
        say(a, "exempt", NULL, false, ACL_ACCEPT);
    }
    if (a->has_set[BLOB_SET_ALLOW_TO]) {
        say(a, NULL, "allow-to", false, ACL_ACCEPT);
    }
    for (size_t i = 1; i < a->t->in->policy->classes_count; i++) {
        from_class(a, i);
    }
    if (rule_of(a, 0) == BLOB_DENY) {
        say(a, NULL, NULL, false, ACL_REFUSE);
    }
}

static void write_inbound(struct acl *a)
{
    char name[EXPORT_NAME];
    if (a->has_exempt) {
        say(a, NULL, "exempt", false, ACL_ACCEPT);
    }
    for (size_t i = 1; i < a->t->in->policy->classes_count; i++) {
        export_name(a->t, i, name);
        if (a->has_class[i]) { /* what passes here would pass the return path as well */
            say(a, NULL, name, false, rule_of(a, i) == BLOB_DENY ? ACL_REFUSE : ACL_ACCEPT);
        }
    }
    if (rule_of(a, 0) == BLOB_DENY) {
        say(a, NULL, NULL, false, ACL_REFUSE);
    }
}

static void return_path_of_class(struct acl *a, size_t class_)
{
    char name[EXPORT_NAME], to[LIST_NAME];
    unsigned set = a->t->in->policy->classes[class_].set;
    if (!a->has_class[class_]) {
        return;
    }
    export_name(a->t, class_, name);
    if (rule_of(a, class_) == BLOB_DENY && (set == 0 || a->has_set[set])) {
        set_name(a, set, to);
        say(a, set != 0 ? to : NULL, name, true, ACL_DROP);
    }
    if (rule_of(a, class_) != BLOB_DENY || set != 0) {
        say(a, NULL, name, true, ACL_ACCEPT);
    }
}

static void write_return_path(struct acl *a)
{
    if (a->has_exempt) {
        say(a, NULL, "exempt", true, ACL_ACCEPT);
    }
    if (a->has_set[BLOB_SET_ALLOW_TO]) {
        say(a, "allow-to", NULL, true, ACL_ACCEPT);
    }
    for (size_t i = 1; i < a->t->in->policy->classes_count; i++) {
        return_path_of_class(a, i);
    }
    if (rule_of(a, 0) == BLOB_DENY) {
        say(a, NULL, NULL, true, ACL_DROP);
    }
}

/* Port 25 of the lines first: no exception of the return path may open it. */
static void write_to_lines(struct acl *a)
{
    uint32_t flags = a->t->in->policy->flags;
    if (a->has_set[BLOB_SET_DYNAMIC]) {
        say(a, "dynamic-ranges", NULL, false, ACL_REFUSE);
    }
    if ((flags & BLOB_INBOUND) != 0) {
        write_inbound(a);
    }
    if ((flags & BLOB_RETURN_PATH) != 0) {
        write_return_path(a);
    }
}

static void write_chain(struct acl *a, enum acl_chain chain, void (*rules)(struct acl *a))
{
    a->chain = chain;
    a->number = 0;
    a->d->begin_chain(a->t, chain, a->v6);
    rules(a);
    a->d->end_chain(a->t, chain, a->v6, a->number + 10);
}

static void write_notes(struct export_text *t, const struct acl_dialect *d)
{
    const struct policy *p = t->in->policy;
    export_head(t, d->title);
    for (size_t i = 0; i < p->classes_count; i++) {
        if (p->classes[i].rule == BLOB_RATE || p->classes[i].rule == BLOB_MONITOR) {
            char name[EXPORT_NAME];
            export_name(t, i, name);
            export_note(t, "not said: class %s: %s: it passes.", name, policy_rule_name(p->classes[i].rule));
        }
    }
    export_note(t, "not said: source-routed packets towards allow_to or outside of a class's \"to\" pass; the router "
                   "should refuse "
                   "all of them.");
    export_note(t, "not said: resets_per_second and events_per_second.");
    d->notes(t);
}

int export_acl(const struct acl_dialect *d, const struct export_input *in, struct buf *out, size_t budget)
{
    struct export_text t = {.out = out, .in = in, .comment = d->comment, .budget = budget};
    write_notes(&t, d);
    for (int v6 = 0; v6 <= 1; v6++) {
        struct acl a = {.t = &t, .d = d, .v6 = v6 != 0};
        write_lists(&a);
        write_chain(&a, ACL_FROM_LINES, write_from_lines);
        write_chain(&a, ACL_TO_LINES, write_to_lines);
    }
    return t.error;
}

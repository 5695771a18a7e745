/* export_int.h: what the exports share. */
#ifndef KIDOBAN_POLICY_EXPORT_INT_H
#define KIDOBAN_POLICY_EXPORT_INT_H

#include "policy/export.h"
#include "policy/ranges.h"

/* A text being written: the first error stays, and what follows does nothing. */
struct export_text {
    struct buf *out;
    const struct export_input *in;
    const char *comment; /* what begins one: "# " */
    size_t rules, budget;
    int error;
};

void export_say(struct export_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void export_note(struct export_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void export_count(struct export_text *t); /* one more rule or entry */
/* "c2-dynamic": letters, digits and hyphens only, at most 24, its own for each class; of class 0 "default". */
#define EXPORT_NAME 28
void export_name(const struct export_text *t, size_t class_, char name[static EXPORT_NAME]);
/* What holds for the policy as a whole, as comments. */
void export_head(struct export_text *t, const char *title);

/* Does the rule restrict towards somewhere, under the policy's own mode? */
bool export_restricts(const struct export_text *t, size_t class_);
bool export_has_set(const struct export_text *t, unsigned set);

/* Lists, in order; no two touch. The address ranges: */
void export_class_ranges(struct export_text *t, size_t class_, bool v6,
                         void (*each)(void *arg, const struct policy_range *r), void *arg);
/* leaf: index of the exemption + 1. They are over the classes'. */
void export_exempt_ranges(struct export_text *t, bool v6, void (*each)(void *arg, const struct policy_range *r),
                          void *arg);
void export_set_ranges(struct export_text *t, unsigned set, bool v6,
                       void (*each)(void *arg, const struct policy_range *r), void *arg);
/* Seconds until it ends, at least 1; 0: without end. */
uint64_t export_left_s(const struct export_text *t, const struct policy_exemption *e);
void export_time(uint64_t wall_ms, char text[static 24]); /* "2026-11-24T10:00:00Z" */
struct policy_address export_address(policy_key k, bool v6);

int export_nft(const struct export_input *in, struct buf *out, size_t budget);
int export_flowspec(const struct export_input *in, struct buf *out, size_t budget);
int export_junos(const struct export_input *in, struct buf *out, size_t budget);
int export_iosxr(const struct export_input *in, struct buf *out, size_t budget);
int export_routeros(const struct export_input *in, struct buf *out, size_t budget);

#endif

/*
 * blob.h: the compiled policy, as user space writes it and the kernel's program reads it. Freestanding: gate.bpf.c
 * includes it. The numbers are in host order; a blob lives on the machine that made it, and its version says when a
 * program and a blob do not belong together.
 *
 * It is an array of cells of 32 octets. Cell 0 is the header. A trie has a root of 65,536 entries, one for each value
 * of the address's first 16 bits (IPv4: the first 16 of 32), and below it nodes of 6 bits each. An entry is a leaf
 * (BLOB_LEAF set: the other 31 bits are the answer) or the number of a cell, a node or a jump.
 *
 * In a node, bit i of `children` says that value i goes on: to the cell at child_base + (number of bits of `children`
 * below i). Otherwise its answer is leaf number leaf_base + (number of bits of `leaves` at or below i) - 1: equal
 * neighbours share one. Leaf n stands in lane n % 8 of cell n / 8. Where a node has but one leaf, leaf_base is that
 * leaf itself, with BLOB_LEAF set. Behind the end of an address its bits are 0.
 *
 * A jump goes over `bits` bits at once, where all prefixes below are the same so far: an address that has them goes on
 * to the entry `inside`, every other one to `outside`. So what lies alone, as most prefixes of a million do, is one
 * cell. Each step but the last takes 6 bits or more, which bounds their number: 19 below the root.
 */
#ifndef KIDOBAN_POLICY_BLOB_H
#define KIDOBAN_POLICY_BLOB_H

#include <linux/types.h>

#define BLOB_VERSION      2
#define BLOB_ROOT_BITS    16
#define BLOB_ROOT_ENTRIES (1U << BLOB_ROOT_BITS)
#define BLOB_STEP_BITS    6
#define BLOB_STEPS_MAX    19 /* below the root */
#define BLOB_LEAF         0x80000000U

/* Source leaf: class in the lower 11 bits, exemption in the 20 above; 0: none. */
#define BLOB_CLASS_BITS      11
#define BLOB_CLASSES_MAX     (1U << BLOB_CLASS_BITS) /* class 0 is the default: sources in no class */
#define BLOB_EXEMPTIONS_MAX  ((1U << 20) - 1)
#define BLOB_CLASS(leaf)     ((leaf) & (BLOB_CLASSES_MAX - 1))
#define BLOB_EXEMPTION(leaf) (((leaf) & ~BLOB_LEAF) >> BLOB_CLASS_BITS)

/* Destination leaf: a set of sets. */
#define BLOB_SET_ALLOW_TO 0 /* always allowed */
#define BLOB_SET_DYNAMIC  1 /* other providers' dynamic ranges (looked up by source, at the uplink) */
#define BLOB_SET_TUNNELS  2 /* ends of tunnels whose inner packet is judged */
#define BLOB_SET_SCOPES   3 /* from here: what classes with `to` are scoped to */
#define BLOB_SETS_MAX     31

enum blob_rule { BLOB_ALLOW, BLOB_DENY, BLOB_MONITOR, BLOB_RATE };

enum blob_refuse_with { BLOB_RESET, BLOB_PROHIBITED, BLOB_SILENT };

enum blob_flag {
    BLOB_MODE_MONITOR = 1, /* nothing is refused or dropped, only counted */
    BLOB_RETURN_PATH = 2,  /* TCP from port 25 towards a denied line is dropped */
    BLOB_INBOUND = 4,      /* TCP to port 25 towards a denied line is refused at the uplink */
    BLOB_DYNAMIC = 8,      /* TCP to port 25 from BLOB_SET_DYNAMIC is refused at the uplink */
    BLOB_TUNNELS = 16,     /* there are tunnel ends at all */
};

struct blob_header {
    __u32 version, cells; /* cells: of the whole blob */
    __u32 flags, refuse_with;
    __u32 classes_at, exempt_at;  /* cell of class 0; cell of exemption 0 (not used: numbers begin with 1) */
    __u32 source4_at, source6_at; /* cells of the roots */
    /* second cell */
    __u32 dest4_at, dest6_at;
    __u32 classes, exemptions; /* how many, class 0 included, exemption 0 included */
    __u64 generation;
    __u32 events_per_second; /* for one source */
    __u32 resets_per_second; /* answers to one source; beyond, silence */
};

struct blob_class {
    __u32 rule;        /* enum blob_rule */
    __u32 set;         /* 0: every destination; else only towards this set */
    __u64 interval_ns; /* rate: a new connection is worth that much time */
    __u64 burst_ns;    /* rate: how far ahead of the clock a source may be */
    __u64 counter;     /* its row in the counters, kept over reloads */
};

struct blob_exemption {
    __u64 until_ns; /* boot clock; ~0: without end */
    __u64 id;
    __u64 unused[2];
};

struct blob_node {
    __u64 children, leaves;
    __u32 child_base, leaf_base;
    __u32 bits; /* 0: it is no jump */
    __u32 unused;
};

struct blob_jump {
    __u64 hi, lo; /* the bits that must follow, from the uppermost of hi on; behind them 0 */
    __u32 inside, outside;
    __u32 bits; /* 1 to 112 */
    __u32 unused;
};

union blob_cell {
    struct blob_class class_;
    struct blob_exemption exemption;
    struct blob_node node;
    struct blob_jump jump;
    __u32 lanes[8];
    __u64 words[4];
};
_Static_assert(sizeof(union blob_cell) == 32, "a cell is 32 octets");
_Static_assert(sizeof(struct blob_header) == 64, "the header is two cells");

/* Verdicts and reasons: of the reference and of the program alike. */
enum policy_verdict { POLICY_PASS, POLICY_REFUSE, POLICY_DROP };

enum policy_reason {
    REASON_OTHER,          /* pass: not TCP port 25, or nothing that IP hosts read */
    REASON_TAIL,           /* pass: a later fragment that cannot touch the ports or flags */
    REASON_UNPARSED,       /* pass: malformed, from a source that is not restricted */
    REASON_CLASS,          /* the class's rule */
    REASON_DEFAULT,        /* the rule for sources in no class */
    REASON_EXEMPTION,      /* pass */
    REASON_ALLOW_TO,       /* pass: a destination that is always allowed */
    REASON_SCOPE,          /* pass: the class denies other destinations only */
    REASON_RATE,           /* pass: within the rate */
    REASON_RETURN_PATH,    /* drop: from port 25, towards a denied line */
    REASON_INBOUND,        /* refuse: to port 25 of a denied line */
    REASON_DYNAMIC,        /* refuse: from another provider's dynamic range */
    REASON_FIRST_FRAGMENT, /* drop: a first fragment without its ports, or (IPv6) without its whole header chain */
    REASON_OVERWRITE,      /* drop: a later fragment that could overwrite the flags */
    REASON_MALFORMED,      /* drop: TCP that cannot be parsed, from a restricted source */
    REASON_COUNT
};

#endif

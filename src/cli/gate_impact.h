/*
 * gate_impact.h: what `kidoban gate impact` is made of: the history of some days as one list of lines
 * (gate_impact_read.c), the names of their far ends (gate_names.c), and the words for people (gate_words.c).
 */
#ifndef KIDOBAN_CLI_GATE_IMPACT_H
#define KIDOBAN_CLI_GATE_IMPACT_H

#include "cli/cli.h"
#include "common/hash.h"
#include "gate/history.h"
#include "policy/behaviour.h"

/* gate_names.c: names that DNS has for far ends, both ways: the name of the address must have that address. */
#define NAMES_TEXT 254

struct far_name {
    uint8_t address[16];
    char host[NAMES_TEXT];  /* empty: none */
    char mx_of[NAMES_TEXT]; /* the domain whose mail host it is; empty: not known */
    UT_hash_handle hh;
};

struct names {
    struct far_name *table;
    size_t count;
};

/* Remembers to ask; beyond the most that are asked: nothing. */
void names_want(struct names *n, const uint8_t address[16]);
/* Asks for all, by the resolvers of the configuration or else of the system, for at most limit_ms in all. What has not
 * been answered by then has no name. */
void names_look_up(struct names *n, const struct config *config, unsigned limit_ms);
const struct far_name *names_find(const struct names *n, const uint8_t address[16]); /* NULL: without a name */
void names_fini(struct names *n);
/* What is registered of a name: "mx3.example.co.jp" is of "example.co.jp". A guess, by the shape. */
const char *names_registered(const char *host);

/* gate_impact_read.c */
struct impact_far {
    uint8_t address[16];
    uint64_t count; /* events; at least so often */
};

struct impact_line {
    uint8_t key[16];
    char class_[HISTORY_CLASS_MAX + 1];
    uint64_t first_ms, last_ms;
    uint64_t packets[HISTORY_WAYS], connections[HISTORY_WAYS]; /* as in struct history_line */
    uint64_t sketch[HISTORY_SKETCH];
    struct behaviour behaviour;
    struct behaviour_judgement judgement; /* by impact_judge() */
    struct impact_far *fars;              /* the most frequent first */
    size_t fars_count, fars_room;
    UT_hash_handle hh;
};

struct impact {
    uint32_t from_day, to_day;
    struct impact_line *lines; /* hash; by refused connections, the most first */
    size_t count;
    struct history_rest rest;  /* also what had no room here */
    size_t days, damaged_days; /* that there were files of; that could not be read */
};

/* The days in the directory, both included. 0 or -errno. */
int impact_read(int directory_fd, uint32_t from_day, uint32_t to_day, struct impact *ret);
void impact_judge(struct impact *all, const struct names *names); /* names may be NULL */
void impact_fini(struct impact *all);

void impact_address(const uint8_t address[16], char text[static 64]); /* "192.0.2.1" */
void impact_key(const uint8_t key[16], char text[static 64]);         /* the same; IPv6 with /64 */
void impact_network(const uint8_t address[16], char text[static 64]); /* "192.0.2.0/24", "2001:db8::/48" */

/* gate_words.c */
enum language { LANGUAGE_EN, LANGUAGE_JA, LANGUAGES };

bool words_language(const char *name, enum language *ret); /* "ja"; NULL: of the environment */
const char *words_kind(enum behaviour_kind kind, enum language l);
void words_reason(struct buf *out, enum behaviour_reason reason, uint64_t number, enum language l);
/* What to tell whom it concerns, with the operator's own host and page where the configuration has them. */
void words_notice(struct buf *out, enum behaviour_kind kind, const struct config *config, enum language l);

enum word {
    WORD_LINES,
    WORD_ALL_REFUSED,
    WORD_ALL_NOTED,
    WORD_NONE,
    WORD_REST,
    WORD_CONNECTIONS,
    WORD_MORE,
    WORD_DAMAGED,
    WORD_WHY,
    WORD_TO,
    WORD_MX, /* then the domain */
    WORD_NOTICES,
    WORD_LINE,
    WORD_CLASS,
    WORD_KIND,
    WORD_REFUSED,
    WORD_WOULD,
    WORD_DESTINATIONS,
    WORD_FIRST,
    WORD_LAST,
    WORDS
};
const char *words_of(enum word word, enum language l);

#endif

/*
 * id.h: the 64-bit ids of sessions and messages. One id follows a message through all processes and logs.
 *
 * An id is 41 bits of milliseconds since 2020-01-01 UTC, 5 bits of the minting worker, 18 bits of a counter that
 * starts at random: ids sort by time. A step back of the clock could mint one twice; the spool refuses an id that
 * it holds, and the minter tries the next. Written as 13 characters of Crockford's base 32, lower case. 0 is none.
 */
#ifndef KIDOBAN_COMMON_ID_H
#define KIDOBAN_COMMON_ID_H

#include <stdint.h>

#define ID_TEXT_LEN 13

struct id_minter {
    uint32_t worker;  /* 0..31 */
    uint32_t counter; /* seed it at random */
};

uint64_t id_mint(struct id_minter *m, uint64_t wall_ms); /* wall_ms: Unix time; never 0 */
uint64_t id_wall_ms(uint64_t id);                        /* the Unix time in it */
void id_format(uint64_t id, char text[static ID_TEXT_LEN + 1]);
int id_parse(const char *text, uint64_t *ret_id); /* 0, or -EINVAL when it is no id; upper case is accepted */

#endif

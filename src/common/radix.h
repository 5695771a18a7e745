/*
 * radix.h: sorts many small records by octets of theirs, in time linear in their number.
 */
#ifndef KIDOBAN_COMMON_RADIX_H
#define KIDOBAN_COMMON_RADIX_H

#include <stddef.h>
#include <stdint.h>

#define RADIX_KEYS_MAX 32

/* Sorts count records of `size` octets each, stably. key: where in a record the octets stand that are compared, keys of
 * them (at most RADIX_KEYS_MAX), the first the one that weighs least. spare: room for as many records; what is in it
 * afterwards means nothing. Octets that are the same in all records cost nothing, and neither does what is in order
 * already. */
void radix_sort(void *records, void *spare, size_t count, size_t size, const uint8_t *key, size_t keys);

#endif

#include "common/radix.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

static int compare(const uint8_t *a, const uint8_t *b, const uint8_t *key, size_t keys)
{
    for (size_t i = keys; i > 0; i--) {
        if (a[key[i - 1]] != b[key[i - 1]]) {
            return a[key[i - 1]] < b[key[i - 1]] ? -1 : 1;
        }
    }
    return 0;
}

static bool in_order(const uint8_t *records, size_t count, size_t size, const uint8_t *key, size_t keys)
{
    for (size_t i = 1; i < count; i++) {
        if (compare(records + (i - 1) * size, records + i * size, key, keys) > 0) {
            return false;
        }
    }
    return true;
}

/* For each octet of the key the bits in which the records are not all the same. */
static void differing(const uint8_t *records, size_t count, size_t size, const uint8_t *key, size_t keys, uint8_t *ret)
{
    memset(ret, 0, keys);
    for (size_t i = 1; i < count; i++) {
        for (size_t k = 0; k < keys; k++) {
            ret[k] |= records[i * size + key[k]] ^ records[key[k]];
        }
    }
}

/* By one octet. */
static void distribute(const uint8_t *from, uint8_t *to, size_t count, size_t size, size_t octet)
{
    size_t at[256] = {0}, sum = 0;
    for (size_t i = 0; i < count; i++) {
        at[from[i * size + octet]]++;
    }
    for (size_t i = 0; i < 256; i++) {
        size_t n = at[i];
        at[i] = sum;
        sum += n;
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *one = from + i * size;
        memcpy(to + at[one[octet]]++ * size, one, size);
    }
}

void radix_sort(void *records, void *spare, size_t count, size_t size, const uint8_t *key, size_t keys)
{
    uint8_t *from = records, *to = spare, differ[RADIX_KEYS_MAX];
    assert(keys <= RADIX_KEYS_MAX);
    if (in_order(from, count, size, key, keys)) {
        return;
    }
    differing(from, count, size, key, keys, differ);
    for (size_t i = 0; i < keys; i++) {
        if (differ[i] != 0) {
            distribute(from, to, count, size, key[i]);
            uint8_t *other = from;
            from = to;
            to = other;
        }
    }
    if (from != records) {
        memcpy(records, from, count * size);
    }
}

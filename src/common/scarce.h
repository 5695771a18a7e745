/*
 * scarce.h: for tests: one allocation fails. malloc and calloc of all that is linked into the test are counted, by the
 * linker's --wrap (the dependency `scarce` of meson.build brings it).
 */
#ifndef KIDOBAN_COMMON_SCARCE_H
#define KIDOBAN_COMMON_SCARCE_H

extern long scarce_countdown; /* the allocation that fails when it reaches 0; -1: none, or it has failed */

#endif

/*
 * guess_file.h: the memory that guesses are counted in (guess.h): a mapped file, so that neither a death of the vault
 * nor a restart of the house makes a guesser new. kill -9 at any instant loses nothing but the change under way; a
 * power cut what the kernel had not yet written, half a minute. Where there can be no file it is plain memory.
 */
#ifndef KIDOBAN_VAULT_GUESS_FILE_H
#define KIDOBAN_VAULT_GUESS_FILE_H

#include <stdbool.h>
#include <stddef.h>

/* Octets of the file, made if it is not there (then zeros), or of plain memory: *ret_lasting tells. NULL: no memory. */
void *guess_file_map(int directory_fd, const char *name, size_t octets, bool *ret_lasting);
void guess_file_unmap(void **memory, size_t octets);

#endif

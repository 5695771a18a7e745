#include "vault/guess_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Every block of it is really there: a store into a hole on a full disk would be SIGBUS. */
static bool make_room(int fd, size_t octets)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_size == (off_t)octets || ftruncate(fd, 0) == 0) &&
           fallocate(fd, 0, 0, (off_t)octets) == 0;
}

static void *map_file(int directory_fd, const char *name, size_t octets)
{
    int fd = openat(directory_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0) {
        return MAP_FAILED;
    }
    void *map = make_room(fd, octets) ? mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    (void)close(fd);
    return map;
}

void *guess_file_map(int directory_fd, const char *name, size_t octets, bool *ret_lasting)
{
    void *map = map_file(directory_fd, name, octets);
    *ret_lasting = map != MAP_FAILED;
    if (map == MAP_FAILED) {
        map = mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    return map != MAP_FAILED ? map : NULL;
}

void guess_file_unmap(void **memory, size_t octets)
{
    if (*memory != NULL) {
        (void)munmap(*memory, octets);
        *memory = NULL;
    }
}

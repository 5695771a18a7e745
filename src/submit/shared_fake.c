#include "submit/shared_fake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "wire/master.h"

int shared_memory(void)
{
    int fd = memfd_create("shared", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, MASTER_SHARED_SIZE), 0);
    return fd;
}

struct net_address shared_address(const char *text)
{
    struct net_address a;
    assert_int_equal(net_address_parse(text, &a), 0);
    return a;
}

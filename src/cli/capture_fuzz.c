/* A capture file: any octets give packets that lie within what was read, then an end or words; after words nothing. */
#include <assert.h>

#include "cli/capture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct capture *c = NULL;
    struct capture_packet k;
    const char *error = NULL;
    FILE *f = size > 0 ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
    if (f == NULL) {
        return 0;
    }
    if (capture_open(f, &c, &error) < 0) {
        assert(error != NULL && c == NULL);
    } else {
        int r;
        uint64_t sum = 0;
        while ((r = capture_next(c, &k, &error)) > 0) {
            assert(k.frame.len <= size);
            for (size_t i = 0; i < k.frame.len; i++) {
                sum += k.frame.ptr[i];
            }
        }
        assert(sum <= 255 * size && (r == 0) == (error == NULL));
        assert(r == 0 || capture_next(c, &k, &error) == -1);
    }
    capture_close(&c);
    (void)fclose(f);
    return 0;
}

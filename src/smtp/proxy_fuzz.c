/* A PROXY header. The answer for a prefix must not contradict the answer for the whole. */
#include <assert.h>
#include <string.h>

#include "smtp/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct smtp_proxy p = {0}, q = {0};
    size_t used = 0, used_again = 0;
    const char *error = NULL;
    int r = smtp_proxy_parse((struct span){data, size}, &p, &used, &error);
    assert(r >= -1 && r <= 1 && (r < 0) == (error != NULL));
    if (r == 1) {
        assert(used > 0 && used <= size && used <= SMTP_PROXY_MAX);
        assert(smtp_proxy_parse((struct span){data, used}, &q, &used_again, &error) == 1);
        assert(used_again == used && p.addresses == q.addresses && memcmp(&p.source, &q.source, sizeof(p.source)) == 0);
        assert(smtp_proxy_parse((struct span){data, used - 1}, &q, &used_again, &error) == 0);
    }
    if (r == 0) {
        assert(size < SMTP_PROXY_MAX);
        for (size_t len = 0; len < size; len += 1 + size / 16) {
            assert(smtp_proxy_parse((struct span){data, len}, &q, &used_again, &error) == 0);
        }
    }
    return 0;
}

#include "common/account_name.h"

#include <errno.h>
#include <string.h>
#include <stringprep.h>

/* Characters that would need quoting wherever the name is shown: replies, Received, patterns. */
static bool is_permitted(const char *name)
{
    for (const unsigned char *p = (const unsigned char *)name; *p != '\0'; p++) {
        if (*p <= 0x20 || *p == 0x7f || strchr("\"*<>\\", *p) != NULL) {
            return false;
        }
    }
    return name[0] != '\0';
}

/* SASLprep throws out what must not be in a name; Nameprep then folds case. Code points newer than Unicode 3.2 pass
 * both as they are. */
static int prepare(char *name, size_t size)
{
    if (stringprep(name, size, 0, stringprep_saslprep) != STRINGPREP_OK ||
        stringprep(name, size, 0, stringprep_nameprep) != STRINGPREP_OK) {
        return -EINVAL;
    }
    return 0;
}

int account_name_normalise(struct span raw, char ret_name[static ACCOUNT_NAME_MAX + 1])
{
    if (raw.len == 0 || raw.len > ACCOUNT_NAME_MAX || memchr(raw.ptr, '\0', raw.len) != NULL) {
        return -EINVAL;
    }
    bool ascii = true;
    for (size_t i = 0; i < raw.len; i++) {
        uint8_t c = raw.ptr[i];
        ascii = ascii && c < 0x80;
        ret_name[i] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    }
    ret_name[raw.len] = '\0';
    if (!ascii && prepare(ret_name, ACCOUNT_NAME_MAX + 1) < 0) {
        return -EINVAL;
    }
    return is_permitted(ret_name) ? 0 : -EINVAL;
}

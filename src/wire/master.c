#include "wire/master.h"

#include <errno.h>
#include <string.h>

static const char *const role_names[ROLE_COUNT] = {
    [ROLE_MASTER] = "master", [ROLE_SUBMIT] = "submit",   [ROLE_VAULT] = "vault", [ROLE_GUARD] = "guard",
    [ROLE_SPOOL] = "spool",   [ROLE_DELIVER] = "deliver", [ROLE_GATE] = "gate",
};

const char *master_role_name(enum master_role role)
{
    return role_names[role];
}

int master_role_parse(const char *name, enum master_role *ret_role)
{
    for (int i = 0; i < ROLE_COUNT; i++) {
        if (strcmp(name, role_names[i]) == 0) {
            *ret_role = (enum master_role)i;
            return 0;
        }
    }
    return -EINVAL;
}

void master_tls_encode(struct wire_writer *w, const struct master_tls *m)
{
    wire_put_u8(w, m->kind);
    wire_put_u32(w, m->number);
}

int master_tls_decode(struct span payload, struct master_tls *m)
{
    struct wire_reader r = wire_reader(payload);
    m->kind = wire_get_u8(&r);
    m->number = wire_get_u32(&r);
    r.bad |= m->kind > TLS_PREFIXES || m->number > 4095;
    return wire_reader_end(&r);
}

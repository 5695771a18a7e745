/*
 * `kidoban export`: the policy in the language of another enforcer, on standard output, whole or not at all.
 */
#include "policy/export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/gate.h"
#include "common/clock.h"

#define TEXT_MAX (1U << 30)

static uint64_t boot_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static int say_error(const char *target, int r)
{
    switch (r) {
    case -ENOENT:
        return cli_usage("there is no export to \"%s\"", target);
    case -E2BIG:
        cli_error("%s: the policy takes more rules than such a router holds; join prefixes, or raise --budget", target);
        return EX_DATAERR;
    default:
        cli_error("%s: %s", target, strerror(-r));
        return EX_OSERR;
    }
}

static int export_policy(struct cli *c, const char *target, size_t budget)
{
    int status;
    struct policy *p = cli_gate_policy(c, &status);
    struct buf out;
    if (p == NULL) {
        return status;
    }
    const struct export_input in = {.policy = p,
                                    .subscriber_interfaces = &c->config->gate.subscriber_interfaces,
                                    .uplink_interfaces = &c->config->gate.uplink_interfaces,
                                    .now_boot_ns = boot_ns(),
                                    .now_wall_ms = clock_wall_ms(),
                                    .budget = budget};
    buf_init(&out, TEXT_MAX);
    int r = export_write(target, &in, &out);
    status = r < 0 ? say_error(target, r) : 0;
    if (r == 0 && fwrite(out.data, 1, out.len, stdout) != out.len) {
        status = EX_IOERR;
    }
    buf_fini(&out);
    policy_free(&p);
    return status;
}

int cli_export(struct cli *c, int argc, char **argv)
{
    unsigned long budget = 0;
    char *end = NULL;
    if (argc == 3 && strcmp(argv[1], "--budget") == 0) {
        errno = 0;
        budget = strtoul(argv[2], &end, 10);
    }
    if ((argc != 1 && end == NULL) || (end != NULL && (errno != 0 || *end != '\0' || budget == 0))) {
        return cli_usage("usage: kidoban export nft|flowspec|junos|iosxr|routeros [--budget N]");
    }
    return export_policy(c, argv[0], budget);
}

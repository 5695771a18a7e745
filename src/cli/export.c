/*
 * `kidoban export`: the policy in the language of another enforcer, on standard output, whole or not at all.
 */
#include "policy/export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/export.h"
#include "cli/gate.h"

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

int cli_export_text(struct cli *c, const struct runtime *r, const char *target, size_t budget, struct buf *out)
{
    int status;
    struct policy *p = cli_gate_policy_with(c, r, &status);
    const struct runtime_moment now = cli_gate_now();
    if (p == NULL) {
        return status;
    }
    const struct export_input in = {.policy = p,
                                    .subscriber_interfaces = &c->config->gate.subscriber_interfaces,
                                    .uplink_interfaces = &c->config->gate.uplink_interfaces,
                                    .now_boot_ns = now.boot_ns,
                                    .now_wall_ms = now.wall_ms,
                                    .budget = budget};
    int error = export_write(target, &in, out);
    policy_free(&p);
    return error < 0 ? say_error(target, error) : 0;
}

static int export_policy(struct cli *c, const char *target, size_t budget)
{
    int status;
    struct buf out;
    struct runtime *r = cli_gate_runtime(c, &status);
    if (r == NULL) {
        return status;
    }
    buf_init(&out, EXPORT_TEXT_MAX);
    status = cli_export_text(c, r, target, budget, &out);
    if (status == 0 && fwrite(out.data, 1, out.len, stdout) != out.len) {
        status = EX_IOERR;
    }
    buf_fini(&out);
    runtime_free(&r);
    return status;
}

static bool parse_budget(const char *text, size_t *ret)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    *ret = n;
    return text[0] >= '0' && text[0] <= '9' && errno == 0 && *end == '\0' && n > 0;
}

int cli_export(struct cli *c, int argc, char **argv)
{
    size_t budget = 0;
    bool follow = false, good = argc > 0;
    for (int i = 1; good && i < argc; i++) {
        if (strcmp(argv[i], "--follow") == 0) {
            good = !follow && strcmp(argv[0], "flowspec") == 0;
            follow = true;
        } else {
            good = strcmp(argv[i], "--budget") == 0 && i + 1 < argc && parse_budget(argv[i + 1], &budget);
            i++;
        }
    }
    if (!good) {
        return cli_usage("usage: kidoban export nft|flowspec|junos|iosxr|routeros [--budget N], or flowspec --follow");
    }
    return follow ? cli_export_follow(c, budget) : export_policy(c, argv[0], budget);
}

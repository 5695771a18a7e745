/*
 * kidoband(8): as the master, or, started by it, as one of the family.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "master/master_int.h"
#include "process/child.h"

#define CONFIG_DEFAULT "/etc/kidoban/kidoban.yaml"

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},
    {"check", no_argument, NULL, 'k'},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {"role", required_argument, NULL, 'r'},
    {"instance", required_argument, NULL, 'i'},
    {NULL, 0, NULL, 0},
};

static const char usage[] =
    "usage: kidoband [-c FILE] [--check]\n"
    "\n"
    "  -c, --config FILE   configuration (default " CONFIG_DEFAULT ", or $KIDOBAN_CONFIG)\n"
    "      --check         read the configuration and the files it names, say what is wrong, exit\n"
    "  -V, --version       print the version\n"
    "  -h, --help          this text\n"
    "\n"
    "kidoband(8), kidoban.yaml(5), kidoban(1)\n";

static int (*const mains[ROLE_COUNT])(uint32_t instance) = {
    [ROLE_SUBMIT] = submit_main, [ROLE_VAULT] = vault_main,     [ROLE_GUARD] = guard_main,
    [ROLE_SPOOL] = spool_main,   [ROLE_DELIVER] = deliver_main, [ROLE_GATE] = gate_main,
};

static int run_role(const char *name, const char *instance)
{
    enum master_role role;
    char *end = NULL;
    unsigned long number = instance != NULL ? strtoul(instance, &end, 10) : 0;
    if (master_role_parse(name, &role) < 0 || mains[role] == NULL || (end != NULL && *end != '\0') || number > 63) {
        (void)fputs("kidoband: --role is for the master's own use\n", stderr);
        return EX_USAGE;
    }
    return mains[role]((uint32_t)number);
}

int main(int argc, char **argv)
{
    const char *config = getenv("KIDOBAN_CONFIG") != NULL ? getenv("KIDOBAN_CONFIG") : CONFIG_DEFAULT;
    const char *role = NULL, *instance = NULL;
    bool check = false;
    for (int c; (c = getopt_long(argc, argv, "c:Vh", options, NULL)) != -1;) {
        switch (c) {
        case 'c':
            config = optarg;
            break;
        case 'k':
            check = true;
            break;
        case 'r':
            role = optarg;
            break;
        case 'i':
            instance = optarg;
            break;
        case 'V':
            (void)puts("kidoband " KIDOBAN_VERSION);
            return 0;
        case 'h':
            (void)fputs(usage, stdout);
            return 0;
        default:
            (void)fputs(usage, stderr);
            return EX_USAGE;
        }
    }
    if (optind < argc) {
        (void)fputs(usage, stderr);
        return EX_USAGE;
    }
    if (role != NULL) {
        return run_role(role, instance);
    }
    return check ? master_check(config) : master_run(config, argv);
}

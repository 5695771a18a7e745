/*
 * gate.h: what the verbs of the gate share in kidoban(1).
 */
#ifndef KIDOBAN_CLI_GATE_H
#define KIDOBAN_CLI_GATE_H

#include "cli/cli.h"
#include "gate/runtime.h"
#include "policy/evaluate.h"

/* What was changed at run time; nothing where no keeper answers. runtime_free(). NULL after saying why, with
 * *ret_status an exit status. */
struct runtime *cli_gate_runtime(struct cli *c, int *ret_status);
/* The policy of the configuration, with its files of prefixes, and of r; policy_free(). NULL as above. */
struct policy *cli_gate_policy_with(struct cli *c, const struct runtime *r, int *ret_status);
/* Both, for packets of any time: the exemptions that hold now have no end. */
struct policy *cli_gate_policy(struct cli *c, int *ret_status);
void cli_gate_hold(struct runtime *r); /* takes the ends of those that hold now, and out what has ended */
struct runtime_moment cli_gate_now(void);
/* "subscriber" or "uplink"; false after saying so. */
bool cli_gate_side(const char *word, enum packet_side *ret);
/* {"verdict":..., "rule":..., "class": name or null, and "would" when it differs}. NULL: no memory. */
json_t *cli_gate_judgement(const struct policy_judgement *j);

#endif

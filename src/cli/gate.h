/*
 * gate.h: what the verbs of the gate share in kidoban(1).
 */
#ifndef KIDOBAN_CLI_GATE_H
#define KIDOBAN_CLI_GATE_H

#include "cli/cli.h"
#include "policy/evaluate.h"

/* The policy of the configuration, with its files of prefixes; policy_free(). NULL after saying why, with *ret_status
 * an exit status. Exemptions are the keeper's: none are in it. */
struct policy *cli_gate_policy(struct cli *c, int *ret_status);
/* "subscriber" or "uplink"; false after saying so. */
bool cli_gate_side(const char *word, enum packet_side *ret);
/* {"verdict":..., "rule":..., "class": name or null, and "would" when it differs}. NULL: no memory. */
json_t *cli_gate_judgement(const struct policy_judgement *j);

#endif

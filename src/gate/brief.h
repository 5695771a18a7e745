/*
 * brief.h: what is different between two configurations of the gate, in a line for the audit log. Pure.
 */
#ifndef KIDOBAN_GATE_BRIEF_H
#define KIDOBAN_GATE_BRIEF_H

#include "config/config.h"

#define BRIEF_MAX 1024

/* "mode: enforce to monitor; class dynamic: 3 prefixes instead of 2". Empty: nothing that a packet would notice. What
 * does not fit is "and more". With the prefixes of files (config_gate_read_files()) in both. */
void brief_changes(const struct config_gate *from, const struct config_gate *to, char ret[static BRIEF_MAX]);

#endif

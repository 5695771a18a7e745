/*
 * export.h: what `kidoban export` and its --follow share.
 */
#ifndef KIDOBAN_CLI_EXPORT_H
#define KIDOBAN_CLI_EXPORT_H

#include "cli/cli.h"
#include "gate/runtime.h"

#define EXPORT_TEXT_MAX (1U << 30)

/* The configuration's policy with r, now. 0, or an exit status after saying why. */
int cli_export_text(struct cli *c, const struct runtime *r, const char *target, size_t budget, struct buf *out);
/* FlowSpec, until nobody reads standard output any more. 0, or an exit status after saying why. */
int cli_export_follow(struct cli *c, size_t budget);

#endif

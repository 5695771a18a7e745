/* control.h: the spool's verbs on its control socket (process/control.h): queue.*, spool.status. */
#ifndef KIDOBAN_SPOOL_CONTROL_H
#define KIDOBAN_SPOOL_CONTROL_H

#include "process/control.h"
#include "spool/spool.h"

/* Their arg is the struct spool. */
extern const struct control_verb spool_verbs[];
json_t *spool_status_json(struct spool *sp);

#endif

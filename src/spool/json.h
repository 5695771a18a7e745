/* json.h: a queued message as JSON, for the control socket and for export. */
#ifndef KIDOBAN_SPOOL_JSON_H
#define KIDOBAN_SPOOL_JSON_H

#include <jansson.h>

#include "spool/index.h"

/* now_ms: spool time. What a sender wrote and is no UTF-8 is shown with \xNN. NULL when out of memory. */
json_t *json_message_line(const struct message *m, uint64_t now_ms, struct record_scratch *scratch);
json_t *json_message_full(const struct message *m, uint64_t now_ms, struct record_scratch *scratch);

#endif

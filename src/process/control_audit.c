#include <sysexits.h>

#include "process/audit.h"
#include "process/control.h"

#define COUNT     100
#define COUNT_MAX 10000

void control_audit_list(struct control_request *rq, struct audit *a, const json_t *request, const char *account)
{
    const json_t *limit = json_object_get(request, "count");
    json_int_t count = limit != NULL ? json_integer_value(limit) : COUNT;
    if (count < 1 || count > COUNT_MAX) {
        control_fail(rq, EX_USAGE, "\"count\" must be 1 to %d", COUNT_MAX);
        return;
    }
    json_t *list = audit_list(a, account, (size_t)count);
    if (list == NULL) {
        control_fail(rq, EX_IOERR, "the audit log cannot be read");
        return;
    }
    size_t i;
    json_t *line;
    json_array_foreach(list, i, line)
    {
        (void)control_line(rq, json_incref(line));
    }
    json_decref(list);
    control_done(rq, NULL);
}

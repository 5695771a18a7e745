/* What utlist's macros do, in the few words that cppcheck needs; never compiled. */
#define DL_APPEND(head, el)            ((head) = (el))
#define DL_PREPEND(head, el)           ((head) = (el))
#define DL_DELETE(head, el)            ((head) = (el)->next)
#define DL_FOREACH(head, el)           for ((el) = (head); (el) != 0; (el) = (el)->next)
#define DL_FOREACH_SAFE(head, el, tmp) for ((el) = (head), (tmp) = (el)->next; (el) != 0; (el) = (tmp))
#define LL_FOREACH_SAFE(head, el, tmp) for ((el) = (head), (tmp) = (el)->next; (el) != 0; (el) = (tmp))

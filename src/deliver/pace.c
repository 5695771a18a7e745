#include "deliver/pace.h"

void pace_init(struct pace *p, unsigned max)
{
    p->limit = PACE_START;
    pace_set_max(p, max);
}

void pace_set_max(struct pace *p, unsigned max)
{
    p->max = max > 0 ? max : 1;
    p->limit = p->limit < p->max ? p->limit : p->max;
}

void pace_success(struct pace *p)
{
    p->limit += p->limit < p->max;
}

void pace_failure(struct pace *p)
{
    p->limit = p->limit > 1 ? p->limit / 2 : 1;
}

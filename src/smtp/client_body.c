#include <string.h>

#include "smtp/client_int.h"

void client_body_init(struct client_body *b)
{
    *b = (struct client_body){.line_start = true, .last = {'\r', '\n'}}; /* nothing before: as good as a line's end */
}

/*
 * How much of run can go out as it is: up to the next dot at the start of a line. It is also put in behind a bare LF:
 * there is none in what we stored, and if there were, some host would see a line's start there (CVE-2023-51764).
 */
static size_t plain_length(struct span run)
{
    size_t at = 1;
    while (at < run.len) {
        const uint8_t *dot = memchr(run.ptr + at, '.', run.len - at);
        if (dot == NULL) {
            break;
        }
        at = (size_t)(dot - run.ptr);
        if (run.ptr[at - 1] == '\n') {
            return at;
        }
        at++;
    }
    return run.len;
}

static struct span end_of_data(const struct client_body *b)
{
    bool complete = b->last[0] == '\r' && b->last[1] == '\n';
    return complete ? SPAN_LIT(".\r\n") : SPAN_LIT("\r\n.\r\n");
}

static int look(struct client_body *b, int (*next)(void *arg, struct span *ret), void *arg)
{
    if (b->run.len == 0) {
        struct span run = {0};
        int r = next(arg, &run);
        if (r < 0) {
            return r;
        }
        b->ended = r == 0 || run.len == 0;
        b->run = b->ended ? end_of_data(b) : run;
        if (b->ended) {
            b->view = b->run;
            return 0;
        }
    }
    b->dot = b->line_start && !b->dotted && b->run.ptr[0] == '.';
    b->view = b->dot ? SPAN_LIT(".") : (struct span){b->run.ptr, plain_length(b->run)};
    return 0;
}

int client_body_next(struct client_body *b, int (*next)(void *arg, struct span *ret), void *arg, struct span *ret)
{
    if (b->view.len == 0 && !b->ended) {
        int r = look(b, next, arg);
        if (r < 0) {
            return r;
        }
    }
    *ret = b->view;
    return b->view.len > 0 ? 1 : 0;
}

void client_body_written(struct client_body *b, size_t len)
{
    len = len < b->view.len ? len : b->view.len;
    if (len == 0) {
        return;
    }
    const uint8_t *end = b->view.ptr + len;
    b->view = (struct span){end, b->view.len - len};
    if (b->dot) {
        b->dotted = true;
        b->dot = false;
        return;
    }
    b->last[0] = len > 1 ? end[-2] : b->last[1];
    b->last[1] = end[-1];
    b->run = (struct span){end, b->run.len - len};
    b->line_start = end[-1] == '\n';
    b->dotted = false;
}

/* DATA (RFC 5321 section 4.1.1.4). */
#include "smtp/server_int.h"

void proceed_data(struct smtp_server *s, const union server_parsed *parsed)
{
    (void)parsed;
    s->data_behind = s->behind > 0;
    server_message_begin(s, s->declared);
}

size_t server_take_data(struct smtp_server *s, struct span in)
{
    bool end;
    size_t used = server_message_text(s, in, &end);
    if (end && !server_ended(s)) {
        server_message_end(s);
    }
    return used;
}

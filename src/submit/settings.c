#include "submit/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static void set_listener(struct submit_listener *l, const struct config *c, const struct config_listen *from)
{
    l->implicit_tls = from->implicit_tls;
    l->proxy_from = from->proxy_from.list;
    l->proxy_from_count = from->proxy_from.count;
    (void)snprintf(l->service, sizeof(l->service), "%u", from->address.port);
    l->smtp = (struct smtp_server_config){
        .hostname = c->submission.hostname,
        .help_url = c->operator_.help_url,
        .tls = from->implicit_tls ? SMTP_SERVER_IMPLICIT : SMTP_SERVER_STARTTLS,
        .mechanisms = c->submission.auth.mechanisms,
        .require_auth = true,
        .repair_bare_lf = from->repair_bare_lf,
        .smtputf8 = true,
        .limits = smtp_server_limits_default,
    };
    l->smtp.limits.size_max = c->submission.limits.message_size;
    l->smtp.limits.recipients_max = c->submission.limits.recipients;
    l->smtp.limits.messages_max = c->submission.limits.session_messages;
    l->smtp.limits.text_line_max = c->submission.limits.line_length;
    l->smtp.limits.header_max = (uint32_t)c->submission.limits.header_size;
    l->smtp.limits.commands_max = c->submission.limits.commands;
    l->smtp.limits.bad_commands_max = c->submission.limits.bad_commands;
    l->smtp.limits.auth_failures_max = c->submission.limits.auth_failures;
}

int submit_settings_new(struct config_ref *config, const struct child_tls *tls, size_t tls_count,
                        struct submit_settings **ret, const char **ret_why)
{
    const struct config *c = config->config;
    struct submit_settings *s = calloc(1, sizeof(*s));
    *ret_why = "out of memory";
    if (s == NULL) {
        return -ENOMEM;
    }
    s->holders = 1;
    s->config = config_ref_hold(config);
    s->listeners_count = c->submission.listen_count;
    s->listeners = calloc(s->listeners_count, sizeof(*s->listeners));
    struct submit_tls_options options = {.tls_1_3_only = c->submission.tls.tls_1_3_only,
                                         .tickets = c->submission.tls.session_tickets};
    int r = s->listeners == NULL ? -ENOMEM : submit_tls_new(tls, tls_count, &options, &s->tls, ret_why);
    if (r < 0) {
        submit_settings_drop(&s);
        return r;
    }
    for (size_t i = 0; i < s->listeners_count; i++) {
        set_listener(&s->listeners[i], c, &c->submission.listen[i]);
    }
    *ret = s;
    return 0;
}

struct submit_settings *submit_settings_hold(struct submit_settings *s)
{
    s->holders++;
    return s;
}

void submit_settings_drop(struct submit_settings **sp)
{
    struct submit_settings *s = *sp;
    *sp = NULL;
    if (s == NULL || --s->holders > 0) {
        return;
    }
    submit_tls_free(&s->tls);
    free(s->listeners);
    config_ref_drop(&s->config);
    free(s);
}

bool submit_listener_is_proxy(const struct submit_listener *l, const struct net_address *peer)
{
    for (size_t i = 0; i < l->proxy_from_count; i++) {
        if (net_prefix_contains(&l->proxy_from[i], peer)) {
            return true;
        }
    }
    return false;
}

const char *submit_settings_relay_network(const struct submit_settings *s, const struct net_address *peer)
{
    const struct config *c = s->config->config;
    for (size_t i = 0; i < c->submission.relay_networks_count; i++) {
        const struct config_relay_network *n = &c->submission.relay_networks[i];
        for (size_t k = 0; k < n->prefixes.count; k++) {
            if (net_prefix_contains(&n->prefixes.list[k], peer)) {
                return n->name;
            }
        }
    }
    return NULL;
}

/*
 * What an operator may ask the gate keeper.
 */
#include "gate/keeper_int.h"
#include "gate/observe.h"

static void gate_status(void *arg, struct control_request *rq, const json_t *request)
{
    const struct keeper *k = arg;
    (void)request;
    control_done(rq, json_pack("{s:b,s:o,s:o,s:o,s:o,s:o,s:o}", "open", k->open, "modes", changes_modes(k),
                               "interfaces", figures_interfaces(k), "policy", figures_policy(k), "classes",
                               figures_classes(k), "reasons", figures_reasons(k), "programs", figures_programs(k)));
}

static void gate_top(void *arg, struct control_request *rq, const json_t *request)
{
    const struct keeper *k = arg;
    observe_verb_top(k->observe, rq, request);
}

static void history_save_verb(void *arg, struct control_request *rq, const json_t *request)
{
    const struct keeper *k = arg;
    (void)request;
    observe_verb_save(k->observe, rq);
}

const struct control_verb gate_verbs[] = {
    {"gate.status", gate_status},
    {"gate.detach", verb_detach},
    {"gate.attach", verb_attach},
    {"gate.exempt.add", verb_exempt_add},
    {"gate.exempt.list", verb_exempt_list},
    {"gate.exempt.remove", verb_exempt_remove},
    {"gate.mode", verb_mode},
    {"gate.runtime", verb_runtime},
    {"gate.watch", verb_watch},
    {"gate.export", verb_export},
    {"audit.list", verb_audit},
    {"gate.top", gate_top},
    {"history.save", history_save_verb},
    {NULL, NULL},
};

/*
 * Every decoder of every pair, from one input: the first octet chooses. What decodes is encoded again and must decode
 * to the same octets: the codec has one meaning for each frame.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "wire/deliver.h"
#include "wire/guard.h"
#include "wire/master.h"
#include "wire/spool.h"
#include "wire/vault.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct envelope_recipient recipients[ENVELOPE_RECIPIENTS_MAX];
static struct deliver_recipient_result results[ENVELOPE_RECIPIENTS_MAX];

#define ROUND_TRIP(name, prefix)                                                                                       \
    static void try_##name(struct span in, struct wire_writer *w)                                                      \
    {                                                                                                                  \
        struct name m = {0};                                                                                           \
        prefix;                                                                                                        \
        if (name##_decode(in, &m) == 0) {                                                                              \
            name##_encode(w, &m);                                                                                      \
            assert(w->error == 0 && span_eq(buf_span(w->out), in));                                                    \
        }                                                                                                              \
    }

ROUND_TRIP(vault_verify, )
ROUND_TRIP(vault_scram_salt, )
ROUND_TRIP(vault_salt, )
ROUND_TRIP(vault_scram_proof, )
ROUND_TRIP(vault_certificate, )
ROUND_TRIP(vault_verdict, )
ROUND_TRIP(guard_check, )
ROUND_TRIP(guard_answer, )
ROUND_TRIP(guard_suspension, )
ROUND_TRIP(spool_put, m.envelope.recipients = recipients)
ROUND_TRIP(spool_begin, m.envelope.recipients = recipients)
ROUND_TRIP(spool_refused, )
ROUND_TRIP(spool_state, )
ROUND_TRIP(deliver_job, m.envelope.recipients = recipients)
ROUND_TRIP(deliver_outcome, m.results = results)
ROUND_TRIP(master_tls, )

static void (*const tries[])(struct span, struct wire_writer *) = {
    try_vault_verify,      try_vault_scram_salt, try_vault_salt,      try_vault_scram_proof,
    try_vault_certificate, try_vault_verdict,    try_guard_check,     try_guard_answer,
    try_guard_suspension,  try_spool_put,        try_spool_begin,     try_spool_refused,
    try_spool_state,       try_deliver_job,      try_deliver_outcome, try_master_tls,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct span in = {data + 1, size - 1};
    struct frame f;
    (void)frame_decode(in, &f);
    struct buf out;
    buf_init(&out, 2U * FRAME_PAYLOAD_MAX);
    struct wire_writer w = {.out = &out};
    tries[data[0] % (sizeof(tries) / sizeof(tries[0]))](in, &w);
    buf_fini(&out);
    return 0;
}

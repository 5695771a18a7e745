#include "deliver/outcome.h"

#include <assert.h>
#include <string.h>

_Static_assert(OUTCOME_RESULTS_MAX *(DELIVER_TEXT_MAX + 16) < FRAME_PAYLOAD_MAX - 1024, "an OUTCOME fits into a frame");

/* The length of the UTF-8 character at the start, 0 when there is none (RFC 3629: no overlong, no surrogates). */
static size_t utf8_length(struct span in)
{
    static const struct {
        uint8_t low, high, second_low, second_high, length;
    } forms[] = {
        {0x20, 0x7e, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        size_t len = forms[i].length;
        if (in.ptr[0] < forms[i].low || in.ptr[0] > forms[i].high || in.len < len) {
            continue;
        }
        bool good = len == 1 || (in.ptr[1] >= forms[i].second_low && in.ptr[1] <= forms[i].second_high);
        for (size_t k = 2; k < len; k++) {
            good = good && (in.ptr[k] & 0xc0) == 0x80;
        }
        return good ? len : 0;
    }
    return 0;
}

static bool is_c1(struct span in) /* U+0080..U+009F: some terminals act on them */
{
    return in.ptr[0] == 0xc2 && in.ptr[1] < 0xa0;
}

size_t outcome_text_clean(struct span text, char out[static DELIVER_TEXT_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < text.len && n < DELIVER_TEXT_MAX;) {
        struct span rest = {text.ptr + i, text.len - i};
        size_t len = utf8_length(rest);
        bool control = rest.ptr[0] < 0x20 || rest.ptr[0] == 0x7f;
        if (len == 0 || control || (len == 2 && is_c1(rest))) {
            out[n++] = control ? ' ' : '?';
            i += len > 0 ? len : 1;
            continue;
        }
        if (n + len > DELIVER_TEXT_MAX) {
            break;
        }
        memcpy(out + n, rest.ptr, len);
        n += len;
        i += len;
    }
    return n;
}

void outcome_flush(struct outcome_sink *sink)
{
    if (sink->count == 0) {
        return;
    }
    struct deliver_outcome m = {.remote = sink->peer.remote,
                                .address = sink->peer.address,
                                .tls = sink->peer.tls,
                                .results_count = (uint16_t)sink->count,
                                .results = sink->results};
    sink->count = 0;
    sink->send(sink->arg, sink->id, sink->generation, &m);
}

static bool said_alike(const struct outcome_said *a, const struct outcome_said *b)
{
    return a->result == b->result && a->code == b->code && memcmp(a->enhanced, b->enhanced, 3) == 0 &&
           span_eq(a->text, b->text);
}

/* Opens a frame for what was said, or goes on with the one that is open. */
static void frame_for(struct outcome_sink *sink, const struct job *j, const struct outcome_peer *peer,
                      const struct outcome_said *said)
{
    char clean[DELIVER_TEXT_MAX];
    struct outcome_said cleaned = *said;
    cleaned.text = (struct span){(const uint8_t *)clean, outcome_text_clean(said->text, clean)};
    if (sink->count > 0 && sink->count < OUTCOME_RESULTS_MAX && sink->id == j->id &&
        sink->generation == j->generation && said_alike(&sink->said, &cleaned)) {
        return;
    }
    outcome_flush(sink);
    memcpy(sink->text, clean, cleaned.text.len);
    cleaned.text.ptr = (const uint8_t *)sink->text;
    sink->id = j->id;
    sink->generation = j->generation;
    sink->peer = *peer;
    sink->said = cleaned;
}

void outcome_one(struct outcome_sink *sink, struct job *j, size_t recipient, const struct outcome_peer *peer,
                 const struct outcome_said *said)
{
    assert(!j->settled[recipient]);
    frame_for(sink, j, peer, said);
    struct deliver_recipient_result *r = &sink->results[sink->count++];
    *r = (struct deliver_recipient_result){.number = j->wire.envelope.recipients[recipient].number,
                                           .result = (uint8_t)said->result,
                                           .code = said->code,
                                           .text = sink->said.text};
    memcpy(r->enhanced, said->enhanced, sizeof(r->enhanced));
    j->settled[recipient] = true;
    j->open--;
    sink->counts[said->result]++;
}

void outcome_rest(struct outcome_sink *sink, struct job *j, const struct outcome_peer *peer,
                  const struct outcome_said *said)
{
    for (size_t i = 0; i < j->wire.envelope.recipients_count; i++) {
        if (!j->settled[i]) {
            outcome_one(sink, j, i, peer, said);
        }
    }
}

void outcome_rest_cancelled(struct outcome_sink *sink, struct job *j)
{
    static const struct outcome_said said = {
        .result = DELIVER_CANCELLED, .enhanced = {4, 7, 0}, .text = SPAN_LIT("Given up before it was sent")};
    outcome_rest(sink, j, &(struct outcome_peer){0}, &said);
    outcome_flush(sink);
}

void outcome_rest_refused(struct outcome_sink *sink, struct job *j, const struct refusal *why)
{
    struct outcome_said said = {.result = why->permanent ? DELIVER_PERMANENT : DELIVER_TEMPORARY,
                                .code = why->code,
                                .text = span_str(why->words)};
    memcpy(said.enhanced, why->enhanced, sizeof(said.enhanced));
    outcome_rest(sink, j, &(struct outcome_peer){0}, &said);
    outcome_flush(sink);
}

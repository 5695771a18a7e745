/*
 * A hostile host. The first octet is what the owner wants, the second how many recipients and how the octets are cut;
 * the rest is what the host says. Whatever it is: every recipient of a transaction gets exactly one result, nothing
 * but the message follows 354, and the engine ends.
 */
#include <assert.h>
#include <string.h>

#include "smtp/client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECIPIENTS_MAX   8
#define TRANSACTIONS_MAX 3

struct run {
    struct smtp_client *c;
    size_t recipients;
    uint32_t open; /* a bit for each recipient without a result */
    size_t part;
    size_t begun;
};

static int next_octets(void *arg, struct span *ret)
{
    static const char *const parts[] = {"Subject: x\r\n\r\n", ".\r\n..a\r", "\n", ".", "\r\n.b", "\r\n"};
    struct run *t = arg;
    if (t->part == sizeof(parts) / sizeof(parts[0])) {
        return 0;
    }
    *ret = span_str(parts[t->part++]);
    return 1;
}

static void on_recipient(void *arg, size_t index, const struct smtp_client_result *result)
{
    struct run *t = arg;
    assert(index < t->recipients && (t->open & (1U << index)) != 0);
    t->open &= ~(1U << index);
    assert(result->text.len <= SMTP_CLIENT_TEXT_MAX);
    for (size_t i = 0; i < result->text.len; i++) {
        assert(result->text.ptr[i] >= ' ' && result->text.ptr[i] < 127);
    }
    assert(result->class != SMTP_CLIENT_DELIVERED || result->code / 100 == 2);
}

static void begin(struct run *t)
{
    static struct smtp_client_recipient recipients[RECIPIENTS_MAX];
    for (size_t i = 0; i < RECIPIENTS_MAX; i++) {
        recipients[i] = (struct smtp_client_recipient){
            .address = SPAN_LIT("r@example.org"), .notify = (uint8_t)i, .orcpt = SPAN_LIT("rfc822;r")};
    }
    const struct smtp_client_transaction transaction = {.sender = SPAN_LIT("s@example.net"),
                                                        .size = 100,
                                                        .body_8bit = true,
                                                        .ret = SMTP_CLIENT_RET_FULL,
                                                        .envid = SPAN_LIT("e"),
                                                        .recipients = recipients,
                                                        .recipients_count = t->recipients,
                                                        .arg = t,
                                                        .body_next = next_octets,
                                                        .recipient = on_recipient};
    assert(t->open == 0);
    t->open = (1U << t->recipients) - 1;
    t->part = 0;
    t->begun++;
    assert(smtp_client_begin(t->c, &transaction) == 0);
}

/* Writes what there is and does what an owner would; false: it is over. */
static bool act(struct run *t)
{
    for (size_t turns = 0; turns < 1000; turns++) {
        struct span out = smtp_client_output(t->c);
        if (out.len > 0) {
            smtp_client_written(t->c, out.len > 7 ? out.len - 3 : out.len);
            continue;
        }
        switch (smtp_client_state(t->c)) {
        case SMTP_CLIENT_BUSY:
            return true;
        case SMTP_CLIENT_STARTTLS:
            smtp_client_tls_started(t->c);
            break;
        case SMTP_CLIENT_READY:
            assert(t->open == 0);
            if (t->begun < TRANSACTIONS_MAX) {
                begin(t);
            } else {
                smtp_client_quit(t->c);
            }
            break;
        default:
            assert(t->open == 0);
            return false;
        }
    }
    assert(!"the engine ends");
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    const struct smtp_client_config config = {
        .hostname = "client.example",
        .lmtp = (data[0] & 1) != 0,
        .tls = (enum smtp_client_tls)((data[0] >> 1 & 3) % 3),
        .tls_active = (data[0] & 8) != 0,
        .user = (data[0] & 16) != 0 ? "user" : NULL,
        .password = "password",
        .auth_in_clear = (data[0] & 32) != 0,
        .no_pipelining = (data[0] & 64) != 0,
    };
    struct run t = {.c = smtp_client_new(&config), .recipients = 1 + (data[1] & 7) % RECIPIENTS_MAX};
    size_t step = 1 + (size_t)(data[1] >> 3) * 9;
    assert(t.c != NULL);
    bool more = act(&t);
    for (size_t at = 2; at < size && more; at += step) {
        smtp_client_feed(t.c, data + at, size - at < step ? size - at : step);
        more = act(&t);
    }
    if ((data[0] & 128) != 0) {
        smtp_client_fail(t.c, "The connection was lost");
        assert(smtp_client_state(t.c) == SMTP_CLIENT_OVER && t.open == 0);
    }
    smtp_client_free(&t.c);
    assert(t.open == 0);
    return 0;
}

#include "wire/vault.h"

#define AUTH_MESSAGE_MAX 4096
#define SALT_MAX         64
#define DIGEST_MAX       64
#define MECHANISM_MAX    32

void vault_verify_encode(struct wire_writer *w, const struct vault_verify *m)
{
    wire_put_u64(w, m->session);
    wire_put_address(w, &m->peer);
    wire_put_bytes(w, m->name);
    wire_put_bytes(w, m->password);
    wire_put_bytes(w, m->mechanism);
}

int vault_verify_decode(struct span payload, struct vault_verify *m)
{
    struct wire_reader r = wire_reader(payload);
    m->session = wire_get_u64(&r);
    wire_get_address(&r, &m->peer);
    m->name = wire_get_bytes(&r, VAULT_NAME_MAX);
    m->password = wire_get_bytes(&r, VAULT_PASSWORD_MAX);
    m->mechanism = wire_get_bytes(&r, MECHANISM_MAX);
    return wire_reader_end(&r);
}

void vault_scram_salt_encode(struct wire_writer *w, const struct vault_scram_salt *m)
{
    wire_put_u64(w, m->session);
    wire_put_address(w, &m->peer);
    wire_put_u8(w, m->hash);
    wire_put_bytes(w, m->name);
}

int vault_scram_salt_decode(struct span payload, struct vault_scram_salt *m)
{
    struct wire_reader r = wire_reader(payload);
    m->session = wire_get_u64(&r);
    wire_get_address(&r, &m->peer);
    m->hash = wire_get_u8(&r);
    m->name = wire_get_bytes(&r, VAULT_NAME_MAX);
    r.bad |= m->hash != VAULT_SHA1 && m->hash != VAULT_SHA256;
    return wire_reader_end(&r);
}

void vault_salt_encode(struct wire_writer *w, const struct vault_salt *m)
{
    wire_put_u8(w, m->status);
    wire_put_u32(w, m->iterations);
    wire_put_bytes(w, m->salt);
}

int vault_salt_decode(struct span payload, struct vault_salt *m)
{
    struct wire_reader r = wire_reader(payload);
    m->status = wire_get_u8(&r);
    m->iterations = wire_get_u32(&r);
    m->salt = wire_get_bytes(&r, SALT_MAX);
    r.bad |= m->status < VAULT_OK || m->status > VAULT_UNAVAILABLE;
    return wire_reader_end(&r);
}

void vault_scram_proof_encode(struct wire_writer *w, const struct vault_scram_proof *m)
{
    wire_put_u64(w, m->session);
    wire_put_address(w, &m->peer);
    wire_put_u8(w, m->hash);
    wire_put_bytes(w, m->name);
    wire_put_bytes(w, m->mechanism);
    wire_put_bytes(w, m->auth_message);
    wire_put_bytes(w, m->proof);
}

int vault_scram_proof_decode(struct span payload, struct vault_scram_proof *m)
{
    struct wire_reader r = wire_reader(payload);
    m->session = wire_get_u64(&r);
    wire_get_address(&r, &m->peer);
    m->hash = wire_get_u8(&r);
    m->name = wire_get_bytes(&r, VAULT_NAME_MAX);
    m->mechanism = wire_get_bytes(&r, MECHANISM_MAX);
    m->auth_message = wire_get_bytes(&r, AUTH_MESSAGE_MAX);
    m->proof = wire_get_bytes(&r, DIGEST_MAX);
    r.bad |= m->hash != VAULT_SHA1 && m->hash != VAULT_SHA256;
    return wire_reader_end(&r);
}

void vault_certificate_encode(struct wire_writer *w, const struct vault_certificate *m)
{
    wire_put_u64(w, m->session);
    wire_put_address(w, &m->peer);
    wire_put_bytes(w, m->authzid);
    wire_put_bytes(w, m->sha256);
    wire_put_bytes(w, m->mailbox);
    wire_put_bytes(w, m->subject);
}

int vault_certificate_decode(struct span payload, struct vault_certificate *m)
{
    struct wire_reader r = wire_reader(payload);
    m->session = wire_get_u64(&r);
    wire_get_address(&r, &m->peer);
    m->authzid = wire_get_bytes(&r, VAULT_NAME_MAX);
    m->sha256 = wire_get_bytes(&r, 32);
    m->mailbox = wire_get_bytes(&r, VAULT_IDENTITY_MAX);
    m->subject = wire_get_bytes(&r, VAULT_NAME_MAX);
    r.bad |= m->sha256.len != 32;
    return wire_reader_end(&r);
}

void vault_verdict_encode(struct wire_writer *w, const struct vault_verdict *m)
{
    wire_put_u8(w, m->status);
    wire_put_bytes(w, m->account);
    wire_put_bytes(w, m->text);
    wire_put_bytes(w, m->server_signature);
    wire_put_u16(w, m->identities_count);
    for (size_t i = 0; i < m->identities_count; i++) {
        wire_put_bytes(w, m->identities[i]);
    }
}

int vault_verdict_decode(struct span payload, struct vault_verdict *m)
{
    struct wire_reader r = wire_reader(payload);
    m->status = wire_get_u8(&r);
    m->account = wire_get_bytes(&r, VAULT_NAME_MAX);
    m->text = wire_get_bytes(&r, VAULT_TEXT_MAX);
    m->server_signature = wire_get_bytes(&r, DIGEST_MAX);
    m->identities_count = wire_get_u16(&r);
    r.bad |= m->identities_count > VAULT_IDENTITIES_MAX || m->status < VAULT_OK || m->status > VAULT_UNAVAILABLE;
    for (size_t i = 0; i < m->identities_count && !r.bad; i++) {
        m->identities[i] = wire_get_bytes(&r, VAULT_IDENTITY_MAX);
    }
    return wire_reader_end(&r);
}

#include "submit/tls.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

#define CIPHERS_1_2                                                                                                    \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:"                         \
    "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
#define DAY_MS        (24U * 3600U * 1000U)
#define TICKET_SECRET 32

struct tls_identity {
    X509 *certificate;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    SSL_CTX *context;
};

/* Ticket keys of a day: HKDF (RFC 5869) over the secret, so that no worker has to ask another for them. */
struct ticket_key {
    uint64_t day; /* since the epoch; 0: none yet */
    struct {
        uint8_t name[16], aes[32], hmac[32];
    } octets;
};

struct submit_tls {
    struct tls_identity *identities;
    size_t count;
    X509_STORE *client_ca;
    uint8_t
        ticket_secret[TICKET_SECRET]; /* from the default private key: the same in every worker, and after a restart */
    struct ticket_key ticket_keys[2]; /* made once a day each: at day % 2 */
    bool tickets;
};

static int ticket_key_make(const struct submit_tls *tls, uint64_t day, struct ticket_key *ret)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)tls->ticket_secret, TICKET_SECRET),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, &day, sizeof(day)),
        OSSL_PARAM_construct_end(),
    };
    int r = ctx != NULL && EVP_KDF_derive(ctx, (unsigned char *)&ret->octets, sizeof(ret->octets), params) == 1
                ? 0
                : -EINVAL;
    ret->day = r == 0 ? day : 0;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return r;
}

static struct ticket_key *ticket_key_of(struct submit_tls *tls, uint64_t day)
{
    struct ticket_key *key = &tls->ticket_keys[day % 2];
    return key->day == day || ticket_key_make(tls, day, key) == 0 ? key : NULL;
}

/* Today's key makes tickets; yesterday's still opens them, and asks for a new one. */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                     int make)
{
    struct submit_tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    uint64_t today = clock_wall_ms() / DAY_MS;
    for (uint64_t age = 0; age < (make ? 1U : 2U); age++) {
        struct ticket_key *key = ticket_key_of(tls, today - age);
        if (key == NULL || (!make && memcmp(name, key->octets.name, sizeof(key->octets.name)) != 0)) {
            continue;
        }
        OSSL_PARAM params[] = {
            OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->octets.hmac, sizeof(key->octets.hmac)),
            OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, "SHA256", 0),
            OSSL_PARAM_construct_end(),
        };
        if (EVP_MAC_CTX_set_params(mac, params) != 1) {
            break;
        }
        if (!make) {
            return EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->octets.aes, iv) == 1 ? 1 + (int)age : -1;
        }
        memcpy(name, key->octets.name, sizeof(key->octets.name));
        bool good =
            RAND_bytes(iv, 16) == 1 && EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->octets.aes, iv) == 1;
        return good ? 1 : -1;
    }
    return make ? -1 : 0;
}

static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const struct submit_tls *tls = arg;
    (void)alert;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (name == NULL) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    for (size_t i = 0; i < tls->count; i++) {
        if (X509_check_host(tls->identities[i].certificate, name, 0, 0, NULL) == 1) {
            (void)SSL_set_SSL_CTX(ssl, tls->identities[i].context);
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_NOACK; /* an unknown name gets the default certificate: the client decides (RFC 6066 section
                                    3) */
}

static int load_certificate(struct tls_identity *id, struct span pem)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    id->chain = sk_X509_new_null();
    for (X509 *x; id->chain != NULL && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL;) {
        if (id->certificate == NULL) {
            id->certificate = x;
        } else if (sk_X509_push(id->chain, x) == 0) {
            X509_free(x);
            break;
        }
    }
    BIO_free(bio);
    ERR_clear_error(); /* the end of the text is told as an error */
    return id->certificate != NULL ? 0 : -EINVAL;
}

static int load_key(struct submit_tls *tls, struct tls_identity *id, struct span pem)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    id->key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    if (id->key != NULL && id == &tls->identities[0]) {
        unsigned int len = 0;
        uint8_t digest[EVP_MAX_MD_SIZE];
        if (EVP_Digest(pem.ptr, pem.len, digest, &len, EVP_sha256(), NULL) != 1 || len != TICKET_SECRET) {
            return -EINVAL;
        }
        memcpy(tls->ticket_secret, digest, TICKET_SECRET);
        explicit_bzero(digest, sizeof(digest));
    }
    return id->key != NULL ? 0 : -EINVAL;
}

static int load_client_ca(struct submit_tls *tls, struct span pem)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    tls->client_ca = X509_STORE_new();
    for (X509 *x; tls->client_ca != NULL && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL;) {
        (void)X509_STORE_add_cert(tls->client_ca, x);
        X509_free(x);
    }
    BIO_free(bio);
    ERR_clear_error();
    return tls->client_ca != NULL ? 0 : -ENOMEM;
}

static int load_all(struct submit_tls *tls, const struct child_tls *pem, size_t count, const char **ret_why)
{
    for (size_t i = 0; i < count; i++) {
        struct span text = buf_span(&pem[i].pem);
        uint32_t number = pem[i].what.number;
        int r = -EINVAL;
        if (pem[i].what.kind == TLS_CLIENT_CA) {
            r = load_client_ca(tls, text);
            *ret_why = "the client CA file cannot be read";
        } else if (number < tls->count && pem[i].what.kind == TLS_CERTIFICATE) {
            r = load_certificate(&tls->identities[number], text);
            *ret_why = "no certificate in the certificate file";
        } else if (number < tls->count) {
            r = load_key(tls, &tls->identities[number], text);
            *ret_why = "no private key in the key file";
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* A certificate that does not verify ends the handshake only when the client chose to show one: EXTERNAL is a wish. */
static int on_verify(int ok, X509_STORE_CTX *store)
{
    (void)store;
    return ok;
}

static SSL_CTX *make_context(struct submit_tls *tls, struct tls_identity *id, const struct submit_tls_options *options)
{
    SSL_CTX *c = SSL_CTX_new(TLS_server_method());
    if (c == NULL) {
        return NULL;
    }
    (void)SSL_CTX_set_min_proto_version(c, options->tls_1_3_only ? TLS1_3_VERSION : TLS1_2_VERSION);
    (void)SSL_CTX_set_options(c, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_PRIORITIZE_CHACHA | (options->tickets ? 0 : SSL_OP_NO_TICKET));
    (void)SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_num_tickets(c, options->tickets ? 1 : 0);
    SSL_CTX_set_app_data(c, tls);
    bool good = SSL_CTX_set_cipher_list(c, CIPHERS_1_2) == 1 &&
                SSL_CTX_set1_groups_list(c, "X25519:P-256:P-384") == 1 &&
                SSL_CTX_use_certificate(c, id->certificate) == 1 && SSL_CTX_set1_chain(c, id->chain) == 1 &&
                SSL_CTX_use_PrivateKey(c, id->key) == 1 && SSL_CTX_check_private_key(c) == 1 &&
                SSL_CTX_set_tlsext_ticket_key_evp_cb(c, on_ticket) == 1;
    (void)SSL_CTX_set_tlsext_servername_callback(c, on_server_name);
    (void)SSL_CTX_set_tlsext_servername_arg(c, tls);
    if (good && tls->client_ca != NULL) {
        good = SSL_CTX_set1_verify_cert_store(c, tls->client_ca) == 1;
        SSL_CTX_set_verify(c, SSL_VERIFY_PEER, on_verify);
    }
    if (!good) {
        SSL_CTX_free(c);
        return NULL;
    }
    return c;
}

static size_t count_identities(const struct child_tls *pem, size_t count)
{
    size_t most = 0;
    for (size_t i = 0; i < count; i++) {
        if (pem[i].what.kind == TLS_CERTIFICATE && pem[i].what.number + 1U > most) {
            most = pem[i].what.number + 1U;
        }
    }
    return most;
}

int submit_tls_new(const struct child_tls *pem, size_t count, const struct submit_tls_options *options,
                   struct submit_tls **ret, const char **ret_why)
{
    struct submit_tls *tls = calloc(1, sizeof(*tls));
    *ret_why = "out of memory";
    if (tls == NULL) {
        return -ENOMEM;
    }
    tls->tickets = options->tickets;
    tls->count = count_identities(pem, count);
    tls->identities = calloc(tls->count > 0 ? tls->count : 1, sizeof(*tls->identities));
    int r = tls->identities == NULL ? -ENOMEM : load_all(tls, pem, count, ret_why);
    for (size_t i = 0; r == 0 && i < tls->count; i++) {
        struct tls_identity *id = &tls->identities[i];
        id->context = id->certificate != NULL && id->key != NULL ? make_context(tls, id, options) : NULL;
        *ret_why = "certificate and key do not belong together";
        r = id->context != NULL ? 0 : -EINVAL;
    }
    if (r < 0 || tls->count == 0) {
        submit_tls_free(&tls);
        return r < 0 ? r : -EINVAL;
    }
    *ret = tls;
    return 0;
}

void submit_tls_free(struct submit_tls **tlsp)
{
    struct submit_tls *tls = *tlsp;
    *tlsp = NULL;
    if (tls == NULL) {
        return;
    }
    for (size_t i = 0; tls->identities != NULL && i < tls->count; i++) {
        SSL_CTX_free(tls->identities[i].context);
        X509_free(tls->identities[i].certificate);
        sk_X509_pop_free(tls->identities[i].chain, X509_free);
        EVP_PKEY_free(tls->identities[i].key);
    }
    free(tls->identities);
    X509_STORE_free(tls->client_ca);
    explicit_bzero(tls->ticket_secret, sizeof(tls->ticket_secret));
    explicit_bzero(tls->ticket_keys, sizeof(tls->ticket_keys));
    free(tls);
}

SSL *submit_tls_session(const struct submit_tls *tls, struct span service)
{
    SSL *ssl = SSL_new(tls->identities[0].context);
    if (ssl == NULL || SSL_set_session_id_context(ssl, service.ptr, (unsigned)service.len) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_accept_state(ssl);
    return ssl;
}

size_t submit_tls_exporter(SSL *ssl, uint8_t out[static 64])
{
    static const char label[] = "EXPORTER-Channel-Binding";
    if (SSL_version(ssl) < TLS1_3_VERSION) {
        return 0; /* RFC 9266 section 4.2: with 1.2 only beside the extended master secret; nothing lost by leaving it
                   */
    }
    return SSL_export_keying_material(ssl, out, 32, label, sizeof(label) - 1, NULL, 0, 0) == 1 ? 32 : 0;
}

size_t submit_tls_server_end_point(SSL *ssl, uint8_t out[static 64])
{
    X509 *x = SSL_get_certificate(ssl);
    int digest_nid = NID_undef, key_nid = NID_undef;
    if (x == NULL || OBJ_find_sigid_algs(X509_get_signature_nid(x), &digest_nid, &key_nid) != 1) {
        return 0;
    }
    /* RFC 5929 section 4.1: the certificate's own digest, but SHA-256 in place of MD5 and SHA-1. */
    bool weak = digest_nid == NID_md5 || digest_nid == NID_sha1;
    const EVP_MD *md = weak || digest_nid == NID_undef ? EVP_sha256() : EVP_get_digestbynid(digest_nid);
    unsigned int len = 0;
    return md != NULL && EVP_MD_get_size(md) <= 64 && X509_digest(x, md, out, &len) == 1 ? len : 0;
}

static void put_mailbox(X509 *x, struct buf *mailbox)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type == GEN_EMAIL) {
            const ASN1_STRING *text = name->d.rfc822Name;
            (void)buf_append(mailbox, ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text));
            break;
        }
    }
    GENERAL_NAMES_free(names);
}

static void put_common_name(X509 *x, struct buf *subject)
{
    const X509_NAME *name = X509_get_subject_name(x);
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    unsigned char *utf8 = NULL;
    int len = at >= 0 ? ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at))) : -1;
    if (len > 0) {
        (void)buf_append(subject, utf8, (size_t)len);
    }
    OPENSSL_free(utf8);
}

bool submit_tls_client(SSL *ssl, uint8_t sha256[static 32], struct buf *mailbox, struct buf *subject)
{
    X509 *x = SSL_get0_peer_certificate(ssl);
    unsigned int len = 0;
    if (x == NULL || SSL_get_verify_result(ssl) != X509_V_OK || X509_digest(x, EVP_sha256(), sha256, &len) != 1) {
        return false;
    }
    put_mailbox(x, mailbox);
    put_common_name(x, subject);
    return true;
}

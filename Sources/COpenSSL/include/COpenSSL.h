// Martlet: OpenSSL 3 with its macros as functions. No logic.
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <openssl/ssl.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

static inline int martlet_tls_set_minimum(SSL_CTX *context, int version) {
    return SSL_CTX_set_min_proto_version(context, version);
}
static inline void martlet_tls_set_mode(SSL_CTX *context, long mode) { SSL_CTX_set_mode(context, mode); }
static inline void martlet_tls_set_cache(SSL_CTX *context, long mode, long limit) {
    SSL_CTX_set_session_cache_mode(context, mode);
    if (limit > 0) SSL_CTX_sess_set_cache_size(context, limit);
}
static inline void martlet_tls_set_read_ahead(SSL_CTX *context, size_t bytes) {
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, bytes);
}
static inline int martlet_tls_get_ticket_keys(SSL_CTX *context, void *keys, int count) {
    return (int)SSL_CTX_get_tlsext_ticket_keys(context, keys, count);
}
static inline int martlet_tls_set_ticket_keys(SSL_CTX *context, void *keys, int count) {
    return (int)SSL_CTX_set_tlsext_ticket_keys(context, keys, count);
}

static inline long martlet_tls_ask_for_name(SSL *session, const char *name) {
    return SSL_set_tlsext_host_name(session, name);
}

// A name in the certificate that the peer showed and that was verified: its common name is number 0, its DNS names follow
// from 1 on. Writes it to `name` and returns its length; 0 when it cannot be used (none, longer than `capacity`, or with
// a zero byte in it), -1 behind the last, or without such a certificate.
int martlet_tls_peer_name(SSL *session, int number, unsigned char *name, int capacity);

// Whether an error of a handshake is that the peer showed no certificate.
static inline int martlet_tls_lacks_certificate(unsigned long code) {
    return ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE;
}

// Certificate revocation lists, one or more.
typedef struct stack_st_X509_CRL martlet_crls;

// What became of reading lists.
static const int MARTLET_CRLS_READ = 0;
static const int MARTLET_CRLS_UNREADABLE = 1;
static const int MARTLET_CRLS_NONE = 2;
static const int MARTLET_CRLS_EXPIRED = 3;
static const int MARTLET_CRLS_EARLY = 4;

// Reads all lists of a PEM file; they are the caller's, to be freed. When one cannot be read (OpenSSL's queue says why), is
// out of date or not yet valid, or there is none, NULL, and why in `outcome`.
martlet_crls *martlet_crls_read(const char *path, int *outcome);
void martlet_crls_free(martlet_crls *lists);
// Has every certificate of a chain looked up in the lists, of which each authority must have one: 1, or 0 for want of memory.
int martlet_crls_use(SSL_CTX *context, martlet_crls *lists);
// Whether a certificate of the chain that the peer was verified by is in one of these lists.
int martlet_crls_revoke(martlet_crls *lists, SSL *session);

static const uint64_t MARTLET_TLS_NO_RENEGOTIATION = SSL_OP_NO_RENEGOTIATION;
static const uint64_t MARTLET_TLS_IGNORE_EOF = SSL_OP_IGNORE_UNEXPECTED_EOF;
static const uint64_t MARTLET_TLS_KERNEL = SSL_OP_ENABLE_KTLS;
static const uint64_t MARTLET_TLS_NO_TICKET = SSL_OP_NO_TICKET;
static const long MARTLET_TLS_MODE =
    SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS;

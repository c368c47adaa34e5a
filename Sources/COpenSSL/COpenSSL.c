// Martlet: names in certificates, and lists of those that are revoked.
// SPDX-License-Identifier: Apache-2.0
#include "COpenSSL.h"
#include <openssl/pem.h>
#include <string.h>

static int take_name(const ASN1_STRING *text, unsigned char *name, int capacity) {
    unsigned char *bytes = NULL;
    int count = ASN1_STRING_to_UTF8(&bytes, text);
    if (count < 0) return 0;
    int length = count <= capacity && memchr(bytes, 0, (size_t)count) == NULL ? count : 0;
    memcpy(name, bytes, (size_t)length);
    OPENSSL_free(bytes);
    return length;
}

static int common_name(X509 *certificate, unsigned char *name, int capacity) {
    X509_NAME *subject = X509_get_subject_name(certificate);
    int place = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (place < 0) return 0;
    return take_name(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, place)), name, capacity);
}

static int dns_name(X509 *certificate, int number, unsigned char *name, int capacity) {
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int length = -1;
    int seen = 0;
    for (int index = 0; names != NULL && index < sk_GENERAL_NAME_num(names) && length < 0; index++) {
        const GENERAL_NAME *one = sk_GENERAL_NAME_value(names, index);
        if (one->type == GEN_DNS && ++seen == number) length = take_name(one->d.dNSName, name, capacity);
    }
    GENERAL_NAMES_free(names);
    return length;
}

int martlet_tls_peer_name(SSL *session, int number, unsigned char *name, int capacity) {
    if (SSL_get_verify_result(session) != X509_V_OK) return -1;
    X509 *certificate = SSL_get1_peer_certificate(session);
    if (certificate == NULL) return -1;
    int length = number == 0 ? common_name(certificate, name, capacity) : dns_name(certificate, number, name, capacity);
    X509_free(certificate);
    ERR_clear_error();
    return length;
}

martlet_crls *martlet_crls_read(const char *path, int *outcome) {
    *outcome = MARTLET_CRLS_UNREADABLE;
    BIO *file = BIO_new_file(path, "r");
    if (file == NULL) return NULL;
    martlet_crls *lists = sk_X509_CRL_new_null();
    X509_CRL *list;
    while (lists != NULL && (list = PEM_read_bio_X509_CRL(file, NULL, NULL, NULL)) != NULL) {
        if (sk_X509_CRL_push(lists, list) > 0) continue;
        X509_CRL_free(list);
        break;
    }
    BIO_free(file);
    unsigned long code = ERR_peek_last_error();
    int is_end = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
    if (lists != NULL && is_end) {
        ERR_clear_error();
        *outcome = sk_X509_CRL_num(lists) > 0 ? MARTLET_CRLS_READ : MARTLET_CRLS_NONE;
    }
    for (int index = 0; *outcome == MARTLET_CRLS_READ && index < sk_X509_CRL_num(lists); index++) {
        const X509_CRL *one = sk_X509_CRL_value(lists, index);
        const ASN1_TIME *end = X509_CRL_get0_nextUpdate(one);
        if (end != NULL && X509_cmp_current_time(end) <= 0) *outcome = MARTLET_CRLS_EXPIRED;
        if (X509_cmp_current_time(X509_CRL_get0_lastUpdate(one)) >= 0) *outcome = MARTLET_CRLS_EARLY;
    }
    if (*outcome == MARTLET_CRLS_READ) return lists;
    martlet_crls_free(lists);
    return NULL;
}

void martlet_crls_free(martlet_crls *lists) { sk_X509_CRL_pop_free(lists, X509_CRL_free); }

int martlet_crls_use(SSL_CTX *context, martlet_crls *lists) {
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    for (int index = 0; index < sk_X509_CRL_num(lists); index++) {
        if (X509_STORE_add_crl(store, sk_X509_CRL_value(lists, index)) != 1) return 0;
    }
    return X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
}

// Without its issuer's certificate, as of a session that was resumed, a list of that name is believed.
static int is_listed(martlet_crls *lists, X509 *certificate, X509 *issuer) {
    for (int index = 0; index < sk_X509_CRL_num(lists); index++) {
        X509_CRL *list = sk_X509_CRL_value(lists, index);
        X509_REVOKED *entry = NULL;
        if (X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_issuer_name(certificate)) != 0) continue;
        if (X509_CRL_get0_by_cert(list, &entry, certificate) != 1) continue;
        if (issuer == NULL || X509_CRL_verify(list, X509_get0_pubkey(issuer)) == 1) return 1;
    }
    return 0;
}

int martlet_crls_revoke(martlet_crls *lists, SSL *session) {
    STACK_OF(X509) *chain = SSL_get0_verified_chain(session);
    int revoked = 0;
    if (chain == NULL) {
        X509 *certificate = SSL_get1_peer_certificate(session);
        if (certificate != NULL) revoked = is_listed(lists, certificate, NULL);
        X509_free(certificate);
    }
    for (int index = 0; !revoked && index + 1 < sk_X509_num(chain); index++) {
        revoked = is_listed(lists, sk_X509_value(chain, index), sk_X509_value(chain, index + 1));
    }
    ERR_clear_error();
    return revoked;
}

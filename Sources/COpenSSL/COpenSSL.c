// Martlet: names in certificates.
// SPDX-License-Identifier: Apache-2.0
#include "COpenSSL.h"
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

// Martlet: OpenSSL 3 with its macros as functions. No logic.
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <openssl/ssl.h>
#include <openssl/err.h>
#include <openssl/x509.h>

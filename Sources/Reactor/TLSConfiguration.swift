// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How TLS listeners behave, in memcached's terms (`-Z` and the `ssl_*` options).
package struct TLSConfiguration: Sendable {
    /// What is asked of client certificates; raw values as `ssl_verify_mode` numbers them.
    package enum VerifyMode: Int, Sendable, CaseIterable {
        case none, request, require, once
    }

    /// Protocol versions; raw values as `ssl_min_version` numbers them.
    package enum Version: Int, Sendable, CaseIterable {
        case tls10, tls11, tls12, tls13
    }

    /// How the private key's file is written.
    package enum KeyFormat: String, Sendable, CaseIterable {
        case pem = "PEM", der = "DER"
    }

    /// The server's certificate and those between it and its authority, PEM.
    package var chainPath: String
    /// The private key; the chain's file when nil.
    package var keyPath: String?
    /// How `keyPath` is written.
    package var keyFormat = KeyFormat.pem
    /// Authorities that client certificates must come from, PEM.
    package var authorityPath: String?
    /// Lists of client certificates that are revoked, PEM; none when nil.
    package var revocationPath: String?
    /// What is asked of client certificates, unless the listener says otherwise.
    package var verifyMode = VerifyMode.none
    /// Older versions are refused.
    package var minimumVersion = Version.tls12
    /// OpenSSL's cipher list for TLS 1.2 and below; OpenSSL's default when nil.
    package var ciphers: String?
    /// Whether sessions can be resumed.
    package var hasSessionCache = false
    /// Sessions that the cache keeps.
    package var sessionCacheLimit = 20_480
    /// Whether the kernel encrypts where it can.
    package var usesKernelTLS = false
    /// How many bytes of several pieces are gathered for one record (`ssl_wbuf_size`).
    package var writeBufferBytes = 16 * 1024

    /// TLS with the certificate at `chainPath`, and memcached's defaults.
    package init(chainPath: String, keyPath: String? = nil) {
        self.chainPath = chainPath
        self.keyPath = keyPath
    }
}

/// TLS settings that do not work: what failed, on which file, and OpenSSL's reason.
package struct TLSError: Error, Sendable, CustomStringConvertible {
    /// What was tried, such as `load the certificate chain`.
    package let action: String
    /// The file or value; empty when there is none.
    package let subject: String
    /// OpenSSL's words.
    package let reason: String

    package var description: String {
        subject.isEmpty ? "cannot \(action): \(reason)" : "cannot \(action) \(subject): \(reason)"
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How a test speaks TLS to its servers. Paths are of PEM files.
package struct LoadTLS: Sendable, Equatable {
    /// Authorities that the servers' certificates must come from; the system's when nil.
    package var authorityPath: String?
    /// Our certificate, for servers that ask for one.
    package var chainPath: String?
    /// Its key; the certificate's file when nil.
    package var keyPath: String?
    /// The name that certificates must have; what is connected to when nil.
    package var serverName: String?
    /// Whether certificates are not looked at.
    package var isInsecure = false
    /// Whether nothing older than TLS 1.3 is spoken.
    package var requiresTLS13 = false

    /// The system's authorities.
    package init() {}
}

/// What a test says of TLS wherever it is spoken.
package struct LoadTLSRules: Sendable, Equatable {
    /// Certificates of servers are not looked at.
    package var skipsVerification = false
    /// Nothing older than TLS 1.3 is spoken.
    package var requiresTLS13 = false

    /// Nothing.
    package init() {}

    /// `tls`, if there is one, under these rules.
    package func applied(to tls: LoadTLS?) -> LoadTLS? {
        guard var tls else { return nil }
        tls.isInsecure = tls.isInsecure || skipsVerification
        tls.requiresTLS13 = tls.requiresTLS13 || requiresTLS13
        return tls
    }
}

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

    /// The system's authorities.
    package init() {}
}

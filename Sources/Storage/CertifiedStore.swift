// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A store that is reached with certificates.
package protocol CertifiedStore: StorageBackend {
    /// Reads the certificates' files again, for new connections. What is wrong with them; nil when nothing is.
    func reloadCertificates() -> String?
}

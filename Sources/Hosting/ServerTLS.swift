// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Reactor
package import Settings

/// The files and rules of TLS (`-Z` and `-o ssl_*`).
package struct ServerTLS: Sendable, Equatable {
    /// memcached's four modes of `ssl_verify_mode`, by its numbers.
    package enum Verification: Int, Sendable, CaseIterable {
        case none, request, require, once
    }

    /// The least version, by memcached's numbers.
    package enum Version: Int, Sendable, CaseIterable {
        case tls10, tls11, tls12, tls13
    }

    /// The certificate and those that signed it, in PEM.
    package var certificatePath = ""
    /// The key; nil when the certificate's file holds it.
    package var keyPath: String?
    /// Whether the key is DER rather than PEM.
    package var isKeyDER = false
    /// Who signs clients' certificates.
    package var authorityPath: String?
    /// Lists of clients' certificates that are revoked.
    package var revocationPath: String?
    /// What is asked of clients' certificates.
    package var verification = Verification.none
    /// The oldest version that is spoken.
    package var minimumVersion = Version.tls12
    /// An OpenSSL cipher list.
    package var ciphers: String?
    /// Whether sessions can be resumed.
    package var cachesSessions = false
    /// Whether the kernel encrypts where it can.
    package var usesKernelTLS = false
    /// Bytes that are gathered for one record.
    package var writeBufferBytes = 16 << 10

    package init() {}
}

extension ServerTLS {
    /// What a file, the environment and flags may say about it.
    package static let settings: [Setting] = [
        Setting("tls.enabled", .boolean, default: "false", "Whether listeners speak TLS."),
        Setting("tls.certificate", .text, "Certificate and those that signed it, in PEM."),
        Setting("tls.key", .text, "Private key, when the certificate's file does not hold it."),
        Setting("tls.keyFormat", .enumeration(["pem", "der"]), default: "pem", "Format of the key."),
        Setting("tls.ca", .text, "Certificates that sign clients' certificates."),
        Setting(
            "tls.crl", .text,
            "Certificate revocation lists, in PEM, one at least of each authority: who is in them is no client."),
        Setting(
            "tls.verify", .enumeration(["none", "request", "require", "once"]), default: "none",
            "What is asked of clients."),
        Setting(
            "tls.minVersion", .enumeration(["1.0", "1.1", "1.2", "1.3"]), default: "1.2", "Least version of TLS."),
        Setting("tls.ciphers", .text, "OpenSSL cipher list."),
        Setting("tls.sessionCache", .boolean, default: "false", "Whether the server keeps sessions to resume."),
        Setting("tls.kernel", .boolean, default: "false", "Whether the kernel does the encryption, if it can."),
        Setting(
            "tls.writeBuffer", .size(1024...1 << 30), default: "16KiB", "Size of a connection's TLS output buffer."),
    ]

    /// What is wrong with these settings beside each other.
    package var problems: [String] {
        if revocationPath == nil { return [] }
        if authorityPath == nil { return ["tls.crl: needs tls.ca, whose certificates clients are checked by"] }
        return verification == .none
            ? ["tls.crl: is nothing without tls.verify, which is none: request, require or once"] : []
    }

    /// What the settings say. `tls.enabled` is whoever asks's to look at.
    package init(_ values: SettingsValues) {
        certificatePath = values.text("tls.certificate") ?? ""
        keyPath = values.text("tls.key")
        isKeyDER = values.text("tls.keyFormat") == "der"
        authorityPath = values.text("tls.ca")
        revocationPath = values.text("tls.crl")
        let modes: [String: ServerTLS.Verification] = ["request": .request, "require": .require, "once": .once]
        verification = values.text("tls.verify").flatMap { modes[$0] } ?? .none
        let versions: [String: ServerTLS.Version] = ["1.0": .tls10, "1.1": .tls11, "1.3": .tls13]
        minimumVersion = values.text("tls.minVersion").flatMap { versions[$0] } ?? .tls12
        ciphers = values.text("tls.ciphers")
        cachesSessions = values.boolean("tls.sessionCache")
        usesKernelTLS = values.boolean("tls.kernel")
        writeBufferBytes = Int(values.size("tls.writeBuffer"))
    }
}

extension TLSConfiguration {
    /// The reactors' TLS with these files and rules.
    package init(_ tls: ServerTLS) {
        self.init(chainPath: tls.certificatePath, keyPath: tls.keyPath)
        keyFormat = tls.isKeyDER ? .der : .pem
        authorityPath = tls.authorityPath
        revocationPath = tls.revocationPath
        verifyMode =
            switch tls.verification {
            case .none: .none
            case .request: .request
            case .require: .require
            case .once: .once
            }
        minimumVersion =
            switch tls.minimumVersion {
            case .tls10: .tls10
            case .tls11: .tls11
            case .tls12: .tls12
            case .tls13: .tls13
            }
        ciphers = tls.ciphers
        hasSessionCache = tls.cachesSessions
        usesKernelTLS = tls.usesKernelTLS
        writeBufferBytes = tls.writeBufferBytes
    }
}

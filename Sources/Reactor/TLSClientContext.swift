// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import COpenSSL
internal import Platform

// SAFETY (file): a context is ours from SSL_CTX_new to SSL_CTX_free, and replaced under the lock; OpenSSL counts the
// references of sessions to it. Strings live for each call.

/// How we speak TLS to a server.
package struct TLSClientConfiguration: Sendable, Equatable {
    /// Authorities that the server's certificate must come from, PEM; the system's when nil.
    package var authorityPath: String?
    /// Lists of servers' certificates that are revoked, PEM; none when nil.
    package var revocationPath: String?
    /// Our certificate and those between it and its authority, PEM, for servers that ask.
    package var chainPath: String?
    /// Our private key; the chain's file when nil.
    package var keyPath: String?
    /// The name that the server's certificate must have, and that it is asked for; what is connected to when nil.
    package var serverName: String?
    /// Whether nothing older than TLS 1.3 is spoken; otherwise TLS 1.2 is too.
    package var requiresTLS13 = false
    /// Whether the server's certificate is checked.
    package var verifiesPeer = true

    /// The system's authorities, and no certificate of our own.
    package init() {}
}

/// TLS settings of connections that we make, files loaded; shared by all reactors.
@safe
package final class TLSClientContext: @unchecked Sendable {
    // SAFETY (Sendable): `context` is replaced and read under `lock`; OpenSSL counts references to contexts and lets
    // several threads make sessions of one.

    /// What it was made from.
    package let configuration: TLSClientConfiguration
    /// By which servers' certificates are checked.
    package let revocations: RevocationLists?
    private let lock = Lock()
    private var context: OpaquePointer
    private let name: String

    /// Loads the files, for connections to `host`. Errors name the file. Revocation lists that somebody else uses, too,
    /// may be given.
    package init(
        _ configuration: TLSClientConfiguration, host: String, revocations: RevocationLists? = nil
    ) throws(TLSError) {
        self.configuration = configuration
        name = configuration.serverName ?? host
        let lists = if let revocations { revocations } else { try RevocationLists(configuration.revocationPath) }
        self.revocations = lists
        unsafe context = try Self.make(configuration, lists)
    }

    /// Loads the files again, for new connections. On an error the old ones stay; where it is of the revocation lists,
    /// those only. Lists that others use, too, need to be read once only. Blocks on the files.
    package func reload(readsLists: Bool = true) throws(TLSError) {
        let problem = readsLists ? revocations?.problemOfReload() : nil
        let fresh = unsafe try Self.make(configuration, revocations)
        let old = unsafe lock.withLock {
            let old = unsafe context
            unsafe context = fresh
            return unsafe old
        }
        unsafe SSL_CTX_free(old)
        if let problem { throw problem }
    }

    private static func make(
        _ configuration: TLSClientConfiguration, _ revocations: RevocationLists?
    ) throws(TLSError) -> OpaquePointer {
        ERR_clear_error()
        guard let context = unsafe SSL_CTX_new(TLS_client_method()) else {
            throw TLSContext.lastError("start TLS", "")
        }
        do throws(TLSError) {
            // SAFETY: the context was just made and nobody else has it yet.
            try unsafe load(configuration, context)
            try unsafe revocations?.apply(to: context)
        } catch {
            unsafe SSL_CTX_free(context)
            throw error
        }
        return unsafe context
    }

    deinit {
        // SAFETY: ours, and the last use of it; open sessions hold references of their own.
        unsafe SSL_CTX_free(context)
    }

    private static func load(_ configuration: TLSClientConfiguration, _ context: OpaquePointer) throws(TLSError) {
        if let path = configuration.authorityPath {
            guard unsafe SSL_CTX_load_verify_locations(context, path, nil) == 1 else {
                throw TLSContext.lastError("load the CA certificates", path)
            }
        } else if configuration.verifiesPeer, unsafe SSL_CTX_set_default_verify_paths(context) != 1 {
            throw TLSContext.lastError("load the system's CA certificates", "")
        }
        if let path = configuration.chainPath {
            guard unsafe SSL_CTX_use_certificate_chain_file(context, path) == 1 else {
                throw TLSContext.lastError("load the certificate chain", path)
            }
            let keyPath = configuration.keyPath ?? path
            guard unsafe SSL_CTX_use_PrivateKey_file(context, keyPath, SSL_FILETYPE_PEM) == 1 else {
                throw TLSContext.lastError("load the key", keyPath)
            }
        }
        unsafe SSL_CTX_set_verify(context, configuration.verifiesPeer ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nil)
        let minimum = configuration.requiresTLS13 ? TLS1_3_VERSION : TLS1_2_VERSION
        guard unsafe martlet_tls_set_minimum(context, minimum) == 1 else {
            throw TLSContext.lastError("set the minimum TLS version", configuration.requiresTLS13 ? "1.3" : "1.2")
        }
        unsafe SSL_CTX_set_options(context, MARTLET_TLS_NO_RENEGOTIATION | MARTLET_TLS_IGNORE_EOF)
        unsafe martlet_tls_set_mode(context, MARTLET_TLS_MODE)
        unsafe martlet_tls_set_read_ahead(context, 32 * 1024)
    }

    /// A client session on `fd`; nil for want of memory.
    func makeSession(_ fd: Int32) -> OpaquePointer? {
        let made = unsafe lock.withLock { unsafe SSL_new(context) }
        guard let session = unsafe made else { return nil }
        // SAFETY: the session was just made and is ours until the connection closes.
        unsafe SSL_set_fd(session, fd)
        unsafe SSL_set_connect_state(session)
        if configuration.verifiesPeer {
            // An address is looked for among the certificate's addresses, anything else among its names.
            if unsafe X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session), name) != 1 {
                unsafe SSL_set1_host(session, name)
                unsafe martlet_tls_ask_for_name(session, name)
            }
        }
        ERR_clear_error()
        return unsafe session
    }
}

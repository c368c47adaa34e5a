// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import COpenSSL
internal import Platform
internal import Synchronization

// SAFETY (file): a context is ours from SSL_CTX_new to SSL_CTX_free, and replaced under the lock; OpenSSL counts the
// references of sessions to it. Strings and buffers live for each call.

/// A server's TLS settings, certificates loaded; shared by all reactors.
@safe
package final class TLSContext: @unchecked Sendable {
    // SAFETY (Sendable): `context` is replaced and read under `lock`; OpenSSL counts references to contexts and lets
    // several threads make sessions of one.

    /// What it was made from.
    package let configuration: TLSConfiguration
    /// By which clients' certificates are checked.
    let revocations: RevocationLists?
    private let lock = Lock()
    private var context: OpaquePointer
    /// How often the files were loaded; under `lock`.
    private var generation: UInt32 = 0
    private let loaded: Atomic<UInt64>

    /// Loads the files. Errors name the file. Revocation lists that somebody else uses, too, may be given.
    package init(_ configuration: TLSConfiguration, revocations: RevocationLists? = nil) throws(TLSError) {
        self.configuration = configuration
        let lists = if let revocations { revocations } else { try RevocationLists(configuration.revocationPath) }
        self.revocations = lists
        unsafe context = try Self.load(configuration, lists)
        loaded = Atomic(Clock.monotonicNanoseconds())
    }

    deinit {
        // SAFETY: ours, and the last use of it; open sessions hold references of their own.
        unsafe SSL_CTX_free(context)
    }

    /// Loads the files again. New connections use them; those that are open go on, and sessions in which no client
    /// certificate was looked at can be resumed still. On an error the old ones stay; where it is of the revocation
    /// lists, those only. Blocks on the files.
    package func reload() throws(TLSError) {
        let problem = revocations?.problemOfReload()
        let fresh = unsafe try Self.load(configuration, revocations)
        let old = unsafe lock.withLock {
            let old = unsafe context
            unsafe Self.copyTicketKeys(from: old, to: fresh)
            unsafe context = fresh
            generation &+= 1
            return unsafe old
        }
        unsafe SSL_CTX_free(old)
        loaded.store(Clock.monotonicNanoseconds(), ordering: .relaxed)
        if let problem { throw problem }
    }

    /// When the files were last loaded, in monotonic nanoseconds.
    package var loadedNanoseconds: UInt64 { loaded.load(ordering: .relaxed) }

    /// A server session on `fd`; nil for want of memory.
    func makeSession(_ fd: Int32, _ security: ListenerConfiguration.Security) -> OpaquePointer? {
        let made = unsafe lock.withLock {
            let session = unsafe SSL_new(context)
            if let session = unsafe session { unsafe limitResumption(session, security) }
            return unsafe session
        }
        guard let session = unsafe made else { return nil }
        // SAFETY: the session was just made and is ours until the connection closes.
        unsafe SSL_set_fd(session, fd)
        unsafe SSL_set_accept_state(session)
        switch security {
        case .tlsWithoutPeer: unsafe SSL_set_verify(session, SSL_VERIFY_NONE, nil)
        case .mutualTLS: unsafe SSL_set_verify(session, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
        case .tls, .none: break
        }
        return unsafe session
    }

    /// OpenSSL does not look for a certificate when a session is resumed. So a session is one of its kind of listener,
    /// and, where certificates are looked at, of the authorities that were loaded then. Under `lock`.
    private func limitResumption(_ session: OpaquePointer, _ security: ListenerConfiguration.Security) {
        guard configuration.hasSessionCache else { return }
        let kind: UInt8, looksAtPeer: Bool
        switch security {
        case .tlsWithoutPeer: (kind, looksAtPeer) = (1, false)
        case .mutualTLS: (kind, looksAtPeer) = (2, true)
        case .tls, .none: (kind, looksAtPeer) = (3, configuration.verifyMode != .none)
        }
        var scope: [UInt8] = Array("martlet".utf8) + [kind]
        if looksAtPeer { scope += (0..<4).map { UInt8(truncatingIfNeeded: generation >> (8 * $0)) } }
        unsafe SSL_set_session_id_context(session, scope, UInt32(scope.count))
    }

    // MARK: Loading

    private static func load(
        _ configuration: TLSConfiguration, _ revocations: RevocationLists?
    ) throws(TLSError) -> OpaquePointer {
        ERR_clear_error()
        guard let context = unsafe SSL_CTX_new(TLS_server_method()) else {
            throw lastError("start TLS", "")
        }
        do throws(TLSError) {
            // SAFETY: the context was just made and nobody else has it yet.
            try unsafe loadCertificates(configuration, context)
            try unsafe revocations?.apply(to: context)
            try unsafe apply(configuration, context)
            unsafe applyCache(configuration, context)
        } catch {
            unsafe SSL_CTX_free(context)
            throw error
        }
        return unsafe context
    }

    private static func loadCertificates(_ configuration: TLSConfiguration, _ context: OpaquePointer) throws(TLSError) {
        // SAFETY: the context is alive; strings live for each call.
        guard unsafe SSL_CTX_use_certificate_chain_file(context, configuration.chainPath) == 1 else {
            throw lastError("load the certificate chain", configuration.chainPath)
        }
        let keyPath = configuration.keyPath ?? configuration.chainPath
        let format = configuration.keyFormat == .pem ? SSL_FILETYPE_PEM : SSL_FILETYPE_ASN1
        guard unsafe SSL_CTX_use_PrivateKey_file(context, keyPath, format) == 1 else {
            throw lastError("load the key", keyPath)
        }
        guard unsafe SSL_CTX_check_private_key(context) == 1 else {
            throw lastError("match the key with the certificate", keyPath)
        }
        guard let authorities = configuration.authorityPath else { return }
        guard unsafe SSL_CTX_load_verify_locations(context, authorities, nil) == 1 else {
            throw lastError("load the CA certificates", authorities)
        }
        // The context takes the list over.
        unsafe SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(authorities))
    }

    private static func apply(_ configuration: TLSConfiguration, _ context: OpaquePointer) throws(TLSError) {
        let versions = [TLS1_VERSION, TLS1_1_VERSION, TLS1_2_VERSION, TLS1_3_VERSION]
        // SAFETY: the context is alive; strings live for each call.
        guard unsafe martlet_tls_set_minimum(context, versions[configuration.minimumVersion.rawValue]) == 1 else {
            throw lastError("set the minimum TLS version", "\(configuration.minimumVersion)")
        }
        if let ciphers = configuration.ciphers, unsafe SSL_CTX_set_cipher_list(context, ciphers) != 1 {
            throw lastError("set the ciphers", ciphers)
        }
        let modes = [
            SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
            SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT | SSL_VERIFY_CLIENT_ONCE,
        ]
        unsafe SSL_CTX_set_verify(context, modes[configuration.verifyMode.rawValue], nil)
        var options = MARTLET_TLS_NO_RENEGOTIATION | MARTLET_TLS_IGNORE_EOF
        if configuration.usesKernelTLS { options |= MARTLET_TLS_KERNEL }
        if !configuration.hasSessionCache { options |= MARTLET_TLS_NO_TICKET }
        unsafe SSL_CTX_set_options(context, options)
        // A write reports each record that went out, may be repeated from another address, and idle sessions hold no
        // buffers.
        unsafe martlet_tls_set_mode(context, MARTLET_TLS_MODE)
        unsafe martlet_tls_set_read_ahead(context, 32 * 1024)
    }

    private static func applyCache(_ configuration: TLSConfiguration, _ context: OpaquePointer) {
        // SAFETY: the context is alive, and copies the scope.
        guard configuration.hasSessionCache else {
            unsafe martlet_tls_set_cache(context, Int(SSL_SESS_CACHE_OFF), 0)
            unsafe SSL_CTX_set_num_tickets(context, 0)
            return
        }
        unsafe martlet_tls_set_cache(context, Int(SSL_SESS_CACHE_SERVER), configuration.sessionCacheLimit)
    }

    /// Lets clients resume with tickets of `old` after a reload.
    private static func copyTicketKeys(from old: OpaquePointer, to fresh: OpaquePointer) {
        // SAFETY: without a buffer OpenSSL tells how many bytes the keys have; the array has exactly those.
        let count = unsafe martlet_tls_get_ticket_keys(old, nil, 0)
        guard count > 0 else { return }
        var keys = [UInt8](repeating: 0, count: Int(count))
        guard unsafe martlet_tls_get_ticket_keys(old, &keys, count) == 1 else { return }
        _ = unsafe martlet_tls_set_ticket_keys(fresh, &keys, count)
    }

    static func lastError(_ action: String, _ subject: String) -> TLSError {
        let code = ERR_get_error()
        ERR_clear_error()
        var text = [CChar](repeating: 0, count: 256)
        // SAFETY: OpenSSL writes at most as many bytes, terminator included.
        unsafe ERR_error_string_n(code, &text, text.count)
        let bytes = text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        return TLSError(
            action: action, subject: subject,
            reason: code == 0 ? "unknown reason" : String(decoding: bytes, as: UTF8.self))
    }
}

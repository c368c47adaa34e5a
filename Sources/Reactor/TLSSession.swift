// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import COpenSSL
internal import Platform

// SAFETY (file): a session is its connection's from SSL_new to SSL_free, used by the reactor's thread only; callers
// give as many readable or writable bytes as they say.

/// Calls on one connection's OpenSSL session, on its reactor's thread. Results as ``StreamSocket``'s.
enum TLSSession {
    /// The session must write before it can read on.
    static var wantsWrite: Int { -3 }

    /// How a handshake stands.
    enum Handshake {
        case done, wantsRead, wantsWrite
        /// For this reason, where it is the peer's certificate.
        case failed(String?)
    }

    /// Goes on with the handshake.
    static func handshake(_ session: OpaquePointer) -> Handshake {
        ERR_clear_error()
        // SAFETY: the session is the connection's, alive until it closes.
        let result = unsafe SSL_do_handshake(session)
        if result == 1 { return .done }
        switch unsafe SSL_get_error(session, result) {
        case SSL_ERROR_WANT_READ: return .wantsRead
        case SSL_ERROR_WANT_WRITE: return .wantsWrite
        default:
            let lacksCertificate = martlet_tls_lacks_certificate(ERR_peek_error()) != 0
            ERR_clear_error()
            return .failed(lacksCertificate ? "the peer showed no certificate" : unsafe distrust(session))
        }
    }

    /// Why the peer's certificate is not accepted; nil when it is, or none was looked at.
    static func distrust(_ session: OpaquePointer) -> String? {
        let code = unsafe SSL_get_verify_result(session)
        guard code != Int(X509_V_OK) else { return nil }
        // SAFETY: OpenSSL gives a terminated text of its own that stays.
        let reason = unsafe String(cString: X509_verify_cert_error_string(code))
        let peer = unsafe SSL_is_server(session) == 1 ? "peer" : "server"
        return "the \(peer)'s certificate is not accepted: \(reason)"
    }

    /// Why a connection ends whose peer was revoked since its handshake began.
    static var revokedReason: String { "the peer's certificate is revoked by now" }

    /// Whether the handshake took up an earlier session.
    static func isResumed(_ session: OpaquePointer) -> Bool { unsafe SSL_session_reused(session) == 1 }

    /// Reads up to `count` decrypted bytes: as many records as fit and are there without another system call.
    static func read(_ session: OpaquePointer, _ target: UnsafeMutableRawPointer, _ count: Int) -> Int {
        var total = 0
        ERR_clear_error()
        while total < count {
            var length = 0
            // SAFETY: the caller gives `count` writable bytes, of which `total` are used.
            let result = unsafe SSL_read_ex(session, target + total, count - total, &length)
            guard result == 1 else {
                return total > 0 ? total : unsafe outcome(session, result)
            }
            total += length
            guard unsafe SSL_has_pending(session) == 1 else { break }
        }
        return total
    }

    /// Whether bytes wait inside the session, where epoll does not see them.
    static func hasHiddenInput(_ session: OpaquePointer) -> Bool { unsafe SSL_has_pending(session) == 1 }

    /// Encrypts and writes up to one record. After ``StreamSocket/wouldBlock`` the same bytes must come again.
    static func write(_ session: OpaquePointer, _ source: UnsafeRawPointer, _ count: Int) -> Int {
        var length = 0
        ERR_clear_error()
        // SAFETY: the caller gives `count` readable bytes.
        let result = unsafe SSL_write_ex(session, source, count, &length)
        guard result == 1 else {
            let outcome = unsafe outcome(session, result)
            // 0 means that the peer closed, which for a write is a failure.
            return outcome == 0 ? StreamSocket.failed : outcome == wantsWrite ? StreamSocket.wouldBlock : outcome
        }
        return length
    }

    private static func outcome(_ session: OpaquePointer, _ result: Int32) -> Int {
        let error = unsafe SSL_get_error(session, result)
        switch error {
        case SSL_ERROR_WANT_READ: return StreamSocket.wouldBlock
        case SSL_ERROR_WANT_WRITE: return wantsWrite
        case SSL_ERROR_ZERO_RETURN: return 0
        default:
            ERR_clear_error()
            return error == SSL_ERROR_SSL ? protocolError : StreamSocket.failed
        }
    }

    /// The peer broke the protocol.
    static var protocolError: Int { -4 }

    /// Says goodbye, if the socket takes it.
    static func shutDown(_ session: OpaquePointer) {
        ERR_clear_error()
        _ = unsafe SSL_shutdown(session)
        ERR_clear_error()
    }

    /// Frees the session.
    static func free(_ session: OpaquePointer) { unsafe SSL_free(session) }

    /// The subject of the certificate that the peer showed: its common name, or all of it as one line.
    static func peerSubject(_ session: OpaquePointer, commonNameOnly: Bool) -> String? {
        // SAFETY: the certificate's reference is ours and freed below; the name is part of it; text is copied before.
        guard let certificate = unsafe SSL_get1_peer_certificate(session) else { return nil }
        defer { unsafe X509_free(certificate) }
        guard let name = unsafe X509_get_subject_name(certificate) else { return nil }
        var text = [CChar](repeating: 0, count: 512)
        if commonNameOnly {
            guard unsafe X509_NAME_get_text_by_NID(name, NID_commonName, &text, Int32(text.count)) >= 0 else {
                return nil
            }
        } else {
            guard unsafe X509_NAME_oneline(name, &text, Int32(text.count)) != nil else { return nil }
        }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Names in the certificate that the peer showed and that was verified: its common name, then its DNS names. Empty
    /// without one. At most 64; names longer than 255 bytes are left out.
    static func peerNames(_ session: OpaquePointer) -> [[UInt8]] {
        var names: [[UInt8]] = []
        var name = [UInt8](repeating: 0, count: 255)
        for number in 0..<64 {
            // SAFETY: the session is the connection's, alive until it closes; the shim writes at most as many bytes.
            let length = unsafe martlet_tls_peer_name(session, Int32(number), &name, Int32(name.count))
            guard length >= 0 else { break }
            if length > 0 { names.append(Array(name.prefix(Int(length)))) }
        }
        return names
    }
}

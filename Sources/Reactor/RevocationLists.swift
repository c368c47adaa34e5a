// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import COpenSSL
internal import Platform

// SAFETY (file): lists are ours from reading them to freeing them in `Lists.deinit`, and never changed between; OpenSSL
// counts the references of contexts to each. Strings live for each call.

/// Certificates that their authorities have revoked: lists in a PEM file, one at least of each authority. Shared by
/// what checks peers by it.
@safe
package final class RevocationLists: Sendable {
    /// The file.
    package let path: String
    private let lists: Guarded<Lists>

    /// What one reading of the file gave.
    @safe
    private final class Lists: @unchecked Sendable {
        // SAFETY (Sendable): the pointer never changes, and OpenSSL locks what it changes behind it.
        let pointer: OpaquePointer

        init(_ pointer: OpaquePointer) { unsafe self.pointer = unsafe pointer }

        deinit { unsafe martlet_crls_free(pointer) }
    }

    /// Reads the file. One that is missing, unreadable or empty, or whose lists are not valid now, is an error.
    package init(path: String) throws(TLSError) {
        self.path = path
        lists = Guarded(try Self.read(path))
    }

    /// Those of a file; nil without one.
    package convenience init?(_ path: String?) throws(TLSError) {
        guard let path else { return nil }
        try self.init(path: path)
    }

    /// What ``reload()`` throws.
    func problemOfReload() -> TLSError? {
        do throws(TLSError) { try reload() } catch { return error }
        return nil
    }

    /// Reads the file again. On an error the last good lists stay, and the error says so. Blocks on the file.
    package func reload() throws(TLSError) {
        do throws(TLSError) {
            let fresh = try Self.read(path)
            lists.withLock { $0 = fresh }
        } catch {
            throw TLSError(
                action: error.action, subject: error.subject, reason: error.reason + "; the last good lists stay in use"
            )
        }
    }

    private static func read(_ path: String) throws(TLSError) -> Lists {
        ERR_clear_error()
        var outcome: Int32 = 0
        // SAFETY: the result is ours to free.
        if let pointer = unsafe martlet_crls_read(path, &outcome) { return unsafe Lists(pointer) }
        let action = "use the revocation lists of"
        switch outcome {
        case MARTLET_CRLS_NONE: throw TLSError(action: action, subject: path, reason: "there is none in the file")
        case MARTLET_CRLS_EXPIRED: throw TLSError(action: action, subject: path, reason: "one has expired")
        case MARTLET_CRLS_EARLY: throw TLSError(action: action, subject: path, reason: "one is not yet valid")
        default: throw TLSContext.lastError(action, path)
        }
    }

    /// Has `context` check peers by the lists that there are now. For want of memory, an error.
    func apply(to context: OpaquePointer) throws(TLSError) {
        let lists = lists.withLock { $0 }
        // SAFETY: both are alive for the call; the context counts references of its own.
        guard unsafe martlet_crls_use(context, lists.pointer) == 1 else {
            throw TLSContext.lastError("use the revocation lists of", path)
        }
    }

    /// Whether the peer of a session, or who signed its certificate, is revoked by now.
    func revoke(_ session: OpaquePointer) -> Bool {
        let lists = lists.withLock { $0 }
        // SAFETY: the session is its connection's, alive until that closes.
        return unsafe martlet_crls_revoke(lists.pointer, session) != 0
    }
}

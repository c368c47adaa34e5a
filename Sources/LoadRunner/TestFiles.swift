// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform

/// The files that a test is made of: this machine's, or those that a coordinator sent. An agent reads no other.
final class TestFiles: Sendable {
    private struct State {
        var contents: [String: [UInt8]] = [:]
        /// What came in by standard input, by the path it is called by.
        var given: [String: [UInt8]] = [:]
        var keeps = false
    }

    private let state: Guarded<State>
    private let isShipped: Bool

    /// This machine's files.
    init() {
        state = Guarded(State())
        isShipped = false
    }

    /// Those that were sent, and no others.
    init(_ contents: [String: [UInt8]]) {
        state = Guarded(State(contents: contents))
        isShipped = true
    }

    /// From now on what is read is remembered, to be sent to agents.
    func keep() { state.withLock { $0.keeps = true } }

    /// What was read since ``keep()``, by the paths it was read by.
    var kept: [String: [UInt8]] { state.withLock { $0.contents } }

    /// The file at `path`, of at most `limitBytes`.
    func read(_ path: String, limitBytes: Int) throws(SystemError) -> [UInt8] {
        if isShipped {
            guard let bytes = state.withLock({ $0.contents[path] }), bytes.count <= limitBytes else {
                throw SystemError("open", code: 2, subject: path)
            }
            return bytes
        }
        let bytes: [UInt8]
        if let given = state.withLock({ $0.given[path] }) {
            guard given.count <= limitBytes else { throw SystemError("read", code: 27, subject: path) }
            bytes = given
        } else {
            bytes = try readFile(path, limitBytes: limitBytes)
        }
        state.withLock { if $0.keeps { $0.contents[path] = bytes } }
        return bytes
    }

    /// Reads standard input, which is called `path` from now on.
    func takeInput(as path: String, limitBytes: Int) throws(SystemError) {
        let bytes = try readFile("/dev/stdin", limitBytes: limitBytes)
        state.withLock { $0.given[path] = bytes }
    }

    /// Whether there is a file at `path`.
    func has(_ path: String) -> Bool {
        if isShipped { return state.withLock { $0.contents[path] != nil } }
        return state.withLock { $0.given[path] != nil } || fileLength(path) != nil
    }
}

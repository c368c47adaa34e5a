// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform

/// The files that a test is made of: this machine's, or those that a coordinator sent. An agent reads no other.
final class TestFiles: Sendable {
    private struct State {
        var contents: [String: [UInt8]] = [:]
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
        let bytes = try readFile(path, limitBytes: limitBytes)
        state.withLock { if $0.keeps { $0.contents[path] = bytes } }
        return bytes
    }

    /// Whether there is a file at `path`.
    func has(_ path: String) -> Bool {
        isShipped ? state.withLock { $0.contents[path] != nil } : fileLength(path) != nil
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// Lines of a log on their way to one thread, which alone waits for the disk or the terminal. Those who log never do:
/// poll(2) tells whether a pipe has room, but of a file on a disk that does not answer nobody can say so beforehand.
final class LogWriter: Sendable {
    private struct State {
        var lines: [[UInt8]] = []
        var bytes = 0
        /// Whether the thread is at lines that it has taken.
        var isWriting = false
    }

    private let fd: Int32
    private let limitBytes: Int
    private let state = Guarded(State())
    /// Where the thread sleeps, and where those who wait for it do.
    private let (work, done) = (Parking(), Parking())

    /// For lines to `fd`, of which at most `limitBytes` wait.
    init(fd: Int32, limitBytes: Int) {
        self.fd = fd
        self.limitBytes = limitBytes
    }

    /// Hands a line over. False when too many wait already. Does not block.
    func offer(_ line: [UInt8]) -> Bool {
        let isTaken = state.withLock { state in
            guard state.bytes + line.count <= limitBytes else { return false }
            state.lines.append(line)
            state.bytes += line.count
            return true
        }
        if isTaken { work.announce() }
        return isTaken
    }

    /// Starts the thread, which writes until the process ends: it may be stuck in a write then, so nobody joins it.
    func start() throws(SystemError) {
        _ = try Thread(name: "martlet-log") { [self] in
            while true {
                let ticket = work.ticket
                let lines = state.withLock { state in
                    defer { state.lines = [] }
                    state.isWriting = !state.lines.isEmpty
                    return state.lines
                }
                for line in lines {
                    writeWhole(line, to: fd)
                    state.withLock { $0.bytes -= line.count }
                }
                if lines.isEmpty {
                    done.announce()
                    work.wait(ticket, timeoutNanoseconds: 3_600_000_000_000)
                }
            }
        }
    }

    /// Waits until what was handed over is written, at most `milliseconds`. Blocks.
    func finish(milliseconds: UInt64) {
        let end = Clock.monotonicNanoseconds() + milliseconds * 1_000_000
        while true {
            let ticket = done.ticket
            if state.withLock({ $0.lines.isEmpty && !$0.isWriting }) { return }
            let now = Clock.monotonicNanoseconds()
            guard now < end else { return }
            done.wait(ticket, timeoutNanoseconds: end - now)
        }
    }
}

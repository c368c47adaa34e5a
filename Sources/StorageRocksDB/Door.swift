// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage
internal import Synchronization
internal import Telemetry

/// What a thread does that never touches the disk: answers those who wait in vain that nothing was done.
///
/// The threads that use the disk may be held up for as long as the disk likes. What is with them then can only be
/// given up by those who asked; what waits behind them is refused while those still wait, so that they know that
/// nothing was done, and at once where the threads have been held up that long already.
struct Door {
    let core: BackendCore

    /// Works until the core says that all else has ended.
    func run() {
        while true {
            let ticket = core.door.ticket
            let isOver = core.isOver.load(ordering: .acquiring)
            core.answerRefused()
            if isOver { return }
            refuseWaiting()
            core.door.wait(ticket, timeoutNanoseconds: tickNanoseconds)
        }
    }

    /// Between looks at how long things have waited.
    private var tickNanoseconds: UInt64 {
        UInt64(max(1, min(100, core.configuration.waitingMilliseconds / 8))) * 1_000_000
    }

    private func refuseWaiting() {
        let now = Clock.monotonicNanoseconds()
        let oldest = now > core.limitNanoseconds ? now - core.limitNanoseconds : 0
        if core.writes.count > 0 {
            let isOut = core.work.outageOfCommitter(now, core.outageNanoseconds) != nil
            var taken: [Waiting<SubmittedWrite>] = []
            core.writes.take(into: &taken, limit: .max) { isOut || $0.sinceNanoseconds < oldest }
            core.counters.writesRefused.add(taken.count)
            if !taken.isEmpty { core.sink?.writesCompleted(taken.map { ($0.element.token, .failed(Self.slow)) }) }
        }
        if core.reads.count > 0 {
            let isOut = core.work.outageOfReaders(now, core.outageNanoseconds) != nil
            var taken: [Waiting<StorageRead>] = []
            core.reads.take(into: &taken, limit: .max) { isOut || $0.sinceNanoseconds < oldest }
            core.counters.readsRefused.add(taken.count)
            if !taken.isEmpty { core.sink?.readsCompleted(taken.map { ($0.element.token, .failed(Self.slow)) }) }
        }
    }

    private static let slow = StorageFailure(.notSent, WorkUnderWay.slow)
}

/// Since when the threads that use the disk have been at what they are at.
final class WorkUnderWay: Sendable {
    static let slow = "the disk takes too long"

    /// In monotonic nanoseconds; 0 is at nothing. The committer, then the readers.
    private let since: Guarded<[UInt64]>

    init(readers: Int) { since = Guarded([UInt64](repeating: 0, count: 1 + readers)) }

    /// Says that a thread begins something with the disk. Readers count from 0, the committer is -1.
    func begin(_ thread: Int) { since.withLock { $0[thread + 1] = max(1, Clock.monotonicNanoseconds()) } }

    /// Says that it is done.
    func end(_ thread: Int) { since.withLock { $0[thread + 1] = 0 } }

    /// Why what waits for the committer waits in vain: it has been at one commit for longer than `limit`.
    func outageOfCommitter(_ now: UInt64, _ limit: UInt64) -> String? {
        since.withLock { Self.isLong($0[0], now, limit) ? Self.slow : nil }
    }

    /// The same of reads, which any reader may do.
    func outageOfReaders(_ now: UInt64, _ limit: UInt64) -> String? {
        since.withLock { since in since.dropFirst().allSatisfy { Self.isLong($0, now, limit) } ? Self.slow : nil }
    }

    private static func isLong(_ since: UInt64, _ now: UInt64, _ limit: UInt64) -> Bool {
        since > 0 && now > since && now - since > limit
    }
}

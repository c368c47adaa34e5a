// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform
internal import Synchronization

/// What the main thread tells the threads that make the load, and what they tell it.
final class RunControl: Sendable {
    private let start = Atomic<UInt64>(0)
    private let ready = Atomic<Int>(0)
    private let stop = Atomic<UInt64>(.max)
    private let ended = Atomic<Int>(0)
    private let lastEnd = Atomic<UInt64>(0)
    private let failure = Guarded<RunFailure?>(nil)
    private let mark = Guarded<String?>(nil)
    private let board: Guarded<[WorkerSnapshot?]>
    let changed = Parking()

    init(threads: Int) {
        board = Guarded(Array(repeating: nil, count: threads))
    }

    /// When the test starts, on the monotonic clock; 0 while that is not known.
    var startTime: UInt64 { start.load(ordering: .acquiring) }

    /// Lets the test start at `time`.
    func begin(at time: UInt64) { start.store(time, ordering: .releasing) }

    /// From when on no iteration starts, on the monotonic clock; the greatest number while that is not known.
    var stopTime: UInt64 { stop.load(ordering: .acquiring) }

    /// Asks for the end now.
    func requestStop() {
        _ = stop.compareExchange(
            expected: .max, desired: Clock.monotonicNanoseconds(), ordering: .acquiringAndReleasing)
    }

    /// A thread is prepared.
    func noteReady() {
        ready.add(1, ordering: .acquiringAndReleasing)
        changed.announce()
    }

    /// A thread has ended at a time on the monotonic clock, by default now.
    func noteEnd(at time: UInt64 = Clock.monotonicNanoseconds()) {
        lastEnd.max(time, ordering: .relaxed)
        ended.add(1, ordering: .acquiringAndReleasing)
        changed.announce()
    }

    var readyThreads: Int { ready.load(ordering: .acquiring) }
    var endedThreads: Int { ended.load(ordering: .acquiring) }
    /// When the last of those that have ended did.
    var endTime: UInt64 { lastEnd.load(ordering: .relaxed) }

    /// Something makes the test impossible: the first one counts, and the test ends.
    func fail(_ reason: RunFailure) {
        failure.withLock { if $0 == nil { $0 = reason } }
        requestStop()
        changed.announce()
    }

    var failed: RunFailure? { failure.withLock { $0 } }

    /// A script said that the test failed, whatever its thresholds say: the first reason counts.
    func markFailed(_ reason: String) { mark.withLock { if $0 == nil { $0 = reason } } }

    var markedFailed: String? { mark.withLock { $0 } }

    /// A thread shows what it has gathered.
    func publish(_ snapshot: WorkerSnapshot, thread: Int) { board.withLock { $0[thread] = snapshot } }

    /// What the threads showed last.
    var snapshots: [WorkerSnapshot] { board.withLock { $0.compactMap(\.self) } }
}

/// Something that happens once, from one thread to others.
final class Flag: Sendable {
    private let value = Atomic<Bool>(false)

    func set() { value.store(true, ordering: .releasing) }

    var isSet: Bool { value.load(ordering: .acquiring) }
}

/// Why a test ended before its time.
struct RunFailure: Sendable {
    var code: ExitCode
    var message: String
}

/// What one thread has gathered since the start.
struct WorkerSnapshot: Sendable {
    var sinks: [MetricSink]
    var checks = CheckGroup()
    /// What went wrong, in words, and how often.
    var warnings: [String: UInt64] = [:]
    /// What was gathered by all tags, where that is asked for.
    var series = SeriesTable()
}

/// Counts messages, of different ones a limited number.
struct WarningCounter: Sendable {
    static let limit = 32
    private(set) var counts: [String: UInt64] = [:]

    mutating func count(_ message: String) {
        if let known = counts[message] {
            counts[message] = known + 1
        } else if counts.count < Self.limit {
            counts[message] = 1
        } else {
            counts["other problems", default: 0] += 1
        }
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization

/// What somebody who asks again and again tells of it, and how they are told to end.
///
/// The log gets a line whenever it begins to fail, or fails for another reason, and when it works again.
final class MemberReporter: Sendable {
    /// What the log says.
    struct Words: Sendable {
        /// When it works again.
        var works: String
        /// When it fails; the reason follows behind a colon.
        var fails: String
        /// Whether the log is told of the first success as well.
        var tellsTheFirst = false
    }

    private enum Outcome: Equatable {
        case none, worked
        case failed(String)
    }

    private let words: Words
    private let log: @Sendable (String) -> Void
    private let onFound: @Sendable ([Member]) -> Void
    private let onFailed: @Sendable (String) -> Void
    private let last = Guarded(Outcome.none)
    private let remarked = Guarded<String?>(nil)
    private let stopped = Atomic<Bool>(false)
    private let isHurried = Atomic<Bool>(false)
    private let parking = Parking()

    init(
        _ words: Words, log: @escaping @Sendable (String) -> Void,
        onFound: @escaping @Sendable ([Member]) -> Void = { _ in },
        onFailed: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.words = words
        self.log = log
        self.onFound = onFound
        self.onFailed = onFailed
    }

    var isStopped: Bool { stopped.load(ordering: .relaxed) }

    /// It worked, and these are there.
    func found(_ members: [Member] = []) {
        onFound(members)
        switch exchange(.worked) {
        case .worked: break
        case .none: if words.tellsTheFirst { log(words.works) }
        case .failed: log(words.works)
        }
    }

    /// It did not work.
    func failed(_ reason: String) {
        onFailed(reason)
        let outcome = Outcome.failed(reason)
        if exchange(outcome) != outcome { log("\(words.fails): \(reason)") }
    }

    private func exchange(_ outcome: Outcome) -> Outcome {
        last.withLock { last in
            defer { last = outcome }
            return last
        }
    }

    /// Something that is wrong though members were found; nil when nothing is. Each is told once.
    func remark(_ text: String?) {
        let isNew = remarked.withLock { last in
            defer { last = text }
            return last != text
        }
        if isNew, let text { log(text) }
    }

    func stop() {
        stopped.store(true, ordering: .relaxed)
        parking.announce()
    }

    /// Has who rests go on at once.
    func hurry() {
        isHurried.store(true, ordering: .releasing)
        parking.announce()
    }

    /// Rests; ends early when it is all over, or ``hurry()`` was called.
    func wait(milliseconds: UInt64) {
        let end = Clock.monotonicNanoseconds() &+ milliseconds &* 1_000_000
        while !isStopped {
            let ticket = parking.ticket
            let now = Clock.monotonicNanoseconds()
            guard !isStopped, !isHurried.exchange(false, ordering: .acquiring), now < end else { return }
            parking.wait(ticket, timeoutNanoseconds: end - now)
        }
    }
}

/// How long to rest before another attempt: twice as long each time.
struct Backoff {
    private let range: ClosedRange<UInt64>
    private var following: UInt64

    init(milliseconds range: ClosedRange<UInt64>) {
        self.range = range
        following = range.lowerBound
    }

    /// Milliseconds to rest now.
    mutating func next() -> UInt64 {
        defer { following = min(following * 2, range.upperBound) }
        return following
    }

    /// An attempt went well.
    mutating func reset() { following = range.lowerBound }
}

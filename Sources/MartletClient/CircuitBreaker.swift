// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Decides whether a server that fails is asked at all. Pure: time and chance are given.
///
/// States: *closed* (asks go through) → *open* when failures come in a row, or are too large a part of a second's
/// calls → *half open* when its time is over: one call goes through as a probe → *closed* if that succeeds, *open* for
/// twice as long if it fails. Results of calls that began before it opened do not count.
struct CircuitBreaker: Sendable {
    struct Configuration: Sendable {
        /// Failures in a row that open it.
        var failuresInRow = 8
        /// The part of a second's calls that opens it when it failed, and how many calls that second must have had.
        var failedShare = 0.5
        var fewestCalls = 20
        /// How long it stays open at first, and at most.
        var openNanoseconds: UInt64 = 500_000_000
        var longestOpenNanoseconds: UInt64 = 15_000_000_000
    }

    enum Admission: Equatable, Sendable {
        case pass
        /// The call decides whether the server is back.
        case probe
        case refuse
    }

    enum State: Equatable, Sendable {
        case closed
        case open(until: UInt64)
        case halfOpen(isProbing: Bool)
    }

    private let configuration: Configuration
    private(set) var state = State.closed
    private var inRow = 0
    private var calls = 0
    private var failures = 0
    private var windowEnd: UInt64 = 0
    /// How often it opened without having closed between.
    private var openings = 0

    init(_ configuration: Configuration) { self.configuration = configuration }

    /// Whether a call may go to the server now.
    mutating func admit(nowNanoseconds now: UInt64) -> Admission {
        switch state {
        case .closed: return .pass
        case .open(let until):
            guard now >= until else { return .refuse }
            state = .halfOpen(isProbing: true)
            return .probe
        case .halfOpen(let isProbing):
            guard !isProbing else { return .refuse }
            state = .halfOpen(isProbing: true)
            return .probe
        }
    }

    /// What came of a call; `random`, from 0 to 1, spreads when clients come back. True when the state changed.
    mutating func record(succeeded: Bool, isProbe: Bool, nowNanoseconds now: UInt64, random: Double) -> Bool {
        switch state {
        case .open: return false
        case .halfOpen:
            guard isProbe else { return false }
            if succeeded { close() } else { open(now, random) }
            return true
        case .closed: return count(succeeded, now, random)
        }
    }

    /// A probe was given up without a result: the next call is one.
    mutating func probeAbandoned() {
        if case .halfOpen = state { state = .halfOpen(isProbing: false) }
    }

    private mutating func count(_ succeeded: Bool, _ now: UInt64, _ random: Double) -> Bool {
        if now >= windowEnd {
            (calls, failures) = (0, 0)
            windowEnd = now &+ 1_000_000_000
        }
        calls += 1
        guard !succeeded else {
            inRow = 0
            return false
        }
        inRow += 1
        failures += 1
        let isShareHigh =
            calls >= configuration.fewestCalls && Double(failures) >= configuration.failedShare * Double(calls)
        guard inRow >= configuration.failuresInRow || isShareHigh else { return false }
        open(now, random)
        return true
    }

    private mutating func close() {
        state = .closed
        (inRow, calls, failures, openings, windowEnd) = (0, 0, 0, 0, 0)
    }

    private mutating func open(_ now: UInt64, _ random: Double) {
        let whole = min(
            configuration.openNanoseconds << UInt64(min(openings, 16)), configuration.longestOpenNanoseconds)
        openings += 1
        state = .open(until: now &+ whole / 2 &+ UInt64(Double(whole / 2) * min(max(random, 0), 1)))
    }
}

/// How many requests may be with a server at once: fewer after it was too slow or too busy, more again while it copes.
/// Pure. Additive increase, multiplicative decrease, the decrease at most once in a while because one slow moment
/// shows in many calls.
struct ConcurrencyLimit: Sendable {
    let fewest: Double
    let most: Double
    private var current: Double
    private var restUntil: UInt64 = 0

    private static var decrease: Double { 0.7 }
    private static var restNanoseconds: UInt64 { 100_000_000 }

    init(fewest: Int, most: Int) {
        self.fewest = Double(min(fewest, most))
        self.most = Double(most)
        current = Double(most)
    }

    /// The limit now.
    var value: Int { Int(current) }

    /// A request was answered in time while `inFlight` were with the server.
    mutating func succeeded(inFlight: Int) {
        // Nothing is learnt from what was far below the limit.
        guard current < most, Double(inFlight) * 2 >= current else { return }
        current = min(most, current + 1 / current)
    }

    /// The server was too slow, or said that it has too much to do.
    mutating func overloaded(nowNanoseconds now: UInt64) {
        guard now >= restUntil else { return }
        restUntil = now &+ Self.restNanoseconds
        current = max(fewest, current * Self.decrease)
    }
}

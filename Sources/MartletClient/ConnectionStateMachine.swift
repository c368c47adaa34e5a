// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The life of one connection to a server. Pure: time and chance are given, and what is to be done is returned.
///
/// *idle* → *connecting* when somebody wants it → *open*, or *resting* when that failed → *idle* when the rest is over.
/// An open connection that is lost becomes idle, or resting if it never brought a reply. One that owes replies and has
/// been silent for too long is closed: whatever it is, it does not get over it.
package struct ConnectionStateMachine: Sendable {
    /// Its times.
    package struct Configuration: Sendable {
        /// How long connecting may take.
        package var connectNanoseconds: UInt64
        /// How long a connection that owes replies may be silent.
        package var silenceNanoseconds: UInt64
        /// The rest after a failure.
        package var backoff: Backoff

        /// These times.
        package init(connectNanoseconds: UInt64, silenceNanoseconds: UInt64, backoff: Backoff) {
            self.connectNanoseconds = connectNanoseconds
            self.silenceNanoseconds = silenceNanoseconds
            self.backoff = backoff
        }
    }

    /// How it stands.
    package enum State: Equatable, Sendable {
        case idle
        case connecting(deadline: UInt64)
        case open
        case resting(until: UInt64)
    }

    /// What is to be done for somebody who wants to send.
    package enum Want: Equatable, Sendable {
        /// Nothing: it is open, or being made.
        case nothing
        /// Connect; the deadline is the machine's to watch.
        case connect
        /// No attempt is made now.
        case refuse
    }

    private let configuration: Configuration
    /// How it stands.
    package private(set) var state = State.idle
    /// Failures in a row.
    package private(set) var failures = 0
    /// Requests whose replies are to come.
    package private(set) var owed = 0
    private var hasAnswered = false
    private var lastHeard: UInt64 = 0

    /// A connection that nobody has wanted yet.
    package init(_ configuration: Configuration) { self.configuration = configuration }

    /// Somebody has something to send.
    package mutating func wanted(nowNanoseconds now: UInt64) -> Want {
        switch state {
        case .open, .connecting: return .nothing
        case .resting(let until) where now < until: return .refuse
        case .idle, .resting:
            state = .connecting(deadline: now &+ configuration.connectNanoseconds)
            return .connect
        }
    }

    /// The attempt goes on with another address, which has its own time.
    package mutating func triesAnother(nowNanoseconds now: UInt64) {
        state = .connecting(deadline: now &+ configuration.connectNanoseconds)
    }

    /// Whether a request may be given to it now.
    package func accepts(nowNanoseconds now: UInt64) -> Bool {
        if case .resting(let until) = state { return now >= until }
        return true
    }

    /// It stands.
    package mutating func opened(nowNanoseconds now: UInt64) {
        state = .open
        hasAnswered = false
        lastHeard = now
    }

    /// A request was given to it.
    package mutating func asked(nowNanoseconds now: UInt64) {
        if owed == 0 { lastHeard = now }
        owed += 1
    }

    /// Something arrived.
    package mutating func heard(nowNanoseconds now: UInt64) { lastHeard = now }

    /// A whole reply arrived.
    package mutating func answered() {
        owed = max(0, owed - 1)
        hasAnswered = true
        failures = 0
    }

    /// It is gone, or never came to stand.
    package mutating func lost(nowNanoseconds now: UInt64, random: Double) {
        owed = 0
        if state == .open, hasAnswered {
            state = .idle
        } else {
            failures += 1
            state = .resting(until: now &+ configuration.backoff.wait(failures: failures, random: random))
        }
    }

    /// When ``isOverdue(nowNanoseconds:)`` may become true; nil when it cannot.
    package var dueNanoseconds: UInt64? {
        switch state {
        case .connecting(let deadline): deadline
        case .open: owed > 0 ? lastHeard &+ configuration.silenceNanoseconds : nil
        case .idle, .resting: nil
        }
    }

    /// Whether it is to be closed: connecting took too long, or replies do.
    package func isOverdue(nowNanoseconds now: UInt64) -> Bool { dueNanoseconds.map { now >= $0 } ?? false }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Admin
package import Platform
package import Settings

/// How a server program takes its leave.
package struct DrainConfiguration: Sendable, Equatable {
    /// From the order to end until the end, in milliseconds; 0 ends at once, as memcached does.
    package var timeoutMilliseconds = 5_000
    /// How long all goes on as before once the program is no longer ready, in milliseconds: whoever looks at
    /// readiness or membership learns of it in that time.
    package var delayMilliseconds = 0

    /// A connection that was quiet for so long is closed.
    package static let idleMilliseconds = 250

    package init() {}
}

extension DrainConfiguration {
    /// Settings of it, for the tables.
    package static let settings: [Setting] = [
        Setting(
            "drainTimeout", .duration(0...3_600_000_000_000), default: "5s",
            "Time at SIGTERM to answer what is under way and to let clients go; 0 ends at once."),
        Setting(
            "drainDelay", .duration(0...3_600_000_000_000), default: "0",
            "Time that all goes on as before when it is no longer ready; a part of drainTimeout at SIGTERM."),
    ]

    /// Reads the settings; adds what is wrong with them.
    package init(_ values: SettingsValues, problems: inout [String]) {
        timeoutMilliseconds = Int(values.duration("drainTimeout") / 1_000_000)
        delayMilliseconds = Int(values.duration("drainDelay") / 1_000_000)
        if timeoutMilliseconds > 0, delayMilliseconds >= timeoutMilliseconds {
            problems.append("drainDelay: must be shorter than drainTimeout, which it is a part of")
        }
    }
}

/// Whether a server program serves, drains, or ends. Safe to use from any thread.
///
/// Draining begins by an order to end, by SIGUSR2, or by `POST /drain`: the program is not ready any more and leaves
/// the members of its fleet, but serves everybody who still comes. It does not go back.
package final class Drain: Sendable {
    /// How far it is.
    package enum Phase: String, Sendable { case serving, draining, ending }

    /// What the program tells of its clients.
    package struct Clients: Sendable {
        /// Connections that are open.
        package var connections: Int
        /// Those of them that asked something in the last second.
        package var active: Int

        /// Figures of a moment.
        package init(connections: Int, active: Int) {
            self.connections = connections
            self.active = active
        }
    }

    private struct State {
        var phase = Phase.serving
        /// When draining began, in monotonic nanoseconds.
        var begun: UInt64 = 0
    }

    /// How the program takes its leave.
    package let configuration: DrainConfiguration
    private let state = Guarded(State())

    /// A program that serves.
    package init(_ configuration: DrainConfiguration) { self.configuration = configuration }

    /// How far it is.
    package var phase: Phase { state.withLock { $0.phase } }

    /// Goes on to `phase`, not back. True when that was new.
    @discardableResult
    package func advance(to phase: Phase) -> Bool {
        state.withLock { state in
            let isNew = phase == .ending ? state.phase != .ending : phase == .draining && state.phase == .serving
            guard isNew else { return false }
            if state.phase == .serving { state.begun = Clock.monotonicNanoseconds() }
            state.phase = phase
            return true
        }
    }

    /// What is left of the delay, in milliseconds.
    package var remainingDelayMilliseconds: Int {
        let begun = state.withLock { $0.begun }
        let passed = begun == 0 ? 0 : Int((Clock.monotonicNanoseconds() - begun) / 1_000_000)
        return max(0, configuration.delayMilliseconds - passed)
    }

    /// Why the program must not be sent traffic; nil when it may.
    package var obstacle: String? {
        switch phase {
        case .serving: nil
        case .draining: "draining"
        case .ending: "stopping"
        }
    }

    /// `POST /drain`: begins, and tells how far that is; asked again, only tells.
    package func route(_ clients: @escaping @Sendable () -> Clients) -> AdminRoute {
        AdminRoute(
            "/drain", "no longer ready, leaves the members, serves who still comes; asked again, tells how far",
            access: .localAction
        ) { [self] _ in
            // The thread that waits for signals does the rest.
            if advance(to: .draining) { ProcessControl.signalSelf(.user2) }
            let now = clients()
            let remaining = remainingDelayMilliseconds
            let isDrained = remaining == 0 && now.active == 0
            return .json(
                "{\"phase\":\"\(phase.rawValue)\",\"drained\":\(isDrained),\"remainingDelayMilliseconds\":\(remaining),"
                    + "\"connections\":\(now.connections),\"active\":\(now.active)}\n")
        }
    }
}

/// A service that a program ends.
package struct EndingService {
    /// Ends it in so many milliseconds, with so many of quiet until a connection is closed; 0 and 0 is at once. Does
    /// not wait; the last call counts.
    package let stop: @Sendable (_ timeoutMilliseconds: Int, _ idleMilliseconds: Int) -> Void
    /// Returns when it has ended.
    package let wait: () -> Void

    /// A service by what ends it, and what waits for that.
    package init(stop: @escaping @Sendable (Int, Int) -> Void, wait: @escaping () -> Void) {
        self.stop = stop
        self.wait = wait
    }
}

extension Drain {
    /// Ends a service as `cause` asks for, and returns when that is over: SIGTERM after what is left of the delay and
    /// with patience for clients that still ask, SIGUSR1 as soon as what arrived is answered, SIGINT at once. Another
    /// SIGTERM or SIGINT meanwhile ends it at once.
    package func end(_ service: EndingService, by cause: Signal) {
        let begun = Clock.monotonicNanoseconds()
        let configured = configuration.timeoutMilliseconds
        let timeout = cause == .user1 && configured == 0 ? Self.gracefulMilliseconds : configured
        var isPatient = cause != .interrupt && timeout > 0
        if cause == .terminate, isPatient {
            isPatient = wait(milliseconds: min(remainingDelayMilliseconds, timeout))
        }
        let passed = Int((Clock.monotonicNanoseconds() - begun) / 1_000_000)
        if isPatient {
            service.stop(max(1, timeout - passed), cause == .terminate ? DrainConfiguration.idleMilliseconds : 0)
        } else {
            service.stop(0, 0)
        }
        let isOver = Guarded(false)
        let stop = service.stop
        let watcher = try? Thread(name: "martlet-signals") {
            while !isOver.withLock({ $0 }) {
                guard let signal = Signal.wait(milliseconds: Self.pollMilliseconds), signal.isOrderToEnd else {
                    continue
                }
                stop(0, 0)
                return Self.force(isOver)
            }
        }
        service.wait()
        isOver.withLock { $0 = true }
        watcher?.join()
    }

    /// Waits for `milliseconds`; false when an order to end came in between.
    private func wait(milliseconds: Int) -> Bool {
        let end = Clock.monotonicNanoseconds() + UInt64(milliseconds) * 1_000_000
        while true {
            let now = Clock.monotonicNanoseconds()
            guard now < end else { return true }
            if let signal = Signal.wait(milliseconds: Int((end - now) / 1_000_000) + 1), signal.isOrderToEnd {
                return false
            }
        }
    }

    /// Ends the process when the service does not end soon: a store that does not answer holds it up.
    private static func force(_ isOver: Guarded<Bool>) {
        for _ in 0..<forceMilliseconds / pollMilliseconds {
            Thread.sleep(microseconds: UInt32(pollMilliseconds) * 1_000)
            if isOver.withLock({ $0 }) { return }
        }
        abandonProcess(0)
    }

    /// How long SIGUSR1 waits for the last answers where SIGTERM waits for nothing. Milliseconds.
    private static var gracefulMilliseconds: Int { 10_000 }
    /// How often it is looked whether the service has ended. Milliseconds.
    private static var pollMilliseconds: Int { 20 }
    /// How long a service may take that was told to end at once. Milliseconds.
    private static var forceMilliseconds: Int { 1_000 }
}

extension Signal {
    /// Whether it ends the program.
    var isOrderToEnd: Bool { self == .terminate || self == .interrupt }
}

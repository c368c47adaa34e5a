// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Platform
internal import Telemetry

/// What the log is told of a router's servers: which are taken out and used again, and when requests are refused to
/// spare them. Of one thread.
struct RouterEvents: Sendable {
    private var shedding = SheddingWatch()
    /// Servers that were taken out by a thread when they were looked at last.
    private var out: Set<String> = []

    /// Looks at the servers of a plan.
    mutating func look(_ plan: RouterPlan, log: Log, at now: UInt64) {
        var refused: UInt64 = 0
        var waiting: UInt64 = 0
        var missing: Set<String> = []
        for backend in plan.backends {
            let totals = backend.totals()
            refused &+= totals[.throttled] &+ totals[.expired]
            waiting &+= totals[.waiting] &+ totals[.waitingBinary]
            guard totals[.ejected] > 0 else { continue }
            missing.insert(backend.name)
            if !out.contains(backend.name) {
                log.warning(
                    "a server is taken out",
                    [
                        "server": .text(backend.name), "state": .text(backend.state.text),
                        "timeouts": .unsigned(totals[.timeouts]), "threads": .unsigned(totals[.ejected]),
                    ])
            }
        }
        let known = Set(plan.backends.map(\.name))
        for name in out.subtracting(missing).sorted() where known.contains(name) {
            log.info("a server is used again", ["server": .text(name)])
        }
        out = missing
        shedding.look(
            SheddingWatch.Figures(
                refused: refused, ratio: 0, detail: "servers are busy; \(waiting) requests wait for room with them"),
            at: now, log: log)
    }
}

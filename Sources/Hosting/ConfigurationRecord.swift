// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Admin
internal import Memory
internal import Platform
package import Telemetry

/// Which configuration a program has, and what became of those that it read since. Safe to use from any thread.
package final class ConfigurationRecord: Sendable {
    private struct State {
        var summary: ConfigurationSummary
        /// Configurations that were taken, that of the start among them.
        var generation: UInt64 = 1
        var refusals: UInt64 = 0
        /// Whether the last one was refused.
        var wasRefused = false
        /// Whether changed settings wait for a restart, or a file that they name could not be read again.
        var waits = false
        var attemptedUnixSeconds = Clock.realtimeNanoseconds() / 1_000_000_000
        var takenUnixSeconds = Clock.realtimeNanoseconds() / 1_000_000_000
    }

    private let state: Guarded<State>

    /// The record of a program that starts with this configuration.
    package init(_ summary: ConfigurationSummary) { state = Guarded(State(summary: summary)) }

    /// Another configuration was taken; `waits` tells whether a part of it waits for a restart, or for a file that can
    /// be read.
    package func take(_ summary: ConfigurationSummary, waits: Bool) {
        state.withLock { state in
            state.summary = summary
            state.generation += 1
            state.wasRefused = false
            state.waits = waits
            state.takenUnixSeconds = Clock.realtimeNanoseconds() / 1_000_000_000
            state.attemptedUnixSeconds = state.takenUnixSeconds
        }
    }

    /// Another configuration was read, and could not be used.
    package func refuse() {
        state.withLock { state in
            state.refusals += 1
            state.wasRefused = true
            state.attemptedUnixSeconds = Clock.realtimeNanoseconds() / 1_000_000_000
        }
    }

    /// The digest of the configuration that was taken last.
    package var digest: String { state.withLock { $0.summary.digest } }

    /// How many were refused since the start.
    package var refusals: UInt64 { state.withLock { $0.refusals } }

    /// When one was read last, and when one was taken last, in Unix time.
    package var moments: (attempted: UInt64, taken: UInt64) {
        state.withLock { ($0.attemptedUnixSeconds, $0.takenUnixSeconds) }
    }

    /// A member of `/stats.json`, without its name.
    package var json: String {
        let state = self.state.withLock { $0 }
        return "{\"digest\":\(JSONString.quoted(state.summary.digest)),\"generation\":\(state.generation),"
            + "\"refused\":\(state.refusals),\"pending\":\(state.wasRefused || state.waits),"
            + "\"takenAt\":\(state.takenUnixSeconds)}"
    }

    /// `/config`: every setting and its value. Behind the token, because it tells where everything is.
    package var route: AdminRoute {
        AdminRoute("/config", "every setting, its value, and what set it; secrets are hidden", access: .guarded) {
            [self] _ in
            .text(state.withLock { $0.summary.lines }.map { $0 + "\n" }.joined())
        }
    }

    /// What became of configurations; `prefix` is what the names begin with.
    package func appendMetrics(to page: inout Exposition, prefix: String) {
        let state = self.state.withLock { $0 }
        page.family(
            "\(prefix)_info", .gauge,
            help: "Which configuration was taken last, by the digest of what was set: always 1.")
        page.sample(UInt64(1), ("digest", state.summary.digest))
        page.family(
            "\(prefix)_generation", .gauge,
            help: "Configurations that were taken since the start, that of the start among them.")
        page.sample(state.generation)
        page.family(
            "\(prefix)_reloads_total", .counter,
            help: "Configurations that were read again, by what became of them.")
        page.sample(state.generation - 1, ("result", "taken"))
        page.sample(state.refusals, ("result", "refused"))
        page.family(
            "\(prefix)_pending", .gauge,
            help: "Whether the last configuration was refused, or a part of it waits for a restart.")
        page.sample(UInt64(state.wasRefused || state.waits ? 1 : 0))
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Telemetry

/// Tells the log when a program begins to refuse requests for overload, and when that is over. Pure but for the log:
/// time is given.
package struct SheddingWatch: Sendable {
    /// What a program has refused in all, and how it stands.
    package struct Figures: Sendable {
        /// Requests that were refused since the start, by those who are counted now.
        package var refused: UInt64
        /// The largest share of offered work that is refused now, from 0 to 1.
        package var ratio: Double
        /// What is worth saying beside it.
        package var detail: String

        /// Figures of a moment.
        package init(refused: UInt64, ratio: Double, detail: String) {
            self.refused = refused
            self.ratio = ratio
            self.detail = detail
        }
    }

    /// What there is to tell.
    package enum Event: Sendable, Equatable {
        case began
        /// With how many requests were refused, and over how long, in milliseconds.
        case ended(refused: UInt64, milliseconds: UInt64)
    }

    /// So long nothing must be refused until it is over, in nanoseconds.
    package static let quietNanoseconds: UInt64 = 10_000_000_000

    private var last: UInt64?
    /// The overload that is on: since when, and how many were refused.
    private var begun: (at: UInt64, refused: UInt64)?
    private var grownAt: UInt64 = 0

    /// A watch that has seen nothing.
    package init() {}

    /// Takes figures of a moment in; what there is to tell of them.
    package mutating func look(refused: UInt64, at now: UInt64) -> Event? {
        defer { last = refused }
        guard let last else { return nil }
        guard refused > last else {
            // Less than before: a server that was counted is not in the plan any more.
            guard let begun, now &- grownAt >= Self.quietNanoseconds else { return nil }
            self.begun = nil
            return .ended(refused: begun.refused, milliseconds: (grownAt &- begun.at) / 1_000_000)
        }
        grownAt = now
        if let begun {
            self.begun = (begun.at, begun.refused &+ (refused - last))
            return nil
        }
        begun = (now, refused - last)
        return .began
    }

    /// The same, told to the log.
    package mutating func look(_ figures: Figures, at now: UInt64, log: Log) {
        switch look(refused: figures.refused, at: now) {
        case .began:
            log.warning("shedding began", ["ratio": .number(figures.ratio), "why": .text(figures.detail)])
        case .ended(let refused, let milliseconds):
            log.info("shedding ended", ["refused": .unsigned(refused), "milliseconds": .unsigned(milliseconds)])
        case nil: break
        }
    }
}

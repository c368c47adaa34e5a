// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How much a request matters when not all can be served. The order is the order of shedding: the last goes first.
package enum RequestClass: UInt8, Sendable, CaseIterable, BitwiseCopyable {
    /// Deletes and invalidations: what makes data disappear. Served as long as they keep to their reserved share.
    case invalidation
    case critical
    /// What nobody said anything about.
    case standard
    case sheddable
    /// Warm-up, refills, batch jobs.
    case background

    /// The name in the configuration, in statistics and in metrics.
    package var label: String {
        switch self {
        case .invalidation: "invalidation"
        case .critical: "critical"
        case .standard: "default"
        case .sheddable: "sheddable"
        case .background: "background"
        }
    }

    /// The class of a name that a pool or a listener may have; nil for others.
    package init?(label: String) {
        guard let found = Self.allCases.first(where: { $0.label == label && $0 != .invalidation }) else { return nil }
        self = found
    }

    /// The class of a request's own tag, of which the first letter counts: c, d, s or b.
    @inline(__always)
    package init?(tag: UInt8) {
        switch tag {
        case UInt8(ascii: "c"): self = .critical
        case UInt8(ascii: "d"): self = .standard
        case UInt8(ascii: "s"): self = .sheddable
        case UInt8(ascii: "b"): self = .background
        default: return nil
        }
    }

    /// How old a request of the class may be when its turn comes, while the node is overloaded, in halves of the
    /// target.
    var ageLimitHalves: UInt64 {
        switch self {
        case .invalidation: 16
        case .critical: 8
        case .standard: 4
        case .sheddable: 2
        case .background: 1
        }
    }
}

/// Why a request was refused.
package enum ShedReason: UInt8, Sendable, CaseIterable {
    /// Its level is beyond what the shed ratio admits.
    case ratio
    /// It was too old when its turn came.
    case age
    /// Its connection used up its share of the turn.
    case share

    /// The name in statistics and metrics.
    package var label: String {
        switch self {
        case .ratio: "ratio"
        case .age: "age"
        case .share: "share"
        }
    }
}

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

    /// The class that a request's own tag names: a name, or its first letter. Nil for others, which may say anything to
    /// whoever put them there.
    package init?(tag: Span<UInt8>) {
        guard tag.count > 0 else { return nil }
        let named: RequestClass
        switch tag[0] {
        case UInt8(ascii: "c"): named = .critical
        case UInt8(ascii: "d"): named = .standard
        case UInt8(ascii: "s"): named = .sheddable
        case UInt8(ascii: "b"): named = .background
        default: return nil
        }
        let label = named.label.utf8
        guard tag.count == 1 || tag.count == label.count else { return nil }
        var index = 0
        for byte in label.prefix(tag.count) {
            guard tag[index] == byte else { return nil }
            index += 1
        }
        self = named
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

    /// The same while only what matters less is refused for its level.
    var firstAgeLimitHalves: UInt64 {
        switch self {
        case .invalidation, .critical: 40
        case .standard: 20
        case .sheddable, .background: ageLimitHalves
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

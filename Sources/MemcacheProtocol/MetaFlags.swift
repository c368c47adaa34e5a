// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The set of flags on a meta command's line, a bit for each letter.
@usableFromInline
package struct MetaOptions: OptionSet, BitwiseCopyable, Sendable {
    /// Bit 0 is `A`, bit 57 is `z`.
    @usableFromInline package let rawValue: UInt64

    @inlinable @inline(__always)
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The flag of `letter`, one of `A` to `z`.
    @inlinable @inline(__always)
    package init(letter: UInt8) { rawValue = 1 &<< UInt64(letter &- 65) }

    /// `b`: the key is base64.
    @inlinable package static var base64Key: MetaOptions { MetaOptions(letter: UInt8(ascii: "b")) }
    /// `C`: compare with ``Request/cas``.
    @inlinable package static var compareCAS: MetaOptions { MetaOptions(letter: UInt8(ascii: "C")) }
    /// `E`: give the item ``Request/casIn``.
    @inlinable package static var setCAS: MetaOptions { MetaOptions(letter: UInt8(ascii: "E")) }
    /// `I`: mark stale (`md`), or store what is older as stale (`ms`).
    @inlinable package static var invalidate: MetaOptions { MetaOptions(letter: UInt8(ascii: "I")) }
    /// `N`: make the item on a miss, for ``Request/vivifyTTL``.
    @inlinable package static var vivify: MetaOptions { MetaOptions(letter: UInt8(ascii: "N")) }
    /// `P`: a token for proxies; see ``RegionMark``.
    @inlinable package static var proxyToken: MetaOptions { MetaOptions(letter: UInt8(ascii: "P")) }
    /// `R`: see ``Request/recacheTTL``.
    @inlinable package static var recache: MetaOptions { MetaOptions(letter: UInt8(ascii: "R")) }
    /// `T`: set the expiry to ``Request/exptime``.
    @inlinable package static var setTTL: MetaOptions { MetaOptions(letter: UInt8(ascii: "T")) }
    /// `q`: no answer where nothing is remarkable.
    @inlinable package static var quiet: MetaOptions { MetaOptions(letter: UInt8(ascii: "q")) }
    /// `t`: answer the seconds that are left.
    @inlinable package static var ttl: MetaOptions { MetaOptions(letter: UInt8(ascii: "t")) }
    /// `u`: do not count as an access.
    @inlinable package static var noUpdate: MetaOptions { MetaOptions(letter: UInt8(ascii: "u")) }
    /// `v`: answer the value.
    @inlinable package static var value: MetaOptions { MetaOptions(letter: UInt8(ascii: "v")) }
    /// `x`: drop the value, keep the item (`md`).
    @inlinable package static var dropValue: MetaOptions { MetaOptions(letter: UInt8(ascii: "x")) }
    /// `k`: answer the key.
    @inlinable package static var key: MetaOptions { MetaOptions(letter: UInt8(ascii: "k")) }
    /// `h`: answer whether the item was read before.
    @inlinable package static var hitBefore: MetaOptions { MetaOptions(letter: UInt8(ascii: "h")) }
    /// `l`: answer the seconds since the last access.
    @inlinable package static var lastAccess: MetaOptions { MetaOptions(letter: UInt8(ascii: "l")) }

    /// What makes more of `mg` than showing the item. In bits, because an array literal of flags may be allocated.
    @inlinable @inline(__always)
    package static var acting: MetaOptions {
        MetaOptions(
            rawValue: compareCAS.rawValue | vivify.rawValue | recache.rawValue | setTTL.rawValue | noUpdate.rawValue
                | hitBefore.rawValue | lastAccess.rawValue)
    }
}

/// A flag that adds to a meta reply, or acts while it is built (T, N, R: `mg k t T9` answers the old time).
@usableFromInline
package enum MetaStep: UInt8, Sendable {
    case end
    /// `c`, `f`, `h`, `k`, `l`, `s`, `t`: answered as letter and value.
    case cas, clientFlags, hitBefore, key, lastAccess, size, ttl
    /// `O`: answered as it came.
    case opaque
    /// `T`, `N`, `R`: act on the item at this place.
    case setTTL, vivify, recache
}

/// The reply's steps in the order of the request's flags: at most 11 of 4 bits each, so that no reply reads the line
/// again.
@usableFromInline
package struct MetaSteps: BitwiseCopyable, Sendable, Equatable {
    /// Four bits for each step, the next one lowest.
    @usableFromInline package var rawValue: UInt64

    @inlinable @inline(__always)
    package init() { rawValue = 0 }

    /// Whether no step is left.
    @inlinable package var isEmpty: Bool { @inline(__always) get { rawValue == 0 } }

    /// Takes the next step off; `.end` when none is left.
    @inlinable @inline(__always)
    package mutating func next() -> MetaStep {
        let step = MetaStep(rawValue: UInt8(truncatingIfNeeded: rawValue & 15)) ?? .end
        rawValue &>>= 4
        return step
    }
}

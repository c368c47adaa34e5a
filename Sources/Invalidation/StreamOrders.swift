// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What an operator has a node do with the stream that it follows.
package enum StreamOrder: Sendable, Equatable {
    /// Ask for what is missing again, and whether that was all.
    case repair
    /// Have what is kept of the slots of this mask sent again.
    case replay(UInt64)
    /// Give the slots of this mask up, and go on.
    case skip(UInt64)
}

/// Why an order is not followed.
package struct StreamOrderRefusal: Error, Sendable, Equatable {
    /// What stands against it.
    package let reason: String
    /// Whether it may be followed later as things are set up.
    package let isPassing: Bool

    /// A refusal.
    package init(_ reason: String, isPassing: Bool) { (self.reason, self.isPassing) = (reason, isPassing) }
}

/// Who follows a stream for a node, whichever way it comes. Safe to use from any thread.
package protocol StreamFollowing: AnyObject, Sendable {
    /// Does it, soon. Does not block.
    func order(_ order: StreamOrder) throws(StreamOrderRefusal)
}

/// Orders that wait for the thread that follows: of each kind what was asked for, together.
package struct StreamOrders: Sendable, Equatable {
    private var skipped: UInt64 = 0
    private var replayed: UInt64 = 0
    private var repairs = false

    /// None.
    package init() {}

    /// Whether there is none.
    package var isEmpty: Bool { self == StreamOrders() }

    /// One more.
    package mutating func add(_ order: StreamOrder) {
        switch order {
        case .repair: repairs = true
        case .replay(let mask): replayed |= mask
        case .skip(let mask): skipped |= mask
        }
    }

    /// Takes those that can be followed now: all of them, or only what needs nobody who answers. What is given up goes
    /// first: it would end what the others begin.
    package mutating func take(all isAnswered: Bool) -> [StreamOrder] {
        var orders: [StreamOrder] = []
        if skipped != 0 { orders.append(.skip(skipped)) }
        skipped = 0
        guard isAnswered else { return orders }
        if replayed != 0 { orders.append(.replay(replayed)) }
        if repairs { orders.append(.repair) }
        (replayed, repairs) = (0, false)
        return orders
    }
}

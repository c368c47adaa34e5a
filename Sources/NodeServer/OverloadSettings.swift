// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Overload

/// What a node does when more is asked of it than it can serve in time.
package struct OverloadSettings: Sendable, Equatable {
    /// How a refusal reads.
    package enum Reply: String, Sendable, CaseIterable {
        /// `SERVER_ERROR 307 busy`, which mcrouter takes for what it is.
        case busy
        /// `SERVER_ERROR out of memory …`, on which libmemcached keeps its connection.
        case oom
        /// Reads of look-aside pools miss; all else is refused as with `oom`.
        case miss
    }

    /// Whose requests belong together.
    package enum Tenant: String, Sendable, CaseIterable {
        /// Those from one address.
        case address
        /// Those whose keys begin alike: up to the prefix delimiter.
        case prefix
        /// Those that came in by one listener.
        case listener
        /// Those of one of ``NodeConfiguration/tenants``.
        case user
        /// All of them.
        case none
    }

    /// What one listener's connections are.
    package struct Listener: Sendable, Equatable {
        /// The listener's tag, as `-l tag[…]` gives it.
        package var tag: String
        /// The class of its requests, unless their pool or they themselves have one.
        package var requestClass: RequestClass?
        /// How refusals read there; nil for the node's way.
        package var reply: Reply?
    }

    /// How an overload is told, and the delay to hold.
    package var controller = OverloadConfiguration()
    /// How refusals read.
    package var reply = Reply.busy
    /// Who competes with whom.
    package var tenant = Tenant.address
    /// Listeners with rules of their own.
    package var listeners: [Listener] = []
    /// What serving a request takes at least, in nanoseconds: for load tests, which cannot offer ten times what the
    /// machine does otherwise.
    package var serviceNanoseconds: UInt64 = 0
    /// Whether that time is slept through, so that the nodes of a fleet have room on one machine.
    package var serviceSleeps = false

    package init() {}

    /// The number by which connections of a listener know its rule: its place in `listeners`, from 1; 0 for none.
    func number(ofTag tag: String) -> UInt64 {
        tag.isEmpty ? 0 : UInt64((listeners.firstIndex { $0.tag == tag } ?? -1) + 1)
    }
}

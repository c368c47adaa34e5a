// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What keeps a promise, piece by piece, so that tests can take one guard out and show that somebody then sees what the
/// promise rules out. Only tests pass anything but ``all``; no setting reaches it.
package protocol NamedGuards: OptionSet, Sendable where RawValue == UInt32, Element == Self {
    /// Every guard, each with its name.
    static var named: [(name: String, guards: Self)] { get }
    /// All guards: what every node runs with.
    static var all: Self { get }
}

extension NamedGuards {
    /// The guard of that name; nil where there is none.
    package init?(named name: String) {
        guard let found = Self.named.first(where: { $0.name == name }) else { return nil }
        self = found.guards
    }
}

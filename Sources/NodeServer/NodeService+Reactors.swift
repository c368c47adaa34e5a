// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Reactor

extension NodeService {
    /// Runs `work` on the first reactor's thread, between turns: for tests that measure that thread. Does not wait;
    /// false when the reactor has ended.
    package func runOnFirstReactor(_ work: @escaping @Sendable () -> Void) -> Bool {
        node.group?.reactors.first?.post { _ in work() } ?? false
    }
}

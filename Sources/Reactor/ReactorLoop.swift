// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Memory

/// A reactor's loop as its own handler sees it in calls that are not about one connection.
package struct ReactorLoop: ~Copyable {
    /// The reactor that runs.
    package let reactor: Reactor
    /// Its handler.
    package let handler: any ReactorHandler

    /// Runs `body` with the connection, if it is still open, then sends what was written and does what was asked for.
    /// Input that a resumed connection kept is offered later in the turn. False when the connection is gone.
    @discardableResult
    package mutating func withConnection(
        _ id: ConnectionID, _ body: (inout Connection, inout OutputBuffer) -> Void
    ) -> Bool {
        false
    }
}

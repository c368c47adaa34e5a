// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// One command of one client on one key, as the client saw it.
package struct RecordedOperation: Sendable, Equatable {
    /// What was asked.
    package enum Action: Sendable, Equatable {
        case read
        case write(StorageWrite)
    }

    /// What was answered.
    package enum Result: Sendable, Equatable {
        case read(ReadOutcome)
        case write(WriteOutcome)
        /// Nobody said: a write that may have been done at any time since, or never.
        case unknown
    }

    /// Who asked. What one client asked takes effect in the order of asking, even where it did not wait.
    package var client: Int
    /// What was asked.
    package var action: Action
    /// What was answered.
    package var result: Result
    /// The client was told that nobody knows; what became of it was learnt later. It may have taken effect behind what
    /// the client asked after it.
    package var isLate = false
    /// When it was asked and answered, in an order that all clients share. `UInt64.max` is never answered.
    package var invoked: UInt64
    /// See `invoked`.
    package var returned: UInt64
    /// The same in milliseconds of the clock that rows expire by.
    package var invokedMilliseconds: Int64
    /// See `invokedMilliseconds`.
    package var returnedMilliseconds: Int64
    /// That clock was set in between.
    package var spansStep = false

    /// A command with its answer.
    package init(
        client: Int, _ action: Action, _ result: Result, invoked: UInt64, returned: UInt64,
        invokedMilliseconds: Int64 = 0, returnedMilliseconds: Int64 = 0
    ) {
        self.client = client
        self.action = action
        self.result = result
        self.invoked = invoked
        self.returned = returned
        self.invokedMilliseconds = invokedMilliseconds
        self.returnedMilliseconds = returnedMilliseconds
    }
}

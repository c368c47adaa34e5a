// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A task that waits for what becomes of an attempt. It is resumed once: the loop gives each place of its table to one
/// attempt, and takes the waiter out of it when it does.
///
/// A checked continuation allocates an object for each call, to notice what cannot happen here.
@safe
struct CallWaiter: Sendable {
    // SAFETY: resumed exactly once, by whoever takes the waiter out of a queue or a table.
    private let continuation: UnsafeContinuation<CallOutcome, Never>

    /// Waits until somebody resumes the waiter that `body` is given.
    static func wait(_ body: (CallWaiter) -> Void) async -> CallOutcome {
        // SAFETY: as above.
        unsafe await withUnsafeContinuation { continuation in
            body(unsafe CallWaiter(continuation: continuation))
        }
    }

    /// Ends the wait.
    func resume(returning outcome: CallOutcome) {
        // SAFETY: as above.
        unsafe continuation.resume(returning: outcome)
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What part of a server's requests got no answer lately. What was counted weighs less and less: after a window, a
/// third of what it did.
///
/// It costs nothing while all is well: answers are counted elsewhere anyway, and looked at when a request fails. Those
/// that came between two failures are taken to have come evenly. Pure.
struct ErrorShare: Sendable {
    private var failures = 0.0
    private var answers = 0.0
    private var last: UInt64 = 0
    private var counted: UInt64 = 0

    /// A request got no answer, when `answered` had got one since the beginning. The share of those without, and of how
    /// many that is.
    mutating func failed(
        answered: UInt64, windowNanoseconds window: UInt64, now: UInt64
    ) -> (share: Double, samples: Double) {
        // Of what was answered before the first failure, nobody knows how much of it is late.
        let fresh = last == 0 ? 0 : Double(answered >= counted ? answered - counted : 0)
        let elapsed = last == 0 ? 0 : Double(now &- last)
        let kept = max(0, 1 - elapsed / Double(window))
        failures = failures * kept + 1
        answers = answers * kept + fresh * min(1, elapsed > 0 ? Double(window) / elapsed : 1)
        (last, counted) = (max(now, 1), answered)
        return (failures / (failures + answers), failures + answers)
    }

    /// Forgets everything but how many answers there were.
    mutating func reset() { (failures, answers) = (0, 0) }
}

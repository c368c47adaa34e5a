// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Jump consistent hash: the number among 0 to `count - 1` that a key of 64 bits belongs to.
///
/// Every number is as likely as any other, and when `count` grows by one, keys move to the new number only. About
/// ln(count) steps. Source: J. Lamping and E. Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014.
func jumpOwner(_ key: UInt64, count: Int) -> Int {
    var state = key
    var (owner, next) = (0, 0)
    while next < count {
        owner = next
        state = state &* 2_862_933_555_777_941_757 &+ 1
        next = Int(Double(owner &+ 1) * (Double(1 << 31) / Double(state &>> 33 &+ 1)))
    }
    return owner
}

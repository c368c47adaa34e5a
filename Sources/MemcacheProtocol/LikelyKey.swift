// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory

/// Where the key of the request that `input` starts with probably is: for fetching memory ahead, not for execution.
///
/// The token behind the first space of a text command, or where a binary header says. nil when there is none.
@inlinable
package func likelyKey(_ input: Span<UInt8>) -> Range<Int>? {
    guard input.count >= 8 else { return nil }
    if input[0] == 0x80 {
        guard input.count > 24 else { return nil }
        let start = 24 &+ Int(input[4])
        let length = Int(input[3])
        return length > 0 && length <= input.count &- start ? start..<start &+ length : nil
    }
    // The first byte that is a space: the commands on items have names of two to seven letters.
    let spaces = input.word(at: 0) ^ 0x2020_2020_2020_2020
    let marks = (spaces &- 0x0101_0101_0101_0101) & ~spaces & 0x8080_8080_8080_8080
    guard marks != 0 else { return nil }
    let start = marks.trailingZeroBitCount >> 3 &+ 1
    guard start < input.count else { return nil }
    var end = input.tokenEnd(from: start)
    if end > start, input[end &- 1] == UInt8(ascii: "\r") { end &-= 1 }
    return end > start && end &- start <= 250 ? start..<end : nil
}

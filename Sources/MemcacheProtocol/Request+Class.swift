// Martlet
// SPDX-License-Identifier: Apache-2.0

extension Request {
    /// The first letter of a meta request's own `P` token, by which its sender says how much it matters; nil when it
    /// has none. `input` is what it was parsed from. Source: docs/overload.md.
    package func classTag(in input: Span<UInt8>) -> UInt8? {
        // Behind the command's two letters and the key, which may begin with anything.
        var index = lineOffset + 3
        let end = min(input.count - 1, index + 2048)
        while index < end, input[index] != UInt8(ascii: " "), input[index] != UInt8(ascii: "\n") { index += 1 }
        while index < end, input[index] != UInt8(ascii: "\n") {
            if input[index] == UInt8(ascii: " "), input[index + 1] == UInt8(ascii: "P") {
                return index + 2 < input.count ? input[index + 2] : nil
            }
            index += 1
        }
        return nil
    }
}

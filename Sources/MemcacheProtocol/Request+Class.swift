// Martlet
// SPDX-License-Identifier: Apache-2.0

extension Request {
    /// Where a meta request's own `P` token stands, behind its letter, by which its sender says how much it matters;
    /// nil when it has none. `input` is what it was parsed from. Source: docs/overload.md.
    package func classTag(in input: Span<UInt8>) -> Range<Int>? {
        // Behind the command's two letters and the key, which may begin with anything.
        var index = lineOffset + 3
        let end = min(input.count - 1, index + 2048)
        while index < end, input[index] != UInt8(ascii: " "), input[index] != UInt8(ascii: "\n") { index += 1 }
        while index < end, input[index] != UInt8(ascii: "\n") {
            if input[index] == UInt8(ascii: " "), input[index + 1] == UInt8(ascii: "P") {
                let begin = index + 2
                var tagEnd = begin
                while tagEnd < input.count, input[tagEnd] > UInt8(ascii: " ") { tagEnd += 1 }
                return begin..<tagEnd
            }
            index += 1
        }
        return nil
    }
}

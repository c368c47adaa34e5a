// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

extension Request {
    /// Where a meta command has its first flag that `isWanted` takes, of the input that it was parsed from; nil where
    /// it has none. `isWanted` is given where a flag begins and ends. Allocates nothing.
    func flag(in input: Span<UInt8>, where isWanted: (_ start: Int, _ end: Int) -> Bool) -> Range<Int>? {
        var index = lineOffset
        // Behind the command and the key, and with `ms` the length: these are no flags.
        var number = verb == .metaSet ? -3 : -2
        while index < input.count, input[index] != UInt8(ascii: "\n") {
            guard input[index] != UInt8(ascii: " ") else {
                index += 1
                continue
            }
            let tokenEnd = input.tokenEnd(from: index)
            let isLast = tokenEnd < input.count && input[tokenEnd] == UInt8(ascii: "\n")
            let end = isLast && input[tokenEnd - 1] == UInt8(ascii: "\r") ? tokenEnd - 1 : tokenEnd
            if number >= 0, end > index, isWanted(index, end) { return index..<end }
            number += 1
            index = tokenEnd
        }
        return nil
    }
}

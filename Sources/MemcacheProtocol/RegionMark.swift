// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// What a node of a replica region writes on a request for the home region: `Pmartlet-region=NAME`, a `P` token of the
/// meta protocol, which servers ignore and proxies pass on. A node that is not of that region refuses it, so that a
/// request never goes round in a circle, or to a region that is not the home region any more.
package enum RegionMark {
    private static var start: StaticString { "Pmartlet-region=" }

    /// The token for requests to the region `name`, which has no spaces.
    package static func token(_ name: String) -> [UInt8] { Array("\(start)\(name)".utf8) }

    /// The region's name in a meta request's mark, of the input that it was parsed from; nil where it has none.
    @_lifetime(copy input)
    package static func region(of request: Request, in input: Span<UInt8>) -> Span<UInt8>? {
        guard request.form == .meta, request.options.contains(.proxyToken) else { return nil }
        var index = request.lineOffset
        // Behind the command and the key, and with `ms` the length: these are no flags.
        var number = request.verb == .metaSet ? -3 : -2
        while index < input.count, input[index] != UInt8(ascii: "\n") {
            guard input[index] != UInt8(ascii: " ") else {
                index += 1
                continue
            }
            let end = input.tokenEnd(from: index)
            if number >= 0, end - index > start.utf8CodeUnitCount, input.holds(start, at: index) {
                let isLast = end < input.count && input[end] == UInt8(ascii: "\n")
                let textEnd = isLast && input[end - 1] == UInt8(ascii: "\r") ? end - 1 : end
                return input.extracting(index + start.utf8CodeUnitCount..<textEnd)
            }
            number += 1
            index = end
        }
        return nil
    }
}

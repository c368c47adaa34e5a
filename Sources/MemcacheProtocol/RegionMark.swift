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
        guard request.form == .meta, request.options.contains(.proxyToken),
            let flag = request.flag(in: input, where: { first, _ in input.holds(start, at: first) })
        else { return nil }
        return input.extracting(flag.lowerBound + start.utf8CodeUnitCount..<flag.upperBound)
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol

/// What a reactor keeps of a connection between turns.
struct ConnectionState {
    var parser = RequestParser()
    var login = AuthenticationParser()
    /// Whether nothing but a login is understood yet.
    var mustLogIn = false
    /// The value of a large item is here, its line end is not.
    var awaitsLineEnd = false
    /// A store whose value is being received.
    var pending: PendingValue?

    /// Whether the next input is anything but requests.
    var isUnusual: Bool { mustLogIn || awaitsLineEnd }

    init() {}

    init(parser: RequestParser, mustLogIn: Bool) {
        self.parser = parser
        self.mustLogIn = mustLogIn
    }
}

/// A store on its way in: the item that receives the value, and copies of what its reply needs. A reference, so that
/// connections without one pay for a pointer only.
final class PendingValue {
    let request: Request
    let item: PreparedItem
    let key: [UInt8]
    let opaque: [UInt8]

    init(request: Request, item: PreparedItem, key: [UInt8], opaque: [UInt8]) {
        self.request = request
        self.item = item
        self.key = key
        self.opaque = opaque
    }
}

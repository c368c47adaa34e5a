// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import MemcacheProtocol
internal import Tracing

/// What a reactor keeps of a connection between turns.
struct ConnectionState {
    var parser = RequestParser()
    /// Whose requests these are, and whether a login has to come first.
    var identity = ClientIdentity()
    /// A classic get was answered with a denial, and its keys go on coming.
    var skipsDeniedGet = false
    /// The value of a large item is here, its line end is not.
    var awaitsLineEnd = false
    /// A store whose value is being received.
    var pending: PendingValue?

    /// Who sends, for overload control.
    var caller = Caller()
    /// Whether it asked to be told where keys are that are other nodes'.
    var knowsOwners = false
    /// Replies that wait for the store; nil nearly always.
    var replies: ReplyQueue?

    /// Whether the next input is anything but requests.
    var isUnusual: Bool { identity.mustLogIn || awaitsLineEnd }

    init() {}

    init(parser: RequestParser, mustLogIn: Bool, caller: Caller) {
        self.parser = parser
        self.caller = caller
        identity = ClientIdentity(mustLogIn: mustLogIn)
    }
}

/// A store on its way in: the item that receives the value, and copies of what its reply needs. A reference, so that
/// connections without one pay for a pointer only.
final class PendingValue {
    let request: Request
    let item: PreparedItem
    let key: [UInt8]
    let opaque: [UInt8]
    /// What is traced of it.
    var span = SpanSeed()

    init(request: Request, item: PreparedItem, key: [UInt8], opaque: [UInt8]) {
        self.request = request
        self.item = item
        self.key = key
        self.opaque = opaque
    }
}

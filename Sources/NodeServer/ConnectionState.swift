// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import MemcacheProtocol
internal import Memory
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

/// A store on its way in: what receives the value, and copies of what its reply needs. A reference, so that
/// connections without one pay for a pointer only.
final class PendingValue {
    /// What receives a value.
    enum Target {
        /// An item of the cache, which has to be committed or discarded.
        case item(PreparedItem)
        /// Memory beside the cache, for the store.
        case store(IncomingValue)

        /// Where the bytes go.
        var value: MemoryBlock {
            switch self {
            case .item(let item): item.value
            case .store(let incoming): incoming.block
            }
        }
    }

    let request: Request
    let target: Target
    let key: [UInt8]
    let opaque: [UInt8]
    /// What is traced of it.
    var span = SpanSeed()

    init(request: Request, target: Target, key: [UInt8], opaque: [UInt8]) {
        self.request = request
        self.target = target
        self.key = key
        self.opaque = opaque
    }

    /// Gives the memory back of a value that is not to be stored.
    func discard(_ engine: CacheEngine) {
        if case .item(let item) = target { engine.discard(item) }
    }
}

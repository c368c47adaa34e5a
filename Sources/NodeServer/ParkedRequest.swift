// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Reactor
internal import Storage
internal import Tracing

/// A request whose reply waits for the store: what its reply needs, copied out of the input. Owned by its reactor's
/// thread.
final class ParkedRequest {
    let request: Request
    let key: [UInt8]
    /// Meta's `O` token, its letter included.
    let opaque: [UInt8]
    let connection: ConnectionID
    let kind: CommandKind
    /// What the store is asked; nil once it was asked: a value may be large.
    var question: Question?
    /// Whether the store is asked to read only.
    let isRead: Bool
    /// Whether another node is asked.
    let isForwarded: Bool
    /// Whether it is about the cached copy, and must wait for the answers of everything before it.
    let isAboutCopy: Bool
    /// Bytes of the value that it stores.
    let valueBytes: Int
    let hash: UInt64
    /// What the answer will call it.
    let token: UInt64
    /// It waits for an earlier command of its connection on the same key, and is not with the store yet.
    var isHeld = false
    /// When its input was ready, in monotonic nanoseconds.
    let readyNanoseconds: UInt64
    /// When the store was asked, and when it answered, in monotonic nanoseconds.
    var askedNanoseconds: UInt64 = 0
    var answeredNanoseconds: UInt64 = 0
    /// What the store spent on the batch that the answer came of, where it says so.
    var timing: StorageTiming?
    /// What is traced of it: its own span, and of what it waits for the span, and the node that is asked.
    var span = SpanSeed()
    var childSpan: UInt64 = 0
    var peer: Int32 = -1
    /// What the store said; nil while it says nothing.
    private(set) var answer: StorageAnswer?
    /// How long the value is that a write left, where the answer does not have it.
    private(set) var storedBytes = 0
    /// Bytes of the row in the store's answer, or of another node's reply that shows one; it waits until it is written.
    var rowBytes = 0
    /// Whether that row is a cached copy behind its time.
    var showsStaleCopy = false
    /// The reply of a command that the store is not asked about, once it was its turn, or what its owner said.
    var reply: [UInt8]?
    /// Whether that is an error which takes the place of the rest of a classic get's reply.
    var endsGet = false

    /// Whether the reply can be written.
    var isReady: Bool { answer != nil || reply != nil }

    /// Whether it has changed nothing, whatever became of it: the store, or the key's owner, was asked to read.
    var changesNothing: Bool {
        if isRead || showsStaleCopy { return true }
        guard isForwarded else { return false }
        switch request.verb {
        case .get, .gets: return true
        case .metaGet: return !request.options.contains(.setTTL)
        default: return false
        }
    }

    /// Whether the reply shows the row: what gets do, and the writes that are gets as well.
    var showsRow: Bool {
        switch request.verb {
        case .get, .gets, .gat, .gats, .metaGet: true
        default: false
        }
    }

    /// Takes the store's answer. Rows that the reply does not show are not kept: only how long their values are.
    func take(_ answer: StorageAnswer) {
        switch answer {
        case .write(let token, .stored(let row)) where !showsRow && !isCount:
            storedBytes = row.valueLength
            self.answer = .write(token: token, .stored(row.withoutValue))
        case .read(_, .found(let row)), .write(_, .stored(let row)):
            rowBytes = row.value.count
            self.answer = answer
        default: self.answer = answer
        }
    }

    /// Takes a cached copy, behind its time, in the store's place.
    func take(staleCopy row: StoredRow) {
        answer = .read(token: token, .found(row))
        showsStaleCopy = true
        rowBytes = row.value.count
    }

    /// Takes what the owner of the key said, as the client is to see it.
    func takeForwarded(_ bytes: [UInt8]) {
        reply = bytes
        if showsRow { rowBytes = bytes.count }
    }

    /// Gives up the row that it would show: its client does not take what is before it. Nothing but the row is lost
    /// where the store, or another node, was asked to read; a write was done.
    func giveUpRow() {
        let failure = StorageFailure(
            changesNothing ? .notSent : .unknownOutcome, "too many rows wait for clients that do not read")
        let isGet = isRead || showsStaleCopy
        answer = isGet ? .read(token: token, .failed(failure)) : .write(token: token, .failed(failure))
        reply = nil
        rowBytes = 0
    }

    private var isCount: Bool {
        switch request.verb {
        case .incr, .decr, .metaArithmetic: true
        default: false
        }
    }

    /// What the store is asked.
    enum Question {
        /// `acceptsCopy` is false where a cached copy cannot answer it.
        case read(pool: Int, acceptsCopy: Bool)
        case write(StorageWrite)
        /// Nothing: another node owns the key, and is asked.
        case forward(owner: String, command: [UInt8])
        /// Nothing: it is about the cached copy, and waits for its connection's earlier commands on the key only.
        case nothing
    }

    init(
        _ question: Question, request: Request, key: [UInt8], hash: UInt64, opaque: [UInt8], connection: ConnectionID,
        kind: CommandKind, token: UInt64, readyNanoseconds: UInt64
    ) {
        self.question = question
        (isRead, isForwarded, isAboutCopy, valueBytes) =
            switch question {
            case .read: (true, false, false, 0)
            case .write(let write): (false, false, false, write.value.count)
            case .forward(_, let command): (false, true, false, command.count)
            case .nothing: (false, false, true, 0)
            }
        self.request = request
        self.key = key
        self.hash = hash
        self.opaque = opaque
        self.connection = connection
        self.kind = kind
        self.token = token
        self.readyNanoseconds = readyNanoseconds
    }
}

/// Where in a turn's output something belongs that is not there yet.
struct Park {
    enum Content {
        /// The reply of this request.
        case request(ParkedRequest)
        /// Nothing: the reply of a get of several keys ends here. A get that fails swallows what is left up to it.
        case endOfGet
    }

    let content: Content
    /// Own bytes of the output before it.
    let position: Int
    /// External pieces of the output before it.
    let externalCount: Int
}

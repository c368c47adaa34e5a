// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import MemcacheProtocol
internal import Reactor

/// A request that was made and not answered. Times on the monotonic clock.
struct PendingRequest: BitwiseCopyable {
    /// When it was to start.
    var intended: UInt64 = 0
    /// When it was sent; 0 while it waits for the turn's write.
    var sent: UInt64 = 0
    /// When the iteration's first request was sent; 0 while this is the first.
    var iterationSent: UInt64 = 0
    var key: UInt64 = 0
    var expiry: Int64 = 0
    var operation = Operation.get
    /// Whether it is what follows from an earlier request of its iteration: the set after a miss, the cas after a gets.
    var isSecond = false
    /// Values that arrived of it.
    var values: UInt16 = 0
    /// Of a verified write or delete: its version.
    var version: UInt32 = 0
    /// Of a verified write or delete: what it supersedes. Of a read: what must not be seen.
    var superseded = SupersededVersions()
    /// Of a get of several keys in the meta protocol: answers that were errors, and whether one of them was a refusal
    /// for too much to do.
    var errors: UInt16 = 0
    var isShed = false
    /// The CAS value that a gets brought.
    var cas: UInt64 = 0
    /// Bytes of its value where a trace says so; -1 otherwise.
    var length: Int32 = -1
    /// Whether its key is a counter's.
    var isCounter = false

    /// Whether it puts another value, or none, in place of the key's.
    var writes: Bool { operation == .delete || (operation.storesValue && (operation != .cas || isSecond)) }
}

/// A ring of requests in the order they were made, which is that of their answers.
struct PendingRing {
    private var slots: [PendingRequest]
    private var head = 0
    private(set) var count = 0
    /// The last so many have no ``PendingRequest/sent`` yet.
    private var unsent = 0

    init(capacity: Int) { slots = Array(repeating: PendingRequest(), count: capacity) }

    var capacity: Int { slots.count }

    mutating func push(_ request: PendingRequest) {
        precondition(count < slots.count, "more requests under way than there is room for")
        var index = head + count
        if index >= slots.count { index -= slots.count }
        slots[index] = request
        count += 1
        unsent += 1
    }

    /// Says when the ones that were made since the last call were sent.
    mutating func stamp(_ now: UInt64) {
        var index = head + count - unsent
        if index >= slots.count { index -= slots.count }
        for _ in 0..<unsent {
            slots[index].sent = now
            if slots[index].iterationSent == 0 { slots[index].iterationSent = now }
            index = index + 1 == slots.count ? 0 : index + 1
        }
        unsent = 0
    }

    var first: PendingRequest {
        get { slots[head] }
        set { slots[head] = newValue }
    }

    mutating func pop() -> PendingRequest {
        precondition(count > 0, "an answer without a request")
        let request = slots[head]
        head = head + 1 == slots.count ? 0 : head + 1
        count -= 1
        unsent = min(unsent, count)
        return request
    }

    mutating func removeAll() { (head, count, unsent) = (0, 0, 0) }
}

/// What verified gets of several keys asked for, in the order of their answers: the keys' hashes, and what must not be
/// seen of each.
struct AskedKeys {
    private var hashes: [UInt64] = []
    private var superseded: [SupersededVersions] = []
    private var head = 0

    mutating func append(_ hash: UInt64, _ versions: SupersededVersions) {
        hashes.append(hash)
        superseded.append(versions)
    }

    /// What must not be seen of the key with that hash; nil when the first get that was not answered yet, which has
    /// `count` keys, did not ask for it.
    func superseded(_ hash: UInt64, first count: Int) -> SupersededVersions? {
        hashes[head..<min(hashes.count, head + count)].firstIndex(of: hash).map { superseded[$0] }
    }

    /// The first get, which has `count` keys, is answered.
    mutating func removeFirst(_ count: Int) {
        head = min(hashes.count, head + count)
        guard head == hashes.count || head > 4096 else { return }
        hashes.removeFirst(head)
        superseded.removeFirst(head)
        head = 0
    }

    mutating func removeAll() {
        hashes.removeAll(keepingCapacity: true)
        superseded.removeAll(keepingCapacity: true)
        head = 0
    }
}

/// A virtual user of a scenario without script: one connection and its requests under way.
struct NativeUser: ~Copyable {
    enum State {
        /// Has no connection; `retryAt` says when it tries again.
        case closed
        case connecting
        case open
        /// Does nothing any more.
        case finished
    }

    var stream: OutboundStream?
    var state = State.closed
    var output = OutputBuffer(capacity: 64)
    /// Bytes of the output that the socket took.
    var written = 0
    var input = InputBuffer(capacity: 64)
    /// Bytes that must be there before parsing goes on.
    var needed = 1
    var ring = PendingRing(capacity: 1)
    var askedKeys = AskedKeys()
    /// The scenario among the thread's, and the user among its share's.
    var scenario = 0
    var index = 0
    /// Whether it was made; users beyond the preallocated ones are made when they are needed.
    var isMade = false
    /// Whether it starts no iteration any more.
    var isDone = false
    var watchesOutput = false
    var isQueued = false
    var connectBegan: UInt64 = 0
    var retryAt: UInt64 = 0
    var retryDelay: UInt64 = 10_000_000
    /// When it asks again whether it may start an iteration; 0 when it does so at each answer.
    var askAt: UInt64 = 0
    /// Whether it has written or queued output in this turn.
    var isDirty = false

    init() {}
}

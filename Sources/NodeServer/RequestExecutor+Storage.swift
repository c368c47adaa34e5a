// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Storage
internal import Telemetry

/// Commands on keys of pools with storage: what the cache cannot answer is parked until the store does.
extension RequestExecutor {
    /// The pool of a key that the store answers for; nil where the cache is all there is.
    @inline(__always)
    func storagePool(_ key: Span<UInt8>) -> Int? {
        guard let storage else { return nil }
        return storage.pools.pool(of: key)
    }

    /// Whether a get must not be answered from the cache, because its connection has commands on the key that are not
    /// answered yet. Asked only where replies of the connection wait.
    func mustFollow(_ hash: UInt64) -> Bool { order.isWaiting(connection, hash) }

    /// Marks the end of a get's reply where replies wait.
    @inline(__always)
    mutating func noteEndOfGet(_ output: borrowing OutputBuffer) {
        guard defers else { return }
        parks.append(Park(content: .endOfGet, position: output.count, externalCount: output.externals.count))
    }

    // MARK: Reads

    /// Has the store answer a get that the cache has no answer for. False where there is no store.
    @inline(never)
    mutating func readThrough(
        _ request: Request, key: Span<UInt8>, _ hash: UInt64, opaque: Span<UInt8>, acceptsCopy: Bool = true,
        _ output: borrowing OutputBuffer
    ) -> Bool {
        guard let pool = storagePool(key) else { return false }
        if acceptsCopy, showStaleCopy(request, key: key, hash, opaque: opaque, pool: pool, output) { return true }
        park(
            .read(pool: pool, acceptsCopy: acceptsCopy), request, key: [UInt8](copying: key), hash, opaque: opaque,
            .get, output)
        return true
    }

    /// Answers a get with a copy that is behind its time, where its pool allows that, and has a newer one fetched.
    private mutating func showStaleCopy(
        _ request: Request, key: Span<UInt8>, _ hash: UInt64, opaque: Span<UInt8>, pool: Int,
        _ output: borrowing OutputBuffer
    ) -> Bool {
        guard let storage else { return false }
        let seconds = storage.pools.staleWhileRevalidateSeconds(of: pool)
        guard seconds > 0, !(defers && mustFollow(hash)),
            let (row, isStale) = copy(key, hash, behindItsTime: seconds), isStale
        else { return false }
        let keyBytes = [UInt8](copying: key)
        counters.commands.add(.staleHits)
        // Its time is noted with the reply, as if it had waited.
        kinds[CommandKind.get.rawValue] &-= 1
        let waiting = parkAnswered(request, key: keyBytes, hash, opaque: opaque, .get, output)
        waiting.take(staleCopy: row)
        rowSizes.note(waiting.rowBytes)
        storage.tier.refresh(key: keyBytes, hash: hash, pool: pool)
        return true
    }

    /// Reads and touches in one: a write, as far as the store is concerned. False where there is no store.
    mutating func touchThrough(
        _ request: Request, key: Span<UInt8>, _ hash: UInt64, opaque: Span<UInt8>, _ kind: CommandKind,
        _ output: borrowing OutputBuffer
    ) -> Bool {
        guard let pool = storagePool(key) else { return false }
        var write = StorageWrite(.touch, key: [UInt8](copying: key))
        write.expiryMilliseconds = expiryMilliseconds(request.exptime)
        // What stands before T sees what there was.
        write.tellsEarlierExpiry =
            request.form == .meta && !request.options.isDisjoint(with: [.ttl, .recache])
        submit(write, request, hash, opaque: opaque, kind, pool: pool, output)
        return true
    }

    // MARK: Writes

    /// set, add, replace, append, prepend and cas.
    mutating func storeThrough(
        _ request: Request, key: Span<UInt8>, value: Span<UInt8>, _ hash: UInt64, pool: Int,
        _ output: inout OutputBuffer
    ) {
        // With a version beside it, a binary add or replace is a compare-and-set, as in memcached.
        let compares = request.cas != 0
        let operation: StorageWrite.Operation =
            switch request.verb {
            case .add where !compares: .add
            case .replace where !compares: .replace
            case .append: .append
            case .prepend: .prepend
            default: .set
            }
        var write = StorageWrite(operation, key: [UInt8](copying: key))
        write.value = [UInt8](copying: value)
        write.clientFlags = request.clientFlags
        write.expiryMilliseconds = expiryMilliseconds(request.exptime)
        write.compare = request.cas
        // The text cas with 0 matches nothing, as in memcached: no row has that version.
        if request.verb == .cas, request.cas == 0 { write.compare = .max }
        submit(write, request, hash, opaque: Span(), .set, pool: pool, output)
    }

    /// `ms`. The store's versions are its own, so E is refused; I, which makes stale copies, changes nothing here.
    mutating func metaStoreThrough(
        _ request: Request, key: Span<UInt8>, value: Span<UInt8>, _ hash: UInt64, opaque: Span<UInt8>, pool: Int,
        _ output: inout OutputBuffer
    ) {
        guard !request.options.contains(.setCAS) else { return refuseVersion(request, &output) }
        let creates = request.options.contains(.vivify)
        let operation: StorageWrite.Operation =
            switch request.storeVerb {
            case .add: .add
            case .append: creates ? .appendOrCreate : .append
            case .prepend: creates ? .prependOrCreate : .prepend
            case .replace: .replace
            default: .set
            }
        var write = StorageWrite(operation, key: [UInt8](copying: key))
        write.value = [UInt8](copying: value)
        write.clientFlags = request.clientFlags
        let isJoin = operation == .appendOrCreate || operation == .prependOrCreate
        write.expiryMilliseconds = expiryMilliseconds(isJoin ? Int64(request.vivifyTTL) : request.exptime)
        if request.options.contains(.compareCAS), operation != .add {
            // As in memcached, 0 matches nothing where a value is replaced, and compares nothing where one is joined.
            write.compare = request.cas == 0 && operation == .set ? .max : request.cas
        }
        submit(write, request, hash, opaque: opaque, .set, pool: pool, output)
    }

    /// delete and `md`, with `x` that keeps an empty value.
    mutating func deleteThrough(
        _ request: Request, key: Span<UInt8>, _ hash: UInt64, opaque: Span<UInt8>, pool: Int,
        _ output: inout OutputBuffer
    ) {
        guard !request.options.contains(.setCAS) else { return refuseVersion(request, &output) }
        let keepsItem = request.form == .meta && request.options.contains(.dropValue)
        let compares = request.options.contains(.compareCAS)
        var write = StorageWrite(keepsItem ? (compares ? .set : .replace) : .delete, key: [UInt8](copying: key))
        if keepsItem {
            write.clientFlags = request.clientFlags
            write.expiryMilliseconds = expiryMilliseconds(request.exptime)
        }
        switch request.form {
        case .binary: write.compare = request.cas
        case .meta where request.options.contains(.compareCAS): write.compare = request.cas == 0 ? .max : request.cas
        case .meta, .classic: break
        }
        submit(write, request, hash, opaque: opaque, .delete, pool: pool, output)
    }

    /// incr, decr and `ma`.
    mutating func countThrough(
        _ request: Request, key: Span<UInt8>, _ hash: UInt64, opaque: Span<UInt8>, pool: Int,
        _ output: inout OutputBuffer
    ) {
        guard !request.options.contains(.setCAS) else { return refuseVersion(request, &output) }
        let isMeta = request.form == .meta
        let isIncrement = isMeta ? request.mode != UInt8(ascii: "D") : request.verb == .incr
        var write = StorageWrite(isIncrement ? .increment : .decrement, key: [UInt8](copying: key))
        write.delta = request.delta
        switch request.form {
        case .binary:
            write.compare = request.cas
            if request.exptime != 0xFFFF_FFFF {
                write.initial = request.initial
                write.expiryMilliseconds = expiryMilliseconds(request.exptime)
            }
        case .meta:
            // As in memcached, a CAS of 0 compares nothing here.
            if request.options.contains(.compareCAS) { write.compare = request.cas }
            if request.options.contains(.setTTL) {
                write.setsExpiry = true
                write.expiryMilliseconds = expiryMilliseconds(request.exptime)
            }
            if request.options.contains(.vivify) {
                write.initial = request.initial
                write.initialExpiryMilliseconds = initialExpiryMilliseconds(request)
            }
            write.tellsEarlierExpiry = request.options.contains(.ttl)
        case .classic: break
        }
        submit(write, request, hash, opaque: opaque, .arithmetic, pool: pool, output)
    }

    /// When a counter expires that `ma` makes: of T and N, what stands last holds, as in memcached.
    private func initialExpiryMilliseconds(_ request: Request) -> Int64 {
        var exptime = Int64(request.vivifyTTL)
        var steps = request.steps
        while true {
            switch steps.next() {
            case .end: return expiryMilliseconds(exptime)
            case .setTTL: exptime = request.exptime
            case .vivify: exptime = Int64(request.vivifyTTL)
            default: break
            }
        }
    }

    func refuseVersion(_ request: Request, _ output: inout OutputBuffer) {
        output.append("CLIENT_ERROR E is not allowed here: versions are those of the storage\r\n")
    }

    // MARK: Parking

    private mutating func submit(
        _ write: StorageWrite, _ request: Request, _ hash: UInt64, opaque: Span<UInt8>, _ kind: CommandKind, pool: Int,
        _ output: borrowing OutputBuffer
    ) {
        guard let storage else { preconditionFailure("a write for a store that is not there") }
        var write = write
        write.pool = UInt16(clamping: pool)
        if traces { write.trace = storageTrace() }
        write.valueLimitBytes = min(
            storage.pools.pools[pool].policy.valueLimitBytes,
            ItemShape.valueLimit(itemSizeMax: engine.configuration.itemSizeMax, keyLength: write.key.count))
        park(.write(write), request, key: write.key, hash, opaque: opaque, kind, output)
    }

    /// Leaves a place in the output for the reply of a request that the store will answer, and asks the store as soon
    /// as the connection's earlier commands on the key allow.
    @inline(never)
    private mutating func park(
        _ question: ParkedRequest.Question, _ request: Request, key: [UInt8], _ hash: UInt64, opaque: Span<UInt8>,
        _ kind: CommandKind, _ output: borrowing OutputBuffer
    ) {
        nextToken &+= 1
        let waiting = ParkedRequest(
            question, request: request, key: key, hash: hash, opaque: [UInt8](copying: opaque), connection: connection,
            kind: kind, token: nextToken, readyNanoseconds: reactor.readyNanoseconds)
        if traces { handSpan(to: waiting) }
        parks.append(
            Park(content: .request(waiting), position: output.count, externalCount: output.externals.count))
        defers = true
        // Its time is not that of the turn: it is noted with the answer.
        kinds[kind.rawValue] &-= 1
        guard parked.count < Self.parkedLimit, heldBytes < Self.heldBytesLimit else {
            waiting.question = nil
            let failure = StorageFailure(.notSent, "too many commands wait")
            waiting.take(
                waiting.isRead ? .read(token: nextToken, .failed(failure)) : .write(token: nextToken, .failed(failure)))
            return
        }
        parked[nextToken] = waiting
        if order.enter(waiting) { ask(waiting) } else { heldBytes += waiting.valueBytes }
    }

    /// Answers a request with a failure, in its turn.
    @inline(never)
    mutating func parkFailed(
        _ request: Request, key: Span<UInt8>, opaque: Span<UInt8>, _ failure: StorageFailure,
        _ output: borrowing OutputBuffer
    ) {
        let waiting = parkAnswered(
            request, key: [UInt8](copying: key), hash(request, key), opaque: opaque, .other, output)
        waiting.take(.write(token: waiting.token, .failed(failure)))
    }

    /// Answers a read with an error in its turn: its pool shows nothing while the stream is behind.
    @inline(never)
    mutating func refuseBehind(
        _ request: Request, key: Span<UInt8>, opaque: Span<UInt8>, _ output: borrowing OutputBuffer
    ) {
        let waiting = parkAnswered(
            request, key: [UInt8](copying: key), hash(request, key), opaque: opaque, .other, output)
        var reply = OutputBuffer(capacity: 256)
        if request.form == .binary {
            reply.appendBinaryStatus(.temporaryFailure, replyTo: request)
        } else {
            reply.append("SERVER_ERROR the stream is further behind than stream.lagBound\r\n")
        }
        waiting.endsGet = request.isClassicGet
        waiting.reply = reply.withSpan { [UInt8](copying: $0) }
    }

    /// Leaves a place for the reply of a request that is about to have its answer.
    @inline(never)
    private mutating func parkAnswered(
        _ request: Request, key: [UInt8], _ hash: UInt64, opaque: Span<UInt8>, _ kind: CommandKind,
        _ output: borrowing OutputBuffer
    ) -> ParkedRequest {
        nextToken &+= 1
        let waiting = ParkedRequest(
            .nothing, request: request, key: key, hash: hash, opaque: [UInt8](copying: opaque), connection: connection,
            kind: kind, token: nextToken, readyNanoseconds: reactor.readyNanoseconds)
        if traces { handSpan(to: waiting) }
        waiting.question = nil
        parks.append(
            Park(content: .request(waiting), position: output.count, externalCount: output.externals.count))
        defers = true
        return waiting
    }

    /// Commands of one reactor that wait for the store at most, those of connections that are gone included.
    private static var parkedLimit: Int { 262_144 }
    /// Bytes of values that one reactor holds back at most.
    private static var heldBytesLimit: Int { 64 << 20 }

    private mutating func ask(_ waiting: ParkedRequest) {
        guard let storage, let question = waiting.question else {
            preconditionFailure("a request waits for a store that is not there, or twice")
        }
        waiting.question = nil
        waiting.askedNanoseconds = reactor.nowNanoseconds
        let waiter = StorageWaiter(receiver: UInt32(reactor.index), token: waiting.token)
        switch question {
        case .read(let pool, let acceptsCopy):
            storage.tier.read(
                key: waiting.key, hash: waiting.hash, pool: pool, acceptsCopy: acceptsCopy, for: waiter)
        case .write(let write): storage.tier.write(write, hash: waiting.hash, for: waiter)
        case .forward(let owner, let command):
            let deadline = reactor.nowNanoseconds &+ UInt64(node.configuration.storage.timeoutMilliseconds) * 1_000_000
            outgoing.append(ForwardedCommand(waiting, command, to: owner, deadline: deadline))
        case .nothing: preconditionFailure("the store is asked about a cached copy")
        }
    }

    /// Lets a command on the cached copy (md with I, me) wait for its connection's earlier commands on the key. False
    /// when there are none.
    mutating func waitForOwn(
        _ request: Request, key: Span<UInt8>, _ hash: UInt64, opaque: Span<UInt8>, _ kind: CommandKind,
        _ output: borrowing OutputBuffer
    ) -> Bool {
        guard defers, mustFollow(hash) else { return false }
        park(.nothing, request, key: [UInt8](copying: key), hash, opaque: opaque, kind, output)
        return true
    }

    /// Executes such a command when its turn has come.
    private mutating func executeOnCopy(_ waiting: ParkedRequest) {
        let (keyBytes, opaque) = (waiting.key, waiting.opaque)
        var output = OutputBuffer(capacity: 256)
        if waiting.request.verb == .metaDelete {
            invalidateCopy(waiting.request, key: keyBytes.span, waiting.hash, opaque: opaque.span, &output)
        } else {
            debugCopy(waiting.request, key: keyBytes.span, waiting.hash, &output)
        }
        waiting.askedNanoseconds = reactor.nowNanoseconds
        waiting.answeredNanoseconds = waiting.askedNanoseconds
        waiting.reply = output.withSpan { [UInt8](copying: $0) }
        parked[waiting.token] = nil
    }

    /// Takes the store's answer to a parked request, and asks it what had to wait for that. Nil when nobody knows the
    /// request.
    mutating func accept(_ answer: StorageAnswer, timing: StorageTiming?) -> ParkedRequest? {
        let token =
            switch answer {
            case .read(let token, _), .write(let token, _): token
            }
        guard let waiting = parked.removeValue(forKey: token) else { return nil }
        waiting.take(answer)
        waiting.timing = timing
        if waiting.rowBytes > 0 { rowSizes.note(waiting.rowBytes) }
        leave(waiting)
        return waiting
    }

    /// The same for a request that another node answered.
    mutating func finishForwarded(_ waiting: ParkedRequest) {
        guard parked.removeValue(forKey: waiting.token) != nil else { return }
        if waiting.rowBytes > 0 { rowSizes.note(waiting.rowBytes) }
        leave(waiting)
    }

    /// Has what waited for a request go on.
    private mutating func leave(_ waiting: ParkedRequest) {
        waiting.answeredNanoseconds = reactor.nowNanoseconds
        var freed = order.leave(waiting)
        var index = 0
        while index < freed.count {
            let next = freed[index]
            index += 1
            heldBytes -= next.valueBytes
            if next.isAboutCopy {
                executeOnCopy(next)
                freed += order.leave(next)
            } else {
                ask(next)
            }
        }
    }

    /// Has the owner of a key answer a request for it.
    mutating func forward(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, opaque: Span<UInt8>, to owner: String,
        _ output: borrowing OutputBuffer
    ) {
        count(.other)
        var command = OutputBuffer(capacity: 256 + request.valueLength)
        if request.isClassicGet {
            command.appendGet(request.verb, exptime: request.exptime, key: key)
            command.appendLineEnd()
        } else {
            command.appendForwarded(request, key: key, input)
        }
        if traces { carrySpan(in: &command, to: owner) }
        let bytes = command.withSpan { [UInt8](copying: $0) }
        park(
            .forward(owner: owner, command: bytes), request, key: [UInt8](copying: key), hash(request, key),
            opaque: opaque, .other, output)
    }

    /// How many replies of one connection may wait: fewer where rows are large, so that they have room together.
    var parkLimit: Int { rowSizes.count(fitting: 16 << 20, in: 8...ReplyQueue.entryLimit) }

    private func expiryMilliseconds(_ exptime: Int64) -> Int64 {
        node.clock.unixExpiry(exptime, now: now)
    }
}

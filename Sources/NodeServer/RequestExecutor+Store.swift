// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Telemetry

/// set, add, replace, append, prepend, cas: classic and binary; and values too large for the input buffer.
extension RequestExecutor {
    /// What to do about a data block that is not all there yet.
    enum ValueAdmission {
        /// Leave the request in the input until it is whole.
        case wait
        /// It was answered; the data is to be skipped.
        case refuse
        /// Receive the value straight into this.
        case fill(PendingValue.Target)
    }

    @inline(__always)
    mutating func store(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        count(.set)
        guard admit(request, key: key, &output) else { return }
        let value = input.extracting(request.valueOffset..<request.valueOffset &+ request.valueLength)
        let hash = hash(request, key)
        if let pool = storagePool(key) {
            return storeThrough(request, key: key, value: value, hash, pool: pool, &output)
        }
        let storing = storeRequest(request)
        let now = self.now
        var result = engine.withShard(hash) { $0.store(hash, key: key, value: value, storing, now: now) }
        if result.outcome == .outOfMemory { result = storeAgain(hash, key: key, value: value, storing) }
        answer(result, request, key: key, hash, storing, &output)
    }

    /// Refuses what memcached refuses before it looks at the item. False when it did.
    @inline(__always)
    private mutating func admit(_ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer) -> Bool {
        if countsPrefixes { node.prefixes.noteSet(key) }
        guard engine.allows(keyLength: key.count, valueLength: request.valueLength, clientFlags: request.clientFlags)
        else {
            refuseValue(.tooLarge, request, key: key, &output)
            return false
        }
        counters.commands.add(.cmdSet)
        guard request.error.isNone else {
            refuse(request.error, request, &output)
            return false
        }
        return true
    }

    /// What the engine is asked to do, times translated.
    @inline(__always)
    func storeRequest(_ request: Request) -> StoreRequest {
        var mode: StoreMode
        switch request.verb {
        case .set: mode = .set
        case .add: mode = .add
        case .replace: mode = .replace
        case .append: mode = .append
        case .prepend: mode = .prepend
        default: mode = .compareAndSet
        }
        let isJoin = mode == .append || mode == .prepend
        if request.form == .binary, request.cas != 0, !isJoin { mode = .compareAndSet }
        return StoreRequest(
            mode: mode, clientFlags: request.clientFlags,
            expiry: request.exptime == 0 ? 0 : node.clock.expiry(request.exptime, now: now),
            compare: request.cas, version: node.newVersion())
    }

    /// A store that its shard had no room for, once others made some.
    @inline(never)
    mutating func storeAgain(
        _ hash: UInt64, key: Span<UInt8>, value: Span<UInt8>, _ storing: StoreRequest
    ) -> StoreResult {
        let now = self.now
        let shape = ItemShape(
            keyLength: key.count, valueLength: value.count, clientFlags: storing.clientFlags, expiry: storing.expiry)
        var result = engine.withShard(hash) { $0.store(hash, key: key, value: value, storing, now: now) }
        for _ in 0..<4 where result.outcome == .outOfMemory {
            let needed = max(shape.size, result.neededBytes) + engine.segmentBytes
            guard engine.makeRoom(bytes: needed, now: now) else { break }
            result = engine.withShard(hash) { $0.store(hash, key: key, value: value, storing, now: now) }
        }
        return result
    }

    @inline(__always)
    mutating func answer(
        _ result: StoreResult, _ request: Request, key: Span<UInt8>, _ hash: UInt64, _ storing: StoreRequest,
        _ output: inout OutputBuffer
    ) {
        if !watched.isEmpty { watchStore(key, result, storing, request.valueLength) }
        if storing.mode == .compareAndSet { noteCompare(result) }
        if result.outcome == .stored, request.form == .classic {
            answer("STORED\r\n", request, &output)
        } else {
            answerRarely(result, request, key: key, hash, storing, &output)
        }
    }

    func noteCompare(_ result: StoreResult) {
        switch result.outcome {
        case .stored: counters.commands.add(.casHits)
        case .exists: counters.commands.add(.casBadValue)
        case .notFound: counters.commands.add(.casMisses)
        case .notStored, .outOfMemory: break
        }
    }

    @inline(never)
    private mutating func answerRarely(
        _ result: StoreResult, _ request: Request, key: Span<UInt8>, _ hash: UInt64, _ storing: StoreRequest,
        _ output: inout OutputBuffer
    ) {
        if result.outcome == .outOfMemory {
            // memcached answers an append that it has no room for like one to nothing.
            if storing.mode == .append || storing.mode == .prepend, !request.isQuiet, request.form == .classic {
                output.append("NOT_STORED\r\n")
            } else {
                refuseValue(.outOfMemoryStoring, request, key: key, &output)
            }
            return
        }
        if request.form == .binary { return answerBinary(result, request, storing, &output) }
        switch result.outcome {
        case .stored: answer("STORED\r\n", request, &output)
        case .notStored: answer("NOT_STORED\r\n", request, &output)
        case .exists: answer("EXISTS\r\n", request, &output)
        case .notFound: answer("NOT_FOUND\r\n", request, &output)
        case .outOfMemory: break
        }
    }

    private func answerBinary(
        _ result: StoreResult, _ request: Request, _ storing: StoreRequest, _ output: inout OutputBuffer
    ) {
        switch result.outcome {
        case .stored: if !request.isQuiet { output.appendBinaryHeader(replyTo: request, cas: result.version) }
        case .exists: output.appendBinaryStatus(.exists, replyTo: request)
        case .notFound: output.appendBinaryStatus(.notFound, replyTo: request)
        case .notStored, .outOfMemory:
            let status: BinaryStatus =
                switch storing.mode {
                case .add: .exists
                case .replace: .notFound
                default: .notStored
                }
            output.appendBinaryStatus(status, replyTo: request)
        }
    }

    /// Refuses a value for its size or for want of memory. A refused set takes the old value with it: a cache must not
    /// go on serving what the client wanted replaced. With storage a refusal changes nothing.
    mutating func refuseValue(_ error: ErrorReply, _ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer) {
        counters.commands.add(error == .tooLarge ? .storeTooLarge : .storeNoMemory)
        refuse(error, request, &output)
        guard request.verb == .set || request.verb == .metaSet, storagePool(key) == nil else { return }
        let hash = hash(key)
        let now = self.now
        engine.withShard(hash) { shard in
            if let item = shard.find(hash, key, now: now) { shard.remove(item, hash) }
        }
    }

    /// Decides about a data block that is not whole in the input.
    mutating func admitValue(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, waitsUpTo limit: Int, _ output: inout OutputBuffer
    ) -> ValueAdmission {
        guard engine.allows(keyLength: key.count, valueLength: request.valueLength, clientFlags: request.clientFlags)
        else {
            refuseValue(.tooLarge, request, key: key, &output)
            return .refuse
        }
        if request.valueLength <= limit { return .wait }
        if isGuarded {
            // A value of another's key goes there whole.
            if passesOn(key), request.valueLength <= Self.forwardLimit { return .wait }
            guard passesGuards(request, key: key, input, &output) else { return .refuse }
        }
        if shedder.isCareful {
            guard shedder.admits(request, key: key, input) else {
                refuseBusy(request, key: key, input, &output)
                return .refuse
            }
            shedder.willReceive()
        }
        if let storage, storage.pools.pool(of: key) != nil {
            guard let incoming = storage.intake.take(request.valueLength, at: reactor.nowNanoseconds) else {
                refuseIncoming("too many values are on their way", request, &output)
                return .refuse
            }
            return .fill(.store(incoming))
        }
        let storing = request.verb == .metaSet ? metaStoreRequest(request) : storeRequest(request)
        let shape = ItemShape(
            keyLength: key.count, valueLength: request.valueLength, clientFlags: storing.clientFlags,
            expiry: storing.expiry, isKeyBinary: storing.isKeyBinary)
        guard let item = engine.prepare(key: key, shape, now: now) else {
            refuseValue(.outOfMemoryStoring, request, key: key, &output)
            return .refuse
        }
        return .fill(.item(item))
    }

    /// Refuses a value that is not received whole; nothing was done.
    func refuseIncoming(_ reason: StaticString, _ request: Request, _ output: inout OutputBuffer) {
        counters.commands.add(.storageErrors)
        if request.form == .binary { return output.appendBinaryStatus(.temporaryFailure, replyTo: request) }
        if request.isQuiet, request.form == .classic { return }
        output.append("SERVER_ERROR storage: ")
        output.append(reason)
        output.append("\r\n")
    }

    /// Stores a value that was received into place.
    mutating func commit(_ pending: PendingValue, _ connection: inout Connection, _ output: inout OutputBuffer) {
        count(.set)
        counters.commands.add(.cmdSet)
        let request = pending.request
        let isMeta = request.verb == .metaSet
        let storing = isMeta ? metaStoreRequest(request) : storeRequest(request)
        let (keyBytes, opaqueBytes) = (pending.key, pending.opaque)
        let key = keyBytes.span
        if countsPrefixes { node.prefixes.noteSet(key) }
        let hash = hash(key)
        switch pending.target {
        case .store(let incoming):
            guard let pool = storagePool(key) else { preconditionFailure("a value for a store that is not there") }
            commit(incoming, request, keyBytes, opaqueBytes, hash, pool: pool, &output)
        case .item(let item):
            let result = engine.commit(item, hash, key: key, storing, now: now)
            if isMeta {
                metaAnswer(result, request, key: key, storing, opaque: opaqueBytes.span, &output)
            } else {
                answer(result, request, key: key, hash, storing, &output)
            }
        }
    }

    private mutating func commit(
        _ incoming: IncomingValue, _ request: Request, _ key: [UInt8], _ opaque: [UInt8], _ hash: UInt64, pool: Int,
        _ output: inout OutputBuffer
    ) {
        let isMeta = request.verb == .metaSet
        incoming.block.withSpan { value in
            if isMeta {
                metaStoreThrough(
                    request, key: key.span, value: value, hash, opaque: opaque.span, pool: pool, &output)
            } else {
                storeThrough(request, key: key.span, value: value, hash, pool: pool, &output)
            }
        }
    }
}

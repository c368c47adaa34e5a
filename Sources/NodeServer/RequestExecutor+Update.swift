// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Telemetry

/// delete, incr, decr, touch: classic and binary; and binary get.
extension RequestExecutor {
    mutating func delete(_ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer) {
        count(.delete)
        if countsPrefixes { node.prefixes.noteDelete(key) }
        let hash = hash(request, key)
        node.warmUp?.keys.noteDelete(hash)
        if let pool = storagePool(key) {
            return deleteThrough(request, key: key, hash, opaque: Span(), pool: pool, &output)
        }
        let now = self.now
        var removedLength = 0
        let outcome = engine.withShard(hash) { shard -> StoreOutcome in
            guard let item = shard.find(hash, key, now: now) else { return .notFound }
            guard request.cas == 0 || request.form != .binary || request.cas == item.version else { return .exists }
            removedLength = item.valueLength
            shard.remove(item, hash)
            return .stored
        }
        answerDelete(outcome, request, key: key, opaque: Span(), length: removedLength, &output)
    }

    /// Answers a delete of any protocol: `stored` stands for done. `length` is the removed value's, for watchers.
    mutating func answerDelete(
        _ outcome: StoreOutcome, _ request: Request, key: Span<UInt8>, opaque: Span<UInt8>, length: Int,
        _ output: inout OutputBuffer
    ) {
        if request.form == .meta {
            return answerMetaDelete(outcome, request, key: key, opaque: opaque, length: length, &output)
        }
        if !watched.isEmpty, outcome == .stored {
            node.watchers.noteDeletion(key, isMeta: false, length, topics: watched)
        }
        switch outcome {
        case .stored:
            counters.commands.add(.deleteHits)
            succeed("DELETED\r\n", request, &output)
        case .exists: output.appendBinaryStatus(.exists, replyTo: request)
        default:
            counters.commands.add(.deleteMisses)
            miss(request, &output)
        }
    }

    /// A success without a body.
    private func succeed(_ text: StaticString, _ request: Request, _ output: inout OutputBuffer) {
        if request.isQuiet { return }
        if request.form == .binary { output.appendBinaryHeader(replyTo: request) } else { output.append(text) }
    }

    private func miss(_ request: Request, _ output: inout OutputBuffer) {
        if request.form == .binary {
            output.appendBinaryStatus(.notFound, replyTo: request)
        } else {
            answer("NOT_FOUND\r\n", request, &output)
        }
    }

    mutating func arithmetic(_ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer) {
        count(.arithmetic)
        let isIncrement = request.verb == .incr
        let hash = hash(request, key)
        if let pool = storagePool(key) {
            return countThrough(request, key: key, hash, opaque: Span(), pool: pool, &output)
        }
        let version = node.newVersion()
        let now = self.now
        let compare = request.form == .binary ? request.cas : 0
        let outcome = engine.withShard(hash) {
            $0.add(
                request.delta, increment: isIncrement, hash, key: key, compare: compare, version: version, now: now)
        }
        if case .notFound = outcome, request.form == .binary, request.exptime != 0xFFFF_FFFF {
            binaryCreateCounter(request, key: key, hash, &output)
        } else {
            answerCount(outcome, request, &output)
        }
    }

    /// Answers incr and decr, classic and binary.
    mutating func answerCount(_ outcome: ArithmeticOutcome, _ request: Request, _ output: inout OutputBuffer) {
        let isIncrement = request.verb == .incr
        switch outcome {
        case .value(let value, let version, _):
            counters.commands.add(isIncrement ? .incrHits : .decrHits)
            answerNumber(value, version, request, &output)
        case .notFound:
            counters.commands.add(isIncrement ? .incrMisses : .decrMisses)
            miss(request, &output)
        case .notNumeric: refuse(.nonNumeric, request, &output)
        case .versionMismatch: output.appendBinaryStatus(.exists, replyTo: request)
        case .outOfMemory: refuse(.outOfMemory, request, &output)
        }
    }

    private func answerNumber(_ value: UInt64, _ version: UInt64, _ request: Request, _ output: inout OutputBuffer) {
        if request.isQuiet { return }
        if request.form == .binary {
            output.appendBinaryHeader(replyTo: request, bodyLength: 8, cas: version)
            output.append(bigEndian: value)
        } else {
            output.append(decimal: value)
            output.append("\r\n")
        }
    }

    /// The binary protocol's counter that starts with a given value on a miss.
    private mutating func binaryCreateCounter(
        _ request: Request, key: Span<UInt8>, _ hash: UInt64, _ output: inout OutputBuffer
    ) {
        let storing = StoreRequest(
            mode: .add, clientFlags: 0, expiry: node.clock.expiry(request.exptime, now: now), compare: 0,
            version: node.newVersion())
        let result = storeNumber(request.initial, hash, key: key, storing)
        if result.outcome == .stored {
            answerNumber(request.initial, result.version, request, &output)
        } else {
            refuse(.outOfMemory, request, &output)
        }
    }

    /// Stores a number in decimal.
    mutating func storeNumber(
        _ value: UInt64, _ hash: UInt64, key: Span<UInt8>, _ storing: StoreRequest
    ) -> StoreResult {
        let digits = DecimalText(value)
        let now = self.now
        let text = digits.bytes.span.extracting(0..<digits.count)
        let result = engine.withShard(hash) { $0.store(hash, key: key, value: text, storing, now: now) }
        return result.outcome == .outOfMemory ? storeAgain(hash, key: key, value: text, storing) : result
    }

    mutating func touch(_ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer) {
        count(.touch)
        if request.form == .binary { return binaryGet(request, key: key, &output) }
        let hash = hash(request, key)
        if touchThrough(request, key: key, hash, opaque: Span(), .touch, output) { return }
        let expiry = node.clock.expiry(request.exptime, now: now)
        let now = self.now
        let found = engine.withShard(hash) { shard in
            guard var item = shard.find(hash, key, now: now) else { return false }
            item.noteRead(now: now)
            return shard.setExpiry(expiry, of: item, hash, key: key, now: now) != nil
        }
        counters.commands.add(.cmdTouch)
        counters.commands.add(found ? .touchHits : .touchMisses)
        if found { answer("TOUCHED\r\n", request, &output) } else { answer("NOT_FOUND\r\n", request, &output) }
    }

    /// Binary get, get-and-touch and touch, with or without the key in the reply.
    mutating func binaryGet(_ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer) {
        if request.verb != .touch { count(.get) }
        let touches = request.verb != .get
        let hash = hash(request, key)
        if touches,
            touchThrough(request, key: key, hash, opaque: Span(), request.verb == .touch ? .touch : .get, output)
        {
            return
        }
        let expiry = touches ? node.clock.expiry(request.exptime, now: now) : 0
        let now = self.now
        let withValue = request.verb != .touch
        let keyLength = request.returnsKey ? key.count : 0
        let follows = standing == .hidden || (defers && mustFollow(hash))
        let lookup = engine.withShard(hash) { shard -> Lookup in
            guard !follows, var item = shard.findToRead(hash, key, now: now) else { return .miss }
            if item.isAbsent { return item.saysAbsent(now: now) ? .absent : .miss }
            item.noteRead(now: now)
            if touches {
                guard let moved = shard.setExpiry(expiry, of: item, hash, key: key, now: now) else { return .miss }
                item = moved
            }
            let length = withValue ? item.valueLength : 0
            output.appendBinaryHeader(
                replyTo: request, extrasLength: 4, keyLength: keyLength, bodyLength: 4 + keyLength + length,
                cas: item.version)
            output.append(bigEndian: item.clientFlags)
            if keyLength > 0 { output.append(key) }
            if withValue { Self.appendData(item, length, &shard, &output) }
            return .hit
        }
        noteRead(lookup == .hit, touches: touches)
        sampler.note(hash, key)
        if countsPrefixes { node.prefixes.noteGet(key, isHit: lookup == .hit) }
        if !watched.isEmpty { watchFetch(hash, key, isHit: lookup == .hit) }
        if lookup == .hit { return }
        if lookup == .miss, readThrough(request, key: key, hash, opaque: Span(), output) { return }
        if lookup == .absent { counters.commands.add(.negativeHits) }
        binaryMiss(request, key: key, &output)
    }

    func binaryMiss(_ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer) {
        if request.hidesMiss { return }
        if request.returnsKey {
            output.appendBinaryHeader(
                replyTo: request, status: .notFound, keyLength: key.count, bodyLength: key.count)
            output.append(key)
        } else {
            output.appendBinaryStatus(.notFound, replyTo: request)
        }
    }
}

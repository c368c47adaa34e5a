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
        let now = self.now
        var removedLength = 0
        // nil: not there; false: there with another version.
        let removed = engine.withShard(hash) { shard -> Bool? in
            guard let item = shard.find(hash, key, now: now) else { return nil }
            guard request.cas == 0 || request.form != .binary || request.cas == item.version else { return false }
            removedLength = item.valueLength
            shard.remove(item, hash)
            return true
        }
        if !watched.isEmpty, removed == true {
            node.watchers.noteDeletion(key, isMeta: false, removedLength, topics: watched)
        }
        switch removed {
        case true:
            counters.commands.add(.deleteHits)
            succeed("DELETED\r\n", request, &output)
        case false: output.appendBinaryStatus(.exists, replyTo: request)
        case nil:
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
        let version = node.newVersion()
        let now = self.now
        let compare = request.form == .binary ? request.cas : 0
        let outcome = engine.withShard(hash) {
            $0.add(
                request.delta, increment: isIncrement, hash, key: key, compare: compare, version: version, now: now)
        }
        switch outcome {
        case .value(let value, let version, _):
            counters.commands.add(isIncrement ? .incrHits : .decrHits)
            answerNumber(value, version, request, &output)
        case .notFound:
            if request.form == .binary, request.exptime != 0xFFFF_FFFF {
                binaryCreateCounter(request, key: key, hash, &output)
            } else {
                counters.commands.add(isIncrement ? .incrMisses : .decrMisses)
                miss(request, &output)
            }
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
        var digits = InlineArray<20, UInt8>(repeating: 0)
        let length = decimalLength(value)
        var rest = value
        for position in stride(from: length - 1, through: 0, by: -1) {
            digits[position] = UInt8(48 + rest % 10)
            rest /= 10
        }
        let now = self.now
        let text = digits.span.extracting(0..<length)
        let result = engine.withShard(hash) { $0.store(hash, key: key, value: text, storing, now: now) }
        return result.outcome == .outOfMemory ? storeAgain(hash, key: key, value: text, storing) : result
    }

    mutating func touch(_ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer) {
        count(.touch)
        if request.form == .binary { return binaryGet(request, key: key, &output) }
        let hash = hash(request, key)
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
        let expiry = touches ? node.clock.expiry(request.exptime, now: now) : 0
        let now = self.now
        let withValue = request.verb != .touch
        let keyLength = request.returnsKey ? key.count : 0
        let found = engine.withShard(hash) { shard in
            guard var item = shard.find(hash, key, now: now) else { return false }
            item.noteRead(now: now)
            if touches {
                guard let moved = shard.setExpiry(expiry, of: item, hash, key: key, now: now) else { return false }
                item = moved
            }
            let length = withValue ? item.valueLength : 0
            output.appendBinaryHeader(
                replyTo: request, extrasLength: 4, keyLength: keyLength, bodyLength: 4 + keyLength + length,
                cas: item.version)
            output.append(bigEndian: item.clientFlags)
            if keyLength > 0 { output.append(key) }
            if withValue { Self.appendData(item, length, &shard, &output) }
            return true
        }
        noteRead(found, touches: touches)
        sampler.note(hash, key)
        if countsPrefixes { node.prefixes.noteGet(key, isHit: found) }
        if !watched.isEmpty { watchFetch(hash, key, isHit: found) }
        if found || request.hidesMiss { return }
        if request.returnsKey {
            output.appendBinaryHeader(
                replyTo: request, status: .notFound, keyLength: key.count, bodyLength: key.count)
            output.append(key)
        } else {
            output.appendBinaryStatus(.notFound, replyTo: request)
        }
    }
}

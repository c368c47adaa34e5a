// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Storage
internal import Telemetry

/// Replies of requests that waited for the store.
extension RequestExecutor {
    /// Appends the reply of a parked request that has its answer. False when that is an error which takes the place of
    /// the rest of a classic get's reply.
    mutating func finish(_ parked: ParkedRequest, _ output: inout OutputBuffer) -> Bool {
        let now = Clock.monotonicNanoseconds()
        counters.latencies[parked.kind.rawValue].record(nanoseconds: now &- parked.readyNanoseconds, count: 1)
        if traces { endSpan(of: parked, at: now) }
        storage?.slow.note(parked, finished: now)
        if let reply = parked.reply {
            output.append(reply.span)
            return !parked.endsGet
        }
        switch parked.answer {
        case .read(_, let outcome): return finishRead(parked, outcome, &output)
        case .write(_, let outcome): return finishWrite(parked, outcome, &output)
        case nil: preconditionFailure("a reply without an answer")
        }
    }

    // MARK: Reads

    private mutating func finishRead(
        _ parked: ParkedRequest, _ outcome: ReadOutcome, _ output: inout OutputBuffer
    ) -> Bool {
        switch outcome {
        case .found(let row): answer(row, parked, isStale: parked.showsStaleCopy, &output)
        case .absent: answerAbsent(parked, &output)
        case .failed(let failure):
            guard let (row, isStale) = remainingRow(parked) else { return fail(failure, parked, &output) }
            counters.commands.add(.staleAnswers)
            answer(row, parked, isStale: isStale, &output)
        }
        return true
    }

    /// What the cache has left of a row that the store does not give, where the key's pool allows it, and whether that
    /// is behind its time.
    private func remainingRow(_ parked: ParkedRequest) -> (row: StoredRow, isStale: Bool)? {
        let keyBytes = parked.key
        let key = keyBytes.span
        guard let storage, let pool = storagePool(key) else { return nil }
        let seconds = storage.pools.staleIfErrorSeconds(of: pool)
        let isBehind = stream?.showsStale(key) ?? false
        guard seconds > 0 || isBehind, let (row, isLate) = copy(key, parked.hash, behindItsTime: seconds) else {
            return nil
        }
        return (row, isLate || isBehind)
    }

    /// The cached copy of a key, and whether that is behind its time; nil where it is so by more than so many seconds.
    func copy(_ key: Span<UInt8>, _ hash: UInt64, behindItsTime seconds: UInt32) -> (row: StoredRow, isStale: Bool)? {
        let now = self.now
        let clock = node.clock
        return engine.withShard(hash) { shard in
            guard let item = shard.findLingering(hash, key, now: now), !item.isAbsent,
                item.expiry == 0 || now < item.expiry &+ seconds
            else { return nil }
            return (clock.row(of: item), item.isExpired(now: now))
        }
    }

    /// A get that found its row.
    private mutating func answer(
        _ row: StoredRow, _ parked: ParkedRequest, isStale: Bool = false, _ output: inout OutputBuffer
    ) {
        let request = parked.request
        let keyBytes = parked.key
        let key = keyBytes.span
        switch request.form {
        case .classic:
            let withCAS = request.verb == .gets || request.verb == .gats
            output.appendValueLine(
                key: key, clientFlags: row.clientFlags, length: row.value.count, cas: withCAS ? row.version : nil)
            output.append(row.value.span)
            output.append("\r\n")
            if request.isLastKeyOfGet { output.append("END\r\n") }
        case .meta: answerMeta(row, parked, isStale: isStale, &output)
        case .binary:
            let withValue = request.verb != .touch
            let keyLength = request.returnsKey ? key.count : 0
            let length = withValue ? row.value.count : 0
            output.appendBinaryHeader(
                replyTo: request, extrasLength: 4, keyLength: keyLength, bodyLength: 4 + keyLength + length,
                cas: row.version)
            output.append(bigEndian: row.clientFlags)
            if keyLength > 0 { output.append(key) }
            if withValue { output.append(row.value.span) }
        }
    }

    private func answerMeta(
        _ row: StoredRow, _ parked: ParkedRequest, isStale: Bool, _ output: inout OutputBuffer
    ) {
        let request = parked.request
        let (keyBytes, opaque) = (parked.key, parked.opaque)
        let withValue =
            request.options.contains(.value)
            && !(request.options.contains(.compareCAS) && row.version == request.cas)
        if withValue { output.appendMetaValue(length: row.value.count) } else { output.append("HD") }
        let last = node.clock.second(unixMilliseconds: row.expiryMilliseconds)
        var expiry = last
        if request.options.contains(.setTTL), let earlier = row.earlierExpiryMilliseconds {
            expiry = node.clock.second(unixMilliseconds: earlier)
        }
        let recache = node.clock.expiry(Int64(request.recacheTTL), now: now)
        var wins = false
        var steps = request.steps
        walk: while true {
            switch steps.next() {
            case .end: break walk
            case .cas: output.appendMetaFlag(UInt8(ascii: "c"), row.version)
            case .clientFlags: output.appendMetaFlag(UInt8(ascii: "f"), UInt64(row.clientFlags))
            // The copy is as new as its answer.
            case .hitBefore: output.appendMetaFlag(UInt8(ascii: "h"), 0)
            case .lastAccess: output.appendMetaFlag(UInt8(ascii: "l"), 0)
            case .key: output.appendMetaKey(keyBytes.span, isBinary: request.options.contains(.base64Key))
            case .size: output.appendMetaFlag(UInt8(ascii: "s"), UInt64(row.value.count))
            case .ttl: output.appendMetaTTL(expiry == 0 ? nil : expiry &- min(now, expiry))
            case .opaque:
                output.append(UInt8(ascii: " "))
                output.append(opaque.span)
            case .recache: if expiry != 0, expiry < recache { wins = true }
            case .setTTL: expiry = last
            case .vivify: break
            }
        }
        if isStale {
            // Nobody is told to recache it: the store would not take it.
            output.append(" X")
        } else {
            appendMarks(parked, row, wins: wins, &output)
        }
        output.append("\r\n")
        if withValue {
            output.append(row.value.span)
            output.append("\r\n")
        }
    }

    /// What the cached copy of the row says beside it: stale, somebody recaches, this client is to.
    private func appendMarks(_ parked: ParkedRequest, _ row: StoredRow, wins: Bool, _ output: inout OutputBuffer) {
        let keyBytes = parked.key
        let key = keyBytes.span
        let now = self.now
        engine.withShard(parked.hash) { shard in
            if var item = shard.findToRead(parked.hash, key, now: now), !item.isAbsent, item.version == row.version {
                let claims = wins && !item.isTokenSent
                if claims || item.isTokenSent || item.isStale { Self.appendMarks(&item, wins: claims, &output) }
                if !parked.request.options.contains(.noUpdate) { item.noteRead(now: now) }
            } else if wins {
                output.append(" W")
            }
        }
    }

    /// A get of what the store does not have.
    private mutating func answerAbsent(_ parked: ParkedRequest, _ output: inout OutputBuffer) {
        let request = parked.request
        let (keyBytes, opaque) = (parked.key, parked.opaque)
        switch request.form {
        case .classic:
            if request.verb == .get { clusterValue(keyBytes.span, &output) }
            if request.isLastKeyOfGet { output.append("END\r\n") }
        case .meta: metaAbsent(request, key: keyBytes.span, opaque: opaque.span, &output)
        case .binary: binaryMiss(request, key: keyBytes.span, &output)
        }
    }

    // MARK: Writes

    private mutating func finishWrite(
        _ parked: ParkedRequest, _ outcome: WriteOutcome, _ output: inout OutputBuffer
    ) -> Bool {
        if case .failed(let failure) = outcome { return fail(failure, parked, &output) }
        let request = parked.request
        let (keyBytes, opaque) = (parked.key, parked.opaque)
        let key = keyBytes.span
        if outcome == .tooLarge, !request.isJoin {
            counters.commands.add(.storeTooLarge)
            refuse(.tooLarge, request, &output)
            return true
        }
        switch request.verb {
        case .set, .add, .replace, .append, .prepend, .cas, .metaSet:
            answerStore(storeResult(outcome, parked), parked, key: key, &output)
        case .delete, .metaDelete:
            let code: StoreOutcome =
                switch outcome {
                case .deleted, .stored: .stored
                case .exists: .exists
                default: .notFound
                }
            answerDelete(code, request, key: key, opaque: opaque.span, length: 0, &output)
        case .incr, .decr, .metaArithmetic: answerCount(outcome, parked, key: key, &output)
        default: return finishTouch(parked, outcome, &output)
        }
        return true
    }

    private func storeResult(_ outcome: WriteOutcome, _ parked: ParkedRequest) -> StoreResult {
        switch outcome {
        case .stored(let row):
            var result = StoreResult(.stored)
            result.version = row.version
            result.valueLength = parked.storedBytes
            return result
        case .exists: return StoreResult(.exists)
        case .notFound: return StoreResult(.notFound)
        default: return StoreResult(.notStored)
        }
    }

    private mutating func answerStore(
        _ result: StoreResult, _ parked: ParkedRequest, key: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        let (request, opaque) = (parked.request, parked.opaque)
        var result = result
        let isMeta = request.verb == .metaSet
        let storing = isMeta ? metaStoreRequest(request) : storeRequest(request)
        result.compared = storing.mode == .compareAndSet && result.outcome != .notFound
        if isMeta {
            metaAnswer(result, request, key: key, storing, opaque: opaque.span, &output)
        } else {
            answer(result, request, key: key, hash(key), storing, &output)
        }
    }

    private mutating func answerCount(
        _ outcome: WriteOutcome, _ parked: ParkedRequest, key: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        let (request, opaque) = (parked.request, parked.opaque)
        // What t shows is what there was, and then what T and N before it set.
        var isNew = false
        let result: ArithmeticOutcome =
            switch outcome {
            case .stored(let row):
                .value(
                    row.leadingNumber, version: row.version,
                    expiry: node.clock.second(unixMilliseconds: row.earlierExpiryMilliseconds ?? 0))
            case .exists: .versionMismatch
            case .notNumeric: .notNumeric
            default: .notFound
            }
        if case .stored(let row) = outcome { isNew = row.earlierExpiryMilliseconds == nil }
        if request.form == .meta {
            answerMetaCount(result, request, key: key, opaque: opaque.span, isNew: isNew, &output)
        } else {
            answerCount(result, request, &output)
        }
    }

    /// gat, gats, touch, and mg with T.
    private mutating func finishTouch(
        _ parked: ParkedRequest, _ outcome: WriteOutcome, _ output: inout OutputBuffer
    ) -> Bool {
        let request = parked.request
        let isPlainTouch = request.verb == .touch && request.form == .classic
        if isPlainTouch {
            counters.commands.add(.cmdTouch)
            if case .stored = outcome { counters.commands.add(.touchHits) } else { counters.commands.add(.touchMisses) }
        }
        guard case .stored(let row) = outcome else {
            if !isPlainTouch { noteRead(false, touches: true) }
            if isPlainTouch {
                answer("NOT_FOUND\r\n", request, &output)
            } else {
                answerAbsent(parked, &output)
            }
            return true
        }
        if !isPlainTouch { noteRead(true, touches: true) }
        if isPlainTouch {
            answer("TOUCHED\r\n", request, &output)
        } else {
            answer(row, parked, &output)
        }
        return true
    }

    // MARK: Failures

    /// Answers that the store did not do it. False where that ends the reply of a classic get.
    private mutating func fail(
        _ failure: StorageFailure, _ parked: ParkedRequest, _ output: inout OutputBuffer
    ) -> Bool {
        let request = parked.request
        let isMoved = failure.kind == .notOwner
        if !isMoved { counters.commands.add(.storageErrors) }
        // gat and mg with T are writes, whose reply is that of a read.
        let isUnknown = failure.kind == .unknownOutcome && !parked.isRead
        let isRetrieval = request.verb.rawValue <= Verb.gats.rawValue
        guard request.form != .binary else {
            let status: BinaryStatus = isUnknown ? .internalError : .temporaryFailure
            output.appendBinaryStatus(status, replyTo: request)
            return true
        }
        if request.isQuiet, request.form == .classic, !isRetrieval { return true }
        output.append("SERVER_ERROR ")
        if isMoved {
            output.append(string: failure.reason)
        } else if isUnknown {
            output.append("outcome unknown")
        } else {
            output.append("storage: ")
            // What follows the colon (paths, the system's words) is for the log and `stats storage`.
            output.append(string: line(of: failure.reason))
        }
        output.append("\r\n")
        return !(isRetrieval && request.form == .classic)
    }
}

/// What a client is told of a failure's reason, on one line whatever a database said.
private func line(of reason: String) -> String {
    let told = reason.unicodeScalars.prefix { $0 != ":" }.prefix(200)
    return String(String.UnicodeScalarView(told.map { $0.value < 32 || $0.value == 127 ? " " : $0 }))
}

extension Request {
    /// Whether it joins a value to the one that is there. memcached answers a join that would become too large like
    /// one to nothing.
    fileprivate var isJoin: Bool {
        switch verb {
        case .append, .prepend: true
        case .metaSet: storeVerb == .append || storeVerb == .prepend
        default: false
        }
    }
}

extension StoredRow {
    /// The number that a counter's value begins with; what follows it is padding.
    fileprivate var leadingNumber: UInt64 {
        var number: UInt64 = 0
        for byte in value {
            guard byte >= 48, byte <= 57 else { break }
            number = number &* 10 &+ UInt64(byte - 48)
        }
        return number
    }
}

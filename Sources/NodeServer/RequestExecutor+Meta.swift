// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Storage
internal import Telemetry

/// mg, ms, md, ma, me. Source: memcached protocol.txt, "Meta Commands", and 1.6.45's proto_parser.c for what it leaves
/// open.
extension RequestExecutor {
    @inline(__always)
    mutating func metaGet(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        count(.get)
        let hash = hash(request, key)
        let now = self.now
        let isSimple = request.options.isDisjoint(with: .acting)
        let keyIsBinary = keyEncoding(request, key)
        if defers || !request.options.isDisjoint(with: specialOptions),
            metaGetSpecially(request, key: key, hash, opaque: Self.opaque(of: request, in: input), &output)
        {
            return
        }
        let lookup: Lookup
        if isSimple, standing == .hidden {
            lookup = .miss
        } else if isSimple, standing == .vouched {
            lookup = engine.withShard(hash) { shard in
                guard var item = shard.findToRead(hash, key, now: now) else { return .miss }
                if item.isAbsent { return item.saysAbsent(now: now) ? .absent : .miss }
                item.noteRead(now: now)
                let length = item.valueLength
                if request.options.contains(.value) {
                    output.appendMetaValue(length: length)
                } else {
                    output.append("HD")
                }
                Self.appendPlainSteps(request, &item, key, now: now, input, keyIsBinary: keyIsBinary, &output)
                output.append("\r\n")
                if request.options.contains(.value) {
                    Self.appendData(item, length, &shard, &output)
                    output.append("\r\n")
                }
                return .hit
            }
        } else {
            let vivifies = request.options.contains(.vivify) && storagePool(key) == nil
            lookup = metaGetFully(
                request, key: key, hash, opaque: Self.opaque(of: request, in: input), vivifies: vivifies, &output)
        }
        noteRead(lookup == .hit, touches: request.options.contains(.setTTL))
        sampler.note(hash, key)
        if countsPrefixes { node.prefixes.noteGet(key, isHit: lookup == .hit) }
        if !watched.isEmpty { watchFetch(hash, key, isHit: lookup == .hit) }
        if lookup != .hit { metaMiss(lookup, request, key: key, hash, input, &output) }
    }

    @inline(never)
    private mutating func metaMiss(
        _ lookup: Lookup, _ request: Request, key: Span<UInt8>, _ hash: UInt64, _ input: Span<UInt8>,
        _ output: inout OutputBuffer
    ) {
        let opaque = Self.opaque(of: request, in: input)
        if lookup == .miss {
            if readThrough(request, key: key, hash, opaque: opaque, output) { return }
            answerMetaMiss(request, key: key, opaque: opaque, &output)
        } else {
            counters.commands.add(.negativeHits)
            metaAbsent(request, key: key, opaque: opaque, &output)
        }
    }

    func answerMetaMiss(
        _ request: Request, key: Span<UInt8>, opaque: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        if request.isQuiet { return }
        output.append("EN")
        Self.appendIdentity(request, key, opaque: opaque, &output)
        output.append("\r\n")
    }

    /// mg of a key that the store does not have: N makes its placeholder in the cache only.
    mutating func metaAbsent(
        _ request: Request, key: Span<UInt8>, opaque: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        if request.options.contains(.vivify) {
            let hash = hash(key)
            let lookup = metaGetFully(request, key: key, hash, opaque: opaque, vivifies: true, &output)
            if lookup == .hit { return }
        }
        answerMetaMiss(request, key: key, opaque: opaque, &output)
    }

    /// What of mg the store must answer though the cache has the key: a new expiry, what the connection itself wrote
    /// and does not know the outcome of, and what depends on the row's time to live where the cached copy has one of
    /// its own. False when the cache may answer.
    @inline(never)
    private mutating func metaGetSpecially(
        _ request: Request, key: Span<UInt8>, _ hash: UInt64, opaque: Span<UInt8>, _ output: inout OutputBuffer
    ) -> Bool {
        guard let storage, let pool = storage.pools.pool(of: key) else { return false }
        if request.options.contains(.setCAS) {
            refuseVersion(request, &output)
            return true
        }
        if request.options.contains(.setTTL) {
            return touchThrough(request, key: key, hash, opaque: opaque, .get, output)
        }
        let hidesTTL =
            storage.pools.pools[pool].policy.cacheTTLMilliseconds > 0 && asksForTime(request, key: key, hash)
        guard hidesTTL || (defers && mustFollow(hash)) else { return false }
        noteRead(false, touches: false)
        let acceptsCopy = !hidesTTL && standing != .stale
        return readThrough(request, key: key, hash, opaque: opaque, acceptsCopy: acceptsCopy, output)
    }

    /// Whether a reply depends on when the row expires, which a copy with a time of its own does not say: what `t`
    /// shows, and R where the copy ends before the time that it names. No row ends before its copy.
    private func asksForTime(_ request: Request, key: Span<UInt8>, _ hash: UInt64) -> Bool {
        if request.options.contains(.ttl) { return true }
        guard request.options.contains(.recache) else { return false }
        let now = self.now
        let recache = node.clock.expiry(Int64(request.recacheTTL), now: now)
        return engine.withShard(hash) { shard in
            guard let item = shard.findToRead(hash, key, now: now) else { return true }
            return !item.saysAbsent(now: now) && item.expiry < recache
        }
    }

    @_lifetime(copy input)
    static func opaque(of request: Request, in input: Span<UInt8>) -> Span<UInt8> {
        input.extracting(request.opaqueOffset..<request.opaqueOffset + request.opaqueLength)
    }

    /// Whether `k` shows the key in base64. With storage as the request has it: rows do not say how their keys came.
    /// Nil where it is the item's to say, or nobody asks.
    @inline(__always)
    private func keyEncoding(_ request: Request, _ key: Span<UInt8>) -> Bool? {
        guard storage != nil, request.options.contains(.key), storagePool(key) != nil else { return nil }
        return request.options.contains(.base64Key)
    }

    /// The steps of a get that only shows.
    @inline(__always)
    private static func appendPlainSteps(
        _ request: Request, _ item: inout Item, _ key: Span<UInt8>, now: UInt32, _ input: Span<UInt8>,
        keyIsBinary: Bool?, _ output: inout OutputBuffer
    ) {
        var steps = request.steps
        while true {
            let step = steps.next()
            if step == .end { break }
            append(
                step, request, item, key, now: now, opaque(of: request, in: input), keyIsBinary: keyIsBinary, &output)
        }
        if item.isTokenSent || item.isStale { appendMarks(&item, wins: false, &output) }
    }

    /// Shows whether a client already recaches (Z), whether the item is stale (X), and whether this client is to
    /// recache (W): one at a time. What is stale because a stream is behind nobody is told to recache.
    @inline(never)
    static func appendMarks(_ item: inout Item, wins: Bool, isStale: Bool = false, _ output: inout OutputBuffer) {
        var wins = wins
        if item.isTokenSent { output.append(" Z") }
        if item.isStale || isStale { output.append(" X") }
        if item.isStale, !item.isTokenSent { wins = true }
        if wins {
            output.append(" W")
            item.setTokenSent(true)
        }
    }

    /// What one step adds to a reply about an item.
    private static func append(
        _ step: MetaStep, _ request: Request, _ item: Item, _ key: Span<UInt8>, now: UInt32, _ opaque: Span<UInt8>,
        keyIsBinary: Bool?, _ output: inout OutputBuffer
    ) {
        switch step {
        case .cas: output.appendMetaFlag(UInt8(ascii: "c"), item.version)
        case .clientFlags: output.appendMetaFlag(UInt8(ascii: "f"), UInt64(item.clientFlags))
        case .hitBefore: output.appendMetaFlag(UInt8(ascii: "h"), item.isFetched ? 1 : 0)
        case .key: output.appendMetaKey(key, isBinary: keyIsBinary ?? item.isKeyBinary)
        case .lastAccess: output.appendMetaFlag(UInt8(ascii: "l"), UInt64(item.secondsSinceAccess(now: now)))
        case .size: output.appendMetaFlag(UInt8(ascii: "s"), UInt64(item.valueLength))
        case .ttl:
            let expiry = item.expiry
            // An item given an expiry in the past by this very command shows what memcached's 32 bits wrap to.
            output.appendMetaTTL(expiry == 0 ? nil : expiry &- now)
        case .opaque:
            output.append(UInt8(ascii: " "))
            output.append(opaque)
        case .end, .setTTL, .vivify, .recache: break
        }
    }

    /// `k` and `O` alone, in their order, for replies without an item.
    private static func appendIdentity(
        _ request: Request, _ key: Span<UInt8>, opaque: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        var steps = request.steps
        while true {
            switch steps.next() {
            case .end: return
            case .opaque:
                output.append(UInt8(ascii: " "))
                output.append(opaque)
            case .key: output.appendMetaKey(key, isBinary: request.options.contains(.base64Key))
            default: break
            }
        }
    }

    /// mg with everything: vivify, recache, stale marks, expiry, compare.
    @inline(never)
    private mutating func metaGetFully(
        _ request: Request, key: Span<UInt8>, _ hash: UInt64, opaque: Span<UInt8>, vivifies: Bool,
        _ output: inout OutputBuffer
    ) -> Lookup {
        let now = self.now
        let options = request.options
        let version = options.contains(.setCAS) ? request.casIn : options.contains(.vivify) ? node.newVersion() : 0
        let times = MetaTimes(
            set: node.clock.expiry(request.exptime, now: now),
            vivify: node.clock.expiry(Int64(request.vivifyTTL), now: now),
            recache: node.clock.expiry(Int64(request.recacheTTL), now: now))
        let hidesPlaceholder = vivifies && storagePool(key) != nil
        let keyIsBinary = keyEncoding(request, key)
        let standing = standing
        return engine.withShard(hash) { shard in
            // What the stream brought since the copy was forgotten is no newer than what may be shown.
            if standing == .hidden, let late = shard.find(hash, key, now: now) { shard.remove(late, hash) }
            let found = shard.findToRead(hash, key, now: now)
            // With storage, a placeholder is absent to everybody but those who vivify.
            let existing = found.flatMap { $0.isAbsent && !(vivifies && $0.isTokenSent) ? nil : $0 }
            let isNew = existing == nil
            // With storage, not in the place of what a write brought since.
            if hidesPlaceholder, let found, !found.isAbsent { return .absent }
            // It knows of no row for as long as the entry before it did; without one, it is a lease and nothing more.
            let absence = hidesPlaceholder ? found?.absenceEnd ?? Item.unknownAbsence : nil
            guard
                var item = existing
                    ?? (vivifies
                        ? Self.vivify(
                            hash, key, version: version, now: now, replacing: found, absentUntil: absence, &shard)
                        : nil)
            else { return found?.saysAbsent(now: now) == true ? .absent : .miss }
            let oldExpiry = isNew ? 0 : item.expiry
            let finalExpiry = Self.finalExpiry(request, times, old: oldExpiry, isNew: isNew)
            if finalExpiry != item.expiry {
                // This may move the item: it comes before anything is said about it.
                guard let moved = shard.setExpiry(finalExpiry, of: item, hash, key: key, now: now) else { return .miss }
                item = moved
            }
            let withValue = options.contains(.value) && !(options.contains(.compareCAS) && item.version == request.cas)
            let length = item.valueLength
            if withValue { output.appendMetaValue(length: length) } else { output.append("HD") }
            let wins = Self.appendTimedSteps(
                request, item, key, times, old: oldExpiry, isNew: isNew, now: now, opaque, keyIsBinary: keyIsBinary,
                &output)
            let isStale = item.isStale || (standing == .stale && !isNew)
            if wins || item.isTokenSent || isStale { Self.appendMarks(&item, wins: wins, isStale: isStale, &output) }
            output.append("\r\n")
            if withValue {
                Self.appendData(item, length, &shard, &output)
                output.append("\r\n")
            }
            if !options.contains(.noUpdate) { item.noteRead(now: now) }
            return .hit
        }
    }

    /// The times of T, N and R as seconds of the engine.
    private struct MetaTimes {
        let set: UInt32
        let vivify: UInt32
        let recache: UInt32
    }

    /// Makes the empty item of a miss with N, with a field for the expiry that follows; with storage, as an entry that
    /// says until when it is known that there is no row.
    private static func vivify(
        _ hash: UInt64, _ key: Span<UInt8>, version: UInt64, now: UInt32, replacing absent: Item?,
        absentUntil absence: UInt32?, _ shard: inout ShardState
    ) -> Item? {
        var shape = ItemShape(keyLength: key.count, valueLength: 0, clientFlags: absence ?? 0, expiry: 0)
        shape.reservesExpiry = true
        var item = shard.create(hash, key: key, shape, version: version, now: now, replacing: absent)
        if absence != nil { item?.setAbsent() }
        return item
    }

    /// The expiry that the request leaves the item with: the last of T and N in its line, where they apply.
    private static func finalExpiry(_ request: Request, _ times: MetaTimes, old: UInt32, isNew: Bool) -> UInt32 {
        var expiry = old
        var steps = request.steps
        while true {
            switch steps.next() {
            case .end: return expiry
            case .setTTL: expiry = times.set
            case .vivify where isNew: expiry = times.vivify
            default: break
            }
        }
    }

    /// The steps of a get that acts, each of which sees the times as the steps before it left them. Whether the client
    /// is told to recache.
    private static func appendTimedSteps(
        _ request: Request, _ item: Item, _ key: Span<UInt8>, _ times: MetaTimes, old: UInt32, isNew: Bool, now: UInt32,
        _ opaque: Span<UInt8>, keyIsBinary: Bool?, _ output: inout OutputBuffer
    ) -> Bool {
        var wins = false
        var expiry = old
        var steps = request.steps
        while true {
            let step = steps.next()
            switch step {
            case .end: return wins
            case .setTTL: expiry = times.set
            case .vivify where isNew:
                expiry = times.vivify
                wins = true
            case .recache:
                if !item.isTokenSent, !isNew, expiry != 0, expiry < times.recache { wins = true }
            case .ttl: output.appendMetaTTL(expiry == 0 ? nil : expiry &- now)
            case .clientFlags where item.isAbsent: output.appendMetaFlag(UInt8(ascii: "f"), 0)
            default: append(step, request, item, key, now: now, opaque, keyIsBinary: keyIsBinary, &output)
            }
        }
    }

    /// What the engine is asked to do by ms.
    @inline(__always)
    func metaStoreRequest(_ request: Request) -> StoreRequest {
        let joins = request.options.contains(.vivify)
        var exptime = request.exptime
        let mode: StoreMode
        switch request.storeVerb {
        case .add: mode = .add
        case .append: mode = joins ? .appendOrCreate : .append
        case .prepend: mode = joins ? .prependOrCreate : .prepend
        case .replace: mode = .replace
        case .cas: mode = .compareAndSet
        default: mode = .set
        }
        if mode == .appendOrCreate || mode == .prependOrCreate { exptime = Int64(request.vivifyTTL) }
        var storing = StoreRequest(
            mode: mode, clientFlags: request.clientFlags,
            expiry: exptime == 0 ? 0 : node.clock.expiry(exptime, now: now),
            compare: request.options.contains(.compareCAS) ? request.cas : 0,
            // Of E0 memcached makes a version of its own, in this command alone.
            version: request.casIn != 0 ? request.casIn : node.newVersion())
        storing.allowsStale = mode == .compareAndSet && request.options.contains(.invalidate)
        storing.isKeyBinary = request.options.contains(.base64Key)
        return storing
    }

    @inline(__always)
    mutating func metaSet(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        count(.set)
        guard engine.allows(keyLength: key.count, valueLength: request.valueLength, clientFlags: request.clientFlags)
        else { return refuseValue(.tooLarge, request, key: key, &output) }
        counters.commands.add(.cmdSet)
        guard request.error.isNone else { return refuse(request.error, request, &output) }
        let value = input.extracting(request.valueOffset..<request.valueOffset &+ request.valueLength)
        let hash = hash(request, key)
        if let pool = storagePool(key) {
            let opaque = Self.opaque(of: request, in: input)
            return metaStoreThrough(request, key: key, value: value, hash, opaque: opaque, pool: pool, &output)
        }
        let storing = metaStoreRequest(request)
        let now = self.now
        var result = engine.withShard(hash) { $0.store(hash, key: key, value: value, storing, now: now) }
        if result.outcome == .outOfMemory { result = storeAgain(hash, key: key, value: value, storing) }
        if result.outcome == .outOfMemory { return refuseValue(.outOfMemoryStoring, request, key: key, &output) }
        metaAnswer(result, request, key: key, storing, opaque: Self.opaque(of: request, in: input), &output)
    }

    @inline(__always)
    mutating func metaAnswer(
        _ result: StoreResult, _ request: Request, key: Span<UInt8>, _ storing: StoreRequest,
        opaque: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        if !watched.isEmpty { watchStore(key, result, storing, request.valueLength) }
        if storing.mode == .compareAndSet { noteCompare(result) }
        switch result.outcome {
        case .stored:
            if request.isQuiet { return }
            output.append("HD")
        case .exists: output.append("EX")
        case .notFound: output.append("NF")
        case .notStored: output.append("NS")
        case .outOfMemory: return refuseValue(.outOfMemoryStoring, request, key: key, &output)
        }
        if !request.steps.isEmpty { appendStoreSteps(result, request, key: key, opaque: opaque, &output) }
        output.append("\r\n")
    }

    private func appendStoreSteps(
        _ result: StoreResult, _ request: Request, key: Span<UInt8>, opaque: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        var steps = request.steps
        while true {
            switch steps.next() {
            case .end: return
            case .opaque:
                output.append(UInt8(ascii: " "))
                output.append(opaque)
            case .key: output.appendMetaKey(key, isBinary: request.options.contains(.base64Key))
            case .cas: output.appendMetaFlag(UInt8(ascii: "c"), result.version)
            case .size:
                let length = result.outcome == .stored ? result.valueLength : request.valueLength
                output.appendMetaFlag(UInt8(ascii: "s"), UInt64(length))
            default: break
            }
        }
    }

    mutating func metaDelete(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        count(.delete)
        let hash = hash(request, key)
        node.warmUp?.keys.noteDelete(hash)
        let opaque = Self.opaque(of: request, in: input)
        if let pool = storagePool(key) {
            // x leaves an empty value behind, which only the store may do; I alone is about the copy.
            let isAboutCopy = request.options.contains(.invalidate) && !request.options.contains(.dropValue)
            guard isAboutCopy else {
                return deleteThrough(request, key: key, hash, opaque: opaque, pool: pool, &output)
            }
            if waitForOwn(request, key: key, hash, opaque: opaque, .delete, output) { return }
        }
        invalidateCopy(request, key: key, hash, opaque: opaque, &output)
    }

    /// md on what the cache holds.
    mutating func invalidateCopy(
        _ request: Request, key: Span<UInt8>, _ hash: UInt64, opaque: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        let now = self.now
        let options = request.options
        let hasStorage = storagePool(key) != nil
        let expiry = node.clock.expiry(request.exptime, now: now)
        let fresh = options.contains(.setCAS) ? request.casIn : node.newVersion()
        var length = 0
        let outcome = engine.withShard(hash) { shard -> StoreOutcome in
            guard var item = shard.find(hash, key, now: now), !item.isAbsent else { return .notFound }
            length = item.valueLength
            if options.contains(.compareCAS), item.version != request.cas { return .exists }
            if options.contains(.dropValue) {
                let shape = ItemShape(
                    keyLength: key.count, valueLength: 0, clientFlags: request.clientFlags, expiry: expiry)
                let version = options.contains(.setCAS) ? request.casIn : item.version
                guard
                    let empty = shard.create(hash, key: key, shape, version: version, now: now, replacing: item)
                else { return .outOfMemory }
                item = empty
            }
            if options.contains(.invalidate) {
                // A copy may go earlier than its row, not later.
                let isLater = hasStorage && item.expiry != 0 && (expiry == 0 || expiry > item.expiry)
                if options.contains(.setTTL), !isLater {
                    guard let moved = shard.setExpiry(expiry, of: item, hash, key: key, now: now) else {
                        return .notFound
                    }
                    item = moved
                }
                item.setStale(true)
                item.setTokenSent(false)
                // A version that the store gave is what a client's compare must name.
                if !hasStorage { item.setVersion(fresh) }
            } else if !options.contains(.dropValue) {
                shard.remove(item, hash)
            }
            return .stored
        }
        answerDelete(outcome, request, key: key, opaque: opaque, length: length, &output)
    }

    /// Answers md.
    mutating func answerMetaDelete(
        _ outcome: StoreOutcome, _ request: Request, key: Span<UInt8>, opaque: Span<UInt8>, length: Int,
        _ output: inout OutputBuffer
    ) {
        let options = request.options
        if outcome == .outOfMemory { return refuse(.outOfMemory, request, &output) }
        let isHit = outcome == .stored
        if !(isHit && options.contains(.invalidate)) { counters.commands.add(isHit ? .deleteHits : .deleteMisses) }
        if !watched.isEmpty, isHit { node.watchers.noteDeletion(key, isMeta: true, length, topics: watched) }
        if isHit, request.isQuiet { return }
        let code: StaticString = isHit ? "HD" : outcome == .exists ? "EX" : "NF"
        answerCode(code, request, key: key, opaque: opaque, &output)
    }

    mutating func metaArithmetic(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        count(.arithmetic)
        let isIncrement = request.mode != UInt8(ascii: "D")
        let hash = hash(request, key)
        let now = self.now
        let options = request.options
        let opaque = Self.opaque(of: request, in: input)
        if let pool = storagePool(key) {
            return countThrough(request, key: key, hash, opaque: opaque, pool: pool, &output)
        }
        let version = options.contains(.setCAS) ? request.casIn : node.newVersion()
        let outcome = engine.withShard(hash) {
            $0.add(
                request.delta, increment: isIncrement, hash, key: key,
                compare: options.contains(.compareCAS) ? request.cas : 0, version: version, now: now)
        }
        guard case .notFound = outcome, options.contains(.vivify) else {
            return answerMetaCount(outcome, request, key: key, opaque: opaque, &output)
        }
        let storing = StoreRequest(mode: .add, clientFlags: 0, expiry: 0, compare: 0, version: version)
        let result = storeNumber(request.initial, hash, key: key, storing)
        guard result.outcome == .stored else { return refuse(.outOfMemory, request, &output) }
        answerCounter(
            request.initial, result.version, 0, request, key: key, hash, opaque: opaque, isNew: true, &output)
    }

    /// Answers ma about a counter that was there, or was not.
    mutating func answerMetaCount(
        _ outcome: ArithmeticOutcome, _ request: Request, key: Span<UInt8>, opaque: Span<UInt8>, isNew: Bool = false,
        _ output: inout OutputBuffer
    ) {
        let isIncrement = request.mode != UInt8(ascii: "D")
        switch outcome {
        case .value(let value, let version, let expiry):
            counters.commands.add(isIncrement ? .incrHits : .decrHits)
            answerCounter(
                value, version, expiry, request, key: key, hash(request, key), opaque: opaque, isNew: isNew, &output)
        case .notFound:
            counters.commands.add(isIncrement ? .incrMisses : .decrMisses)
            answerCode("NF", request, key: key, opaque: opaque, &output)
        case .versionMismatch: answerCode("EX", request, key: key, opaque: opaque, &output)
        case .notNumeric: refuse(.nonNumeric, request, &output)
        case .outOfMemory: refuse(.outOfMemory, request, &output)
        }
    }

    private func answerCode(
        _ code: StaticString, _ request: Request, key: Span<UInt8>, opaque: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        output.append(code)
        Self.appendIdentity(request, key, opaque: opaque, &output)
        output.append("\r\n")
    }

    /// The reply about a number, and the expiry that T or N give its item.
    private func answerCounter(
        _ value: UInt64, _ version: UInt64, _ expiry: UInt32, _ request: Request, key: Span<UInt8>, _ hash: UInt64,
        opaque: Span<UInt8>, isNew: Bool, _ output: inout OutputBuffer
    ) {
        let start = output.count
        let withValue = request.options.contains(.value)
        if withValue { output.appendMetaValue(length: decimalLength(value)) } else { output.append("HD") }
        var shown = expiry
        var steps = request.steps
        walk: while true {
            switch steps.next() {
            case .end: break walk
            case .cas: output.appendMetaFlag(UInt8(ascii: "c"), version)
            case .ttl: output.appendMetaTTL(shown == 0 ? nil : shown &- now)
            case .setTTL: shown = node.clock.expiry(request.exptime, now: now)
            case .vivify where isNew: shown = node.clock.expiry(Int64(request.vivifyTTL), now: now)
            case .opaque:
                output.append(UInt8(ascii: " "))
                output.append(opaque)
            case .key: output.appendMetaKey(key, isBinary: request.options.contains(.base64Key))
            default: break
            }
        }
        output.append("\r\n")
        if withValue {
            output.append(decimal: value)
            output.append("\r\n")
        }
        if shown != expiry, storagePool(key) == nil {
            let now = self.now
            engine.withShard(hash) { shard in
                guard let item = shard.find(hash, key, now: now) else { return }
                _ = shard.setExpiry(shown, of: item, hash, key: key, now: now)
            }
        }
        if request.isQuiet { output.truncate(to: start, externalCount: output.externals.count) }
    }
}

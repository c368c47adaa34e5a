// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import MemcacheProtocol
internal import Platform

extension NativeWorker {
    /// Starts iterations of a looping user, as many as its executor and its pipeline allow.
    mutating func fill(_ user: Int, _ now: UInt64) {
        let scenario = users[user].scenario
        guard users[user].state == .open, !users[user].isDone else { return }
        if start == 0 || !scenarios[scenario].preload.isEmpty { return preload(user) }
        let begin = start + scenarios[scenario].scenario.startTime
        guard scenarios[scenario].isStarted, !scenarios[scenario].isOpenLoop, users[user].askAt == 0 else { return }
        guard now < control.stopTime else {
            users[user].isDone = true
            return
        }
        // Half a pipeline at a time: requests that go out one by one cost a system call each, on both sides.
        guard users[user].ring.count <= scenarios[scenario].pipeline / 2 else { return }
        while users[user].ring.count < scenarios[scenario].pipeline {
            switch scenarios[scenario].share.claim(users[user].index, now: now - begin) {
            case .start(_, let number): startIteration(user, scenario, intended: now, number: number)
            case .wait(let until):
                users[user].askAt = begin + until
                return
            case .finished:
                users[user].isDone = true
                return
            }
        }
    }

    private mutating func preload(_ user: Int) {
        let scenario = users[user].scenario
        while users[user].ring.count < users[user].ring.capacity, let key = scenarios[scenario].preload.first {
            scenarios[scenario].preload = key + 1..<scenarios[scenario].preload.upperBound
            store(key, user, scenario)
        }
    }

    /// Stores keys again that the server refused, one by each connection that has nothing to do.
    mutating func preloadAgain(_ index: Int) {
        for user in scenarios[index].users.prefix(scenarios[index].made)
        where users[user].state == .open && users[user].ring.count == 0 {
            guard let key = scenarios[index].refused.popLast() else { return }
            store(key, user, index)
        }
    }

    private mutating func store(_ key: UInt64, _ user: Int, _ scenario: Int) {
        var request = PendingRequest()
        request.key = key
        request.operation = .set
        request.expiry = scenarios[scenario].generator.nextExpiry()
        push(user, scenario, &request)
    }

    /// Starts the arrivals that are due.
    mutating func startArrivals(_ index: Int, _ now: UInt64) {
        guard scenarios[index].nextArrival != nil else { return }
        let begin = start + scenarios[index].scenario.startTime
        guard now < control.stopTime else {
            scenarios[index].nextArrival = nil
            return
        }
        for _ in 0..<Self.arrivalsPerTurn {
            guard let user = freeUser(index) else { return findNobody(index, now - begin, now) }
            var isUsed = false
            switch scenarios[index].share.claimArrival(now: now - begin) {
            case .start(let intended, let number):
                let isDropped = scenarios[index].share.isDropped(
                    intended: intended, freeSince: scenarios[index].fullUntil)
                if isDropped {
                    drop(index, 1)
                } else {
                    startIteration(user, index, intended: begin + intended, number: number)
                    isUsed = true
                }
            case .wait(let until):
                scenarios[index].nextArrival = until
                offer(user, now)
                return
            case .finished:
                scenarios[index].nextArrival = nil
                offer(user, now)
                return
            }
            if !isUsed || users[user].ring.count < scenarios[index].pipeline { offer(user, now) }
        }
        scenarios[index].nextArrival = 0
    }

    /// No user of the thread is free for an arrival.
    private mutating func findNobody(_ index: Int, _ offset: UInt64, _ now: UInt64) {
        scenarios[index].isFull = true
        guard scenarios[index].progress.nextArrival != .max else {
            scenarios[index].nextArrival = nil
            return
        }
        let limit = scenarios[index].scenario.plan.maximumUsers
        if scenarios[index].made < scenarios[index].users.count,
            scenarios[index].progress.makeUserForLateArrival(now: offset, limit: limit)
        {
            makeAnotherUser(index, now)
        }
        drop(index, scenarios[index].share.dropLateArrivals(now: offset))
        // An answer, not a time, lets things go on.
        scenarios[index].nextArrival = offset + 1_000_000
    }

    mutating func drop(_ index: Int, _ count: UInt64) {
        guard count > 0 else { return }
        for place in scenarios[index].places.dropped { sinks[place].add(count: count) }
        note(index, setup.builtIn.droppedIterations, Double(count), Clock.monotonicNanoseconds())
        scenarios[index].progress.count(dropped: count)
    }

    private mutating func freeUser(_ index: Int) -> Int? {
        while let user = scenarios[index].popFree() {
            users[user].isQueued = false
            if users[user].state == .open, users[user].ring.count < scenarios[index].pipeline { return user }
        }
        return nil
    }

    private mutating func startIteration(_ user: Int, _ scenario: Int, intended: UInt64, number: UInt64) {
        var request = draw(scenario, intended: intended, number: number)
        push(user, scenario, &request)
    }

    /// The first request of the iteration of that number.
    mutating func draw(_ scenario: Int, intended: UInt64, number: UInt64) -> PendingRequest {
        var request = PendingRequest()
        request.intended = intended
        if let trace = scenarios[scenario].trace {
            let row = trace[Int(number % UInt64(trace.count))]
            request.operation = row.operation
            request.key = row.key
            request.length = row.length
            request.expiry = scenarios[scenario].generator.nextExpiry()
        } else {
            let draw = scenarios[scenario].generator.next()
            request.operation = draw.operation
            request.key = draw.key
            request.expiry = draw.expiry
        }
        request.isCounter = request.operation == .incr || request.operation == .decr
        return request
    }

    /// Writes a request and puts it among those under way.
    mutating func push(_ user: Int, _ scenario: Int, _ request: inout PendingRequest) {
        writeKey(scenario, request.key, isCounter: request.isCounter)
        if scenarios[scenario].verifies {
            let (key, ledger) = (stableHash(keyText.span), scenarios[scenario].ledger)
            if request.writes {
                let entry = ledger.send(key, at: Clock.monotonicNanoseconds())
                (request.version, request.superseded) = (entry.version, entry.supersedes)
            } else {
                request.superseded = ledger.superseded(key)
            }
        }
        write(user, scenario, request)
        if !request.isSecond { scenarios[scenario].underWay += 1 }
        users[user].ring.push(request)
        markDirty(user)
    }

    mutating func writeKey(_ scenario: Int, _ key: UInt64, isCounter: Bool = false) {
        if scenarios[scenario].trace != nil, let trace = setup.traces[scenario] {
            keyText = trace.keys[Int(key)]
        } else {
            scenarios[scenario].generator.writeKey(key, isCounter: isCounter, into: &keyText)
        }
    }

    /// Writes a request whose key is in ``keyText``.
    private mutating func write(_ user: Int, _ scenario: Int, _ request: PendingRequest) {
        if request.operation == .cas, !request.isSecond {
            if scenarios[scenario].isMeta { return users[user].output.appendMeta(.gets, keyText, expiry: 0) }
            return users[user].output.appendGet("gets ", keyText)
        }
        if request.operation.storesValue { return writeStore(user, scenario, request) }
        let expiry = wireExpiry(request.expiry)
        if scenarios[scenario].isMeta {
            if request.operation == .mget { return writeMetaGets(user, scenario, request) }
            return users[user].output.appendMeta(request.operation, keyText, expiry: expiry)
        }
        switch request.operation {
        case .get: users[user].output.appendGet("get ", keyText)
        case .gets: users[user].output.appendGet("gets ", keyText)
        case .delete: users[user].output.appendDelete(key: keyText.span)
        case .incr: users[user].output.appendArithmetic("incr ", key: keyText.span, delta: 1)
        case .decr: users[user].output.appendArithmetic("decr ", key: keyText.span, delta: 1)
        case .touch: users[user].output.appendTouch(key: keyText.span, expiry: expiry)
        case .gat: users[user].output.appendGetAndTouch("gat ", key: keyText.span, expiry: expiry)
        case .mget:
            let verifies = scenarios[scenario].verifies
            users[user].output.appendKeyLine("get ", key: keyText.span)
            if verifies { users[user].askedKeys.append(stableHash(keyText.span), request.superseded) }
            for _ in 1..<max(1, scenarios[scenario].workload.keysPerGet) {
                let other = scenarios[scenario].generator.nextKey()
                writeKey(scenario, other)
                users[user].output.appendAnotherKey(keyText.span)
                guard verifies else { continue }
                let hash = stableHash(keyText.span)
                users[user].askedKeys.append(hash, scenarios[scenario].ledger.superseded(hash))
            }
            users[user].output.appendLineEnd()
        case .set, .add, .replace, .append, .prepend, .cas, .meta, .version, .flush: break
        }
    }

    /// Gets of several keys that are quiet about misses, and what ends their answer.
    private mutating func writeMetaGets(_ user: Int, _ scenario: Int, _ request: PendingRequest) {
        let verifies = scenarios[scenario].verifies
        var superseded = request.superseded
        for index in 0..<scenarios[scenario].keysPerGet {
            if index > 0 {
                let other = scenarios[scenario].generator.nextKey()
                writeKey(scenario, other)
                if verifies { superseded = scenarios[scenario].ledger.superseded(stableHash(keyText.span)) }
            }
            users[user].output.append("mg ")
            users[user].output.append(keyText.span)
            users[user].output.append(verifies ? " v q k\r\n" : " v q\r\n")
            if verifies { users[user].askedKeys.append(stableHash(keyText.span), superseded) }
        }
        users[user].output.append("mn\r\n")
    }

    private mutating func writeStore(_ user: Int, _ scenario: Int, _ request: PendingRequest) {
        var length = request.isCounter ? 1 : Int(request.length)
        if length < 0 { length = scenarios[scenario].generator.valueLength(request.key) }
        let isStamped = scenarios[scenario].verifies && !request.isCounter
        if isStamped { length = max(length, ValueStamp.length) }
        let expiry = wireExpiry(request.expiry)
        if scenarios[scenario].isMeta, request.operation == .cas {
            users[user].output.appendMetaSwap(keyText, length: length, expiry: expiry, cas: request.cas)
        } else if scenarios[scenario].isMeta {
            let mode: StaticString =
                switch request.operation {
                case .add: " ME"
                case .replace: " MR"
                case .append: " MA"
                case .prepend: " MP"
                default: ""
                }
            users[user].output.appendMetaStoreLine(key: keyText.span, length: length, expiry: expiry, mode: mode)
        } else {
            let verb: StoreVerb =
                switch request.operation {
                case .add: .add
                case .replace: .replace
                case .append: .append
                case .prepend: .prepend
                case .cas: .cas
                default: .set
                }
            users[user].output.appendStoreLine(
                verb, key: keyText.span, clientFlags: 0, expiry: expiry, length: length, cas: request.cas)
        }
        if isStamped {
            let stamp = ValueStamp(
                keyHash: stableHash(keyText.span), writer: scenarios[scenario].ledger.writer, version: request.version)
            stamp.append(to: &users[user].output, count: length)
            users[user].output.appendLineEnd()
        } else {
            users[user].output.appendFiller(filler, length, isDigit: request.isCounter)
        }
    }

    /// A time to live as it is sent: more than 30 days are a time of the Unix epoch.
    private func wireExpiry(_ seconds: Int64) -> Int64 { seconds > 2_592_000 ? epochSeconds + seconds : seconds }
}

extension OutputBuffer {
    /// A get of one key.
    mutating func appendGet(_ verb: StaticString, _ key: [UInt8]) {
        appendKeyLine(verb, key: key.span)
        appendLineEnd()
    }

    /// A meta command without a value; `expiry` is that of those that touch.
    mutating func appendMeta(_ operation: LoadModel.Operation, _ key: [UInt8], expiry: Int64) {
        switch operation {
        case .delete: append("md ")
        case .incr, .decr: append("ma ")
        default: append("mg ")
        }
        append(key.span)
        switch operation {
        case .delete: break
        case .decr: append(" MD v")
        case .gets: append(" v c")
        case .gat: append(" v T")
        case .touch: append(" T")
        default: append(" v")
        }
        if operation == .gat || operation == .touch { append(decimal: expiry) }
        appendLineEnd()
    }

    /// The line of a meta set that wants that CAS value; the data block and a line end follow.
    mutating func appendMetaSwap(_ key: [UInt8], length: Int, expiry: Int64, cas: UInt64) {
        append("ms ")
        append(key.span)
        append(" ")
        append(decimal: UInt64(length))
        append(" C")
        append(decimal: cas)
        if expiry != 0 {
            append(" T")
            append(decimal: expiry)
        }
        appendLineEnd()
    }

    /// A value of no meaning, and the line end behind it.
    mutating func appendFiller(_ filler: [UInt8], _ length: Int, isDigit: Bool) {
        if isDigit {
            append(UInt8(ascii: "0"))
        } else {
            append(filler.span.extracting(0..<min(length, filler.count)))
            for _ in min(length, filler.count)..<max(length, min(length, filler.count)) { append(UInt8(ascii: "x")) }
        }
        appendLineEnd()
    }
}

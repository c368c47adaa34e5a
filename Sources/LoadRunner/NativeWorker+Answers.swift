// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import MemcacheProtocol
internal import Platform

/// A reply line, and of its value what must be known: read while the input is at hand, acted on afterwards.
struct ReplyEvent: BitwiseCopyable {
    var kind: ReplyKind
    /// Where in ``Replies/texts`` or ``Replies/stamps`` more of it is; -1 for nowhere.
    var detail: Int32 = -1
    var cas: UInt64 = 0
    /// Of a verified classic value: the hash of the key it came with.
    var keyHash: UInt64 = 0
}

/// The lines of one read.
struct Replies {
    var events: [ReplyEvent] = []
    /// What errors say.
    var texts: [String] = []
    /// Of verified values: their stamps that hold.
    var stamps: [ValueStamp] = []

    mutating func removeAll() {
        events.removeAll(keepingCapacity: true)
        texts.removeAll(keepingCapacity: true)
        stamps.removeAll(keepingCapacity: true)
    }

    /// Adds a line: of its value, what must be known.
    @inline(__always)
    mutating func append(_ unit: ReplyUnit, _ span: Span<UInt8>, verifies: Bool) {
        var event = ReplyEvent(kind: unit.kind, cas: unit.number)
        if unit.kind == .metaValue, unit.restStart < unit.textEnd { Self.readFlags(unit, span, &event) }
        if unit.kind.hasBlock {
            if verifies {
                if let stamp = ValueStamp.read(span.extracting(unit.lineEnd..<unit.lineEnd + unit.blockLength)) {
                    event.detail = Int32(stamps.count)
                    stamps.append(stamp)
                }
                if unit.kind == .value {
                    event.keyHash = stableHash(span.extracting(unit.keyStart..<unit.keyStart + unit.keyLength))
                }
            }
        } else if unit.kind.isError || unit.kind == .other {
            let text = [UInt8](copying: span.extracting(unit.start..<min(unit.textEnd, unit.start + 120)))
            event.detail = Int32(texts.count)
            texts.append(String(decoding: text, as: UTF8.self))
        }
        events.append(event)
    }

    /// Reads the CAS value (`c`) and the key (`k`) that a meta reply has.
    private static func readFlags(_ unit: ReplyUnit, _ span: Span<UInt8>, _ event: inout ReplyEvent) {
        var at = unit.restStart
        while at < unit.textEnd {
            var end = at
            while end < unit.textEnd, span[end] != UInt8(ascii: " ") { end += 1 }
            if span[at] == UInt8(ascii: "c") {
                for index in at + 1..<end where (48...57).contains(span[index]) {
                    event.cas = event.cas &* 10 &+ UInt64(span[index] - 48)
                }
            } else if span[at] == UInt8(ascii: "k") {
                event.keyHash = stableHash(span.extracting(at + 1..<end))
            }
            at = end + 1
        }
    }

    func text(_ event: ReplyEvent) -> String {
        event.detail >= 0 && !event.kind.hasBlock ? texts[Int(event.detail)] : ""
    }
}

extension NativeWorker {
    /// Takes apart what arrived and acts on it. False when the connection is gone.
    mutating func answer(_ user: Int, _ now: UInt64) -> Bool {
        let verifies = scenarios[users[user].scenario].verifies
        // Taken out meanwhile, so that it is nobody else's.
        var replies = Replies()
        swap(&replies, &self.replies)
        defer {
            replies.removeAll()
            swap(&replies, &self.replies)
        }
        let (taken, needed, defect) = readReplies(users[user].input) { unit, span in
            replies.append(unit, span, verifies: verifies)
        }
        users[user].input.consume(taken)
        users[user].needed = needed
        for event in replies.events {
            guard users[user].ring.count > 0 else {
                let text = replies.text(event)
                fail(user, "an answer without a request: \(text.isEmpty ? "\(event.kind)" : text)")
                return false
            }
            guard act(event, replies, user, now) else { return false }
        }
        if let defect {
            fail(user, "not memcached's protocol: \(defect)")
            return false
        }
        fill(user, now)
        return true
    }

    /// Acts on one line; false when the connection is gone.
    private mutating func act(
        _ event: ReplyEvent, _ replies: borrowing Replies, _ user: Int, _ now: UInt64
    ) -> Bool {
        let scenario = users[user].scenario
        let request = users[user].ring.first
        if event.kind.isError {
            let text = replies.text(event)
            warnings.count("\(request.operation.name): \(text)")
            // Of several keys in the meta protocol each may be refused; what ends the answer comes behind them.
            if request.operation == .mget, scenarios[scenario].isMeta,
                Int(request.errors) < scenarios[scenario].keysPerGet
            {
                users[user].ring.first.errors &+= 1
                users[user].ring.first.isShed = request.isShed || Self.isShed(event.kind, text)
                return true
            }
            finish(user, scenario, Self.isShed(event.kind, text) ? .shed : .error, now)
            return true
        }
        if event.kind.hasBlock, scenarios[scenario].verifies {
            verify(event, event.detail < 0 ? nil : replies.stamps[Int(event.detail)], request, user, scenario)
        }
        let isOneOfSeveral =
            event.kind == .metaValue && request.operation == .mget && scenarios[scenario].isMeta
        if event.kind == .value || isOneOfSeveral {
            guard request.operation.reads, !request.isSecond else {
                return confused(event, replies.text(event), user, request)
            }
            users[user].ring.first.values &+= 1
            users[user].ring.first.cas = event.cas
            return true
        }
        if event.kind == .metaValue { users[user].ring.first.cas = event.cas }
        guard let outcome = Self.outcome(event.kind, request) else {
            return confused(event, replies.text(event), user, request)
        }
        finish(user, scenario, outcome, now)
        return true
    }

    private mutating func confused(
        _ event: ReplyEvent, _ text: String, _ user: Int, _ request: PendingRequest
    ) -> Bool {
        let words = text.isEmpty ? "\(event.kind)" : "'\(text)'"
        fail(user, "nonsense: \(words) in answer to \(request.operation.name)")
        return false
    }

    /// Whether the server says that it has too much to do.
    static func isShed(_ kind: ReplyKind, _ text: String) -> Bool {
        kind == .serverError && (text.contains("busy") || text.contains("overload"))
    }

    /// What a line that ends a request's answer means; nil when it cannot be an answer to it.
    static func outcome(_ kind: ReplyKind, _ request: PendingRequest) -> Outcome? {
        let operation = request.operation
        let isRead = operation.reads && !request.isSecond
        switch kind {
        case .end: return isRead ? request.values > 0 ? .hit : .miss : nil
        case .metaValue: return isRead ? .hit : operation == .incr || operation == .decr ? .number : nil
        case .metaMiss: return operation == .mget ? nil : isRead ? .miss : operation == .touch ? .notFound : nil
        case .metaDone:
            return operation == .delete
                ? .deleted : operation == .touch ? .touched : operation.storesValue ? .stored : nil
        case .metaNoop:
            guard operation == .mget else { return nil }
            if request.errors > 0 { return request.isShed ? .shed : .error }
            return request.values > 0 ? .hit : .miss
        case .stored: return operation.storesValue ? .stored : nil
        case .notStored, .metaNotStored: return operation.storesValue ? .notStored : nil
        case .exists, .metaExists: return operation == .cas ? .exists : nil
        case .notFound, .metaNotFound: return isRead || (operation.storesValue && operation != .cas) ? nil : .notFound
        case .deleted: return operation == .delete ? .deleted : nil
        case .touched: return operation == .touch ? .touched : nil
        case .number: return operation == .incr || operation == .decr ? .number : nil
        default: return nil
        }
    }

    /// The head request is answered: counts it, and goes on with its iteration or ends it.
    private mutating func finish(_ user: Int, _ scenario: Int, _ outcome: Outcome, _ now: UInt64) {
        let request = users[user].ring.pop()
        if scenarios[scenario].verifies {
            if request.writes { note(outcome, of: request, scenario, now) }
            if request.operation == .mget { users[user].askedKeys.removeFirst(scenarios[scenario].keysPerGet) }
        }
        guard start != 0 else {
            scenarios[scenario].underWay -= 1
            if outcome == .shed { scenarios[scenario].refused.append(request.key) }
            return
        }
        record(scenario, request, outcome, now)
        if !request.isSecond, let second = second(request, outcome, scenario, now) {
            var second = second
            push(user, scenario, &second)
            return
        }
        finishIteration(scenario, request, now)
        if scenarios[scenario].isOpenLoop { offer(user, now) }
    }

    /// What follows from an answer: the cas after a gets, and what fills a miss.
    private func second(
        _ request: PendingRequest, _ outcome: Outcome, _ scenario: Int, _ now: UInt64
    ) -> PendingRequest? {
        var next = request
        (next.isSecond, next.intended, next.sent, next.values) = (true, now, 0, 0)
        if request.operation == .cas, outcome == .hit { return next }
        guard scenarios[scenario].fillsMisses else { return nil }
        if outcome == .miss {
            if request.operation == .mget { return nil }
            next.operation = .set
            return next
        }
        if outcome == .notFound, request.operation == .incr || request.operation == .decr {
            next.operation = .add
            return next
        }
        return nil
    }

    mutating func finishIteration(_ scenario: Int, _ request: PendingRequest, _ now: UInt64) {
        scenarios[scenario].underWay -= 1
        guard start != 0 else { return }
        scenarios[scenario].complete &+= 1
        let took = now - min(now, request.iterationSent == 0 ? now : request.iterationSent)
        scenarios[scenario].counted.addIteration(nanoseconds: took)
        guard log.isOn else { return }
        note(scenario, setup.builtIn.iterationDuration, Double(took) / 1e6, now)
        note(scenario, setup.builtIn.iterations, 1, now)
    }

    mutating func record(_ scenario: Int, _ request: PendingRequest, _ outcome: Outcome, _ now: UInt64) {
        guard start != 0 else { return }
        let (intended, sent) = (request.intended, request.sent)
        scenarios[scenario].counted.add(request.operation, outcome, intended: intended, sent: sent, now: now)
        guard log.isOn else { return }
        let service = request.sent == 0 ? .nan : Double(now - min(now, request.sent)) / 1e6
        let took = Double(now - min(now, request.intended)) / 1e6
        let tags = tagNumber(scenario)
        log.addRequest(request.operation, outcome, tags: tags, took: took, service: service, at: now)
    }

    private mutating func tagNumber(_ scenario: Int) -> Int32 {
        if scenarios[scenario].tagBatch != log.generation {
            scenarios[scenario].tagNumber = log.number(scenarios[scenario].tags)
            scenarios[scenario].tagBatch = log.generation
        }
        return scenarios[scenario].tagNumber
    }

    /// Takes a sample for outputs that have each of them.
    mutating func note(_ scenario: Int, _ metric: Int, _ value: Double, _ now: UInt64) {
        guard log.isOn else { return }
        let tags = tagNumber(scenario)
        log.add(metric, value, tags: tags, at: now)
    }

    /// Tells them what was sent and received since the last time, and passes on what waits.
    mutating func logBytes() {
        guard log.isOn else { return }
        let now = Clock.monotonicNanoseconds()
        for index in scenarios.indices {
            let (sent, received) = (scenarios[index].counted.bytesSent, scenarios[index].counted.bytesReceived)
            let before = scenarios[index].loggedBytes
            scenarios[index].loggedBytes = (sent, received)
            note(index, setup.builtIn.dataSent, Double(sent - before.sent), now)
            note(index, setup.builtIn.dataReceived, Double(received - before.received), now)
        }
        log.flush()
    }

    // MARK: Verification

    private mutating func note(_ outcome: Outcome, of request: PendingRequest, _ scenario: Int, _ now: UInt64) {
        writeKey(scenario, request.key, isCounter: request.isCounter)
        let (key, ledger) = (stableHash(keyText.span), scenarios[scenario].ledger)
        switch outcome {
        case .stored, .deleted:
            ledger.acknowledge(key, version: request.version, supersedes: request.superseded, at: now)
        case .notStored, .exists, .notFound: ledger.settle(key, version: request.version, at: now)
        default: break
        }
    }

    /// What is wrong with a value that was read, and of which key; nil when nothing is.
    private mutating func fault(
        _ event: ReplyEvent, _ stamp: ValueStamp?, _ request: PendingRequest, _ user: Int, _ scenario: Int
    ) -> (fault: ValueStamp.Fault, key: UInt64)? {
        let expected: UInt64
        var superseded = request.superseded
        if request.operation == .mget {
            expected = event.keyHash
            let count = scenarios[scenario].keysPerGet
            guard let versions = users[user].askedKeys.superseded(expected, first: count) else {
                return (.wrongKey, expected)
            }
            superseded = versions
        } else {
            writeKey(scenario, request.key, isCounter: request.isCounter)
            expected = stableHash(keyText.span)
            // A meta value comes without its key.
            if event.kind == .value, event.keyHash != expected { return (.wrongKey, expected) }
        }
        guard let stamp else { return (.torn, expected) }
        if stamp.keyHash != expected { return (.wrongKey, expected) }
        let isOwn = stamp.writer == scenarios[scenario].ledger.writer
        return isOwn && superseded.contains(stamp.version) ? (.stale, expected) : nil
    }

    private mutating func verify(
        _ event: ReplyEvent, _ stamp: ValueStamp?, _ request: PendingRequest, _ user: Int, _ scenario: Int
    ) {
        guard request.operation.reads, !request.isSecond,
            let (fault, key) = fault(event, stamp, request, user, scenario)
        else { return }
        for place in scenarios[scenario].places.wrongValues { sinks[place].add(1) }
        let now = Clock.monotonicNanoseconds()
        note(scenario, setup.builtIn.wrongValues, 1, now)
        // Each message is another one: beyond so many they are counted only.
        guard shownFaults < Self.shownFaultLimit else {
            return warnings.count("\(fault.rawValue) values, beyond those that are shown")
        }
        shownFaults += 1
        // Of several keys, which one it is says its hash only.
        let several = request.operation == .mget
        let name = several ? "one of \(scenarios[scenario].keysPerGet) keys" : shownKey(scenario, request)
        let version = stamp.map { stamp in
            "version \(stamp.version) of "
                + (stamp.writer == scenarios[scenario].ledger.writer ? "this run" : "writer \(stamp.writer)")
        }
        let seen = NumberText.fixed(Double(now - min(now, start)) / 1e6, 3)
        warnings.count(
            "\(fault.rawValue) value of \(name): \(version ?? "no stamp that holds") at \(seen) ms; "
                + scenarios[scenario].ledger.history(key, since: start))
    }

    private mutating func shownKey(_ scenario: Int, _ request: PendingRequest) -> String {
        writeKey(scenario, request.key, isCounter: request.isCounter)
        return "'\(String(decoding: keyText, as: UTF8.self))'"
    }
}

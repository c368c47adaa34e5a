// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import MemcacheProtocol
internal import Platform
internal import Reactor
internal import ScriptEngine

/// A reply line, and where what a script gets of it is in ``ScriptWorker/answers``.
struct ScriptReply {
    var kind: ReplyKind
    var number: UInt64
    /// The key, or the text behind the kind.
    var text = 0..<0
    var value = 0..<0
    /// Of a value: its key's.
    var keyHash: UInt64 = 0
}

extension ScriptRequest {
    /// Whether a value of the key with that hash may be an answer. They mostly come in the order they were asked for.
    fileprivate func asksFor(_ hash: UInt64) -> Bool {
        more.isEmpty ? hash == keyHash : (values < more.count && more[values] == hash) || more.contains(hash)
    }
}

extension ScriptReply {
    /// Takes what is needed of a line, and appends it to `bytes`, with a zero behind each part.
    init(_ unit: ReplyUnit, _ span: Span<UInt8>, _ bytes: inout [UInt8]) {
        func keep(_ range: Range<Int>) -> Range<Int> {
            let start = bytes.count
            bytes.append(copying: span.extracting(range))
            bytes.append(0)
            return start..<bytes.count - 1
        }
        (kind, number) = (unit.kind, unit.number)
        if unit.kind.hasBlock { value = keep(unit.lineEnd..<unit.lineEnd + unit.blockLength) }
        if unit.kind == .value {
            let key = unit.keyStart..<unit.keyStart + unit.keyLength
            keyHash = stableHash(span.extracting(key))
            text = keep(key)
        } else {
            let start = unit.kind.isError || unit.kind == .other ? unit.start : unit.restStart
            let end = min(unit.textEnd, start + ScriptWorker.textLimitBytes)
            if start < end { text = keep(start..<end) }
        }
    }
}

extension ScriptWorker {
    /// Of a line that is shown or told, at most.
    static let textLimitBytes = 200

    private func keep(_ bytes: [UInt8]) -> Range<Int> {
        let start = answers.count
        answers += bytes
        answers.append(0)
        return start..<answers.count - 1
    }

    private func text(_ range: Range<Int>) -> String { String(decoding: answers[range], as: UTF8.self) }

    func takeEvents(_ count: Int) {
        for event in 0..<count {
            let index = Int(truncatingIfNeeded: poller.user(event))
            let (readiness, connection) = (poller.readiness(event), connections[index])
            guard connection.stream != nil else { continue }
            if !connection.isOpen {
                if let error = connection.stream?.connectFailure() {
                    fail(connection, "connect: \(error.reason)")
                    continue
                }
                guard secure(connection) else { continue }
                connection.isOpen = true
                let now = Clock.monotonicNanoseconds()
                let took = Double(now - connection.connectBegan) / 1e6
                note(connection.user, setup.builtIn.connecting, took, now)
                for place in places[placeNumber(connection.user)].places.connecting { sinks[place].add(took) }
                flush(connection)
            } else if readiness.contains(.output) {
                flush(connection)
            }
            if !readiness.isDisjoint(with: [.input, .error, .hangup]) { receive(connection) }
        }
        deliver()
    }

    /// Goes on with a connection's handshake; whether it is over.
    private func secure(_ connection: ScriptConnection) -> Bool {
        guard let fd = connection.stream?.fd else { return false }
        switch connection.stream?.secure() ?? .ready {
        case .ready: return true
        case .needsInput:
            connection.watchesOutput = false
            poller.change(fd, .input, user: UInt64(connection.place))
        case .needsOutput:
            connection.watchesOutput = true
            poller.change(fd, [.input, .output], user: UInt64(connection.place))
        case .failed(let reason): fail(connection, "TLS: \(reason)")
        }
        return false
    }

    /// Sends what was asked for. Returns whether iterations ended over it.
    @discardableResult
    func flushDirty() -> Bool {
        guard !dirty.isEmpty else { return false }
        let all = dirty
        dirty.removeAll(keepingCapacity: true)
        for index in all {
            let connection = connections[index]
            connection.isDirty = false
            if connection.stream == nil, !connection.pending.isEmpty {
                let server = clients[connection.client].servers[connection.server]
                fail(connection, "connect: \(server.address.host) is not there")
            } else if connection.isOpen {
                flush(connection)
            }
        }
        return deliver()
    }

    private func flush(_ connection: ScriptConnection) {
        let now = Clock.monotonicNanoseconds()
        var index = connection.pending.count - 1
        while index >= connection.head, connection.pending[index].sent == 0 {
            connection.pending[index].sent = now
            index -= 1
        }
        while connection.written < connection.output.count {
            guard let sent = connection.send() else { return fail(connection, "the connection broke") }
            if sent == 0 { break }
            connection.written += sent
            places[placeNumber(connection.user)].bytesSent &+= UInt64(sent)
            users[connection.user].bytesSent &+= sent
        }
        let isDone = connection.written == connection.output.count
        if isDone {
            connection.output.removeAll()
            connection.written = 0
        }
        guard connection.watchesOutput == isDone, let fd = connection.stream?.fd else { return }
        connection.watchesOutput = !isDone
        poller.change(fd, isDone ? .input : [.input, .output], user: UInt64(connection.place))
    }

    private func receive(_ connection: ScriptConnection) {
        repeat {
            switch connection.receive(max(16 << 10, connection.needed - connection.input.count)) {
            case .bytes(let count):
                places[placeNumber(connection.user)].bytesReceived &+= UInt64(count)
                users[connection.user].bytesReceived &+= count
                answer(connection)
            case .nothing: return
            case .ended: fail(connection, "the server closed the connection")
            case .failed: fail(connection, "the connection broke")
            }
        } while connection.stream?.hasHiddenInput ?? false
    }

    private func answer(_ connection: ScriptConnection) {
        let now = Clock.monotonicNanoseconds()
        // Taken out meanwhile, so that they are nobody else's.
        var (lines, bytes): ([ScriptReply], [UInt8]) = ([], [])
        swap(&lines, &replies)
        swap(&bytes, &answers)
        let (taken, needed, defect) = readReplies(connection.input) { unit, span in
            lines.append(ScriptReply(unit, span, &bytes))
        }
        swap(&bytes, &answers)
        connection.input.consume(taken)
        connection.needed = needed
        let isWhole = lines.allSatisfy { act($0, connection, now) }
        lines.removeAll(keepingCapacity: true)
        swap(&lines, &replies)
        guard isWhole else { return }
        if let defect { return fail(connection, "not memcached's protocol: \(defect)") }
        connection.keepValue(of: answers)
    }

    /// Acts on one line; false when the connection is gone.
    private func act(_ reply: ScriptReply, _ connection: ScriptConnection, _ now: UInt64) -> Bool {
        guard connection.head < connection.pending.count else {
            fail(connection, "an answer without a request: \(reply.kind)")
            return false
        }
        let operation = connection.pending[connection.head].operation
        if reply.kind.isError {
            let text = text(reply.text)
            let isShed = NativeWorker.isShed(reply.kind, text)
            let answer = ScriptAnswer(.error, [.string("\(operation.name): \(text)")])
            finish(connection, isShed ? .shed : .error, now, answer)
            return true
        }
        if operation == .meta { return actOnMeta(reply, connection, now) }
        if reply.kind == .value {
            guard operation.reads, operation != .cas else { return confused(reply, connection, operation) }
            guard connection.pending[connection.head].asksFor(reply.keyHash) else {
                return mistaken(text(reply.text), connection, operation)
            }
            connection.pending[connection.head].values += 1
            if operation == .mget {
                let request = connection.pending[connection.head]
                let part = ScriptAnswer(.part, [.text(Array(answers[reply.text])), .text(Array(answers[reply.value]))])
                settle(ScriptSettlement(request: request, answer: part, isLast: false))
            } else {
                connection.pending[connection.head].value = reply.value
                connection.pending[connection.head].cas = reply.number
            }
            return true
        }
        guard let (outcome, answer) = outcome(reply, connection.pending[connection.head]) else {
            return confused(reply, connection, operation)
        }
        finish(connection, outcome, now, answer)
        return true
    }

    /// What a line that ends a request's answer means, and what the script is told; nil when it cannot be an answer.
    private func outcome(_ reply: ScriptReply, _ request: ScriptRequest) -> (Outcome, ScriptAnswer)? {
        let operation = request.operation
        func truth(_ truth: Bool) -> ScriptAnswer { ScriptAnswer(truth ? .yes : .no) }
        switch reply.kind {
        case .end:
            guard operation.reads, operation != .cas else { return nil }
            if operation == .mget { return (request.values > 0 ? .hit : .miss, ScriptAnswer(.endOfParts)) }
            guard let value = request.value ?? request.kept.map({ keep($0) }) else {
                return (.miss, ScriptAnswer(.nothing))
            }
            let version: [ScriptValue] = operation == .gets ? [.big(request.cas)] : []
            let kind = operation == .gets ? ScriptAnswer.Kind.versioned : request.wantsBytes ? .bytes : .text
            return (.hit, ScriptAnswer(kind, slice: request.wantsBytes ? .bytes(value) : .text(value), version))
        case .stored:
            guard operation.storesValue else { return nil }
            return (.stored, operation == .cas ? ScriptAnswer(.word, [.string("stored")]) : truth(true))
        case .notStored: return operation.storesValue ? (.notStored, truth(false)) : nil
        case .exists: return operation == .cas ? (.exists, ScriptAnswer(.word, [.string("exists")])) : nil
        case .notFound:
            switch operation {
            case .cas: return (.notFound, ScriptAnswer(.word, [.string("not_found")]))
            case .delete, .touch: return (.notFound, truth(false))
            case .incr, .decr: return (.notFound, ScriptAnswer(.nothing))
            default: return nil
            }
        case .deleted: return operation == .delete ? (.deleted, truth(true)) : nil
        case .touched: return operation == .touch ? (.touched, truth(true)) : nil
        case .number:
            guard operation == .incr || operation == .decr else { return nil }
            return (.number, ScriptAnswer(.number, [.big(reply.number)]))
        case .version:
            guard operation == .version else { return nil }
            return (.stored, ScriptAnswer(.word, [.text(Array(answers[reply.text]))]))
        case .ok: return operation == .flush ? (.stored, truth(true)) : nil
        default: return nil
        }
    }

    private func actOnMeta(_ reply: ScriptReply, _ connection: ScriptConnection, _ now: UInt64) -> Bool {
        let outcome: Outcome
        let word: String
        switch reply.kind {
        case .metaValue: (outcome, word) = (.hit, "VA")
        case .metaDone: (outcome, word) = (.stored, "HD")
        case .metaMiss: (outcome, word) = (.miss, "EN")
        case .metaNotStored: (outcome, word) = (.notStored, "NS")
        case .metaExists: (outcome, word) = (.exists, "EX")
        case .metaNotFound: (outcome, word) = (.notFound, "NF")
        case .metaNoop: (outcome, word) = (.stored, "MN")
        default: return confused(reply, connection, .meta)
        }
        var values: [ScriptValue] = [.string(word), .text(Array(answers[reply.text]))]
        if reply.kind == .metaValue { values.append(.text(Array(answers[reply.value]))) }
        finish(connection, outcome, now, ScriptAnswer(.meta, values))
        return true
    }

    private func confused(
        _ reply: ScriptReply, _ connection: ScriptConnection, _ operation: LoadModel.Operation
    ) -> Bool {
        let words = reply.kind == .other ? "'\(text(reply.text))'" : "\(reply.kind)"
        fail(connection, "nonsense: \(words) in answer to \(operation.name)")
        return false
    }

    /// The value of a key that was not asked for: the answers are another request's.
    private func mistaken(_ key: String, _ connection: ScriptConnection, _ operation: LoadModel.Operation) -> Bool {
        let user = connection.pending[connection.head].user
        for place in places[placeNumber(user)].places.wrongValues { sinks[place].add(1) }
        note(user, setup.builtIn.wrongValues, 1, Clock.monotonicNanoseconds())
        fail(connection, "the value of another key, '\(key)', in answer to \(operation.name)")
        return false
    }

    private func finish(_ connection: ScriptConnection, _ outcome: Outcome, _ now: UInt64, _ answer: ScriptAnswer) {
        let popped = connection.pop()
        if connection.release() { markDirty(connection) }
        guard let request = popped, !request.isAbandoned else { return }
        record(request, outcome, now: now)
        conclude(request, answer, isFailure: outcome.isFailure)
    }

    /// Tells the script what a request came to. Of one that went to several servers, the last answer is told, or the
    /// first failure.
    private func conclude(_ request: ScriptRequest, _ answer: ScriptAnswer, isFailure: Bool) {
        if let fan = request.fan {
            guard !fan.isOver else { return }
            fan.left -= 1
            guard fan.left == 0 || isFailure else { return }
            fan.isOver = true
        }
        settle(ScriptSettlement(request: request, answer: answer, isLast: true))
    }

    /// Abandons what a user that is interrupted has under way on a connection: requests that hang have failed.
    func giveUp(_ connection: ScriptConnection, _ user: Int, _ now: UInt64) {
        for index in connection.pending.indices.dropFirst(connection.head) {
            let request = connection.pending[index]
            guard request.user == user, !request.isAbandoned else { continue }
            connection.pending[index].isAbandoned = true
            if now - min(now, request.intended) >= NativeWorker.hangNanoseconds { record(request, .broken, now: now) }
        }
        for request in connection.takeWaiting(of: user)
        where now - min(now, request.intended) >= NativeWorker.hangNanoseconds {
            record(request, .broken, now: now)
        }
    }

    /// The connection is of no more use: its requests fail. The next request makes it again.
    private func fail(_ connection: ScriptConnection, _ reason: String) {
        if !connection.isOpen {
            for place in places[placeNumber(connection.user)].places.connectFailed { sinks[place].add(1) }
            note(connection.user, setup.builtIn.connectFailed, 1, Clock.monotonicNanoseconds())
        }
        warnings.count(reason)
        let failed = connection.pending[connection.head...] + connection.takeWaiting()
        connection.close()
        let now = Clock.monotonicNanoseconds()
        for request in failed where !request.isAbandoned {
            record(request, .broken, now: now)
            let answer = ScriptAnswer(.error, [.string("\(request.operation.name): \(reason)")])
            conclude(request, answer, isFailure: true)
        }
    }

    /// Fails connections whose oldest request waits for longer than its client does.
    func timeOut(_ now: UInt64) {
        for connection in connections where connection.head < connection.pending.count {
            let limit = clients[connection.client].timeout
            if now - min(now, connection.pending[connection.head].made) > limit {
                fail(connection, "no answer within \(NumberText.span(limit))")
            }
        }
        deliver()
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Platform
internal import Reactor
internal import Storage
internal import Telemetry

/// One who follows us, or is about to.
struct StreamSession {
    var id: ConnectionID
    var since: UInt64
    /// When it last said something, in monotonic nanoseconds.
    var lastInput: UInt64
    var hello: StreamHello?
    /// Carries the records; nil before the hello.
    var pump: FeedPump?
    /// The source's ticket that the welcome waits for: the consumer is ahead of what we know. Nil when it does not.
    var ticket: UInt64?
    /// Who follows by the same name, while it is not known whether that one is still there; nil where none does.
    var contest: NameContest?
    /// What answered probes covered, and when they were answered, oldest first, until the consumer says that the
    /// answers have come.
    var answered: [(number: UInt64, sequences: [Int64], sent: UInt64)] = []
    var sentBytes: UInt64 = 0
    /// Bytes that all of it took on the wire, frames and packing included.
    var wireBytes: UInt64 = 0
    var sentRecords: UInt64 = 0
    /// The region of one who only asks which region is home; nil for those who follow.
    var asker: String?

    /// Whether it came by a consumer's name.
    func isNamed(as other: StreamHello) -> Bool { hello?.name == other.name && hello?.region == other.region }

    /// Whether a consumer's name is its own: it follows, or waits for its ticket.
    func holds(nameOf other: StreamHello) -> Bool { contest == nil && isNamed(as: other) }
}

/// A consumer that came by the name of one who follows already: a node that comes again, whose connection we do not
/// know to be lost, or another one that was given the same name.
struct NameContest {
    /// When it came, or another one was let in by the name since, in monotonic nanoseconds.
    var since: UInt64
    /// Whether one of the name has shown that it is still there: it has had an answer that went out since.
    var isLost = false
}

/// Those who follow us.
extension StreamHandler {
    func sessionReceived(_ frame: StreamFrame, _ connection: inout Connection, _ output: inout OutputBuffer) {
        let slot = connection.slot
        sessions[slot]?.lastInput = reactor.nowNanoseconds
        if sessions[slot]?.hello == nil, answersAsker(frame, &connection, &output) { return }
        guard sessions[slot]?.pump != nil else {
            guard case .hello(let hello) = frame, sessions[slot]?.hello == nil else { return connection.closeNow() }
            return welcome(hello, &connection, &output)
        }
        switch frame {
        case .grant(let bytes) where sessions[slot]?.hello?.onlyLooks != true:
            sessions[slot]?.pump?.feed.grant(bytes)
        case .seek(let place, let sequence): sessions[slot]?.pump?.feed.seek(slot: place, after: sequence)
        case .probe(let number, let answered):
            guard let source = shared.source else { return }
            if let session = sessions[slot], let pump = session.pump, session.hello?.onlyLooks ?? false {
                // It has none of the records, and asks only whether we are there.
                let sent = pump.feed.sent
                return send(.complete(number, epoch: sent.epoch, sequences: sent.sequences), &output)
            }
            sessions[slot]?.pump?.probe(number, of: source)
            noteAnswered(answered, slot)
        case .sights(let number, let reports): return sighted(number, reports, slot)
        default: return connection.closeNow()
        }
        // Whoever asks does not wait for company.
        nextPump = 1
    }

    private func welcome(_ hello: StreamHello, _ connection: inout Connection, _ output: inout OutputBuffer) {
        if let reason = objection(hello, connection) { return refuse(reason, &connection, &output) }
        guard let source = shared.source else { return connection.closeNow() }
        sessions[connection.slot]?.hello = hello
        if hasNamesake(hello, connection.id) {
            sessions[connection.slot]?.contest = NameContest(since: reactor.nowNanoseconds)
        } else {
            admit(hello, source, &connection, &output)
        }
    }

    private func admit(
        _ hello: StreamHello, _ source: any ChangeSource, _ connection: inout Connection, _ output: inout OutputBuffer
    ) {
        sessions[connection.slot]?.contest = nil
        // The name is its own now: those who contend for it wait for what this one shows.
        for (slot, session) in sessions where session.isNamed(as: hello) {
            sessions[slot]?.contest?.since = reactor.nowNanoseconds
        }
        guard let last = source.position else { return connection.closeNow() }
        if let wanted = hello.position, wanted.isAhead(of: last) {
            // It comes from another node of our region, and we may be a little behind that one.
            sessions[connection.slot]?.ticket = source.beginProof()
            nextPump = 1
        } else {
            begin(hello, source, &connection, &output)
        }
    }

    private func refuse(_ reason: String, _ connection: inout Connection, _ output: inout OutputBuffer) {
        refused += 1
        // Until it is gone, nobody is to wait for it.
        sessions[connection.slot]?.hello = nil
        log("stream: a consumer is refused", reason, connection)
        send(.refused(reason), &output)
        connection.closeAfterFlush()
    }

    /// Whether another consumer has this name that has said something lately, or waits to be let in.
    private func hasNamesake(_ hello: StreamHello, _ own: ConnectionID) -> Bool {
        guard !hello.name.isEmpty else { return false }
        let now = reactor.nowNanoseconds
        return sessions.values.contains { session in
            session.id != own && session.holds(nameOf: hello)
                && (session.ticket != nil || now < session.lastInput &+ configuration.contestNanoseconds)
        }
    }

    /// Refuses those whose name is another's who is still there, and lets those in whose is not: of those who
    /// contend for one name, one.
    func settleContests(_ loop: inout ReactorLoop) {
        for slot in Array(sessions.keys) {
            guard let session = sessions[slot], let contest = session.contest, let hello = session.hello else {
                continue
            }
            let holders = sessions.values.filter { $0.holds(nameOf: hello) }
            // Who waits for its ticket is asked nothing yet, and can show nothing.
            let isOver =
                reactor.nowNanoseconds >= contest.since &+ configuration.contestNanoseconds
                && !holders.contains { $0.ticket != nil }
            guard contest.isLost || isOver || holders.isEmpty else { continue }
            loop.withConnection(session.id) { connection, output in
                if contest.isLost {
                    refuse(
                        "another node follows as \(hello.region)/\(hello.name); stream.name is each node's own",
                        &connection, &output)
                } else if let source = shared.source {
                    admit(hello, source, &connection, &output)
                } else {
                    connection.closeNow()
                }
            }
        }
    }

    private func begin(
        _ hello: StreamHello, _ source: any ChangeSource, _ connection: inout Connection, _ output: inout OutputBuffer
    ) {
        // The place first: what is committed in between is in the tail, and known to have been sent.
        let place = source.tail.end
        guard let last = source.position else { return connection.closeNow() }
        let succession = source.succession
        let feed = StreamFeed(
            configuration.stream, hello: hello, kept: source.keptSequences, last: last, succession: succession)
        let isSuccessor = hello.takesSuccession && hello.position?.epoch == succession?.previous
        send(.welcome(region: configuration.region, feed.sent, isSuccessor ? succession : nil), &output)
        sessions[connection.slot]?.ticket = nil
        sessions[connection.slot]?.pump = FeedPump(
            feed, place: place, tail: source.tail, valueMax: hello.wantsValues ? configuration.valueMax : nil)
        keep(feed.sent.sequences, for: hello)
        shared.log?.info(
            "stream: a consumer came",
            [
                "region": .text(hello.region), "name": .text(hello.name),
                "resumes": .text(hello.position == nil ? "no" : "yes"),
            ])
    }

    /// The consumer has the answer to its probe `number`, and all that came before it.
    private func noteAnswered(_ number: UInt64, _ slot: Int) {
        guard let session = sessions[slot], let hello = session.hello,
            let place = session.answered.lastIndex(where: { $0.number == number })
        else { return }
        keep(session.answered[place].sequences, for: hello)
        for (other, contender) in sessions {
            guard let contest = contender.contest, let name = contender.hello, session.holds(nameOf: name),
                session.answered[place].sent > contest.since
            else { continue }
            sessions[other]?.contest?.isLost = true
        }
        sessions[slot]?.answered.removeFirst(place + 1)
    }

    /// The consumer has everything up to these numbers, and what follows is kept for it. Whoever has no name only
    /// looks.
    private func keep(_ sequences: [Int64], for hello: StreamHello) {
        if hello.name.isEmpty || hello.onlyLooks { return }
        retention.note("\(hello.region)/\(hello.name)", sequences: sequences, at: reactor.nowNanoseconds)
    }

    /// Why there is no stream for a consumer; nil when there is.
    private func objection(_ hello: StreamHello, _ connection: borrowing Connection) -> String? {
        if let reason = stranger(hello, connection) { return reason }
        if let term = shared.keeper.withLock({ $0 })?.term, term.region != configuration.region {
            return "\(configuration.region) is not the home region: \(term.region) is, since promotion \(term.number)"
        }
        return shared.source?.position == nil ? "the store is not open" : nil
    }

    /// Why somebody is none of ours; nil when it is.
    func stranger(_ hello: StreamHello, _ connection: borrowing Connection) -> String? {
        if hello.version != StreamFrame.version {
            return "frames of version \(hello.version); this node speaks version \(StreamFrame.version)"
        }
        if hello.cluster != configuration.cluster {
            return "the cluster is \(configuration.cluster), not \(hello.cluster)"
        }
        if !configuration.regions.contains(hello.region) { return "no region is called \(hello.region)" }
        if configuration.security != nil {
            let name = connection.tlsPeerCommonName ?? ""
            if name != hello.region { return "the certificate is \(name)'s, not \(hello.region)'s" }
        }
        return nil
    }

    // MARK: Sending

    /// Sends every consumer what it may have.
    func pumpSessions(_ loop: inout ReactorLoop) {
        settleContests(&loop)
        guard let source = shared.source else { return }
        for (slot, session) in sessions where session.hello != nil && session.contest == nil {
            loop.withConnection(session.id) { connection, output in
                guard connection.pendingOutput == 0 else { return }
                if let ticket = session.ticket, let hello = session.hello, source.proof(ticket) != nil {
                    begin(hello, source, &connection, &output)
                } else if session.pump != nil {
                    pump(slot, source, &connection, &output)
                }
            }
        }
    }

    private func pump(
        _ slot: Int, _ source: any ChangeSource, _ connection: inout Connection, _ output: inout OutputBuffer
    ) {
        guard var session = sessions[slot], var pump = session.pump else { return }
        guard let current = source.position, current.isNumbered(as: pump.feed.sent) else {
            // Another numbering has begun: the consumer is to come again.
            return connection.closeNow()
        }
        session.pump = nil
        var batch = BatchWriter(
            limitBytes: configuration.stream.batchBytes, packs: session.hello?.takesPacked ?? false)
        let before = output.count
        let end = Clock.monotonicNanoseconds() &+ configuration.turnNanoseconds
        let isOver = { Clock.monotonicNanoseconds() >= end }
        do throws(StorageFailure) {
            let hasMore = try pump.run(source, limitBytes: configuration.turnBytes, isOver: isOver) { item in
                switch item {
                case .record(let entry):
                    batch.append(entry.bytes, to: &output)
                    session.sentRecords += 1
                    session.sentBytes += UInt64(entry.bytes.count)
                case .lost(let place, let through):
                    batch.end(&output)
                    send(.lost(slot: place, through: through), &output)
                }
            }
            batch.end(&output)
            while let (number, sequences) = pump.feed.answerable() {
                let isTold = session.hello?.takesSuccession ?? false
                let time = isTold ? Int64(Clock.realtimeNanoseconds() / 1_000_000) : nil
                let epoch = pump.feed.sent.epoch
                send(.complete(number, epoch: epoch, sequences: sequences, milliseconds: time), &output)
                session.answered.append((number, sequences, reactor.nowNanoseconds))
                if session.answered.count > configuration.stream.probesMax { session.answered.removeFirst() }
            }
            if hasMore { nextPump = 1 }
        } catch {
            log("stream: the outbox cannot be read", error.reason, connection)
            connection.closeNow()
        }
        session.wireBytes += UInt64(max(0, output.count - before))
        session.pump = pump
        sessions[slot] = session
    }

    func send(_ frame: StreamFrame, _ output: inout OutputBuffer) {
        var bytes: [UInt8] = []
        frame.encode(into: &bytes)
        output.append(bytes.span)
    }
}

/// Writes records into batch frames.
struct BatchWriter {
    private let limitBytes: Int
    private let packs: Bool
    private var start = -1

    /// Frames of about so many bytes, packed where that helps and `packs` says so.
    init(limitBytes: Int, packs: Bool = false) {
        self.limitBytes = limitBytes
        self.packs = packs
    }

    /// Appends a record, to the frame that is open or to a new one.
    mutating func append(_ record: [UInt8], to output: inout OutputBuffer) {
        if start < 0 {
            start = output.count
            output.append(bigEndian: UInt32(0))
            output.append(StreamFrame.batchKind)
        }
        output.append(bigEndian: UInt32(record.count))
        output.append(record.span)
        if output.count - start >= limitBytes { end(&output) }
    }

    /// Closes the frame that is open.
    mutating func end(_ output: inout OutputBuffer) {
        guard start >= 0 else { return }
        defer { start = -1 }
        if packs, output.count - start - StreamFrame.headerBytes >= BatchCompression.bytesMin {
            let place = start
            let body = output.withSpan { [UInt8](copying: $0.extracting(place + StreamFrame.headerBytes..<$0.count)) }
            if let block = BatchCompression.pack(body) {
                output.truncate(to: start, externalCount: output.externals.count)
                var frame: [UInt8] = []
                StreamFrame.packed(bytes: body.count, block).encode(into: &frame)
                return output.append(frame.span)
            }
        }
        output.patch(bigEndian: UInt32(output.count - start - 4), at: start)
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Platform
internal import Reactor
internal import Storage
internal import Telemetry

/// The stream's protocol on its one reactor: those who follow us on one side, whom we follow on the other.
final class StreamHandler: ReactorHandler {
    let shared: StreamShared
    let reactor: Reactor
    var configuration: StreamDirectConfiguration { shared.configuration }
    /// Those who follow us, by the slot of their connection.
    var sessions: [Int: StreamSession] = [:]
    /// Whom we follow; nil when nobody.
    var link: StreamLink?
    /// Our own outbox, followed without a connection; nil when it is not.
    var local: (pump: FeedPump, follower: StreamFollower)?
    /// What was followed before another region became home.
    var inherited: StreamFollower?
    /// How far the outbox may be trimmed.
    var retention: OutboxRetention
    /// When records go out that wait for company; 0 when none do.
    var nextPump: UInt64 = 0
    /// When statistics are to show again what happened; 0 when they do.
    var nextNote: UInt64 = 0
    /// Counted since the last look.
    var refused: UInt64 = 0
    private var damaged: UInt64 = 0
    /// What is told of records that cannot be read.
    private var damage = DamageNotice()
    /// Why a peer was not trusted last, and until when that is not logged again.
    private var lastDistrust: (reason: String, end: UInt64) = ("", 0)

    /// The tag of the connection to whom we follow.
    static var linkTag: UInt64 { 1 << 63 }

    /// The time of proofs, in nanoseconds: it goes on while the machine is suspended, as staleness does.
    var streamNanoseconds: UInt64 { Clock.bootNanoseconds() }

    init(_ shared: StreamShared, _ reactor: Reactor) {
        self.shared = shared
        self.reactor = reactor
        let configuration = shared.configuration
        retention = OutboxRetention(
            memoryNanoseconds: configuration.consumerMemoryNanoseconds, now: Clock.monotonicNanoseconds())
        if configuration.home != nil { link = StreamLink(configuration) }
    }

    func opened(_ connection: inout Connection, _ output: inout OutputBuffer) {
        noteSoon()
        if connection.tag == Self.linkTag { return linkOpened(&connection, &output) }
        guard sessions.count < configuration.consumersMax else { return connection.closeNow() }
        sessions[connection.slot] = StreamSession(
            id: connection.id, since: reactor.nowNanoseconds, lastInput: reactor.nowNanoseconds)
    }

    func received(_ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Int {
        noteSoon()
        var offset = 0
        while offset < input.count, !connection.isClosing {
            switch StreamFrame.read(input.extracting(offset..<input.count)) {
            case .incomplete(let needed):
                connection.minimumInput(needed)
                return offset
            case .invalid(let reason):
                log("stream: a peer sent what is no frame", reason, connection)
                connection.closeNow()
                return input.count
            case .frame(let frame, let bytes):
                offset += bytes
                if connection.tag == Self.linkTag {
                    linkReceived(frame, bytes, &connection, &output)
                } else {
                    sessionReceived(frame, &connection, &output)
                }
            }
        }
        return offset
    }

    func distrusted(_ connection: inout Connection, _ reason: String) {
        noteSoon()
        if connection.tag == Self.linkTag {
            link?.reason = reason
        } else {
            refused += 1
        }
        // A peer comes again and again.
        guard lastDistrust.reason != reason || reactor.nowNanoseconds > lastDistrust.end else { return }
        lastDistrust = (reason, reactor.nowNanoseconds &+ Self.distrustNanoseconds)
        log("stream: a peer is not trusted", reason, connection)
    }

    /// For how long a reason not to trust a peer is not logged again, in nanoseconds.
    private static var distrustNanoseconds: UInt64 { 10_000_000_000 }

    /// Bytes that came are no record; `slot` where that is known all the same. What comes of it in the stream shows
    /// with the next record of its slot, or with a probe.
    func noteDamaged(_ bytes: [UInt8], slot: Int? = nil) {
        damaged += 1
        var fault = RecordFault(object: bytes)
        if let slot { fault.slot = slot }
        guard let count = damage.note(fault, at: reactor.nowNanoseconds) else { return }
        let followed = link?.follower.position ?? local?.follower.position ?? shared.repair.withLock { $0.position }
        shared.log?.error(
            "stream: records cannot be read",
            [
                "source": .text(fault.source(followed: followed?.source)),
                "slot": .text(fault.slot.map { "\($0)" } ?? "unknown"), "reason": .text(fault.reason),
                "count": .unsigned(count),
            ])
    }

    func closed(_ connection: inout Connection, _ reason: CloseReason) {
        noteSoon()
        if connection.tag == Self.linkTag {
            linkClosed(connection.id, reason)
        } else {
            sessions[connection.slot] = nil
        }
    }

    func drained(_ connection: inout Connection, _ output: inout OutputBuffer) { nextPump = 1 }

    func message(_ message: ReactorMessage, _ loop: inout ReactorLoop) {
        noteSoon()
        switch message.kind {
        case StreamShared.wakeKind:
            shared.noteAwake()
            let isUrgent = local != nil || sessions.values.contains { $0.ticket != nil || $0.pump?.hasProbes ?? false }
            let due = isUrgent ? 1 : reactor.nowNanoseconds &+ configuration.stream.batchNanoseconds
            nextPump = nextPump == 0 ? due : min(nextPump, due)
        case StreamShared.resolvedKind: linkResolved(&loop)
        case StreamShared.lookKind: sendLooks(&loop)
        case StreamShared.turnKind: turn(&loop)
        case StreamShared.orderKind: obey(&loop)
        case StreamShared.repairKind: repairOrdered(&loop)
        case StreamShared.errandKind: answerErrands(&loop)
        default: break
        }
    }

    func turnEnded(_ loop: inout ReactorLoop) {
        let now = reactor.nowNanoseconds
        if nextPump != 0, nextPump <= now {
            nextPump = 0
            pumpSessions(&loop)
            pumpLocal()
            noteSoon()
        }
        if nextNote != 0, nextNote <= now { note() }
        loop.wakeNanoseconds = nextPump == 0 || nextNote == 0 ? max(nextPump, nextNote) : min(nextPump, nextNote)
    }

    /// Something happened that statistics show.
    private func noteSoon() {
        if nextNote == 0 { nextNote = reactor.nowNanoseconds &+ Self.noteNanoseconds }
    }

    /// How old statistics may be, in nanoseconds.
    private static var noteNanoseconds: UInt64 { 20_000_000 }

    func tick(_ loop: inout ReactorLoop, now: UInt64) {
        linkTick(&loop, now: now)
        localTick()
        settleContests(&loop)
        obey(&loop)
        let silence = configuration.silenceNanoseconds
        // Consumers ask each second: who says nothing for long is gone, and comes again if it is not.
        for session in sessions.values
        where now > session.lastInput + 4 * silence
            || (session.pump == nil && session.asker == nil && now > session.since + silence)
        {
            loop.close(session.id)
        }
        if configuration.listen != nil, configuration.releasesEarly {
            shared.source?.release(through: retention.released(at: now))
        }
        note()
    }

    /// Puts what statistics show where other threads read it.
    private func note() {
        nextNote = 0
        let position = shared.source?.position
        let consumers = sessions.values.compactMap { session -> StreamFigures.Consumer? in
            guard let hello = session.hello, let pump = session.pump, !hello.onlyLooks else { return nil }
            return StreamFigures.Consumer(
                region: hello.region, name: hello.name, sent: pump.feed.sent.sequences, sentBytes: session.sentBytes,
                sentRecords: session.sentRecords, wireBytes: session.wireBytes)
        }
        let follower = link?.follower ?? local?.follower
        let unread = damage.reason(at: reactor.nowNanoseconds)
        let isMonitored = isMonitored
        shared.figures.withLock { figures in
            figures.consumers = consumers
            figures.refused += refused
            figures.damaged += damaged
            figures.source = position?.source ?? ""
            figures.epoch = position?.epoch ?? 0
            if let link {
                figures.peer = link.peer
                figures.connections = link.connections
                figures.losses = link.losses
            }
            figures.reason = link.map { $0.reason.isEmpty ? unread : $0.reason } ?? unread
            figures.isMonitored = isMonitored
            if let follower {
                figures.follower = follower.statistics
                figures.followed = follower.position?.source ?? ""
                figures.backlog = follower.backlog
                figures.missingSlots = follower.missingSlots
            }
        }
        (refused, damaged) = (0, 0)
    }

    func log(_ what: StaticString, _ reason: String, _ connection: borrowing Connection) {
        shared.log?.warning(what, ["peer": .text(connection.peerAddress), "reason": .text(reason)])
    }
}

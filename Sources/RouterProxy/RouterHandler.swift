// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
internal import Routing
internal import Telemetry
internal import Tracing

/// The router on one reactor: clients' connections on one side, a connection to each server on the other.
///
/// What clients ask in a turn is gathered for each server and sent when the turn ends, in one write; what servers
/// answered is gathered for each client and sent likewise. Replies are matched with requests by their place.
final class RouterHandler: ReactorHandler {
    let router: Router
    let reactor: Reactor
    let limits: RouterLimits
    let meter: RouterMeter
    let spool: RouterSpool
    /// The spool's epoch that lanes know of, and deletes that servers are repeating.
    var spoolEpoch: UInt64 = 0
    var replays: [ReplayRun?] = []
    var plan: RouterPlan
    /// By destination of the plan: the number of its text lane. Its binary lane is the next.
    var laneOfDestination: [Int]

    let clients = Slab<ClientState>(limit: ConnectionID.slotLimit / 16) { _ in ClientState() }
    let tickets = Slab<Ticket>(limit: 1 << 22) { _ in Ticket() }
    let calls = Slab<Call>(limit: 1 << 22) { _ in Call() }
    let chunks = Slab<Chunk>(limit: 1 << 22) { _ in Chunk() }
    let buffers = Slab<ReplyBuffer>(limit: 1 << 20) { _ in ReplyBuffer() }
    let lanes = Slab<Lane>(limit: 1 << 17) { _ in Lane() }
    /// The request being looked at, and where its key lies when it came in base64.
    let requests = FixedArray<Request>(count: 1) { _ in Request() }
    let decoded = FixedArray<OutputBuffer>(count: 1) { _ in OutputBuffer(capacity: 1024) }

    /// Whether requests are traced, with what, and the spans that may be recorded.
    let traces: Bool
    let tracer: FixedArray<Tracer>
    let spans = Slab<SpanRecord>(limit: 1 << 16) { _ in SpanRecord() }

    /// What the tenant whose requests are being read may use up.
    var quota = QuotaGate()

    /// Replies of hot keys.
    let hotCache: FixedArray<HotCache>
    let servesHotKeys: Bool
    /// Whether hot keys are read from copies; whether hot keys are looked for at all, and writes with them.
    let spreadsHotKeys: Bool
    let findsHotKeys: Bool
    /// What servers said since they were asked last, when they are asked next, and the reports that are known.
    var hotReport: Set<UInt64> = []
    var nextHotReport: UInt64 = 0
    var reportedEpoch: UInt64 = 0

    var dirtyLanes: [Int] = []
    var dirtyClients: [Int] = []
    /// Lanes whose `get` line is open.
    var openLanes: [Int] = []
    /// Lanes that were ever used, and pairs of them that are free again.
    var laneCount = 0
    var freeLanes: [Int] = []
    /// Which servers are used.
    var health: HealthTable
    /// The plan, for requests that machines handle: these, those of them that are free, and what they wait for.
    var context: PlanContext
    var engines: [RouteEngine] = []
    var routedRequests: [RoutedRequest] = []
    var freeRouted: [Int] = []
    var routedEvents: [RoutedEvent] = []
    var timers = TimerHeap()
    var isSettling = false
    /// Whether the plan has pools whose servers say who owns a key.
    var planFollowsOwners = false
    /// Bytes that routed requests keep, and that values which are coming in will have.
    var routedBytes = 0
    var incomingBytes = 0
    /// Statistics that are being gathered from the servers, by ticket.
    var gathers: [Int: ServerSums] = [:]
    /// When something is due at the latest, in monotonic nanoseconds; .max when nothing is.
    var nextDeadline = UInt64.max
    /// The turn's time.
    var now: UInt64 { reactor.nowNanoseconds }
    var random = SystemRandomNumberGenerator()

    /// The mark of a connection to a server in its tag; the rest is the lane's number.
    static var laneMark: UInt64 { 1 << 63 }

    init(_ router: Router, _ reactor: Reactor) {
        self.router = router
        self.reactor = reactor
        limits = router.limits
        meter = router.meters[reactor.index]
        spool = router.spool
        traces = router.tracing.configuration.isOn
        let tracing = router.tracing
        tracer = FixedArray(count: 1) { _ in tracing.tracer(reactor.index) }
        let settings = router.hotKeys
        servesHotKeys = settings.cacheNanoseconds > 0
        spreadsHotKeys = settings.copies > 1
        findsHotKeys = servesHotKeys || spreadsHotKeys
        hotCache = FixedArray(count: 1) { _ in HotCache(settings) }
        plan = router.plan
        laneOfDestination = []
        health = HealthTable(plan: plan.routes, configuration: router.health, seed: 0)
        context = PlanContext(plan, RouteEngine(plan: plan.routes, seed: 0, nowNanoseconds: 0), lanes: [])
        adopt(plan)
    }

    // MARK: Calls of the reactor

    func opened(_ connection: inout Connection, _ output: inout OutputBuffer) {
        if connection.tag & Self.laneMark != 0 { return laneOpened(Self.lane(connection.tag)) }
        let slot = connection.slot
        guard clients.reach(slot) else { return connection.closeNow() }
        clients[slot] = ClientState()
        clients[slot].id = connection.id.rawValue
        clients[slot].address = stableHash(Array(SocketAddress.peer(of: connection.fd).host.utf8).span)
        clients[slot].parser = RequestParser(parserConfiguration(listenerTag: connection.tag))
        clients[slot].identity = ClientIdentity(mustLogIn: router.users != nil)
        connection.inputLimit = limits.inputBytes
        if router.tenants.epoch != 0, !clients[slot].identity.mustLogIn { _ = findTenant(&connection, &output) }
    }

    func received(_ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Int {
        if connection.tag & Self.laneMark != 0 {
            return receivedReplies(Self.lane(connection.tag), &connection, input)
        }
        return receivedRequests(&connection, input, &output)
    }

    func closed(_ connection: inout Connection, _ reason: CloseReason) {
        if connection.tag & Self.laneMark != 0 {
            laneClosed(Self.lane(connection.tag), connection.id)
        } else {
            clientClosed(connection.slot, connection.id)
        }
    }

    func inputEnded(_ connection: inout Connection, _ output: inout OutputBuffer) {}

    func drained(_ connection: inout Connection, _ output: inout OutputBuffer) {
        if connection.tag & Self.laneMark != 0 {
            lanes[Self.lane(connection.tag)].unsent = 0
        } else {
            markDirty(client: connection.slot)
        }
    }

    func turnEnded(_ loop: inout ReactorLoop) {
        while true {
            if let lane = dirtyLanes.popLast() {
                flush(lane: lane, &loop)
            } else if let slot = dirtyClients.popLast() {
                flush(client: slot, &loop)
            } else if now >= nextDeadline {
                expire(&loop)
            } else {
                break
            }
        }
        // Delays and hedges are to the millisecond; what is given up may be so a little later.
        loop.wakeNanoseconds = timers.next ?? 0
        loop.lateWakeNanoseconds = nextDeadline == .max ? 0 : nextDeadline
    }

    func tick(_ loop: inout ReactorLoop, now: UInt64) {
        let current = router.plan
        if current !== plan { adopt(current) }
        retireLanes(&loop)
        mindSpool()
        takeSpool()
        if findsHotKeys { chooseHotKeys() }
        for lane in 0..<laneCount where lanes[lane].meter !== Backend.nobody.meters[0] {
            let key: BackendCounter = lanes[lane].isBinary ? .outstandingBinary : .outstanding
            lanes[lane].meter.counters.set(key, to: UInt64(lanes[lane].outstanding))
            showGate(lane)
            let destination = Int(lanes[lane].destination)
            if destination >= 0, !lanes[lane].isBinary {
                lanes[lane].meter.counters.set(.ejected, to: health.allows(destination) ? 0 : 1)
            }
        }
        meter.counters.add(.hedgesWithheld, context.engine.takeWithheldHedges())
    }

    private func chooseHotKeys() {
        if router.hotKeys.learns { learnHotKeys() }
        hotCache[0].choose(now: now)
        meter.counters.set(.hotKeys, to: UInt64(hotCache[0].count))
    }

    func message(_ message: ReactorMessage, _ loop: inout ReactorLoop) { takeSpool() }

    private static func lane(_ tag: UInt64) -> Int { Int(truncatingIfNeeded: tag & ~laneMark) }

    // MARK: Lists

    @inline(__always)
    func markDirty(client slot: Int) {
        guard !clients[slot].traits.contains(.dirty) else { return }
        clients[slot].traits.insert(.dirty)
        dirtyClients.append(slot)
    }

    @inline(__always)
    func markDirty(lane: Int) {
        guard !lanes[lane].isDirty else { return }
        lanes[lane].isDirty = true
        dirtyLanes.append(lane)
    }

    @inline(__always)
    func mind(_ deadline: UInt64) {
        if deadline < nextDeadline { nextDeadline = deadline }
    }

    /// A buffer of the pool, empty.
    @inline(__always)
    func takeBuffer() -> Int32 {
        guard let index = buffers.take() else { preconditionFailure("more buffers than connections") }
        return Int32(truncatingIfNeeded: index)
    }

    /// Gives a buffer back; much memory is not kept.
    @inline(__always)
    func giveBuffer(_ index: Int32) {
        buffers[Int(index)].bytes.removeAll()
        if buffers[Int(index)].bytes.capacityBytes > limits.keptBufferBytes {
            buffers[Int(index)].bytes.shrink(to: limits.keptBufferBytes)
        }
        buffers.give(Int(index))
    }
}

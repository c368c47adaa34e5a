// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// One request on its way through the handles of a plan: a state machine that says what to send and what to answer.
///
/// Start it, do what its actions say, and give it the reply of each ``SubRequest`` until it ``isFinished``; then it can
/// be started again, and keeps its memory. Values stay with the caller: a reply's bytes are to be kept until the
/// machine is finished, because a later action may name them. It does no I/O, and has time and chance from its
/// parameters.
package struct RouteMachine: ~Copyable {
    var request = RouteRequest(.get)
    var key: [UInt8] = []
    var valueCount = 0
    var valueHash: UInt32 = 0
    var forms: [Form] = []
    var frames: [Frame] = []
    var sends: [Send] = []
    /// The child that the last hash chose: what failover policies pass over.
    var selected = -1
    private var pending = 0
    private var isAnswered = false
    private(set) var isCancelled = false

    /// Requests that one client's may become.
    package static var maximumSends: Int { 16_384 }

    /// A machine without a request.
    package init() {}

    /// Whether the client is answered, and every reply has come: nothing further will be done.
    package var isFinished: Bool { (isAnswered || isCancelled) && pending == 0 }

    /// What a handle is asked: the client's request, or another made from it.
    struct Form {
        var operation: RouteOperation
        /// nil for the client's.
        var key: [UInt8]?
        var exptime: Int64?
        var value = SubRequest.Value.request
        var flags: UInt32?
        var casToken: UInt64?
        var isSame = true
    }

    /// Who waits for a result: a frame's child, the client, or nobody.
    struct Place {
        var frame: Int
        var slot = 0
        var kind = SubRequest.Kind.normal
        var isDetached = false

        static var client: Place { Place(frame: -1) }
        var nobody: Place { Place(frame: -2, kind: kind, isDetached: true) }
    }

    /// What was sent, and who waits for its reply.
    struct Send {
        let place: Place
        let failureDomain: UInt32
        let destination: Int
        let pool: Int
        var isReplied = false
        /// The handle that wants to know how long it takes, and when it was sent, in nanoseconds; below 0 for none.
        var timedBy = -1
        var started: UInt64 = 0
    }

    /// A handle that waits for its children.
    struct Frame {
        let handle: Int
        let place: Place
        let form: Int
        var isDone = false
        var pending = 0
        var phase = 0
        var best: Outcome?
        var work = Work.none
    }

    /// What some handles keep beside.
    enum Work {
        case none
        case counts([UInt8])
        case failover(FailoverProgress)
        case hedge(HedgeProgress)
        /// Of no handle, too: a read of a copy.
        case spread(SpreadRead)
        case pieces(Pieces)
        case found(Outcome)
        case times(start: UInt64, total: UInt64)
        case sizeSplit(number: UInt32, retries: Int)
        /// A frame of no handle: what is done behind a client's back.
        case chain(Chain)

        var isHedge: Bool {
            if case .hedge = self { return true }
            return false
        }
    }

    /// What came of a request.
    struct Outcome {
        var result: RouteResult
        var source: FinalReply.Source
        var flags: UInt32 = 0
        var newFlags: UInt32?
        var casToken: UInt64 = 0
        var newToken: UInt64?
        var exptime: Int64?
        var hasLease = false
        var failureDomain: UInt32 = 0
        /// The value, where handles look at it.
        var text: [UInt8] = []

        static func made(_ result: RouteResult, _ text: String? = nil) -> Outcome {
            Outcome(result: result, source: .made(text))
        }

        /// The reply whose value it is.
        var token: Int? {
            if case .token(let token) = source { return token }
            return nil
        }
    }

    /// What a call has at hand.
    struct Turn {
        let engine: RouteEngine
        let clock: RouteClock
        var actions: [RouteAction]
        var plan: RoutePlan { engine.plan }
    }

    /// Begins with a request. `key` is as the client wrote it, with its routing prefix; `value` is what it stores.
    package mutating func start(
        _ request: RouteRequest, key: Span<UInt8>, value: Span<UInt8>, engine: RouteEngine, clock: RouteClock,
        actions: inout [RouteAction]
    ) {
        precondition(pending == 0, "a machine that is not finished")
        self.request = request
        self.key.removeAll(keepingCapacity: true)
        for index in 0..<key.count { self.key.append(key[index]) }
        valueCount = value.count
        valueHash = engine.plan.hashesValues ? UInt32(truncatingIfNeeded: stableHash(value)) : 0
        forms.removeAll(keepingCapacity: true)
        frames.removeAll(keepingCapacity: true)
        sends.removeAll(keepingCapacity: true)
        (selected, isAnswered, isCancelled) = (-1, false, false)
        forms.append(Form(operation: request.operation))
        perform(engine, clock, &actions) { machine, turn in
            if let values = engine.plan.defaults.bigValues, RouteHandle.isCut(request.operation) {
                machine.beginBigValue(handle: Self.root, values, 0, .client, &turn)
            } else {
                machine.beginRoot(0, .client, &turn)
            }
        }
    }

    /// Gives the reply of a sent request; `value` is what it holds.
    package mutating func reply(
        _ token: Int, _ reply: RouteReply, value: Span<UInt8>, engine: RouteEngine, clock: RouteClock,
        actions: inout [RouteAction]
    ) {
        precondition(sends.indices.contains(token) && !sends[token].isReplied, "a reply to nothing that was sent")
        let sent = sends[token].place
        sends[token].isReplied = true
        pending -= 1
        if sends[token].timedBy >= 0 { time(sends[token], reply.result, engine, clock) }
        var outcome = Outcome(
            result: reply.result, source: .token(token), flags: reply.flags, casToken: reply.casToken,
            exptime: reply.exptime, hasLease: reply.hasLease)
        outcome.failureDomain = sends[token].failureDomain
        let marks = BigValues.flag | SizeSplit.flag
        if reply.flags & marks != 0, value.count <= Self.maximumTextBytes { outcome.text = Array(copying: value) }
        perform(engine, clock, &actions) { machine, turn in machine.deliver(outcome, to: sent, &turn) }
    }

    /// The time of a ``RouteAction/wait(token:untilNanoseconds:)`` has come.
    package mutating func wake(_ token: Int, engine: RouteEngine, clock: RouteClock, actions: inout [RouteAction]) {
        precondition(frames.indices.contains(token), "a time that nobody waits for")
        // Nothing that is over waits until it would be time to ask twice.
        if !frames[token].work.isHedge { pending -= 1 }
        perform(engine, clock, &actions) { machine, turn in machine.woken(token, &turn) }
    }

    /// An outstanding limit lets the request go on.
    package mutating func resume(
        _ ticket: RouteTicket, engine: RouteEngine, clock: RouteClock, actions: inout [RouteAction]
    ) {
        precondition(frames.indices.contains(ticket.frame), "a ticket of another request")
        pending -= 1
        perform(engine, clock, &actions) { machine, turn in machine.admitted(ticket.frame, &turn) }
    }

    /// The client went away: it will not be answered. What was sent is still to be replied to.
    package mutating func cancel() { isCancelled = true }

    private mutating func perform(
        _ engine: RouteEngine, _ clock: RouteClock, _ actions: inout [RouteAction],
        _ body: (inout RouteMachine, inout Turn) -> Void
    ) {
        var turn = Turn(engine: engine, clock: clock, actions: [])
        swap(&turn.actions, &actions)
        body(&self, &turn)
        swap(&turn.actions, &actions)
    }

    // MARK: What handles use

    /// Values of marked replies that are looked at.
    private static var maximumTextBytes: Int { 64 }
    /// The handle above all others.
    static var root: Int { -1 }

    /// Sends a form to a destination.
    mutating func send(_ form: Int, to destination: Int, pool: Int, _ place: Place, _ turn: inout Turn) {
        guard sends.count < Self.maximumSends else {
            return deliver(.made(.localError, "one request became too many"), to: place, &turn)
        }
        let token = sends.count
        sends.append(
            Send(
                place: place, failureDomain: turn.plan.destinations[destination].failureDomain,
                destination: destination, pool: pool))
        pending += 1
        let keeps = turn.plan.pools[pool].keepsRoutingPrefix
        let form = forms[form]
        let key: SubRequest.Key
        if let bytes = form.key {
            key = .bytes(keeps ? bytes : Array(bytes[RoutingPrefix.length(in: bytes.span)...]))
        } else {
            key = .request(from: keeps ? 0 : RoutingPrefix.length(in: self.key.span))
        }
        turn.actions.append(
            .send(
                SubRequest(
                    token: token, destination: destination, pool: pool, operation: form.operation, isSame: form.isSame,
                    key: key, exptime: form.exptime, value: form.value, flags: form.flags, casToken: form.casToken,
                    kind: place.kind, isDetached: place.isDetached)))
    }

    /// Tells whoever waits what came of it.
    mutating func deliver(_ outcome: Outcome, to place: Place, _ turn: inout Turn) {
        switch place.frame {
        case -1:
            guard !isAnswered, !isCancelled else { return }
            isAnswered = true
            turn.actions.append(
                .reply(
                    FinalReply(
                        result: outcome.result, source: outcome.source, flags: outcome.newFlags,
                        casToken: outcome.newToken, hasLease: outcome.hasLease)))
        case -2: break
        default:
            guard !frames[place.frame].isDone else { return }
            childDone(place.frame, place.slot, outcome, &turn)
        }
    }

    /// A frame's result is there.
    mutating func finish(_ frame: Int, _ outcome: Outcome, _ turn: inout Turn) {
        frames[frame].isDone = true
        deliver(outcome, to: frames[frame].place, &turn)
    }

    /// Begins to wait for children.
    mutating func open(_ handle: Int, _ form: Int, _ place: Place, _ work: Work = .none) -> Int {
        frames.append(Frame(handle: handle, place: place, form: form, work: work))
        return frames.count - 1
    }

    /// Where a frame's child reports to.
    func child(of frame: Int, _ slot: Int = 0, kind: SubRequest.Kind? = nil) -> Place {
        let place = frames[frame].place
        return Place(frame: frame, slot: slot, kind: kind ?? place.kind, isDetached: place.isDetached)
    }

    mutating func add(_ form: Form) -> Int {
        forms.append(form)
        return forms.count - 1
    }

    /// Has the frame woken at a time.
    mutating func wait(_ frame: Int, until time: UInt64, _ turn: inout Turn) {
        pending += 1
        turn.actions.append(.wait(token: frame, untilNanoseconds: time))
    }

    /// Counts a frame that an outstanding limit holds back.
    mutating func hold() { pending += 1 }

    /// Whether a form is the client's read, and it asks for no value: what it finds cannot be looked at or copied.
    func isValueless(_ form: Int) -> Bool { request.isValueless && forms[form].isSame }

    /// The key of a form, with its routing prefix.
    func key(of form: Int) -> [UInt8] { forms[form].key ?? key }
}

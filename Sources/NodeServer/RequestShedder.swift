// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Overload
internal import Platform
internal import Reactor
internal import Telemetry

/// Who sent a connection's requests, as far as overload control cares.
struct Caller: BitwiseCopyable {
    /// A hash of whom the requests are for; 0 while nobody asked.
    var tenant: UInt64 = 0
    /// The listener's rule: its place in the settings, from 1; 0 for none.
    var rule: UInt8 = 0
    /// A classic get that was broken off by a refusal, whose keys go on coming.
    var skipsKeysOfGet = false
}

/// One reactor's overload control between its turns and its requests.
///
/// While the node is not overloaded it costs a comparison a connection; else each request is asked about. See
/// ``OverloadController``.
struct RequestShedder: ~Copyable {
    /// Requests that are parsed at a time while each is asked about: what is parsed is answered in this turn. One,
    /// where they take long by themselves: a connection would go on far beyond its time.
    @inline(__always)
    var batchLimit: Int { controller.isOverloaded || settings.serviceNanoseconds == 0 ? 8 : 1 }
    /// What sets a hash of whom requests are for apart from nobody's. It is no bit that tells places or cohorts apart.
    private static var known: UInt64 { 1 << 63 }
    /// Connections between two looks at the clock in a turn of a node that is not overloaded.
    private static var visitsPerLook: UInt { 16 }
    /// How long a connection may go on in its turn where requests take long by themselves, in nanoseconds.
    private static var visitNanoseconds: UInt64 { 500_000 }

    var controller: OverloadController
    /// Whether each request is to be looked at by itself.
    private(set) var isCareful = false
    /// Whether the last request was refused, as the next will be then.
    private(set) var refusedLast = false
    /// Whether most of what comes now is refused, as far as the last request tells.
    @inline(__always)
    var refusesNow: Bool { refusedLast && controller.isOverloaded }
    /// Whose turn it is.
    var caller = Caller()
    /// Whose requests these are; nil where there are no tenants.
    var account: Tenant?
    private let reactor: Int
    private let settings: OverloadSettings
    private let pools: StoragePools
    private let hasClasses: Bool
    private let prefixDelimiter: UInt8
    private let figures: OverloadFigures
    private var lastTurn: UInt64 = 0
    private var visits: UInt = 0
    private var visitStart: UInt64 = 0
    private var now: UInt64 = 0
    /// How long made-up services slept, in nanoseconds: that counts as work.
    private var slept: UInt64 = 0
    private var judged = RequestClass.standard
    private var isCounted = false
    /// Whether the next request was found to be one that is served.
    private var isAdmittedAhead = false

    init(_ configuration: NodeConfiguration, figures: OverloadFigures, reactor: Int, seed: UInt64) {
        self.reactor = reactor
        settings = configuration.overload
        controller = OverloadController(settings.controller, seed: seed)
        pools = StoragePools(configuration.storage.pools)
        hasClasses = pools.pools.contains { $0.requestClass != nil }
        prefixDelimiter = configuration.prefixDelimiter
        self.figures = figures
    }

    /// A connection's turn begins.
    @inline(__always)
    mutating func begin(_ reactor: Reactor, _ caller: Caller, fd: Int32) {
        noteTurn(reactor)
        visits &+= 1
        if visits & (Self.visitsPerLook - 1) == 0 {
            controller.turnGoesOn(now: Clock.monotonicNanoseconds(), ran: Clock.threadNanoseconds() &+ slept)
        }
        self.caller = caller
        isCareful = controller.isOverloaded || settings.serviceNanoseconds > 0 || caller.skipsKeysOfGet
        if isCareful { beginCarefully(fd) }
    }

    /// A turn began, with or without input.
    @inline(__always)
    mutating func noteTurn(_ reactor: Reactor) {
        guard reactor.readyNanoseconds != lastTurn else { return }
        lastTurn = reactor.readyNanoseconds
        visits = 0
        if controller.turnBegan(
            arrival: reactor.arrivalNanoseconds, now: lastTurn, ran: Clock.threadNanoseconds() &+ slept)
        {
            publish()
        }
    }

    @inline(never)
    private mutating func beginCarefully(_ fd: Int32) {
        if caller.tenant == 0 || settings.tenant == .user { caller.tenant = tenant(fd) }
        controller.visitBegan()
        isAdmittedAhead = false
        now = Clock.monotonicNanoseconds()
        visitStart = now
        controller.turnGoesOn(now: now, ran: Clock.threadNanoseconds() &+ slept)
    }

    /// Whether the connection had its time, and what is left of its input waits for the next turn. Never while
    /// overloaded: what waits then would wait in vain.
    @inline(__always)
    var visitIsOver: Bool { !controller.isOverloaded && now &- visitStart > Self.visitNanoseconds }

    /// How refusals read on this connection.
    @inline(__always)
    var reply: OverloadSettings.Reply {
        caller.rule == 0 ? settings.reply : settings.listeners[Int(caller.rule) - 1].reply ?? settings.reply
    }

    /// Whether a request is served. False only for commands on keys, and while overloaded.
    mutating func admits(_ request: Request, key: Span<UInt8>, _ input: Span<UInt8>) -> Bool {
        guard controller.isOverloaded, request.error.isNone, request.verb.isOnKeys else {
            isCounted = true
            return true
        }
        return admits(requestClass(request, key: key, input), tenant: tenant(key))
    }

    /// Whether nothing but its verb says of what class a request is that is not meta, and its connection whose it is,
    /// and a refusal is a line.
    @inline(__always)
    var judgesPlainly: Bool {
        controller.isOverloaded && !hasClasses && caller.rule == 0 && settings.tenant != .prefix
            && settings.reply != .miss && account == nil && !caller.skipsKeysOfGet
    }

    /// Whether a read of one key is served, where ``judgesPlainly``.
    mutating func admitsRead() -> Bool {
        if isAdmittedAhead {
            isAdmittedAhead = false
            return true
        }
        return admits(.standard, tenant: caller.tenant)
    }

    /// The same of the next request, which is executed at once where it is served, and asks ``admitsRead()`` then.
    mutating func admitsReadAhead() -> Bool {
        isAdmittedAhead = admits(.standard, tenant: caller.tenant)
        return isAdmittedAhead
    }

    /// Whether none of the caller's reads is served now, where ``judgesPlainly``: none need be asked about.
    var refusesAllReads: Bool { controller.refusesAll(.standard, tenant: caller.tenant) }

    /// So many reads were refused because of ``refusesAllReads``.
    mutating func refusedReads(_ count: Int) {
        guard count > 0 else { return }
        isCounted = true
        refusedLast = true
        controller.refused(.standard, tenant: caller.tenant, count: count)
        figures.noteShed(.standard, .ratio, count: count)
    }

    @inline(__always)
    private mutating func admits(_ requestClass: RequestClass, tenant: UInt64) -> Bool {
        judged = requestClass
        switch controller.judge(judged, tenant: tenant, now: now) {
        case .serve:
            isCounted = false
            refusedLast = false
            return true
        case .refuse(let reason):
            isCounted = true
            refusedLast = !settings.controller.isDryRun
            figures.noteShed(judged, reason)
            account?.noteShed(reactor: reactor)
            return settings.controller.isDryRun
        }
    }

    /// A request was executed.
    mutating func executed(_ verb: Verb) {
        guard verb.isOnKeys else { return }
        let before = now
        if settings.serviceNanoseconds > 0 {
            repeat {
                now = Clock.monotonicNanoseconds()
                let left = settings.serviceNanoseconds &- min(settings.serviceNanoseconds, now &- before)
                if left > 0, settings.serviceSleeps {
                    Thread.sleep(microseconds: UInt32(left / 1000))
                    slept &+= left
                }
            } while now &- before < settings.serviceNanoseconds
        } else {
            now = Clock.monotonicNanoseconds()
        }
        if controller.isOverloaded, !isCounted { controller.served(judged, nanoseconds: now &- before) }
    }

    /// A store whose value is received into place was admitted: it counts with what requests cost lately.
    mutating func willReceive() { if controller.isOverloaded, !isCounted { controller.servedElsewhere(judged) } }

    private mutating func requestClass(_ request: Request, key: Span<UInt8>, _ input: Span<UInt8>) -> RequestClass {
        if request.verb == .delete || request.verb == .metaDelete { return .invalidation }
        let ofListener = caller.rule > 0 ? settings.listeners[Int(caller.rule) - 1].requestClass : nil
        if request.form == .meta, request.options.contains(MetaOptions(letter: UInt8(ascii: "P"))),
            let tag = request.classTag(in: input), let own = RequestClass(tag: input.extracting(tag))
        {
            // Who comes in where all matters less does not matter more by saying so.
            guard let ofListener, ofListener.rawValue > own.rawValue else { return own }
            return ofListener
        }
        if hasClasses, let ofPool = pools.settings(of: key).requestClass { return ofPool }
        return ofListener ?? .standard
    }

    private mutating func tenant(_ key: Span<UInt8>) -> UInt64 {
        guard settings.tenant == .prefix else { return caller.tenant }
        var length = 0
        while length < key.count, key[length] != prefixDelimiter { length += 1 }
        return length < key.count ? stableHash(key.extracting(0..<length)) : 0
    }

    /// Whom a connection's requests are for, asked when that first matters.
    private mutating func tenant(_ fd: Int32) -> UInt64 {
        switch settings.tenant {
        case .address: stableHash(Array(SocketAddress.peer(of: fd).host.utf8).span) | Self.known
        case .listener: stableHash([caller.rule].span) | Self.known
        case .user: account?.share ?? 1
        case .prefix, .none: 1
        }
    }

    private mutating func publish() {
        figures.counters.set(.delayNanoseconds, to: controller.delay)
        figures.counters.set(.ratioMillionths, to: UInt64(controller.ratio * 1e6))
        figures.counters.set(.isOverloaded, to: controller.isOverloaded ? 1 : 0)
        figures.counters.set(.entries, to: UInt64(controller.entries))
        figures.counters.set(.level, to: UInt64(controller.level))
        figures.counters.set(.tenants, to: UInt64(controller.activeTenants))
    }
}

extension Verb {
    /// Whether the command is about an item: what may be refused under load.
    fileprivate var isOnKeys: Bool { rawValue <= Verb.metaDebug.rawValue && self != .metaNoop }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Reactor
internal import Synchronization

/// A client of a fleet of cache servers, for Swift services: memcached's protocols over few, pipelined connections.
///
/// One client serves a whole process, any number of tasks; make it once and keep it. It has threads of its own
/// (``ClientConfiguration/threads``, and one that looks servers up), and no task waits for a socket. Every call ends by
/// its deadline, throws a ``CacheError`` that says whether trying again makes sense, and ends at once when its task is
/// cancelled. A server that fails is left alone for a while, and costs the calls to others nothing.
///
/// ```swift
/// let cache = try await MartletClient(ClientConfiguration(servers: ["cache1:11211", "cache2:11211"]))
/// try await cache.set("greeting", "hello", ttl: .seconds(60))
/// let value = try await cache.get("greeting")?.string
/// ```
public final class MartletClient: Sendable {
    /// What the client was made from.
    public let configuration: ClientConfiguration
    /// Runs tasks on the client's own threads, where a call costs least; see ``ClientExecutor``.
    public let executor: ClientExecutor

    let shared: ClientShared
    private let group: ReactorGroup
    private let directory: ServerDirectory

    /// A client for these servers; returns when they are known, which takes a name lookup at most. Whether they answer
    /// shows in the calls.
    ///
    /// Throws ``CacheError/invalidConfiguration(_:)`` for settings that cannot be, and ``CacheError/noServers(_:)``
    /// when no servers were found within ``ClientConfiguration/timeout`` (for servers that are looked up, five seconds
    /// more).
    public init(_ configuration: ClientConfiguration) async throws(CacheError) {
        if let problem = configuration.problem { throw .invalidConfiguration(problem) }
        self.configuration = configuration
        let shared = ClientShared(configuration)
        let executor = ClientExecutor(shared.queues)
        let directory = ServerDirectory(shared)
        var settings = ReactorConfiguration()
        settings.threads = configuration.threads
        settings.threadName = "cache-loop"
        settings.inputLimitBytes = configuration.valueLimitBytes + 64 << 10
        settings.keptInputTotalBytes = max(settings.keptInputTotalBytes, 2 * settings.inputLimitBytes)
        settings.handshakeTimeoutMilliseconds = Int(configuration.connectTimeout.wholeNanoseconds / 1_000_000)
        do throws(SystemError) {
            group = try ReactorGroup(settings) { reactor in ClientLoop(shared, reactor, directory, executor) }
            for reactor in group.reactors { shared.queues[reactor.index].attach(reactor) }
            try group.start()
        } catch {
            throw .invalidConfiguration(error.description)
        }
        self.shared = shared
        self.executor = executor
        self.directory = directory
        try directory.start()
        let patience: Duration = configuration.servers.isLookedUp ? .seconds(5) : .zero
        let limit = Task { [shared] in
            try? await Task.sleep(for: configuration.timeout + patience)
            shared.endStart()
        }
        await shared.awaitStart()
        limit.cancel()
        guard shared.topology.withLock({ $0 }) != nil else {
            let reason = shared.noServersReason
            await shutDown()
            throw .noServers(reason)
        }
    }

    deinit {
        // Nobody can call any more. The threads end by themselves.
        guard !shared.isShutDown.load(ordering: .relaxed) else { return }
        directory.signalStop()
        group.stop(.immediate)
    }

    /// Ends the client: calls that are under way fail with ``CacheError/shutDown``, connections are closed. Returns
    /// when its threads have ended. Later calls fail; shutting down again does nothing.
    public func shutDown() async {
        guard !shared.isShutDown.exchange(true, ordering: .sequentiallyConsistent) else { return }
        for queue in shared.queues { queue.put(.stop) }
        group.stop(.graceful(milliseconds: 100))
        shared.endStart()
        let (group, directory) = (group, directory)
        await withCheckedContinuation { continuation in
            let end: @Sendable () -> Void = {
                directory.stop()
                group.join()
                continuation.resume()
            }
            // Joining waits, which no task's thread may.
            do throws(SystemError) { _ = try Thread(name: "cache-end", end) } catch { continuation.resume() }
        }
    }

    /// The servers that are known now, as they were given or found.
    public var servers: [String] { shared.topology.withLock { $0 }?.nodes.map(\.name) ?? [] }

    /// The server that a key belongs to; nil when any may answer for it.
    public func server(for key: String) -> String? {
        guard let topology = shared.topology.withLock({ $0 }), topology.selector != nil else { return nil }
        return topology.node(for: key, attempt: 0, chance: (0, 0)).name
    }

    // MARK: Attempts

    /// Sends a request, again where that may be, until there is a reply that is no refusal.
    func perform(_ request: CacheRequest, _ options: CallOptions) async throws(CacheError) -> CacheReply {
        var request = request
        request.trace = options.trace?.traceparent
        guard CacheRequest.isKey(request.key) else { throw .invalidKey(request.key) }
        guard request.value.count <= configuration.valueLimitBytes else {
            throw .valueTooLong(bytes: request.value.count, limit: configuration.valueLimitBytes)
        }
        shared.count(.calls)
        let hedges = (options.hedges ?? configuration.hedgesReads) && request.isRead
        if hedges { shared.hedgeBudget.withLock { $0.attempted() } }
        let start = Clock.monotonicNanoseconds()
        let deadline = start &+ (options.timeout?.wholeNanoseconds ?? shared.timeoutNanoseconds)
        var attempt = 0
        while true {
            let id = shared.makeID()
            let node = try node(for: request.key, attempt, id)
            let begun = attempt == 0 ? start : Clock.monotonicNanoseconds()
            let limit = min(deadline, begun &+ shared.attemptNanoseconds)
            let call = AttemptPlan(
                id: id, node: node, deadline: request.isIdempotent ? limit : deadline, hedges: hedges,
                isFirst: attempt == 0)
            let error: CacheError
            switch await send(request, call) {
            case .reply(let reply):
                guard case .refused(let text) = reply.kind else { return reply }
                error =
                    CacheError.isBusy(text)
                    ? .busy(server: node.name, message: text) : .rejected(server: node.name, message: text)
                if error.isRetryable { shared.count(.busy) }
            case .failure(let failure): error = failure
            }
            attempt += 1
            try await pause(before: attempt, after: error, request, options, deadline)
        }
    }

    private func node(for key: String, _ attempt: Int, _ id: UInt64) throws(CacheError) -> ServerNode {
        guard !shared.isShutDown.load(ordering: .relaxed) else { throw .shutDown }
        guard let topology = shared.topology.withLock({ $0 }) else { throw .noServers(shared.noServersReason) }
        // Mixed, so that neighbouring calls go to different servers. Source: the finaliser of MurmurHash3.
        var mixed = id ^ id &>> 33
        mixed = mixed &* 0xff51_afd7_ed55_8ccd
        mixed ^= mixed &>> 33
        let chance = (UInt32(truncatingIfNeeded: mixed), UInt32(truncatingIfNeeded: mixed &>> 32))
        return topology.node(for: key, attempt: attempt, chance: chance)
    }

    /// Waits before the next attempt; throws `error` when there is none.
    private func pause(
        before attempt: Int, after error: CacheError, _ request: CacheRequest, _ options: CallOptions,
        _ deadline: UInt64
    ) async throws(CacheError) {
        guard attempt <= options.retries ?? configuration.retries, error.isRetryable,
            !error.mayHaveHappened || request.isIdempotent
        else { throw error }
        // The key has one server, and it is left alone: waiting a moment changes nothing.
        if case .circuitOpen = error, configuration.placement != .any { throw error }
        let backoff = Backoff(
            firstNanoseconds: configuration.retryWait.wholeNanoseconds,
            longestNanoseconds: configuration.longestRetryWait.wholeNanoseconds)
        let rest = backoff.wait(failures: attempt, random: .random(in: 0...1))
        let now = Clock.monotonicNanoseconds()
        guard now &+ rest < deadline else { throw error }
        guard shared.budget.withLock({ $0.withdraw(nowNanoseconds: now) }) else {
            shared.count(.retriesRefused)
            throw error
        }
        shared.count(.retries)
        do { try await Task.sleep(nanoseconds: rest) } catch { throw .cancelled }
    }

    private struct AttemptPlan {
        var id: UInt64
        var node: ServerNode
        var deadline: UInt64
        var hedges: Bool
        var isFirst: Bool
    }

    /// One attempt: resumes when the loop has a reply, or knows that there is none.
    private func send(_ request: CacheRequest, _ plan: AttemptPlan) async -> CallOutcome {
        let queue = shared.queues[plan.node.loop]
        return await withTaskCancellationHandler {
            await CallWaiter.wait { waiter in
                let submission = CallSubmission(
                    id: plan.id, request: request, node: plan.node, deadline: plan.deadline, hedges: plan.hedges,
                    isFirst: plan.isFirst, waiter: waiter)
                guard queue.put(submission) else { return waiter.resume(returning: .failure(.shutDown)) }
                // The handler may have run before there was anything to cancel.
                if Task.isCancelled { queue.put(.cancel(plan.id)) }
            }
        } onCancel: {
            queue.put(.cancel(plan.id))
        }
    }
}

extension ClientConfiguration.Servers {
    /// Whether it takes asking somebody to know them.
    var isLookedUp: Bool {
        switch self {
        case .fixed: false
        case .cluster, .discovered: true
        }
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation
internal import Memory
internal import Platform
internal import Reactor
package import Storage
package import Telemetry

/// Asks the nodes of other regions, again and again, which region is home; and has the home region fenced, when this
/// one is to take its place. One thread.
///
/// Of each region one node is asked, the first that answers.
package final class HomeWatch: Sendable {
    private let shared: WatchShared
    private let group: ReactorGroup

    /// A watch of the regions of `configuration.candidates`, but the own one, that is not started. `heard` is told what
    /// each answers, on the watch's thread: it does not block.
    package init(
        _ configuration: StreamDirectConfiguration, log: Log?,
        heard: @escaping @Sendable (_ term: HomeTerm, _ succession: StreamSuccession?, _ region: String) -> Void
    ) throws(StreamStartError) {
        let peers = configuration.candidates.filter { $0.region != configuration.region }
        let shared = WatchShared(configuration, peers: peers, log: log, heard: heard)
        self.shared = shared
        var reactors = ReactorConfiguration()
        reactors.threads = 1
        reactors.threadName = "martlet-home"
        reactors.connectionLimit = 64
        do throws(TLSError) { try shared.loadCertificates() } catch {
            throw StreamStartError(description: "stream: \(error)")
        }
        do throws(SystemError) {
            group = try ReactorGroup(reactors) { reactor in WatchHandler(shared, reactor) }
        } catch { throw StreamStartError(description: "stream: \(error)") }
        shared.reactor.withLock { $0 = group.reactors[0] }
    }

    /// Starts the thread.
    package func start() throws(StreamStartError) {
        do throws(SystemError) { try group.start() } catch { throw StreamStartError(description: "stream: \(error)") }
    }

    /// Waits until every region has answered, or was found not to, or the time is over. Blocks.
    package func awaitAnswers(timeoutNanoseconds: UInt64) {
        let end = Clock.monotonicNanoseconds() + timeoutNanoseconds
        while true {
            let ticket = shared.parking.ticket
            let isKnown = shared.states.withLock { $0.allSatisfy { $0.answers + $0.failures > 0 } }
            let now = Clock.monotonicNanoseconds()
            if isKnown || now >= end { return }
            shared.parking.wait(ticket, timeoutNanoseconds: end - now)
        }
    }

    /// What is known of each region that is asked: whether it answered within the last three seconds, and what it said.
    package var peers: [(region: String, answers: Bool, term: HomeTerm?, reason: String)] {
        let now = Clock.monotonicNanoseconds()
        return shared.states.withLock { states in
            states.map { state in
                let isFresh = state.last != 0 && now < state.last &+ 3_000_000_000
                return (state.region, isFresh, state.term, state.reason)
            }
        }
    }

    /// Tells a region something about a promotion of this one. Blocks.
    package func command(
        _ region: String, _ wish: HomeWish, _ term: HomeTerm, timeoutNanoseconds: UInt64
    ) -> HomeAnswer {
        let end = Clock.monotonicNanoseconds() + timeoutNanoseconds
        let before = shared.states.withLock { states in states.first { $0.region == region }?.failures }
        let number = shared.command.withLock { command in
            let frame: StreamFrame =
                switch wish {
                case .fence: .fence(term)
                case .claim: .claim(term)
                case .release: .release(term)
                }
            command = WatchCommand(number: command.number + 1, region: region, frame: frame, answer: nil)
            return command.number
        }
        shared.reactor.withLock { $0 }?.post(ReactorMessage(kind: WatchShared.commandKind))
        while true {
            let ticket = shared.parking.ticket
            let now = Clock.monotonicNanoseconds()
            let (answer, isSent) = shared.command.withLock { command in
                command.number == number
                    ? (command.answer, command.isSent) : (.unknown("another command was given"), true)
            }
            let (failures, reason) = shared.states.withLock { states in
                states.first { $0.region == region }.map { ($0.failures, $0.reason) } ?? (1, nil)
            }
            if let answer { return answer }
            // All its addresses were tried since.
            if now >= end || (!isSent && failures > before ?? 0) {
                // By now it may have been sent, or be answered.
                let (last, wasSent) = shared.command.withLock { command in
                    guard command.number == number else { return (HomeAnswer?.none, true) }
                    defer { command.answer = command.answer ?? .unknown("") }
                    return (command.answer, command.isSent)
                }
                if let last { return last }
                let known = reason.map { $0.isEmpty ? "" : ": \($0)" } ?? ": it has no `stream` in `regions`"
                let words = "no node of \(region) answers\(known)"
                return wasSent ? .unknown(words) : .refused(words)
            }
            shared.parking.wait(ticket, timeoutNanoseconds: end - now)
        }
    }

    /// Ends the thread. Blocks.
    package func stop() {
        group.stop(.immediate)
        group.join()
    }

    /// Reads certificates and revocation lists again; what is wrong with them.
    package func reload() -> String? {
        var problem: String?
        for context in shared.certificates.withLock({ $0 }) {
            do throws(TLSError) { try context?.reload() } catch { problem = "stream: \(error)" }
        }
        group.closeRevoked()
        return problem
    }
}

/// What a node of another region is to be told once.
struct WatchCommand {
    var number: UInt64 = 0
    var region = ""
    var frame = StreamFrame.done(epoch: 0)
    var isSent = false
    /// Nil before the answer.
    var answer: HomeAnswer? = .done

    /// Whether it is to be sent: nobody did, and it was not given up.
    var isDue: Bool { answer == nil && !isSent }
}

/// What the watch's thread shares with others.
final class WatchShared: Sendable {
    /// What is known of a region.
    struct Known {
        var region: String
        var answers = 0
        var failures = 0
        /// When it last answered, in monotonic nanoseconds.
        var last: UInt64 = 0
        var term: HomeTerm?
        /// Why it does not answer.
        var reason = ""
    }

    static var commandKind: UInt32 { 1 }
    static var resolvedKind: UInt32 { 2 }

    let configuration: StreamDirectConfiguration
    let peers: [StreamDirectConfiguration.Home]
    let log: Log?
    let heard: @Sendable (HomeTerm, StreamSuccession?, String) -> Void
    let reactor = Guarded<Reactor?>(nil)
    let states: Guarded<[Known]>
    let command = Guarded(WatchCommand())
    let parking = Parking()
    /// By region.
    let certificates = Guarded<[TLSClientContext?]>([])
    /// By region, addresses that were looked up.
    let resolved: Guarded<[Result<[SocketAddress], SystemError>?]>

    init(
        _ configuration: StreamDirectConfiguration, peers: [StreamDirectConfiguration.Home], log: Log?,
        heard: @escaping @Sendable (HomeTerm, StreamSuccession?, String) -> Void
    ) {
        self.configuration = configuration
        self.peers = peers
        self.log = log
        self.heard = heard
        states = Guarded(peers.map { Known(region: $0.region) })
        resolved = Guarded(peers.map { _ in nil })
    }

    func loadCertificates() throws(TLSError) {
        let lists = try RevocationLists(configuration.security?.revocationPath)
        let contexts = try peers.map { peer throws(TLSError) in
            try StreamService.clientContext(configuration, to: peer, lists)
        }
        certificates.withLock { $0 = contexts }
    }

    /// Looks an endpoint up without holding the others up.
    func resolve(_ endpoint: StreamDirectConfiguration.Endpoint, for index: Int) throws(SystemError) {
        _ = try Thread(name: "martlet-lookup") { [self] in
            let found: Result<[SocketAddress], SystemError>
            do throws(SystemError) {
                found = .success(
                    try ListeningSocket.resolve(host: endpoint.host, port: endpoint.port, isDatagram: false))
            } catch { found = .failure(error) }
            resolved.withLock { $0[index] = found }
            reactor.withLock { $0 }?.post(ReactorMessage(kind: Self.resolvedKind))
        }
    }
}

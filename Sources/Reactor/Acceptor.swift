// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization
internal import Telemetry

/// Takes connections and hands them round to the reactors; one thread.
///
/// At the connection limit it either refuses with memcached's error or stops listening until one closes. Without
/// descriptors it stops listening for a moment instead of spinning on a queue that it cannot take from.
final class Acceptor: @unchecked Sendable {
    // SAFETY (Sendable): made on one thread and used on another afterwards, by one at a time.
    private let configuration: ReactorConfiguration
    private let listeners: [BoundListener]
    private let reactors: [Reactor]
    private let admission: Admission
    private let counters: AcceptorCounters
    private let poller: Poller
    private var next = 0
    /// When listening stopped; nil while it goes on.
    private var stoppedAt: UInt64?
    private var isShort = false

    private static var wakeWord: UInt64 { .max }
    private static var refusal: StaticString { "ERROR Too many open connections\r\n" }
    /// Connections taken from one listener before the others are looked at.
    private static var acceptsPerTurn: Int { 64 }
    /// How long to wait for descriptors.
    private static var shortageMilliseconds: Int { 10 }

    init(
        _ configuration: ReactorConfiguration, _ listeners: [BoundListener], _ reactors: [Reactor],
        _ admission: Admission, _ counters: AcceptorCounters
    ) throws(SystemError) {
        self.configuration = configuration
        self.listeners = listeners
        self.reactors = reactors
        self.admission = admission
        self.counters = counters
        poller = try Poller(capacity: 64)
        try poller.add(admission.fd, [.input, .edge], user: Self.wakeWord)
        for (index, listener) in listeners.enumerated() where !listener.isDatagram {
            try poller.add(listener.fd, .input, user: UInt64(index))
        }
    }

    /// Runs until the group stops, and closes the listeners then.
    func run() {
        while !admission.isStopped.load(ordering: .sequentiallyConsistent) {
            let timeout = stoppedAt == nil ? -1 : isShort ? Self.shortageMilliseconds : 1_000
            let count = poller.wait(timeoutMilliseconds: timeout)
            resume()
            for index in 0..<count where poller.user(index) != Self.wakeWord {
                accept(Int(poller.user(index)))
            }
        }
        for listener in listeners where !listener.isDatagram {
            StreamSocket.closeNumber(listener.fd)
            if case .unix(let path, _) = listener.configuration.endpoint {
                ListeningSocket.remove(path: path, identity: listener.fileIdentity)
            }
        }
    }

    private func accept(_ index: Int) {
        let listener = listeners[index]
        for _ in 0..<Self.acceptsPerTurn {
            let isFull = admission.count.load(ordering: .sequentiallyConsistent) >= configuration.connectionLimit
            if isFull, !configuration.refusesBeyondLimit { return pause(isShort: false) }
            switch ListeningSocket.accept(listener.fd) {
            case .success(let fd):
                if isFull { refuse(fd) } else { hand(fd, index, listener) }
            case .failure(let error):
                // Gone before we took it: the next may be fine.
                if error.code == Self.aborted { continue }
                guard error.code != Self.nothing else { return }
                counters.set.add(.acceptErrors)
                return pause(isShort: true)
            }
        }
    }

    private static var nothing: Int32 { SystemError.wouldBlockCode }
    private static var aborted: Int32 { SystemError.connectionAbortedCode }

    private func refuse(_ fd: Int32) {
        counters.set.add(.connectionsRejected)
        let text = Self.refusal
        // SAFETY: a static string's bytes live for ever.
        unsafe _ = StreamSocket.write(fd, text.utf8Start, text.utf8CodeUnitCount)
        StreamSocket.closeNumber(fd)
    }

    private func hand(_ fd: Int32, _ index: Int, _ listener: BoundListener) {
        let transport: Transport = listener.isUnix ? .unix : listener.configuration.security == .none ? .tcp : .tls
        admission.count.add(1, ordering: .sequentiallyConsistent)
        let letter = Mailbox.Letter.adopt(
            fd: fd, listener: index, tag: listener.configuration.tag, transport: transport,
            security: listener.configuration.security)
        let reactor = reactors[next]
        next = (next + 1) % reactors.count
        if !reactor.mailbox.put(letter) {
            StreamSocket.closeNumber(fd)
            admission.leave()
        }
    }

    /// Stops listening until a connection closes, or for a moment.
    private func pause(isShort: Bool) {
        guard stoppedAt == nil else { return }
        stoppedAt = Clock.monotonicNanoseconds()
        self.isShort = isShort
        admission.isAccepting.store(false, ordering: .relaxed)
        counters.set.add(.listenDisabled)
        watchListeners([])
        admission.awaitClose()
    }

    /// Listens again when there is room.
    private func resume() {
        guard let since = stoppedAt else { return }
        guard admission.count.load(ordering: .sequentiallyConsistent) < configuration.connectionLimit else {
            return admission.awaitClose()
        }
        stoppedAt = nil
        admission.isAccepting.store(true, ordering: .relaxed)
        counters.set.add(.listenDisabledMicroseconds, (Clock.monotonicNanoseconds() &- since) / 1_000)
        watchListeners(.input)
    }

    private func watchListeners(_ interest: Readiness) {
        for (index, listener) in listeners.enumerated() where !listener.isDatagram {
            poller.change(listener.fd, interest, user: UInt64(index))
        }
    }
}

/// What the acceptor counts.
final class AcceptorCounters: Sendable {
    let set = CounterSet<ReactorCounter>()
}

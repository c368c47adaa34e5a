// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform
internal import Reactor
internal import Synchronization

/// `martlet-load agent`: takes tests of coordinators that know the token, one after another, until a signal.
struct AgentProgram {
    private static let backlog = 16

    private let program: String
    private let line: LoadCommandLine
    private let token: [UInt8]
    private let address: SocketAddress

    init(program: String, _ line: LoadCommandLine, _ environment: [String: String]) throws(RunProblem) {
        self.program = program
        self.line = line
        do throws(OptionProblem) {
            token = try AgentToken.find(line, environment)
            let name = line.last("listen") ?? "127.0.0.1:\(AgentLimits.port)"
            address = try TestRun.resolve([name], port: AgentLimits.port, what: "--listen")[0]
        } catch {
            throw RunProblem(.invalidOptions, error.description)
        }
    }

    private func say(_ text: String) { writeWhole(Array("\(program): \(text)\n".utf8), to: 1) }

    /// Runs until a signal. Returns how the program ends.
    func run() throws(RunProblem) -> ExitCode {
        Signal.block()
        let door: AgentDoor
        do throws(SystemError) {
            let socket = try listen()
            let bound = SocketAddress.local(of: socket.number)
            let host = bound.isIPv6 ? "[\(bound.host)]" : bound.host
            say("waiting for tests at \(bound.isUnix ? bound.host : "\(host):\(bound.port)"), \(threads) threads")
            door = try AgentDoor(socket, token, threads: threads)
        } catch {
            throw RunProblem(.generic, error.description)
        }
        while true {
            if let signal = Signal.wait(milliseconds: 20), signal != .user1, signal != .user2 { break }
            guard let channel = door.take() else { continue }
            say("a coordinator came")
            var run = AgentRun(program: program, channel)
            do throws(AgentProblem) {
                try run.serve()
                say("its test is over")
            } catch {
                say("its test ended: \(error.description)")
            }
            channel.close()
            guard !run.isSignalled else { break }
            door.open()
        }
        door.close()
        return .success
    }

    private func listen() throws(SystemError) -> Descriptor {
        guard address.isUnix else { return try ListeningSocket.tcp(address, backlog: Self.backlog) }
        return try ListeningSocket.unix(path: address.host, mode: 0o600, backlog: Self.backlog)
    }

    private var threads: Int { line.last("threads").flatMap { Int($0) } ?? TestRun.defaultThreads }
}

/// The thread of an agent that takes connections: each proves that it knows the token on a thread of its own, and the
/// first that does has the agent until its test is over.
final class AgentDoor: Sendable {
    private struct State {
        var channel: AgentChannel?
        var isBusy = false
    }

    private let state = Guarded(State())
    private let isClosed = Flag()
    private let proving = Atomic<Int>(0)
    private let token: [UInt8]
    private let threads: Int
    private let thread: Guarded<Thread?> = Guarded(nil)

    /// Takes connections of `socket`.
    init(_ socket: consuming Descriptor, _ token: [UInt8], threads: Int) throws(SystemError) {
        (self.token, self.threads) = (token, threads)
        let number = socket.release()
        let made = try Thread(name: "martlet-door") { [self] in
            let socket = Descriptor(owning: number)
            while !isClosed.isSet {
                switch ListeningSocket.accept(socket.number) {
                case .success(let fd): admit(fd)
                // Nobody is there, or too few descriptors: later.
                case .failure: Thread.sleep(microseconds: 20_000)
                }
            }
        }
        thread.withLock { $0 = made }
    }

    private func admit(_ fd: Int32) {
        let stream = OutboundStream(adopting: fd)
        guard proving.add(1, ordering: .relaxed).newValue <= AgentLimits.handshakes else {
            proving.subtract(1, ordering: .relaxed)
            return
        }
        do throws(SystemError) {
            let channel = try AgentChannel(stream, isAgent: true)
            // Its own thread's from here on.
            let passed = Guarded<AgentChannel?>(nil)
            passed.withLock { $0 = channel }
            _ = try Thread(name: "martlet-proof") { [self] in
                if let channel = passed.withLock({ $0 }) { prove(channel) }
                proving.subtract(1, ordering: .relaxed)
            }
        } catch {
            proving.subtract(1, ordering: .relaxed)
        }
    }

    private func prove(_ channel: AgentChannel) {
        var isClaimed = false
        do throws(AgentProblem) {
            try channel.admit(token, threads: threads) {
                isClaimed = state.withLock { state in
                    defer { state.isBusy = true }
                    return !state.isBusy
                }
                return isClaimed
            }
            state.withLock { $0.channel = channel }
        } catch {
            // A stranger, or one that comes too early: nothing is said of it, and somebody else may come.
            channel.close()
            if isClaimed { open() }
        }
    }

    /// A coordinator that proved the token; the agent is its own until ``open()``.
    func take() -> AgentChannel? {
        state.withLock { state in
            defer { state.channel = nil }
            return state.channel
        }
    }

    /// The next one may come.
    func open() { state.withLock { $0.isBusy = false } }

    /// Takes no more.
    func close() {
        isClosed.set()
        thread.exchange(nil)?.join()
    }
}

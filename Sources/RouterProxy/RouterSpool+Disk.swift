// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Platform
internal import Reactor
internal import Spool
internal import Synchronization
internal import Telemetry

/// The thread that has the disk: it writes deletes that were missed, and reads those that are to be repeated.
extension RouterSpool {
    /// Opens the directory, so that servers with deletes of earlier processes are not read from, and starts the thread.
    func start(_ reactors: [Reactor]) throws(RouterStartError) {
        state.withLock { state in
            state.reactors = reactors
            state.outcomes = Array(repeating: [], count: reactors.count)
        }
        guard let path = settings.directory else { return }
        var configuration = SpoolConfiguration(directory: path)
        configuration.limitBytes = settings.limitBytes
        configuration.isSynced = settings.isSynced
        do throws(SystemError) {
            let found = try SpoolDirectory(configuration)
            let (counts, bytes) = (found.counts, found.bytes)
            state.withLock { state in
                state.identifier = found.identifier
                state.bytes = bytes
                for (server, count) in counts { state.entries[server] = Entry(pending: count, onDisk: count) }
            }
            for (server, count) in counts {
                log?.warning("deletes are to be repeated", ["server": .text(server), "count": .count(count)])
            }
            epoch.add(1, ordering: .releasing)
            // The thread is the only one to use it from here on.
            let box = Guarded<SpoolDirectory?>(found)
            let thread = try Thread(name: "spool") { [self] in
                let directory = box.exchange(nil)
                if let directory { run(directory) }
            }
            threads.withLock { $0.append(thread) }
        } catch {
            guard error.code != SystemError.notSupportedCode else {
                throw RouterStartError(
                    description: "spool.directory: \(error.subject) is of a later version: use that one until its "
                        + "deletes are done, or remove the file, and with it the deletes")
            }
            throw RouterStartError(description: "spool.directory: \(error.description)")
        }
    }

    /// Ends the threads, when what was added is on disk. Waits for that.
    func stop() {
        let marks = state.withLock { state in
            state.isStopped = true
            defer { state.marks = [:] }
            return state.marks
        }
        writing.announce()
        marking.announce()
        let threads = threads.exchange([])
        for thread in threads { thread.join() }
        for mark in marks.values { mark.stop() }
    }

    private func run(_ directory: SpoolDirectory) {
        while true {
            let ticket = writing.ticket
            let (queue, done, isStopped) = state.withLock { state in
                defer { (state.queue, state.done) = ([], []) }
                return (state.queue, state.done, state.isStopped)
            }
            if !queue.isEmpty { write(queue, directory) }
            for replay in done { finish(replay, directory) }
            if isStopped { return }
            let next = offerReplays(directory)
            state.withLock { $0.bytes = directory.bytes }
            guard queue.isEmpty, done.isEmpty else { continue }
            let now = Clock.monotonicNanoseconds()
            writing.wait(ticket, timeoutNanoseconds: min(next > now ? next - now : 1, 1_000_000_000))
        }
    }

    /// Writes deletes, those of each server in their order, and has the reactors told.
    private func write(_ queue: [Missed], _ directory: SpoolDirectory) {
        let seconds = UInt32(truncatingIfNeeded: Clock.realtimeNanoseconds() / 1_000_000_000)
        var outcomes: [Outcome] = []
        for (server, missed) in Dictionary(grouping: queue, by: \.server) {
            do throws(SpoolDirectory.Refusal) {
                try directory.append(missed.map(\.key), of: server, seconds: seconds)
                let isMarkMissing = state.withLock { state in
                    state.entries[server]?.onDisk += missed.count
                    guard state.places[server] != nil, state.entries[server]?.isMarked == false else { return false }
                    state.entries[server]?.awaitingMark += missed
                    return true
                }
                if isMarkMissing {
                    marking.announce()
                } else {
                    outcomes += missed.map { Outcome(missed: $0, isKept: true) }
                }
            } catch {
                log?.error("deletes cannot be kept", ["server": .text(server), "reason": .text("\(error)")])
                forget(missed.count, of: server)
                outcomes += missed.map { Outcome(missed: $0, isKept: false) }
            }
        }
        tell(outcomes)
    }

    /// So many deletes of a server are no longer to be repeated.
    private func forget(_ count: Int, of server: String) {
        let isOver = state.withLock { state in
            state.entries[server]?.pending -= count
            return state.entries[server]?.pending == 0
        }
        guard isOver else { return }
        epoch.add(1, ordering: .releasing)
        marking.announce()
    }

    /// Tells reactors what became of deletes.
    func tell(_ outcomes: [Outcome]) {
        let kept = outcomes.count { $0.isKept }
        counters.kept.add(UInt64(kept), ordering: .relaxed)
        counters.refused.add(UInt64(outcomes.count - kept), ordering: .relaxed)
        let reactors = state.withLock { state in
            for outcome in outcomes where outcome.missed.reactor < state.outcomes.count {
                state.outcomes[outcome.missed.reactor].append(outcome)
            }
            return state.reactors
        }
        for index in Set(outcomes.map(\.missed.reactor)) where index < reactors.count {
            reactors[index].post(ReactorMessage(kind: Self.messageKind))
        }
    }

    // MARK: Repeating

    /// Takes what was repeated off the disk.
    private func finish(_ replay: Replay, _ directory: SpoolDirectory) {
        directory.advance(replay.server)
        state.withLock { state in
            state.entries[replay.server]?.onDisk -= replay.keys.count
            state.entries[replay.server]?.isReplaying = false
            state.entries[replay.server]?.nextReplay = 0
        }
        forget(replay.keys.count, of: replay.server)
        if directory.count(replay.server) == 0 {
            log?.info("all missed deletes were repeated", ["server": .text(replay.server)])
        }
    }

    /// Gives the first reactor what servers have to do. Returns when there will be more, in monotonic nanoseconds.
    private func offerReplays(_ directory: SpoolDirectory) -> UInt64 {
        let now = Clock.monotonicNanoseconds()
        var next = UInt64.max
        let due = state.withLock { state in
            state.entries.filter { _, entry in
                guard entry.onDisk > 0, !entry.isReplaying else { return false }
                guard entry.nextReplay <= now else {
                    next = min(next, entry.nextReplay)
                    return false
                }
                return true
            }.keys.sorted()
        }
        for server in due {
            let keys = (try? directory.next(server, limit: Self.batch)) ?? []
            let reactor = state.withLock { state -> Reactor? in
                guard !keys.isEmpty else {
                    // What the disk no longer gives is lost; what comes after it is not.
                    let left = directory.count(server)
                    let before = state.entries[server]?.onDisk ?? 0
                    state.entries[server]?.pending += left - before
                    state.entries[server]?.onDisk = left
                    state.entries[server]?.nextReplay = now &+ Self.pauseNanoseconds
                    return nil
                }
                state.entries[server]?.isReplaying = true
                state.replays.append(Replay(server: server, keys: keys))
                return state.reactors.first
            }
            reactor?.post(ReactorMessage(kind: Self.messageKind))
            if keys.isEmpty {
                log?.error("missed deletes cannot be read", ["server": .text(server)])
                epoch.add(1, ordering: .releasing)
            }
        }
        return next
    }
}

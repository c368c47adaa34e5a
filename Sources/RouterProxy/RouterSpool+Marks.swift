// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Platform
internal import Synchronization
internal import Telemetry

/// Marks of repair in etcd: ours are set and taken away, those of others are followed.
extension RouterSpool {
    /// Follows the marks of the fleets in etcd that servers belong to: by server, where its members are. Waits a while
    /// until those of fleets that are new are known.
    func follow(_ places: [String: EtcdAddress], _ discovery: RouterDiscovery) throws(RouterStartError) {
        let wanted = Dictionary(places.values.map { ($0.prefix, $0) }) { first, _ in first }
        let (known, identifier) = state.withLock { state in
            state.places = places.mapValues(\.prefix)
            return (Set(state.marks.keys), state.identifier)
        }
        var fresh: [RepairMarks] = []
        for (prefix, address) in wanted where !known.contains(prefix) {
            do throws(SystemError) {
                let marks = try RepairMarks(
                    address, owner: identifier, caFile: discovery.caFile,
                    log: { [log] in log?.warning("repair marks", ["what": .text($0)]) },
                    onChange: { [self] others, own in learn(prefix, others, own) })
                state.withLock { $0.marks[prefix] = marks }
                fresh.append(marks)
            } catch {
                throw RouterStartError(description: "marks of repair: \(error.description)")
            }
        }
        let gone = state.withLock { state in
            let gone = state.marks.filter { wanted[$0.key] == nil }
            for prefix in gone.keys { (state.marks[prefix], state.marked[prefix]) = (nil, nil) }
            return gone
        }
        for marks in gone.values { marks.stop() }
        if !gone.isEmpty { epoch.add(1, ordering: .releasing) }
        try startMarking(isWanted: !wanted.isEmpty && keeps)
        let end = Clock.monotonicNanoseconds() &+ UInt64(discovery.waitMilliseconds) * 1_000_000
        for marks in fresh where !marks.awaitKnown(until: end) {
            log?.warning("marks of repair are not known yet")
        }
    }

    private func learn(_ prefix: String, _ others: Set<String>, _ own: Set<String>) {
        state.withLock { state in
            state.marked[prefix] = others
            for server in own { state.entries[server, default: Entry()].mayBeMarked = true }
        }
        epoch.add(1, ordering: .releasing)
        marking.announce()
    }

    private func startMarking(isWanted: Bool) throws(RouterStartError) {
        guard isWanted, threads.withLock({ $0.count < 2 }) else { return }
        do throws(SystemError) {
            let thread = try Thread(name: "spool-marks") { [self] in mark() }
            threads.withLock { $0.append(thread) }
        } catch {
            throw RouterStartError(description: "marks of repair: \(error.description)")
        }
    }

    private enum Task { case set, clear }

    /// Sets and takes away marks, one after the other, so that the last word on a server is the right one.
    private func mark() {
        while true {
            let ticket = marking.ticket
            let tasks = state.withLock { state -> [(String, Task, RepairMarks)]? in
                guard !state.isStopped else { return nil }
                var tasks: [(String, Task, RepairMarks)] = []
                for (server, entry) in state.entries {
                    guard let place = state.places[server], let marks = state.marks[place] else { continue }
                    if entry.pending > 0, !entry.isMarked {
                        tasks.append((server, .set, marks))
                    } else if entry.pending == 0, entry.isMarked || entry.mayBeMarked {
                        // Deletes that are missed from here on wait for a mark that comes after.
                        state.entries[server]?.isMarked = false
                        tasks.append((server, .clear, marks))
                    }
                }
                return tasks
            }
            guard let tasks else { return }
            var isDone = true
            for (server, task, marks) in tasks {
                let succeeded = task == .set ? marks.set(server) : marks.clear(server)
                if !succeeded { isDone = false }
                note(server, task, succeeded)
            }
            if tasks.isEmpty || !isDone { marking.wait(ticket, timeoutNanoseconds: 1_000_000_000) }
        }
    }

    private func note(_ server: String, _ task: Task, _ succeeded: Bool) {
        let waiting = state.withLock { state -> [Missed] in
            if task == .clear {
                if succeeded { state.entries[server]?.mayBeMarked = false }
                return []
            }
            if succeeded { state.entries[server]?.isMarked = true }
            state.entries[server]?.mayBeMarked = true
            defer { state.entries[server]?.awaitingMark = [] }
            return state.entries[server]?.awaitingMark ?? []
        }
        if !succeeded { log?.error("etcd does not take a mark of repair", ["server": .text(server)]) }
        // Others may still read what was to be deleted: the client has to know. It is repeated all the same.
        tell(waiting.map { Outcome(missed: $0, isKept: succeeded) })
    }
}

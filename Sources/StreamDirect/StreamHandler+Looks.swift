// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Reactor
internal import Storage

/// Questions what nodes have cached: to those who follow us, and to ourselves.
extension StreamHandler {
    /// What the node itself is called among those that are asked.
    private var ownName: String { "\(configuration.region)/\(configuration.name)" }

    /// Sends the questions that wait.
    func sendLooks(_ loop: inout ReactorLoop) {
        for look in shared.desk.takeLooks() { send(look, &loop) }
    }

    private func send(_ look: StreamLook, _ loop: inout ReactorLoop) {
        let keys = Array(look.keys.prefix(StreamFrame.lookKeysMax))
        var names: [String] = []
        for session in sessions.values {
            guard let hello = session.hello, session.pump != nil, hello.answersLooks, !hello.name.isEmpty else {
                continue
            }
            let name = "\(hello.region)/\(hello.name)"
            guard look.replica == nil || look.replica == name, !names.contains(name) else { continue }
            names.append(name)
            loop.withConnection(session.id) { _, output in
                send(.look(look.number, explains: look.replica != nil, keys: keys), &output)
            }
        }
        let isAsked = local != nil && shared.consumer != nil && (look.replica == nil || look.replica == ownName)
        if isAsked { names.append(ownName) }
        // First: an answer to what was not asked is nobody's.
        if look.replica == nil { shared.desk.put(.asked(look.number, names)) }
        if isAsked {
            let position = local?.follower.position
            let reports = reports(keys, look.replica != nil) { slot in
                position.map { ($0.epoch, $0.sequences[slot]) }
            }
            shared.desk.put(.answered(look.number, ownName, reports))
        }
    }

    /// One who follows us has answered.
    func sighted(_ number: UInt64, _ reports: [CopyReport], _ slot: Int) {
        guard let hello = sessions[slot]?.hello else { return }
        shared.desk.put(.answered(number, "\(hello.region)/\(hello.name)", reports))
    }

    /// Whether we say what we have cached, when we are asked.
    var answersLooks: Bool { shared.consumer != nil && configuration.answersLooks }

    /// Whether somebody can ask us: whom we follow, or ourselves.
    var isMonitored: Bool {
        guard answersLooks else { return false }
        if case .open(_, true) = link?.state { return true }
        return local != nil
    }

    /// What the node has cached of keys; `place` tells the epoch of a slot, and the last number there up to which all
    /// was received.
    func reports(
        _ keys: [[UInt8]], _ explains: Bool, _ place: (Int) -> (epoch: Int64, sequence: Int64)?
    ) -> [CopyReport] {
        guard let consumer = shared.consumer else { return [] }
        return consumer.look(keys, explains: explains).enumerated().map { index, report in
            var report = report
            if index < keys.count, case let key = keys[index],
                let place = place(StreamSlots.slot(keyHash: stableHash(key.span)))
            {
                report.trace?.epoch = place.epoch
                report.trace?.position = place.sequence
            }
            return report
        }
    }
}

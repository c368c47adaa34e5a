// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Platform
internal import Reactor
internal import Storage
internal import Telemetry

/// What the home region is asked for on behalf of a consumer of its stream through a broker: what the broker does not
/// have any more. Meanwhile it may ask what the consumer has cached.
extension StreamHandler {
    /// Whether there is to be a connection.
    var isLinkWanted: Bool {
        !configuration.repairsOnly || answersLooks || shared.repair.withLock { $0.position != nil }
    }

    /// Something else is asked for, or nothing any more.
    func repairOrdered(_ loop: inout ReactorLoop) {
        guard configuration.repairsOnly, let link else { return }
        switch link.state {
        case .open(let id, _):
            self.link?.isReordered = true
            loop.close(id)
            if case .waiting = self.link?.state, isLinkWanted { beginLink(&loop) }
        // What is asked for is looked at when there is a connection.
        case .resolving, .connecting: break
        case .waiting: if isLinkWanted { beginLink(&loop) }
        }
    }

    /// Puts what is asked for into the first frame. Who answers no looks has no name: nothing is kept on its behalf.
    func orderRepair(_ hello: inout StreamHello) {
        let (position, number) = shared.repair.withLock { ($0.position, $0.number) }
        if !answersLooks { hello.name = "" }
        hello.takesSuccession = false
        hello.position = position
        hello.onlyLooks = position == nil
        link?.repairNumber = number
        link?.onlyLooks = position == nil
        link?.nextSign = 0
    }

    /// The connection is gone; whether it was to end.
    func repairEnded() -> Bool {
        guard let link else { return true }
        if link.isReordered {
            self.link?.isReordered = false
            self.link?.peer = ""
            self.link?.state = .waiting(until: 0)
            return true
        }
        if !link.onlyLooks { add([.failed(link.reason.isEmpty ? "the connection ended" : link.reason)], bytes: 0) }
        return false
    }

    /// What was taken may come again. Where nothing comes, the source is to say that it is there.
    func repairTick(_ output: inout OutputBuffer) {
        guard let link, case .open(_, true) = link.state else { return }
        if link.onlyLooks {
            let now = reactor.nowNanoseconds
            guard now >= link.nextSign else { return }
            self.link?.nextSign = now &+ configuration.stream.probeNanoseconds
            return send(.probe(1, answered: 0), &output)
        }
        let taken = shared.repair.withLock { order in
            defer { order.taken = 0 }
            return order.taken
        }
        if taken > 0 { send(.grant(taken), &output) }
    }

    func repairReceived(
        _ frame: StreamFrame, _ bytes: Int, _ connection: inout Connection, _ output: inout OutputBuffer
    ) {
        guard case .open(let id, let isWelcomed) = link?.state else { return }
        switch frame {
        case .refused(let reason):
            link?.reason = "refused: \(reason)"
            connection.closeNow()
        case .welcome(let region, let position, _) where !isWelcomed && region == shared.home?.region:
            link?.state = .open(id, isWelcomed: true)
            link?.failures = 0
            link?.connections += 1
            link?.reason = ""
            if link?.onlyLooks ?? false {
                shared.log?.info("stream: home asks what is cached", ["source": .text(position.source)])
                return
            }
            shared.log?.info("stream: records are fetched from their source", ["source": .text(position.source)])
            add([.began(position)], bytes: 0)
            send(.grant(configuration.stream.windowBytes), &output)
        case .batch(let records) where isWelcomed: add(read(records), bytes: bytes)
        case .packed(let count, let block) where isWelcomed && configuration.takesPacked:
            guard let records = Self.unpacked(block, count) else {
                link?.reason = "the source sent a batch that cannot be unpacked"
                return connection.closeNow()
            }
            add(read(records), bytes: count + StreamFrame.headerBytes)
        case .lost(let slot, let through) where isWelcomed: add([.lost(slot: slot, through: through)], bytes: 0)
        case .complete where isWelcomed: break
        case .look(let number, let explains, let keys) where isWelcomed && answersLooks:
            let places = shared.reached.withLock { $0 }
            let reports = reports(keys, explains) { places.indices.contains($0) ? places[$0] : nil }
            send(.sights(number, reports), &output)
        default:
            link?.reason = "the source does not keep to the protocol, or is of another region"
            connection.closeNow()
        }
    }

    private func read(_ records: [[UInt8]]) -> [RepairItem] { readable(records).map { .record($0) } }

    private func add(_ items: [RepairItem], bytes: Int) {
        let number = link?.repairNumber
        shared.repair.withLock { order in
            guard order.number == number else { return }
            order.items += items
            order.bytes += bytes
        }
    }
}

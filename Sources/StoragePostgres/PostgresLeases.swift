// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage
internal import Synchronization

/// The authority of a fleet in its database: see ``FleetSchema``. A thread of its own with a connection of its own, so
/// that no write holds a lease up.
final class PostgresLeases: LeaseAuthority {
    private let core: SQLCore
    private let configuration: PostgresConfiguration
    private let desk = QuestionDesk<LeaseRequest, Result<LeaseReply, StorageFailure>>()
    private let parking = Parking()
    private let isStopping = Atomic<Bool>(false)

    /// The name that is given back at the end.
    private let leaving = Guarded<(name: String, token: UInt64)?>(nil)

    init(_ core: SQLCore) {
        var own = core.configuration
        // What comes later than a lease lasts is of no use.
        own.statementTimeoutMilliseconds = min(1_000, own.statementTimeoutMilliseconds)
        own.connectTimeoutMilliseconds = min(2_000, own.connectTimeoutMilliseconds)
        configuration = own
        self.core = core
    }

    func exchange(_ request: LeaseRequest) throws(StorageFailure) -> LeaseReply {
        let answer = desk.ask(request, timeoutNanoseconds: 8_000_000_000) { parking.announce() }
        guard let answer else { throw StorageFailure(.refused, "the database did not answer in time") }
        return try answer.get()
    }

    func releaseAtEnd(name: String, token: UInt64) { leaving.withLock { $0 = (name, token) } }

    /// Ends the thread.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        parking.announce()
    }

    /// Answers until the end. On a thread of its own.
    func run() {
        while !isStopping.load(ordering: .acquiring) {
            let ticket = parking.ticket
            guard desk.waiting != nil else {
                parking.wait(ticket, timeoutNanoseconds: 1_000_000_000)
                continue
            }
            do throws(SQLFailure) {
                let connection = try core.connect(configuration)
                _ = try connection.run(texts: [PostgresSchema.session(configuration)])
                try answer(connection)
            } catch {
                guard let (number, _) = desk.waiting else { continue }
                desk.answer(number, .failure(StorageFailure(.refused, error.reason)))
            }
        }
    }

    /// Answers until the connection is of no use any more.
    private func answer(_ connection: borrowing SQLConnection) throws(SQLFailure) {
        while !isStopping.load(ordering: .acquiring) {
            let ticket = parking.ticket
            guard let (number, request) = desk.waiting else {
                parking.wait(ticket, timeoutNanoseconds: 1_000_000_000)
                continue
            }
            if let complaint = connection.complaint() { throw .lostBefore(reason: complaint) }
            do throws(SQLFailure) {
                try core.requireCurrent(connection)
                let reply = try exchange(request, connection)
                try core.requireCurrent(connection)
                desk.answer(number, .success(reply))
            } catch .refused(let state, let reason) where state != "25006" {
                desk.answer(number, .failure(StorageFailure(.refused, reason)))
            }
        }
        guard let (name, token) = leaving.withLock({ $0 }) else { return }
        _ = try connection.run(texts: [FleetSchema.release(name: name, token: token)])
    }

    private func exchange(
        _ request: LeaseRequest, _ connection: borrowing SQLConnection
    ) throws(SQLFailure) -> LeaseReply {
        var hadPredecessor = false
        if request.joins {
            do throws(SQLFailure) {
                let rows = try connection.run(texts: FleetSchema.seize + FleetSchema.join(request)).last ?? []
                hadPredecessor = !rows.isEmpty
            } catch .refused(FleetSchema.fencedState, _) {
                throw .refused(
                    state: FleetSchema.fencedState, reason: "other nodes have another ownership.hash, tag or lease")
            }
        }
        if let members = request.proposal {
            let change = FleetSchema.change(after: request.adopted, to: members)
            do throws(SQLFailure) {
                _ = try connection.run(texts: FleetSchema.seize + change)
            } catch .refused {
                // Somebody was faster, or holds the lock for long: what there is is asked for all the same.
            }
        }
        let answers = try connection.run(texts: [
            FleetSchema.share, FleetSchema.say(request), FleetSchema.rings(from: request.adopted), FleetSchema.nodes,
        ])
        guard var reply = Self.reply(answers) else {
            throw .refused(state: "XX001", reason: "a table of the fleet is not ours")
        }
        reply.hadPredecessor = hadPredecessor
        return reply
    }

    private static func reply(_ answers: [SQLRows]) -> LeaseReply? {
        guard answers.count == 4 else { return nil }
        var reply = LeaseReply(isHolder: !answers[1].isEmpty)
        for columns in answers[2] {
            guard columns.count == 2, let epoch = number(columns[0]),
                let bytes = columns[1].flatMap({ Hexadecimal.bytes(String(decoding: $0, as: UTF8.self)) }),
                let members = RingText.read(bytes)
            else { return nil }
            reply.rings.append((UInt64(bitPattern: epoch), members))
        }
        for columns in answers[3] {
            guard columns.count == 3, let name = columns[0], let epoch = number(columns[1]),
                let age = number(columns[2])
            else { return nil }
            reply.nodes.append((String(decoding: name, as: UTF8.self), UInt64(bitPattern: epoch), age))
        }
        return reply
    }

    private static func number(_ column: [UInt8]?) -> Int64? {
        column.flatMap { Int64(String(decoding: $0, as: UTF8.self)) }
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Who gets a value for whom, within one process: of all that want a key at once, one leads and the others follow.
/// Pure.
struct FlightTable: Sendable {
    /// What somebody who joined does.
    enum Role: Equatable, Sendable {
        /// Gets the value, for all.
        case lead
        /// Waits for the leader.
        case follow
        /// More wait already than may.
        case refuse
    }

    private struct Flight: Sendable {
        var leader: UInt64
        var followers: [UInt64] = []
    }

    private var flights: [String: Flight] = [:]
    private let followerLimit: Int

    /// At most `followerLimit` wait for a key.
    init(followerLimit: Int) { self.followerLimit = followerLimit }

    /// Keys that are under way.
    var count: Int { flights.count }

    /// `id`, which nobody else has, wants `key`.
    mutating func join(_ key: String, _ id: UInt64) -> Role {
        guard let index = flights.index(forKey: key) else {
            flights[key] = Flight(leader: id)
            return .lead
        }
        guard flights.values[index].followers.count < followerLimit else { return .refuse }
        flights.values[index].followers.append(id)
        return .follow
    }

    /// The leader has the value, or cannot get it: the followers that hear of it.
    mutating func finish(_ key: String, _ id: UInt64) -> [UInt64] {
        guard flights[key]?.leader == id else { return [] }
        return flights.removeValue(forKey: key)?.followers ?? []
    }

    /// The leader gives up for reasons of its own (its task was cancelled): who leads from now on; nil when nobody is
    /// left.
    mutating func resign(_ key: String, _ id: UInt64) -> UInt64? {
        guard var flight = flights[key], flight.leader == id else { return nil }
        guard !flight.followers.isEmpty else {
            flights[key] = nil
            return nil
        }
        flight.leader = flight.followers.removeFirst()
        flights[key] = flight
        return flight.leader
    }

    /// A follower waits no longer. False when it had been told already.
    mutating func leave(_ key: String, _ id: UInt64) -> Bool {
        guard let index = flights.index(forKey: key),
            let place = flights.values[index].followers.firstIndex(of: id)
        else { return false }
        flights.values[index].followers.remove(at: place)
        return true
    }
}

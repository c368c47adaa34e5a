// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Reactor

/// Keeps a connection's own commands on one key in the order in which they came, as far as anybody could tell.
///
/// The store orders writes among themselves, and a read that follows writes sees them. What is left is a write behind a
/// read: it is held back until the read has its answer. Commands of different connections overlap, and have no order.
/// Keys are told apart by their hash: two of one hash are kept in order too, which harms nobody. Owned by one reactor's
/// thread.
struct CommandOrder {
    private struct Line: Hashable {
        let connection: ConnectionID
        let hash: UInt64
    }

    /// The commands of a line that have no answer yet, and how many of them are reads, or held back.
    private struct Waiting {
        var commands: [ParkedRequest] = []
        var reads = 0
        var held = 0

        /// Whether a command that comes last may go at once.
        func admits(_ command: ParkedRequest) -> Bool {
            if command.isAboutCopy { return commands.isEmpty }
            return held == 0 && (command.isRead || reads == 0)
        }

        /// Lets those go that have nothing to wait for any more, in order.
        mutating func release() -> [ParkedRequest] {
            var freed: [ParkedRequest] = []
            var readsBefore = 0
            for (index, next) in commands.enumerated() where held > 0 {
                if next.isHeld {
                    let mayGo = next.isAboutCopy ? index == 0 : next.isRead || readsBefore == 0
                    guard mayGo else { break }
                    next.isHeld = false
                    held -= 1
                    freed.append(next)
                }
                if next.isRead { readsBefore += 1 }
                // Nothing passes it: it leaves the line at once.
                if next.isAboutCopy { break }
            }
            return freed
        }
    }

    private var lines: [Line: Waiting] = [:]

    /// Whether the connection has commands on the key that have no answer yet.
    func isWaiting(_ connection: ConnectionID, _ hash: UInt64) -> Bool {
        !lines.isEmpty && lines[Line(connection: connection, hash: hash)] != nil
    }

    /// Puts a command in its line. True when it may go to the store now.
    mutating func enter(_ command: ParkedRequest) -> Bool {
        let line = Line(connection: command.connection, hash: command.hash)
        return Self.enter(command, &lines[line, default: Waiting()])
    }

    private static func enter(_ command: ParkedRequest, _ waiting: inout Waiting) -> Bool {
        let mayGo = waiting.admits(command)
        waiting.commands.append(command)
        if command.isRead { waiting.reads += 1 }
        if !mayGo { waiting.held += 1 }
        command.isHeld = !mayGo
        return mayGo
    }

    /// Takes a command that has its answer out of its line. Returns those that may go to the store now, in order.
    mutating func leave(_ command: ParkedRequest) -> [ParkedRequest] {
        let line = Line(connection: command.connection, hash: command.hash)
        guard lines[line] != nil else { return [] }
        let (freed, isEmpty) = Self.leave(command, &lines[line, default: Waiting()])
        if isEmpty { lines[line] = nil }
        return freed
    }

    private static func leave(
        _ command: ParkedRequest, _ waiting: inout Waiting
    ) -> (freed: [ParkedRequest], isEmpty: Bool) {
        guard let place = waiting.commands.firstIndex(where: { $0 === command }) else { return ([], false) }
        waiting.commands.remove(at: place)
        if command.isRead { waiting.reads -= 1 }
        return (waiting.release(), waiting.commands.isEmpty)
    }
}

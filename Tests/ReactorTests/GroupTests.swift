// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Reactor
import Testing

extension ReactorSuite {
    /// Input that is read of several connections before any of it is executed.
    @Suite struct Groups {
        /// Keeps the reactor busy, so that what is sent meanwhile is ready at once afterwards.
        private func occupy(_ server: TestServer, milliseconds: UInt32 = 60) {
            server.group.reactors[0].post { _ in usleepMilliseconds(milliseconds) }
            usleepMilliseconds(5)
        }

        @Test func readsTogetherWhatBecameReadyTogether() throws {
            let server = try TestServer()
            let clients = try (0..<40).map { _ in try TestClient(port: server.port) }
            #expect(eventually { server.seen.opened == 40 })
            occupy(server)
            for (number, client) in clients.enumerated() { try client.send("echo \(number)\n") }
            for (number, client) in clients.enumerated() { #expect(try client.line() == "echo \(number)") }
            let sizes = server.seen.foreseen
            #expect(sizes.contains(InputGroup.limit) && sizes.allSatisfy { $0 >= 2 && $0 <= InputGroup.limit })
        }

        @Test func losesNothingOfWhatIsLargerThanItsShare() throws {
            let server = try TestServer()
            let clients = try (0..<4).map { _ in try TestClient(port: server.port) }
            let share = InputGroup.sliceBytes
            for length in [share - 1, share, share + 1, 2 * share, 3 * share - 1, 100, 8 * share] {
                let line = "echo " + String(repeating: "x", count: length - 6)
                occupy(server, milliseconds: 20)
                for client in clients { try client.send(line + "\n") }
                for client in clients { #expect(try client.line() == line) }
                // Enough small ones for a connection to be read in a group again.
                for number in 0..<80 {
                    for client in clients { try client.send("echo \(number)\n") }
                    for client in clients { #expect(try client.line() == "echo \(number)") }
                }
            }
        }

        @Test func noticesAnEndRightBehindARequest() throws {
            let server = try TestServer()
            let clients = try (0..<20).map { _ in try TestClient(port: server.port) }
            #expect(eventually { server.seen.opened == 20 })
            occupy(server)
            for client in clients {
                try client.send("echo last\n")
                client.endOutput()
            }
            for client in clients {
                #expect(try client.line() == "echo last")
                #expect(client.closes())
            }
            #expect(eventually { server.seen.closed.count == 20 && server.seen.closed.allSatisfy { $0 == .peer } })
        }

        @Test func goesOnWithAPausedConnectionWhereItStopped() throws {
            let server = try TestServer()
            let clients = try (0..<3).map { _ in try TestClient(port: server.port) }
            #expect(eventually { server.seen.opened == 3 })
            occupy(server)
            for client in clients { try client.send("echo before\npause\necho behind\n") }
            for client in clients { #expect(try client.line() == "echo before") }
            for client in clients { try client.send("echo later\n") }
            for client in clients { #expect(client.isSilent(milliseconds: 50)) }
            for connection in server.seen.connections {
                server.group.reactors[0].post(ReactorMessage(kind: 1, connection: connection))
            }
            for client in clients {
                #expect(try client.line() == "echo behind")
                #expect(try client.line() == "echo later")
                try client.send("echo after\n")
                #expect(try client.line() == "echo after")
            }
        }
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

import Reactor
import Testing

extension ReactorSuite {
    @Suite struct Limits {
        @Test func refusesConnectionsBeyondTheLimit() throws {
            let server = try TestServer { $0.connectionLimit = 3 }
            var clients: [TestClient] = []
            for _ in 0..<3 { clients.append(try TestClient(port: server.port)) }
            #expect(eventually { server.group.connectionCount == 3 })
            for _ in 0..<5 {
                let refused = try TestClient(port: server.port)
                #expect(String(decoding: try refused.rest(), as: UTF8.self) == "ERROR Too many open connections\r\n")
            }
            #expect(server.count(.connectionsRejected) == 5)
            clients.removeLast()
            #expect(eventually { server.group.connectionCount == 2 })
            let next = try TestClient(port: server.port)
            try next.send("echo in\n")
            #expect(try next.line() == "echo in")
        }

        @Test func orLetsThemWait() throws {
            let server = try TestServer {
                $0.connectionLimit = 2
                $0.refusesBeyondLimit = false
            }
            var clients = [try TestClient(port: server.port), try TestClient(port: server.port)]
            #expect(eventually { server.group.connectionCount == 2 })
            let waiting = try TestClient(port: server.port)
            try waiting.send("echo at last\n")
            #expect(waiting.isSilent())
            #expect(!server.group.isAccepting)
            #expect(server.count(.listenDisabled) == 1)
            clients.removeLast()
            #expect(try waiting.line() == "echo at last")
            #expect(server.count(.listenDisabledMicroseconds) > 100_000)
            #expect(server.count(.connectionsRejected) == 0)
        }

        @Test func withoutDescriptorsItWaitsWithoutSpinning() throws {
            let server = try TestServer()
            let first = try TestClient(port: server.port)
            try first.send("echo 1\n")
            #expect(try first.line() == "echo 1")
            // A client whose connection the kernel has made, and no descriptor for the server's end.
            let second = try withDescriptorsUsedUp(sparing: 1) {
                let second = try TestClient(port: server.port)
                #expect(eventually { server.count(.acceptErrors) >= 1 })
                let before = processorNanoseconds()
                usleepMilliseconds(500)
                #expect(server.count(.acceptErrors) < 200)
                // Under a sanitizer the other suites, which run beside this one, are still at work.
                #expect(isSanitized || processorNanoseconds() - before < 200_000_000)
                try first.send("echo 2\n")
                #expect(try first.line() == "echo 2", "those that are open are served")
                return second
            }
            try second.send("echo 3\n")
            #expect(try second.line() == "echo 3")
            #expect(server.count(.listenDisabled) >= 1)
        }

        @Test func doesNotKeepExternalBytesForAPeerThatReadsNothing() throws {
            let server = try TestServer { $0.stalledOutputMilliseconds = 500 }
            let stalled = try TestClient(port: server.port)
            let slow = try TestClient(port: server.port)
            let other = try TestClient(port: server.port)
            try stalled.send("external 50000000\n")
            try slow.send("external 50000000\n")
            // Copied bytes may wait: they keep nothing else from being used.
            try other.send("big 30000000\n")
            // One that reads, however little, is not given up.
            #expect(
                eventually(seconds: 20) {
                    _ = try? slow.bytes(1 << 16)
                    return server.seen.closed.count == 1
                })
            #expect(server.seen.closed == [.slowReader] && server.seen.released.count == 1)
            #expect(try other.bytes(30_000_000).count == 30_000_000)
        }

        @Test func closesIdleTCPConnections() throws {
            let path = temporaryPath("idle")
            let server = try TestServer(
                [
                    ListenerConfiguration(.tcp(host: "127.0.0.1", port: 0)),
                    ListenerConfiguration(.unix(path: path, mode: 0o700)),
                ]
            ) { $0.idleTimeoutSeconds = 1 }
            let idle = try TestClient(port: server.port)
            let local = try TestClient(path: path)
            let active = try TestClient(port: server.port)
            for _ in 0..<12 {
                try active.send("echo x\n")
                #expect(try active.line() == "echo x")
                usleepMilliseconds(250)
            }
            #expect(idle.closes(within: 1))
            #expect(server.count(.idleKicks) == 1)
            #expect(server.seen.closed == [.idle])
            try local.send("echo unix is spared\n")
            #expect(try local.line() == "echo unix is spared")
        }

        @Test func neverClosesWithoutATimeout() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            #expect(client.isSilent(milliseconds: 1_500))
            try client.send("echo x\n")
            #expect(try client.line() == "echo x")
            #expect(server.count(.idleKicks) == 0)
        }

        @Test func describesListenersAndConnections() throws {
            let path = temporaryPath("described")
            let server = try TestServer([
                ListenerConfiguration(.tcp(host: "127.0.0.1", port: 0)),
                ListenerConfiguration(.udp(host: "127.0.0.1", port: 0)),
                ListenerConfiguration(.unix(path: path, mode: 0o700)),
            ])
            let client = try TestClient(port: server.port)
            let filling = try TestClient(port: server.port)
            let local = try TestClient(path: path)
            try filling.send("fill 10\nabc")
            try client.send("address\n")
            let addresses = try client.line().split(separator: " ").map(String.init)
            #expect(eventually { server.seen.opened == 3 })
            usleepMilliseconds(50)
            let list = server.group.describeConnections()
            #expect(list.count == 6)
            #expect(list[0].state == .listening)
            #expect(list[0].address == "tcp:127.0.0.1:\(server.port)")
            #expect(list[1].transport == .udp)
            #expect(list[2].address == "unix:\(path)")
            let mine = list.first { $0.address == addresses[0] }
            #expect(mine?.listenAddress == addresses[1])
            #expect(mine?.state == .reading)
            #expect(mine?.idleSeconds == 0)
            #expect(list.contains { $0.state == .filling })
            #expect(list.contains { $0.transport == .unix && $0.listenAddress == "unix:\(path)" })
            try local.send("drop\n")
            #expect(local.closes())
            #expect(eventually { server.group.describeConnections().count == 5 })
        }

        @Test func tenThousandIdleConnectionsCostLittle() throws {
            let descriptors = raiseDescriptorLimit()
            let count = min(10_000, (descriptors - 400) / 2)
            try #require(count >= 1_000, "raise the limit on open files")
            let server = try TestServer {
                $0.threads = 2
                $0.connectionLimit = 20_000
                $0.backlog = 4_096
            }
            var clients: [TestClient] = []
            clients.reserveCapacity(count)
            let (before, allocatedBefore) = (residentBytes(), allocatedBytes())
            for number in 0..<count {
                let client = try TestClient(port: server.port)
                // Each did something once.
                try client.send("echo \(number)\n")
                _ = try client.line()
                clients.append(client)
            }
            #expect(server.group.connectionCount == count)
            let each = (residentBytes() - before) / count
            // Memory that earlier tests gave back hides some of it from the first figure, so there are two.
            let allocatedEach = (allocatedBytes() - allocatedBefore) / count
            print(
                "bytes for each of \(count) idle connections: \(each) resident, \(allocatedEach) allocated"
            )
            if !isSanitized { #expect(each < 2_048 && allocatedEach < 2_048) }
            let turns = server.count(.turns)
            usleepMilliseconds(500)
            #expect(server.count(.turns) - turns < 30)
            try clients[count / 2].send("echo still there\n")
            #expect(try clients[count / 2].line() == "echo still there")
        }
    }
}

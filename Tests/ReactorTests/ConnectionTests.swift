// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Platform
import Reactor
import Testing

/// All tests with sockets run one after another: some measure memory and time of the process.
@Suite(.serialized, .timeLimit(.minutes(5))) enum ReactorSuite {}

extension ReactorSuite {
    @Suite struct Connections {
        @Test func answersOverTCP() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            try client.send("echo one\necho two\n")
            #expect(try client.line() == "echo one")
            #expect(try client.line() == "echo two")
            #expect(server.seen.opened == 1)
        }

        @Test func greetsBeforeAnyInput() throws {
            let server = try TestServer([ListenerConfiguration(.tcp(host: "127.0.0.1", port: 0), tag: 7)])
            let client = try TestClient(port: server.port)
            #expect(try client.line() == "hello")
        }

        @Test func listensOnIPv4AndIPv6AndTellsThePorts() throws {
            let server = try TestServer([
                ListenerConfiguration(.tcp(host: "127.0.0.1", port: 0)),
                ListenerConfiguration(.tcp(host: "::1", port: 0)),
            ])
            let listeners = server.group.listeners
            #expect(listeners.map(\.isIPv6) == [false, true])
            #expect(listeners[0].address == "tcp:127.0.0.1:\(listeners[0].port)")
            #expect(listeners[1].address == "tcp6:[::1]:\(listeners[1].port)")
            let four = try TestClient(port: listeners[0].port)
            let six = try TestClient(port: listeners[1].port, ipv6: true)
            try four.send("address\n")
            try six.send("address\n")
            #expect(try four.line().hasSuffix(" tcp:127.0.0.1:\(listeners[0].port)"))
            #expect(try six.line().hasPrefix("tcp6:[::1]:"))
        }

        @Test func noHostMeansEveryAddress() throws {
            let server = try TestServer([ListenerConfiguration(.tcp(host: nil, port: 0))])
            #expect(server.group.listeners.count == 2)
            #expect(Set(server.group.listeners.map(\.isIPv6)) == [false, true])
        }

        @Test func refusesAnAddressInUseWithItsName() throws {
            let server = try TestServer()
            let taken = server.port
            let group = try ReactorGroup(ReactorConfiguration()) { ScriptHandler($0, Guarded(ScriptHandler.Record())) }
            let error = #expect(throws: ListenError.self) {
                try group.listen(ListenerConfiguration(.tcp(host: "127.0.0.1", port: taken)))
            }
            #expect(error?.description.contains("127.0.0.1:\(taken)") == true)
            #expect(error?.description.contains("in use") == true)
        }

        @Test func answersOverAUnixSocketWithItsMode() throws {
            let path = temporaryPath("socket")
            let server = try TestServer([ListenerConfiguration(.unix(path: path, mode: 0o640))])
            let client = try TestClient(path: path)
            try client.send("echo unix\n")
            #expect(try client.line() == "echo unix")
            #expect(fileMode(path) == 0o640)
            server.end(.immediate)
            #expect(fileMode(path) == nil, "the path is removed at the end")
        }

        @Test func replacesASocketThatLiesAtThePath() throws {
            let path = temporaryPath("stale")
            let first = try TestServer([ListenerConfiguration(.unix(path: path, mode: 0o700))])
            let second = try TestServer([ListenerConfiguration(.unix(path: path, mode: 0o700))])
            let client = try TestClient(path: path)
            try client.send("thread\n")
            #expect(try client.line() == "0")
            #expect(second.seen.opened == 1)
            #expect(first.seen.opened == 0)
            first.end(.immediate)
            #expect(fileMode(path) == 0o700, "the first does not take away what is the second's")
        }

        @Test func sharesConnectionsOutInTurn() throws {
            let server = try TestServer { $0.threads = 3 }
            var seen: [String] = []
            for _ in 0..<6 {
                let client = try TestClient(port: server.port)
                try client.send("thread\n")
                seen.append(try client.line())
            }
            #expect(seen == ["0", "1", "2", "0", "1", "2"])
        }

        @Test func reusesSlotsAndNeverNames() throws {
            let server = try TestServer()
            for round in 0..<300 {
                let client = try TestClient(port: server.port)
                try client.send("echo \(round)\n")
                #expect(try client.line() == "echo \(round)")
                if round % 2 == 0 { try client.send("drop\n") }
            }
            #expect(eventually { server.seen.closed.count == 300 })
            let seen = server.seen
            #expect(Set(seen.connections).count == 300)
            #expect(Set(seen.connections.map(\.slot)).count < 20)
            #expect(seen.opened == 300)
            #expect(server.group.connectionCount == 0)
            #expect(server.count(.connections) == 0)
            #expect(server.count(.connectionsTotal) == 300)
        }

        @Test func closesAfterTheLastReply() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            try client.send("big 3000000\nclose\necho never\n")
            let reply = try client.rest()
            #expect(reply.count == 3_000_004)
            #expect(reply.suffix(4) == Array("bye\n".utf8)[...])
            #expect(eventually { server.seen.closed == [.handler] })
        }

        @Test func lastReplySurvivesUnreadInput() throws {
            let server = try TestServer()
            for _ in 0..<20 {
                let client = try TestClient(port: server.port)
                try client.send(Array("close\n".utf8) + [UInt8](repeating: 65, count: 500_000))
                // A reset would destroy the reply before it is read.
                #expect(String(decoding: try client.rest(), as: UTF8.self) == "bye\n")
            }
        }

        @Test func aPeerThatLingersIsClosedInTheEnd() throws {
            let server = try TestServer { $0.lingerMilliseconds = 200 }
            let client = try TestClient(port: server.port)
            try client.send("close\nand more")
            #expect(eventually { server.seen.closed == [.handler] })
            #expect(eventually { server.group.connectionCount == 0 }, "the slot is free though the peer keeps its end")
            #expect(client.fd >= 0)
        }

        @Test func handlersOutputIsDroppedOnCloseNow() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            try client.send("external 100\ndrop\n")
            #expect(try client.rest().isEmpty)
            #expect(eventually { server.seen.released == [1] })
        }

        @Test func heldConnectionSurvivesTheEndOfInput() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            try client.send("hold\necho first\n")
            client.endOutput()
            #expect(try client.line() == "echo first")
            #expect(eventually { server.seen.inputEnded == 1 })
            #expect(client.isSilent())
            server.group.reactors[0].post(ReactorMessage(kind: 2, connection: server.seen.connections[0]))
            #expect(String(decoding: try client.rest(), as: UTF8.self) == "late\n")
        }

        @Test func repliesToWhatCameBeforeTheEndOfInput() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            try client.send("echo a\necho b\n")
            client.endOutput()
            #expect(String(decoding: try client.rest(), as: UTF8.self) == "echo a\necho b\n")
            #expect(eventually { server.seen.closed == [.peer] })
        }

        /// The handler stops behind each line, and the end of input comes while the next ones wait.
        @Test(arguments: [false, true]) func allThatCameBeforeTheEndOfInputIsSeen(isHeld: Bool) throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            let lines = (0..<200).map { "echo \($0)\n" }
            try client.send((isHeld ? "hold\n" : "") + lines.map { $0 + "rest\n" }.joined())
            client.endOutput()
            for line in lines { #expect(try client.line() + "\n" == line) }
            if isHeld {
                #expect(client.isSilent())
                server.group.reactors[0].post(ReactorMessage(kind: 2, connection: server.seen.connections[0]))
                #expect(String(decoding: try client.rest(), as: UTF8.self) == "late\n")
            } else {
                #expect(try client.rest().isEmpty)
            }
            #expect(server.seen.inputEnded <= 1)
        }

        /// A peer that closes is gone for good, of which epoll tells at once where it is of a local socket.
        @Test(arguments: [false, true]) func allThatCameBeforeAPeerLeftIsSeen(isLocal: Bool) throws {
            let path = temporaryPath("left")
            let server =
                isLocal
                ? try TestServer([ListenerConfiguration(.unix(path: path, mode: 0o700))]) : try TestServer()
            do {
                let client = isLocal ? try TestClient(path: path) : try TestClient(port: server.port)
                try client.send(String(repeating: "rest\n", count: 20_000))
            }
            #expect(eventually { server.seen.order.count == 20_000 })
            #expect(eventually { server.group.connectionCount == 0 })
        }

        @Test func adoptsAConnectedSocket() throws {
            let server = try TestServer()
            let (ours, theirs) = try socketPair()
            server.group.adopt(Descriptor(owning: theirs), tag: 7, transport: .unix)
            let client = TestClient(fd: ours)
            #expect(try client.line() == "hello")
            #expect(server.group.connectionCount == 0)
        }
    }
}

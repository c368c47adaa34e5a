// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Platform
import Reactor
import Synchronization
import Testing

extension ReactorSuite {
    @Suite struct Threads {
        @Test func messagesOfManyThreadsAllArriveInTheirOrder() throws {
            let server = try TestServer()
            let reactor = server.group.reactors[0]
            let (threads, each) = (4, 5_000)
            var running: [Platform.Thread] = []
            for thread in 0..<threads {
                running.append(
                    try Platform.Thread(name: "poster") {
                        for number in 0..<each {
                            reactor.post(ReactorMessage(kind: UInt32(100 + thread), value: UInt64(number)))
                        }
                    })
            }
            for thread in running { thread.join() }
            #expect(eventually { server.seen.messages.count == threads * each })
            for thread in 0..<threads {
                let values = server.seen.messages.filter { $0.kind == UInt32(100 + thread) }.map(\.value)
                #expect(values == (0..<UInt64(each)).map { $0 })
            }
        }

        @Test func workRunsOnTheReactorsThread() throws {
            let server = try TestServer { $0.threads = 2 }
            let found = Guarded<[Int]>([])
            for reactor in server.group.reactors {
                reactor.post { loop in
                    let index = loop.reactor.index
                    found.withLock { $0.append(index) }
                }
            }
            #expect(eventually { found.withLock { $0.sorted() } == [0, 1] })
        }

        @Test func aMessageReachesItsConnection() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            #expect(eventually { server.seen.connections.count == 1 })
            server.group.reactors[0].post(
                ReactorMessage(kind: 0, connection: server.seen.connections[0], value: 42))
            #expect(try client.line() == "message 42")
        }

        @Test func nothingReachesAStrangerInTheSameSlot() throws {
            let server = try TestServer()
            do {
                let first = try TestClient(port: server.port)
                try first.send("drop\n")
                #expect(first.closes())
            }
            #expect(eventually { server.seen.closed.count == 1 })
            let second = try TestClient(port: server.port)
            #expect(eventually { server.seen.connections.count == 2 })
            let seen = server.seen
            #expect(seen.connections[0].slot == seen.connections[1].slot)
            server.group.reactors[0].post(ReactorMessage(kind: 0, connection: seen.connections[0], value: 1))
            server.group.send(Array("not yours\n".utf8), to: seen.connections[0])
            #expect(second.isSilent())
        }

        @Test func bytesOfAnotherThreadComeInOrder() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            #expect(eventually { server.seen.connections.count == 1 })
            let id = server.seen.connections[0]
            for number in 0..<2_000 { server.group.send(Array("line \(number)\n".utf8), to: id) }
            for number in 0..<2_000 { #expect(try client.line() == "line \(number)") }
        }

        private func stream(_ server: TestServer, _ client: TestClient, _ limit: Int) throws -> ConnectionStream {
            try client.send("stream \(limit)\n")
            #expect(eventually { server.seen.streams.count == 1 })
            return server.seen.streams[0]
        }

        @Test func aStreamRefusesMoreThanItsLimit() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port, receiveBufferBytes: 8_192)
            let stream = try stream(server, client, 1 << 20)
            let piece = [UInt8](repeating: 10, count: 100_000)
            var sent = 0
            while stream.send(piece) || stream.queuedBytes < 900_000, sent < 1_000 { sent += 1 }
            // What the sockets and the limit hold, and no more.
            #expect(!stream.send(piece))
            #expect(stream.isOpen)
            #expect(stream.queuedBytes <= 1 << 20)
            #expect(server.seen.closed.isEmpty)
        }

        @Test func aStreamWaitsForItsReader() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port, receiveBufferBytes: 8_192)
            let stream = try stream(server, client, 200_000)
            let total = 400
            let writer = try Platform.Thread(name: "writer") {
                let piece = [UInt8](repeating: 65, count: 50_000)
                for _ in 0..<total where !stream.send(piece, waitingNanoseconds: 10_000_000_000) { return }
                stream.finish(closing: false)
            }
            #expect(try client.bytes(total * 50_000, seconds: 30).count == total * 50_000)
            writer.join()
            try client.send("echo again\n")
            #expect(try client.line() == "echo again", "reading goes on behind the stream")
        }

        @Test func aStreamReportsAReaderThatStays() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port, receiveBufferBytes: 8_192)
            let stream = try stream(server, client, 100_000)
            let piece = [UInt8](repeating: 65, count: 50_000)
            var sent = 0
            while sent < 1_000, stream.send(piece, waitingNanoseconds: 100_000_000) { sent += 1 }
            #expect(sent < 1_000)
            stream.finish(closing: true)
            _ = try client.rest()
            #expect(eventually { server.seen.closed == [.handler] })
            #expect(!stream.isOpen)
        }

        @Test func aStreamEndsWithItsConnection() throws {
            let server = try TestServer()
            let stream: ConnectionStream
            do {
                let client = try TestClient(port: server.port)
                stream = try self.stream(server, client, 100_000)
            }
            let piece = [UInt8](repeating: 65, count: 1_000)
            #expect(eventually { !stream.send(piece) && !stream.isOpen })
        }

        @Test func gracefulStopExecutesWhatArrived() throws {
            let server = try TestServer { $0.threads = 2 }
            var clients: [TestClient] = []
            for _ in 0..<20 { clients.append(try TestClient(port: server.port)) }
            #expect(eventually { server.seen.opened == 20 })
            for client in clients { try client.send("echo a\necho b\n") }
            let slow = try TestClient(port: server.port, receiveBufferBytes: 8_192)
            try slow.send("big 8000000\n")
            #expect(eventually { server.count(.partialWrites) == 1 })
            let ender = try Platform.Thread(name: "ender") { server.end(.graceful(milliseconds: 10_000)) }
            for client in clients {
                #expect(String(decoding: try client.rest(), as: UTF8.self) == "echo a\necho b\n")
            }
            #expect(try slow.rest().count == 8_000_000)
            ender.join()
            #expect(server.seen.closed == [CloseReason](repeating: .stopping, count: 21))
            #expect(server.seen.stopped == 2)
            #expect(throws: TestFailure.self) { try TestClient(port: server.port) }
        }

        @Test func gracefulStopEndsAtItsDeadline() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port, receiveBufferBytes: 8_192)
            try client.send("big 8000000\n")
            #expect(eventually { server.count(.partialWrites) == 1 })
            let clock = ContinuousClock()
            let time = clock.measure { server.end(.graceful(milliseconds: 300)) }
            #expect(time > .milliseconds(250) && time < .seconds(3))
            #expect(server.seen.closed == [.stopping])
        }

        @Test func immediateStopClosesAll() throws {
            let server = try TestServer { $0.threads = 2 }
            let client = try TestClient(port: server.port)
            try client.send("external 30000000\n")
            #expect(eventually { server.seen.opened == 1 })
            server.end(.immediate)
            #expect(server.seen.closed.count == 1)
            #expect(server.seen.stopped == 2)
            #expect(!server.group.reactors[0].post(ReactorMessage(kind: 9)), "nobody is there to take a message")
        }

        @Test func threadsHaveNames() throws {
            let server = try TestServer { $0.threads = 2 }
            #expect(eventually { server.seen.started == 2 })
            for name in ["martlet-r0", "martlet-r1", "martlet-accept"] {
                #expect(eventually { threadNames().contains(name) })
            }
        }

        @Test func anIdleReactorHardlyRuns() throws {
            let server = try TestServer()
            #expect(eventually { server.seen.started == 1 })
            let turns = server.count(.turns)
            let before = processorNanoseconds()
            usleepMilliseconds(1_000)
            #expect(server.count(.turns) - turns <= 15, "ten ticks a second")
            #expect(server.seen.ticks >= 8)
            #expect(isSanitized || processorNanoseconds() - before < 100_000_000)
        }
    }
}

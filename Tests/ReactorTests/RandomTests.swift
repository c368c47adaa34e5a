// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Platform
import Reactor
import Testing

extension ReactorSuite {
    @Suite struct Random {
        /// Requests one after another, and the replies that must come.
        private struct Script: Sendable {
            var requests: [UInt8] = []
            var replies: [UInt8] = []

            init(_ count: Int, _ generator: inout SeededGenerator) {
                for number in 0..<count { add(number, &generator) }
                add("close\n", "bye\n")
            }

            private mutating func add(_ request: String, _ reply: String) {
                requests += Array(request.utf8)
                replies += Array(reply.utf8)
            }

            private mutating func add(_ number: Int, _ generator: inout SeededGenerator) {
                let scale = [1, 100, 5_000, 300_000][Int.random(in: 0..<4, using: &generator)]
                let count = Int.random(in: 1...scale, using: &generator)
                switch Int.random(in: 0..<8, using: &generator) {
                case 0, 1: add("echo \(number)\n", "echo \(number)\n")
                case 2:
                    let value = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* number) }
                    requests += Array("fill \(count)\n".utf8) + value
                    replies += Array("filled \(count) \(stableHash(value.span))\n".utf8)
                case 3:
                    requests += Array("swallow \(count)\n".utf8) + [UInt8](repeating: 10, count: count)
                    add("go\n", "swallowing\n")
                case 4:
                    requests += Array("need \(count)\n".utf8) + [UInt8](repeating: 10, count: count)
                    add("go\n", "had \(count)\n")
                case 5:
                    add("big \(count)\n", "")
                    replies += (0..<count).map { UInt8(truncatingIfNeeded: $0) }
                case 6: add("external \(count)\n", "<" + String(repeating: "e", count: count) + ">\n")
                default: add("turn\n", "turned\n")
                }
            }
        }

        @Test(arguments: [false, true]) func everyMixOfRequestsIsAnsweredInOrder(isSlow: Bool) throws {
            let path = temporaryPath("random")
            let server = try TestServer(
                [
                    ListenerConfiguration(.tcp(host: "127.0.0.1", port: 0)),
                    ListenerConfiguration(.unix(path: path, mode: 0o700)),
                ]
            ) {
                $0.threads = 2
                // Small enough that every path is taken often.
                $0.readBufferBytes = 64 * 1024
                $0.outputKeptBytes = 100_000
            }
            var generator = SeededGenerator()
            let results = Guarded<[String]>([])
            var threads: [Platform.Thread] = []
            for number in 0..<6 {
                // Sanitizers slow each step down tenfold.
                let script = Script((isSlow ? 60 : 250) / (countsThreadAllocations ? 1 : 10), &generator)
                let client =
                    number % 3 == 2
                    ? try TestClient(path: path)
                    : try TestClient(port: server.port, receiveBufferBytes: isSlow ? 4_096 : nil)
                let writer = try client.twin()
                let (forWriter, forReader) = (generator.next(), results)
                threads.append(
                    try Platform.Thread(name: "writer") {
                        var generator = SeededGenerator(seed: forWriter)
                        var offset = 0
                        while offset < script.requests.count {
                            let size = [10, 1_000, 100_000][Int.random(in: 0..<3, using: &generator)]
                            let end = min(script.requests.count, offset + Int.random(in: 1...size, using: &generator))
                            guard (try? writer.send(Array(script.requests[offset..<end]))) != nil else { return }
                            offset = end
                        }
                    })
                threads.append(
                    try Platform.Thread(name: "reader") {
                        let got = (try? client.rest(seconds: 30)) ?? []
                        let difference = zip(got, script.replies).enumerated().first { $0.element.0 != $0.element.1 }
                        let verdict =
                            got == script.replies
                            ? "right"
                            : "\(got.count) of \(script.replies.count) bytes, difference at \(difference?.offset ?? -1)"
                        forReader.withLock { $0.append(verdict) }
                    })
            }
            for thread in threads { thread.join() }
            #expect(results.withLock { $0 } == [String](repeating: "right", count: 6))
            #expect(eventually { server.group.connectionCount == 0 })
            let seen = server.seen
            #expect(seen.closed == [CloseReason](repeating: .handler, count: 6))
        }

        @Test func survivesClientsThatComeAndGo() throws {
            let server = try TestServer {
                $0.threads = 2
                $0.connectionLimit = 50
            }
            var generator = SeededGenerator()
            let port = server.port
            var threads: [Platform.Thread] = []
            for _ in 0..<4 {
                let seed = generator.next()
                threads.append(
                    try Platform.Thread(name: "churn") {
                        var generator = SeededGenerator(seed: seed)
                        for _ in 0..<300 {
                            guard let client = try? TestClient(port: port) else { continue }
                            let requests = [
                                "echo a\necho", "fill 1000000\nabc", "external 3000000\n", "big 500000\n",
                                "need 5000\nxy",
                                "close\nmore", "drop\n", "swallow 100\n", "hold\n", "turn\nturn\nturn\n",
                                "pause\necho a\n",
                            ]
                            try? client.send(requests[Int.random(in: 0..<requests.count, using: &generator)])
                            if Bool.random(using: &generator) { client.endOutput() }
                            if Bool.random(using: &generator) { client.reset() }
                        }
                    })
            }
            for _ in 0..<200 {
                for id in server.seen.connections.suffix(20) {
                    server.group.send(Array("news\n".utf8), to: id)
                    server.group.reactors[id.reactor].post(ReactorMessage(kind: 2, connection: id))
                }
                _ = server.group.describeConnections()
                usleepBriefly()
            }
            for thread in threads { thread.join() }
            // Held and paused connections go when their peer's reset is noticed, at the latest when written to.
            #expect(
                eventually(seconds: 20) {
                    for id in server.seen.connections {
                        server.group.reactors[id.reactor].post(ReactorMessage(kind: 2, connection: id))
                    }
                    return server.group.connectionCount == 0
                })
            let seen = server.seen
            #expect(seen.opened == seen.closed.count)
            let client = try TestClient(port: port)
            try client.send("echo still here\n")
            #expect(try client.line() == "echo still here")
        }
    }
}

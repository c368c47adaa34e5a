// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Reactor
import Testing

extension ReactorSuite {
    @Suite struct Input {
        @Test func findsRequestsHoweverTheyAreSplit() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            var generator = SeededGenerator()
            var expected: [String] = []
            var stream: [UInt8] = []
            for number in 0..<2_000 {
                let line = "echo \(number) " + String(repeating: "x", count: Int.random(in: 1..<200, using: &generator))
                expected.append(line)
                stream += Array(line.utf8) + [10]
            }
            var offset = 0
            var lines = 0
            while offset < stream.count {
                let end = min(stream.count, offset + Int.random(in: 1..<3_000, using: &generator))
                try client.send(Array(stream[offset..<end]))
                offset = end
                if Int.random(in: 0..<8, using: &generator) == 0 {
                    let whole = stream[..<offset].count { $0 == 10 }
                    while lines < whole {
                        #expect(try client.line() == expected[lines])
                        lines += 1
                    }
                }
            }
            while lines < expected.count {
                #expect(try client.line() == expected[lines])
                lines += 1
            }
        }

        @Test func joinsALineThatComesByteByByte() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            for byte in "echo byte by byte\n".utf8 {
                try client.send([byte])
                usleepBriefly()
            }
            #expect(try client.line() == "echo byte by byte")
        }

        @Test func fillsAGivenBlockAndGoesOnBehindIt() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            for count in [1, 10, 4_096, 262_144, 262_145, 1_000_000] {
                let value = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }
                try client.send(Array("fill \(count)\n".utf8) + value + Array("echo after\n".utf8))
                #expect(try client.line() == "filled \(count) \(stableHash(value.span))")
                #expect(try client.line() == "echo after")
            }
        }

        @Test func fillsSixtyFourMegabytes() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            let count = 64 << 20
            var value = [UInt8](repeating: 7, count: count)
            for index in stride(from: 0, to: count, by: 4_093) {
                value[index] = UInt8(truncatingIfNeeded: index / 4_093)
            }
            try client.send("fill \(count)\n")
            try client.send(value)
            #expect(try client.line(seconds: 60) == "filled \(count) \(stableHash(value.span))")
        }

        @Test func fillsInSmallPieces() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            let value = (0..<300).map { UInt8(truncatingIfNeeded: $0) }
            try client.send("fill 300\n")
            for start in stride(from: 0, to: 300, by: 7) {
                try client.send(Array(value[start..<min(start + 7, 300)]))
                usleepBriefly()
            }
            try client.send("echo x\n")
            #expect(try client.line() == "filled 300 \(stableHash(value.span))")
            #expect(try client.line() == "echo x")
        }

        @Test func aFillEndsWithItsConnection() throws {
            let server = try TestServer()
            do {
                let client = try TestClient(port: server.port)
                try client.send("fill 1000\nabc")
                #expect(eventually { server.seen.receivedCalls == 1 })
            }
            #expect(eventually { server.seen.closed == [.peer] })
        }

        @Test(arguments: [1, 1_000, 300_000, 20_000_000]) func swallowsWhatWasRefused(count: Int) throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            let refused = [UInt8](repeating: 10, count: count)
            try client.send(Array("swallow \(count)\n".utf8) + refused + Array("go\necho after\n".utf8))
            #expect(try client.line() == "swallowing")
            #expect(try client.line(seconds: 30) == "echo after")
        }

        @Test func aGrowingRequestIsLookedAtOnlyWhenItIsWhole() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            let count = 3_000_000
            try client.send("need \(count)\n")
            let value = [UInt8](repeating: 1, count: 10_000)
            for _ in 0..<count / 10_000 { try client.send(value) }
            #expect(try client.line(seconds: 30) == "had \(count)")
            try client.send("go\necho after\n")
            #expect(try client.line() == "echo after")
            #expect(server.seen.receivedCalls <= 8, "called for each segment")
        }

        @Test func unconsumedInputIsBounded() throws {
            let server = try TestServer { $0.inputLimitBytes = 100_000 }
            let client = try TestClient(port: server.port)
            try client.send("echo fine\n")
            #expect(try client.line() == "echo fine")
            // A line that never ends.
            try? client.send([UInt8](repeating: 65, count: 400_000))
            #expect(client.closes())
            #expect(eventually { server.seen.closed == [.inputLimit] })
            #expect(server.count(.inputLimits) == 1)
        }

        @Test func unconsumedInputOfAllConnectionsIsBounded() throws {
            let server = try TestServer { $0.keptInputTotalBytes = 4 << 20 }
            var clients: [TestClient] = []
            for _ in 0..<10 {
                let client = try TestClient(port: server.port)
                try? client.send([UInt8](repeating: 65, count: 1_000_000))
                clients.append(client)
            }
            #expect(eventually { server.count(.inputLimits) >= 5 })
            #expect(eventually { server.group.connectionCount <= 5 })
            #expect(clients.count == 10)
        }

        @Test func pausedInputWaitsAndComesBack() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            try client.send("pause\necho kept\n")
            try client.send("echo in the socket\n")
            #expect(client.isSilent())
            let turns = server.count(.turns)
            #expect(client.isSilent())
            #expect(server.count(.turns) - turns < 20, "a paused connection makes the loop spin")
            server.group.reactors[0].post(ReactorMessage(kind: 1, connection: server.seen.connections[0]))
            #expect(try client.line() == "echo kept")
            #expect(try client.line() == "echo in the socket")
        }

        @Test func oneConnectionDoesNotStarveAnother() throws {
            let server = try TestServer()
            let greedy = try TestClient(port: server.port)
            let modest = try TestClient(port: server.port)
            try greedy.send("echo g\n")
            try modest.send("echo m\n")
            #expect(try greedy.line() == "echo g")
            #expect(try modest.line() == "echo m")
            let many = 20_000
            try greedy.send(String(repeating: "turn\n", count: many))
            try modest.send("turn\n")
            #expect(try modest.line() == "turned")
            for _ in 0..<many { #expect(try greedy.line() == "turned") }
            let seen = server.seen
            let modestID = seen.connections[1].rawValue
            let position = seen.order.firstIndex(of: modestID) ?? Int.max
            #expect(position < many, "the modest one waited for all of the greedy one's turns")
            #expect(server.count(.yields) >= UInt64(many))
        }

        @Test func repliesGoOutAtEachYield() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            try client.send(String(repeating: "turn\n", count: 50))
            for _ in 0..<50 { #expect(try client.line() == "turned") }
            #expect(eventually { server.count(.writeCalls) >= 50 })
        }
    }
}

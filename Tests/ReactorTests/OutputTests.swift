// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Reactor
import Testing

extension ReactorSuite {
    @Suite struct Output {
        private func pattern(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0) } }

        @Test func aSlowReaderGetsEverythingInOrder() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port, receiveBufferBytes: 8_192)
            try client.send("big 20000000\n")
            try client.send("external 5000000\necho last\n")
            #expect(eventually { server.count(.partialWrites) >= 1 })
            usleepBriefly()
            #expect(try client.bytes(20_000_000) == pattern(20_000_000))
            #expect(try client.line() == "<" + String(repeating: "e", count: 5_000_000) + ">")
            #expect(try client.line() == "echo last")
            #expect(eventually { server.seen.released == [1] })
            #expect(server.seen.drained >= 1)
        }

        @Test func aConnectionThatDoesNotReadIsNotReadFrom() throws {
            let server = try TestServer { $0.pendingOutputLimitBytes = 64 << 20 }
            let client = try TestClient(port: server.port, receiveBufferBytes: 8_192)
            try client.send("big 10000000\n")
            #expect(eventually { server.count(.partialWrites) == 1 })
            let calls = server.seen.receivedCalls
            for _ in 0..<20 {
                _ = client.sendSome(Array("echo more\n".utf8))
                usleepBriefly()
            }
            #expect(server.seen.receivedCalls == calls, "input is executed while output waits")
            let turns = server.count(.turns)
            #expect(client.sendSome(Array("echo last\n".utf8)) == 10)
            usleepMilliseconds(300)
            #expect(server.count(.turns) - turns < 20, "a waiting connection makes the loop spin")
            #expect(try client.bytes(10_000_000).count == 10_000_000)
            for _ in 0..<20 { #expect(try client.line() == "echo more") }
            #expect(try client.line() == "echo last")
        }

        @Test func aReaderThatIsTooSlowIsCutOff() throws {
            let server = try TestServer { $0.pendingOutputLimitBytes = 1 << 20 }
            let client = try TestClient(port: server.port, receiveBufferBytes: 8_192)
            try client.send("big 16000000\n")
            #expect(eventually { server.seen.closed == [.slowReader] })
            #expect(server.count(.slowReaders) == 1)
            #expect(try client.rest().count < 16_000_000)
        }

        @Test func slowReadersTogetherAreBounded() throws {
            let server = try TestServer { $0.pendingOutputTotalBytes = 32 << 20 }
            var clients: [TestClient] = []
            for _ in 0..<8 {
                let client = try TestClient(port: server.port, receiveBufferBytes: 8_192)
                try client.send("big 16000000\n")
                clients.append(client)
            }
            #expect(eventually { server.count(.slowReaders) >= 4 })
            #expect(clients.count == 8)
        }

        @Test func externalBytesGoOutBetweenOwnBytes() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            var request = ""
            for count in 1...200 { request += "external \(count)\necho \(count)\n" }
            try client.send(request)
            for count in 1...200 {
                #expect(try client.line() == "<" + String(repeating: "e", count: count) + ">")
                #expect(try client.line() == "echo \(count)")
            }
            #expect(eventually { server.seen.released == (1...200).map { UInt64($0) } })
        }

        @Test func externalBytesAreReleasedWhenTheirConnectionDies() throws {
            let server = try TestServer()
            do {
                let client = try TestClient(port: server.port, receiveBufferBytes: 8_192)
                try client.send("external 20000000\nexternal 20000000\n")
                #expect(eventually { server.count(.partialWrites) == 1 })
            }
            #expect(eventually { server.seen.closed.count == 1 })
            #expect(server.seen.released.sorted() == [1, 2])
        }

        @Test func aBatchIsOneWrite() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            try client.send("echo warm\n")
            #expect(try client.line() == "echo warm")
            // The counters are written after the system call.
            #expect(eventually { server.count(.writeCalls) == 1 })
            let (reads, writes) = (server.count(.readCalls), server.count(.writeCalls))
            try client.send(String(repeating: "echo x\n", count: 100))
            for _ in 0..<100 { #expect(try client.line() == "echo x") }
            #expect(eventually { server.count(.writeCalls) - writes == 1 })
            #expect(server.count(.readCalls) - reads == 1, "no read that finds nothing")
        }

        @Test func countsBytes() throws {
            let server = try TestServer()
            let client = try TestClient(port: server.port)
            try client.send("big 1000000\n")
            _ = try client.bytes(1_000_000)
            #expect(server.count(.bytesRead) == 12)
            #expect(eventually { server.count(.bytesWritten) == 1_000_000 })
        }
    }
}

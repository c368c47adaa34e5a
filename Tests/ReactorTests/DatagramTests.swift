// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Reactor
import Testing

extension ReactorSuite {
    @Suite struct Datagrams {
        private func server(_ threads: Int = 1) throws -> TestServer {
            try TestServer([ListenerConfiguration(.udp(host: "127.0.0.1", port: 0))]) { $0.threads = threads }
        }

        private func frame(_ id: UInt16, _ text: String, total: UInt16 = 1) -> [UInt8] {
            [UInt8(id >> 8), UInt8(id & 255), 0, 0, UInt8(total >> 8), UInt8(total & 255), 0, 0] + Array(text.utf8)
        }

        private func word(_ packet: [UInt8], _ offset: Int) -> Int {
            Int(packet[offset]) << 8 | Int(packet[offset + 1])
        }

        @Test func answersOneDatagramWithOne() throws {
            let server = try server()
            let client = try TestClient(port: server.port, datagram: true)
            for id: UInt16 in [1, 2, 65_535] {
                try client.send(frame(id, "hello \(id)"))
                let reply = try client.packet()
                #expect(word(reply, 0) == Int(id))
                #expect(Array(reply[2..<8]) == [0, 0, 0, 1, 0, 0])
                #expect(String(decoding: reply[8...], as: UTF8.self) == "hello \(id)")
            }
            #expect(server.group.listeners[0].address == "udp:127.0.0.1:\(server.port)")
        }

        @Test func cutsAReplyIntoDatagrams() throws {
            let server = try server()
            let client = try TestClient(port: server.port, datagram: true)
            try client.send(frame(77, "big 20000\n"))
            let expected = (0..<20_000).map { UInt8(ascii: "a") + UInt8($0 % 26) }
            let total = (20_000 + 1_391) / 1_392
            var body: [UInt8] = []
            for sequence in 0..<total {
                let packet = try client.packet()
                #expect(packet.count <= 1_400)
                #expect(word(packet, 0) == 77)
                #expect(word(packet, 2) == sequence)
                #expect(word(packet, 4) == total)
                body += packet[8...]
            }
            #expect(body == expected)
        }

        @Test func externalBytesAreCopiedAndReleased() throws {
            let server = try server()
            let client = try TestClient(port: server.port, datagram: true)
            try client.send(frame(5, "split "))
            var body: [UInt8] = []
            for _ in 0..<3 { body += try client.packet()[8...] }
            let text = "before " + String(repeating: "e", count: 3_000) + " after"
            #expect(String(decoding: body, as: UTF8.self) == text)
            #expect(eventually { server.seen.released == [1] })
        }

        @Test func ignoresWhatIsNotARequest() throws {
            let server = try server()
            let client = try TestClient(port: server.port, datagram: true)
            try client.send([1])
            try client.send([UInt8](repeating: 0, count: 8))
            try client.send(frame(9, "part of several", total: 2))
            #expect(client.isSilent())
            try client.send(frame(10, "fine"))
            #expect(String(decoding: try client.packet()[8...], as: UTF8.self) == "fine")
            #expect(server.count(.datagramsRead) == 4)
        }

        @Test func severalReactorsShareASocket() throws {
            let server = try server(3)
            let client = try TestClient(port: server.port, datagram: true)
            for number in 0..<1_000 {
                try client.send(frame(UInt16(number), "request \(number)"))
                #expect(String(decoding: try client.packet()[8...], as: UTF8.self) == "request \(number)")
            }
            #expect(eventually { server.count(.datagramsWritten) == 1_000 })
        }
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

import MemcacheProtocol
import Memory
import Testing

@testable import RouterProxy

/// What a server is sent for what a client sent.
private func forwarded(_ text: String) -> String {
    forwarded(Array(text.utf8)).map { String(decoding: $0, as: UTF8.self) } ?? "refused"
}

private func forwarded(_ bytes: [UInt8]) -> [UInt8]? {
    var parser = RequestParser()
    var request = Request()
    var decoded = OutputBuffer(capacity: 64)
    var offset = 0
    guard parser.next(bytes.span, at: &offset, into: &request, decodedKeys: &decoded) == .complete,
        request.verb != .protocolError
    else { return nil }
    var output = OutputBuffer(capacity: 64)
    let key = request.keyIsDecoded ? [] : Array(bytes[request.keyOffset..<request.keyOffset + request.keyLength])
    output.appendForwarded(request, key: key.span, bytes.span)
    return output.withSpan { [UInt8](copying: $0) }
}

@Suite struct ForwardingTests {
    @Test(arguments: [
        ("set k 1 2 3\r\nabc\r\n", "set k 1 2 3\r\nabc\r\n"),
        ("set  k  1  2  3  noreply\r\nabc\r\n", "set k 1 2 3\r\nabc\r\n"),
        ("cas k 1 -1 0 18446744073709551615\n\r\n", "cas k 1 -1 0 18446744073709551615\r\n\r\n"),
        ("delete k noreply\r\n", "delete k\r\n"), ("delete k 0\r\n", "delete k\r\n"),
        ("incr k 18446744073709551615\r\n", "incr k 18446744073709551615\r\n"),
        ("touch k -1 noreply\r\n", "touch k -1\r\n"),
    ])
    func spellsClassicCommandsAnew(_ sent: String, _ expected: String) {
        #expect(forwarded(sent) == expected)
    }

    @Test(arguments: [
        ("mg k v f c t O1\r\n", "mg k v f c t O1\r\n"), ("mg k q v\r\n", "mg k v\r\n"), ("mg q q k\r\n", "mg q k\r\n"),
        ("ms k 2 q Oq T0\r\nhi\r\n", "ms k 2 Oq T0\r\nhi\r\n"), ("ms k 2 I q0\r\nhi\r\n", "ms k 2 I\r\nhi\r\n"),
        ("mg a2V5 b k v q\r\n", "mg a2V5 b k v\r\n"), ("md k q x\n", "md k x\r\n"),
        ("ma k N0 J13 D2 v\r\n", "ma k N0 J13 D2 v\r\n"),
        ("ms k S\r\n", "refused"),
    ])
    func passesMetaCommandsOnWithoutQuiet(_ sent: String, _ expected: String) {
        #expect(forwarded(sent) == expected)
    }

    @Test func asksAloudInBinary() {
        // GETKQ k
        var packet: [UInt8] = [0x80, 0x0d, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4]
        packet += [UInt8](repeating: 0, count: 8) + Array("k".utf8)
        let sent = forwarded(packet)
        packet[1] = 0x0c
        #expect(sent == packet)
    }

    @Test func knowsWhatQuietRequestsHide() {
        var request = Request()
        #expect(request.hideRule == .nothing)
        request.traits = .quiet
        #expect(request.hideRule == .everything)
        request.form = .meta
        request.verb = .metaGet
        #expect(request.hideRule == .metaMiss)
        request.verb = .metaDelete
        #expect(request.hideRule == .metaHit)
        request.form = .binary
        #expect(request.hideRule == .binaryHit)
        request.traits = [.quiet, .hidesMiss]
        #expect(request.hideRule == .binaryMiss)
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

@testable import MemcacheProtocol

/// A binary request.
func packet(
    _ opcode: UInt8, key: String = "", extras: [UInt8] = [], value: String = "", cas: UInt64 = 0, opaque: UInt32 = 0,
    body: Int? = nil, magic: UInt8 = 0x80
) -> [UInt8] {
    func big(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
    }
    let keyBytes = Array(key.utf8)
    let length = body ?? extras.count + keyBytes.count + value.utf8.count
    return [magic, opcode] + big(UInt64(keyBytes.count), 2) + [UInt8(extras.count), 0, 0, 0] + big(UInt64(length), 4)
        + big(UInt64(opaque), 4) + big(cas, 8) + extras + keyBytes + Array(value.utf8)
}

@Suite struct BinaryParsingTests {
    private func only(_ bytes: [UInt8], _ location: SourceLocation = #_sourceLocation) -> Event {
        let (events, violation) = Transcript.events(of: bytes)
        #expect(violation == nil && events.count == 1, "\(events)", sourceLocation: location)
        return events.first ?? .close
    }

    @Test(
        arguments: [
            (BinaryOpcode.get, Verb.get, RequestTraits()), (BinaryOpcode.getQuiet, .get, [.quiet, .hidesMiss]),
            (BinaryOpcode.getKey, .get, .returnsKey),
            (BinaryOpcode.getKeyQuiet, .get, [.quiet, .hidesMiss, .returnsKey]),
            (BinaryOpcode.delete, .delete, []), (BinaryOpcode.deleteQuiet, .delete, .quiet),
        ] as [(UInt8, Verb, RequestTraits)])
    func commandsOfOneKey(row: (UInt8, Verb, RequestTraits)) {
        let (opcode, verb, traits) = row
        let event = only(packet(opcode, key: "a key", cas: 7, opaque: 0x0102_0304))
        #expect(event.verb == verb && event.traits == traits && event.keyText == "a key" && event.form == .binary)
        #expect(event.opcode == opcode && event.opaque == 0x0102_0304 && event.cas == 7)
        #expect(only(packet(opcode)).error == .invalidArguments)
        #expect(only(packet(opcode, key: "k", extras: [0])).error == .invalidArguments)
        #expect(only(packet(opcode, key: "k", value: "v")).traits == .closesAfterReply)
    }

    @Test(arguments: [
        (BinaryOpcode.set, Verb.set, false), (BinaryOpcode.add, .add, false), (BinaryOpcode.replace, .replace, false),
        (BinaryOpcode.setQuiet, .set, true), (BinaryOpcode.addQuiet, .add, true),
        (BinaryOpcode.replaceQuiet, .replace, true),
    ])
    func storing(row: (UInt8, Verb, Bool)) {
        let (opcode, verb, quiet) = row
        let event = only(packet(opcode, key: "k", extras: [0, 0, 0, 9, 255, 255, 255, 255], value: "value"))
        #expect(event.verb == verb && event.isQuiet == quiet && event.valueText == "value")
        #expect(event.clientFlags == 9 && event.exptime == 0xffff_ffff)
        let compared = only(packet(opcode, key: "k", extras: [0, 0, 0, 0, 0, 0, 0, 0], cas: 5))
        #expect(compared.verb == .cas && compared.cas == 5)
        #expect(only(packet(opcode, key: "k", value: "v")).error == .invalidArguments)
    }

    @Test(arguments: [
        (BinaryOpcode.append, Verb.append), (BinaryOpcode.prependQuiet, .prepend),
    ])
    func appending(opcode: UInt8, verb: Verb) {
        let event = only(packet(opcode, key: "k", value: "tail", cas: 3))
        #expect(event.verb == verb && event.valueText == "tail" && event.cas == 3)
        #expect(only(packet(opcode, key: "k", extras: [0], value: "v")).error == .invalidArguments)
    }

    @Test(arguments: [(BinaryOpcode.increment, Verb.incr), (BinaryOpcode.decrementQuiet, .decr)])
    func counting(opcode: UInt8, verb: Verb) {
        let extras: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 255, 255, 255, 255]
        let event = only(packet(opcode, key: "n", extras: extras))
        #expect(event.verb == verb && event.delta == 1 && event.initial == 256 && event.exptime == 0xffff_ffff)
        #expect(only(packet(opcode, key: "n", extras: Array(extras.dropLast()))).error == .invalidArguments)
    }

    @Test(
        arguments: [
            (BinaryOpcode.touch, Verb.touch, RequestTraits()), (BinaryOpcode.getAndTouch, .gat, []),
            (BinaryOpcode.getAndTouchQuiet, .gat, [.quiet, .hidesMiss]),
            (BinaryOpcode.getAndTouchKey, .gat, .returnsKey),
            (BinaryOpcode.getAndTouchKeyQuiet, .gat, [.quiet, .hidesMiss, .returnsKey]),
        ] as [(UInt8, Verb, RequestTraits)])
    func touching(row: (UInt8, Verb, RequestTraits)) {
        let (opcode, verb, traits) = row
        let event = only(packet(opcode, key: "k", extras: [0, 0, 1, 0]))
        #expect(event.verb == verb && event.traits == traits && event.exptime == 256)
        #expect(only(packet(opcode, key: "k")).error == .invalidArguments)
    }

    @Test func commandsWithoutAKey() {
        #expect(only(packet(BinaryOpcode.noop)).verb == .noop)
        #expect(only(packet(BinaryOpcode.version)).verb == .version)
        #expect(only(packet(BinaryOpcode.quit)).traits == .closesAfterReply)
        #expect(only(packet(BinaryOpcode.quitQuiet)).traits == [.closesAfterReply, .quiet])
        #expect(only(packet(BinaryOpcode.flush)).verb == .flushAll)
        #expect(only(packet(BinaryOpcode.flushQuiet, extras: [0, 0, 0, 9])).exptime == 9)
        #expect(only(packet(BinaryOpcode.flush, extras: [0])).error == .invalidArguments)
        #expect(only(packet(BinaryOpcode.noop, key: "k")).error == .invalidArguments)
        #expect(only(packet(BinaryOpcode.stat)).key.isEmpty)
        #expect(only(packet(BinaryOpcode.stat, key: "items")).keyText == "items")
    }

    @Test func loginAndUnknownCommandsAreSkipped() {
        let noop = packet(BinaryOpcode.noop)
        for (bytes, swallowed) in [
            (packet(BinaryOpcode.saslMechanisms), 0), (packet(BinaryOpcode.saslStart, key: "PLAIN", value: "data"), 4),
            (packet(0xfe, value: "body"), 4), (packet(0x1b), 0),
        ] {
            let (events, _) = Transcript.events(of: bytes + noop)
            #expect(events.map(\.error) == [.unknownCommand, .none])
            #expect(events.first?.swallowed == swallowed)
            #expect(events.last?.verb == .noop)
        }
        #expect(only(packet(BinaryOpcode.saslStep)).error == .invalidArguments)
    }

    @Test func impossibleLengthsCloseAfterTheReply() {
        for (bytes, error) in [
            (packet(BinaryOpcode.get, key: "key", body: 2), ErrorReply.unknownCommand),
            (packet(BinaryOpcode.get, key: String(repeating: "k", count: 251)), .invalidArguments),
            (
                packet(BinaryOpcode.set, key: "k", extras: [UInt8](repeating: 0, count: 8), body: 1 << 30 + 1),
                .invalidArguments
            ),
        ] {
            let event = only(bytes + packet(BinaryOpcode.noop))
            #expect(event.error == error && event.traits == .closesAfterReply)
        }
        #expect(only(packet(BinaryOpcode.get, key: String(repeating: "k", count: 250))).error.isNone)
    }

    @Test func wrongMagicCloses() {
        let (events, _) = Transcript.events(of: packet(BinaryOpcode.noop) + packet(BinaryOpcode.noop, magic: 0x81))
        #expect(events.map(\.kind) == [.request, .close])
    }

    @Test func headerThatNeverFitsIsNotWaitedFor() {
        var header = packet(BinaryOpcode.get, body: 0xffff)
        header[2] = 0xff
        header[3] = 0xff
        var parser = RequestParser()
        var offset = 0
        var request = Request()
        var keys = OutputBuffer(capacity: 64)
        let outcome = parser.next(header.span, at: &offset, into: &request, decodedKeys: &keys)
        #expect(outcome == .incomplete(needed: 16384))
        #expect(only(header + [UInt8](repeating: 0, count: 20_000)).kind == .close)
    }

    @Test func sayHowMuchTheyWait() {
        let whole = packet(BinaryOpcode.set, key: "key", extras: [UInt8](repeating: 0, count: 8), value: "value")
        for (count, expected) in [
            (1, ParseOutcome.incomplete(needed: 24)), (24, .incomplete(needed: 35)), (35, .valuePending),
        ] {
            var parser = RequestParser()
            var offset = 0
            var request = Request()
            var keys = OutputBuffer(capacity: 64)
            #expect(
                parser.next(whole.span.extracting(0..<count), at: &offset, into: &request, decodedKeys: &keys)
                    == expected)
            #expect(offset == (count == 35 ? 35 : 0))
        }
    }

    @Test func firstByteDecidesForTheConnection() {
        #expect(
            Transcript.events(of: Array("mn\r\n".utf8) + packet(BinaryOpcode.version) + [10]).events.map(\.error) == [
                .none, .error,
            ])
        #expect(Transcript.events(of: Array("get k\r\n".utf8), restriction: .binary).events.isEmpty)
        #expect(
            Transcript.events(of: packet(BinaryOpcode.version) + [10], restriction: .text).events.map(\.error) == [
                .error
            ])
    }
}

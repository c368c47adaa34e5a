// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

@testable import MemcacheProtocol

/// The seed of a random test: `MARTLET_SEED`, or one of the clock's.
func testSeed() -> UInt64 {
    let given = unsafe getenv("MARTLET_SEED").flatMap { unsafe UInt64(String(cString: $0)) }
    return given ?? UInt64(truncatingIfNeeded: time(nil)) &* 0x9e37_79b9
}

/// The stream as it can be pasted into a test.
func quoted(_ stream: [UInt8]) -> String {
    stream.map { byte in
        switch byte {
        case 13: "\\r"
        case 10: "\\n"
        case 34, 92: "\\" + String(Unicode.Scalar(byte))
        case 32...126: String(Unicode.Scalar(byte))
        default: "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }
    }.joined()
}

@Suite struct DifferentialTests {
    @Test func parsesRandomStreamsAsTheReferenceDoes() {
        let seed = testSeed()
        var generator = CommandGenerator(seed: seed)
        for round in 0..<20_000 {
            let stream = generator.stream()
            let expected = ReferenceParser.events(of: stream)
            let (events, violation) = Transcript.events(of: stream)
            guard violation == nil, events == expected else {
                let pair = zip(events + [Event.close], expected + [Event.close]).first { $0 != $1 }
                Issue.record(
                    """
                    seed \(seed), round \(round): \(violation ?? "differs")
                    \(quoted(stream))
                    parser:    \(pair.map { "\($0.0)" } ?? "\(events.count) events")
                    reference: \(pair.map { "\($0.1)" } ?? "\(expected.count) events")
                    """)
                return
            }
        }
    }

    @Test func splittingTheInputAnywhereChangesNothing() {
        let seed = testSeed()
        var generator = CommandGenerator(seed: seed)
        for round in 0..<400 {
            let stream = generator.stream()
            // Past this size it does matter, by memcached's own rule, whether a line arrives whole.
            guard stream.count <= ProtocolLimits.unterminatedBytes else { continue }
            let whole = Transcript.events(of: stream)
            for cut in 0..<stream.count {
                let split = Transcript.events(of: stream, cuts: [cut], compacts: cut % 2 == 0)
                guard split.violation == nil, split.events == whole.events else {
                    Issue.record("seed \(seed), round \(round), cut at \(cut): \(quoted(stream)) \(split) \(whole)")
                    return
                }
            }
            let dripped = Transcript.events(of: stream, cuts: Array(1..<max(stream.count, 1)), compacts: true)
            #expect(dripped.violation == nil && dripped.events == whole.events, "seed \(seed): \(quoted(stream))")
        }
    }

    @Test func forcedProtocolsTreatRandomStreamsAsTheReferenceDoes() {
        let seed = testSeed()
        var generator = CommandGenerator(seed: seed)
        for round in 0..<1_500 {
            let stream = generator.stream()
            for restriction in [RequestParserConfiguration.Restriction.text, .binary] {
                let expected = ReferenceParser.events(of: stream, restriction: restriction)
                let (events, violation) = Transcript.events(of: stream, restriction: restriction)
                guard violation == nil, events == expected else {
                    Issue.record(
                        "seed \(seed), round \(round), \(restriction): \(quoted(stream)) \(events) \(expected)")
                    return
                }
            }
        }
    }

    @Test func readsNumbersAsTheLibraryDoes() {
        var random = SeededGenerator(seed: testSeed())
        for _ in 0..<20_000 {
            let letters: [UInt8] = Array("0123456789- +\t\u{0}x".utf8)
            let length = random.below(24)
            let text = (0..<length).map { _ in random.chance(85) ? letters[random.below(10)] : random.pick(letters) }
            let line = Array("a ".utf8) + text + [13, 10]
            let stream = Array("set k ".utf8) + text + Array(" 0 0\r\n\r\n".utf8)
            #expect(Transcript.events(of: stream).events == ReferenceParser.events(of: stream), "\(quoted(line))")
        }
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Storage
import Testing

struct FrameTests {
    private static let position = StreamPosition(
        source: "0123", epoch: 3, sequences: (0..<64).map { Int64($0) * 1_000_000_007 })

    private static let succession = StreamSuccession(previous: 2, included: position.sequences, isWhole: true)

    private static var frames: [StreamFrame] {
        var trace = CopyTrace()
        (trace.epoch, trace.position, trace.reachMicroseconds) = (3, 1 << 40, .max)
        trace.events = CopyEvent.Kind.allCases.map { CopyEvent($0, version: 1 << 60, sequence: 9, agoMicroseconds: 77) }
        var hello = StreamHello()
        (hello.cluster, hello.region, hello.name, hello.wantsValues) = ("main", "eu-west", "node:11211", true)
        var resumed = hello
        resumed.position = position
        (resumed.answersLooks, resumed.onlyLooks) = (true, true)
        return [
            .hello(hello), .hello(resumed), .welcome(region: "us-east", position, nil), .refused("no"), .grant(65_536),
            .seek(slot: 63, after: 12), .probe(.max, answered: 7),
            .complete(9, epoch: 3, sequences: position.sequences), .batch([]),
            .complete(9, epoch: 3, sequences: position.sequences, milliseconds: 1_700_000_000_000),
            .batch([[1, 2, 3], [], [4]]), .lost(slot: 0, through: 77),
            .look(12, explains: true, keys: [[1], [UInt8](repeating: 7, count: 250)]),
            .look(1, explains: false, keys: []),
            .sights(12, [CopyReport(.nothing), CopyReport(.hidden), CopyReport(.copy(.max), trace: trace)]),
            .welcome(region: "us-east", position, succession),
            .ask(cluster: "main", region: "eu-west"), .home(HomeTerm(epoch: 0, region: "us-east"), nil),
            .home(HomeTerm(epoch: 7, region: "eu-west"), succession), .fence(HomeTerm(epoch: 8, region: "eu-west")),
            .release(HomeTerm(epoch: 8, region: "eu-west")), .done(epoch: 8),
            .claim(HomeTerm(epoch: 1 << 41 | 9, region: "eu-west")),
            .contested(HomeTerm(epoch: 1 << 40, region: "ap-south")),
        ]
    }

    @Test func framesAreReadAsTheyWereWritten() {
        var bytes: [UInt8] = []
        for frame in Self.frames { frame.encode(into: &bytes) }
        var rest = bytes[...]
        for expected in Self.frames {
            let content = Array(rest)
            guard case .frame(let frame, let count) = StreamFrame.read(content.span) else {
                return #expect(Bool(false), "\(expected)")
            }
            #expect(frame == expected)
            rest = rest.dropFirst(count)
        }
        #expect(rest.isEmpty)
    }

    @Test func aWelcomeOfAnotherVersionIsARefusal() {
        var bytes: [UInt8] = []
        StreamFrame.welcome(region: "us-east", Self.position, nil).encode(into: &bytes)
        // Whatever such a version has behind its number.
        bytes[StreamFrame.headerBytes] = StreamFrame.version + 1
        for cut in [0, 3] {
            var content = Array(bytes.dropLast(cut))
            content[3] &-= UInt8(cut)
            guard case .frame(.refused(let reason), let count) = StreamFrame.read(content.span) else {
                #expect(Bool(false), "not a refusal")
                continue
            }
            #expect(count == content.count && reason.contains("version 2; this node speaks version 1"))
        }
    }

    @Test func aPartOfAFrameAsksForMore() {
        for frame in Self.frames {
            var bytes: [UInt8] = []
            frame.encode(into: &bytes)
            for length in [0, 3, 4, bytes.count - 1] where length < bytes.count {
                let part = Array(bytes.prefix(length))
                guard case .incomplete(let needed) = StreamFrame.read(part.span) else {
                    return #expect(Bool(false), "\(frame) cut at \(length)")
                }
                #expect(needed > length && needed <= bytes.count)
            }
        }
    }

    @Test func hostileFramesAreRefused() {
        var random = SystemRandomNumberGenerator()
        for frame in Self.frames {
            var good: [UInt8] = []
            frame.encode(into: &good)
            for _ in 0..<300 {
                var bytes = good
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    bytes[Int.random(in: 4..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
                // Whatever it is read as, it ends.
                _ = StreamFrame.read(bytes.span)
            }
        }
        #expect(StreamFrame.read(Array("GET / HTTP/1.1\r\n".utf8).span) == .invalid("a frame of 1195725856 bytes"))
        #expect(StreamFrame.read(([0, 0, 0, 1, 99] as [UInt8]).span) != .incomplete(5))
        // More keys than anybody asks for.
        var large: [UInt8] = []
        StreamFrame.look(1, explains: false, keys: .init(repeating: [1], count: 257)).encode(into: &large)
        #expect(StreamFrame.read(large.span) == .invalid("a frame of kind 16 that makes no sense"))
    }
}

struct FeedTests {
    private static func position(_ sequence: Int64) -> StreamPosition {
        StreamPosition(source: "s", epoch: 1, sequences: [Int64](repeating: sequence, count: 64))
    }

    private static func feed(from: StreamPosition?, kept: Int64, last: Int64) -> StreamFeed {
        var hello = StreamHello()
        hello.position = from
        return StreamFeed(
            InvalidationConfiguration(), hello: hello, kept: [Int64](repeating: kept, count: 64),
            last: position(last))
    }

    @Test func consumersJoinAtTheEndAndResumeWhereTheyWere() {
        #expect(Self.feed(from: nil, kept: 2, last: 9).sent == Self.position(9))
        #expect(Self.feed(from: Self.position(5), kept: 2, last: 9).sent == Self.position(5))
        #expect(Self.feed(from: Self.position(1), kept: 2, last: 9).sent == Self.position(2))
        #expect(Self.feed(from: Self.position(11), kept: 2, last: 9).sent == Self.position(9))
        var other = Self.position(5)
        other.epoch = 7
        #expect(Self.feed(from: other, kept: 2, last: 9).sent == Self.position(9))
    }

    @Test func theTailIsTakenOnceNothingIsMissingBeforeIt() {
        var feed = Self.feed(from: Self.position(9), kept: 0, last: 9)
        #expect(feed.slotBehind == nil)
        var takes = feed.takesFromTail(slot: 4, sequence: 9)
        #expect(!takes)
        takes = feed.takesFromTail(slot: 4, sequence: 10)
        #expect(takes)
        feed.noteSent(slot: 4, sequence: 10, bytes: 100)
        takes = feed.takesFromTail(slot: 4, sequence: 12)
        #expect(!takes)
        #expect(feed.slotBehind == 4)
        feed.noteSent(slot: 4, sequence: 11, bytes: 100)
        feed.caughtUp(slot: 4)
        takes = feed.takesFromTail(slot: 4, sequence: 12)
        #expect(takes)
    }

    @Test func aProbeIsAnsweredBehindWhatItAsksFor() {
        var feed = Self.feed(from: Self.position(9), kept: 0, last: 9)
        var last = Self.position(9).sequences
        last[1] = 10
        feed.probe(5, last: last)
        var answer = feed.answerable()
        #expect(answer == nil)
        feed.noteSent(slot: 1, sequence: 10, bytes: 1)
        answer = feed.answerable()
        #expect(answer?.number == 5)
        answer = feed.answerable()
        #expect(answer == nil)
        feed.seek(slot: 1, after: 3)
        #expect(feed.slotBehind == 1 && feed.sent.sequences[1] == 3)
    }

    @Test func anOutboxIsKeptForConsumersThatMayComeBack() {
        var retention = OutboxRetention(memoryNanoseconds: 1_000, now: 5_000)
        retention.note("a", sequences: Self.position(7).sequences, at: 5_100)
        var released = retention.released(at: 5_200)
        #expect(released == Self.position(0).sequences)
        retention.note("a", sequences: Self.position(8).sequences, at: 6_000)
        retention.note("b", sequences: Self.position(3).sequences, at: 6_000)
        released = retention.released(at: 6_500)
        #expect(released == Self.position(3).sequences)
        retention.note("a", sequences: Self.position(9).sequences, at: 7_100)
        released = retention.released(at: 7_200)
        #expect(released == Self.position(9).sequences)
        #expect(retention.count == 1)
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import LoadModel

private let second: UInt64 = 1_000_000_000

@Suite struct SegmentTests {
    private func parts(_ count: Int) -> [ExecutionSegment] {
        (0..<count).map { ExecutionSegment(index: $0, count: count) }
    }

    private func times(_ plan: ExecutorPlan, _ segment: ExecutionSegment, rows: [UInt64]? = nil) -> [UInt64] {
        var schedule = ArrivalSchedule(plan, seed: 7, times: rows, segment: segment)
        var times: [UInt64] = []
        while let next = schedule.next {
            times.append(next)
            schedule.advance()
        }
        return times
    }

    @Test(arguments: [1, 2, 3, 7]) func everyNumberIsOnePartsOwn(count: Int) {
        for all in 0..<40 {
            let shares = parts(count).map { part in (0..<part.share(of: all)).map { part.number(of: $0) } }
            #expect(shares.flatMap { $0 }.sorted() == Array(0..<all))
            for (part, share) in zip(parts(count), shares) {
                #expect(share.allSatisfy { part.contains($0) })
                #expect(share.map { part.own($0) } == Array(0..<share.count))
                #expect(part.share(of: UInt64(all)) == UInt64(share.count))
            }
        }
    }

    @Test func partsHaveAllArrivalsTogether() {
        var random = ArrivalUsers(preallocated: 1, maximum: 1)
        random.spacing = .poisson
        let even = ArrivalUsers(preallocated: 1, maximum: 1)
        let stages = [Stage(duration: second, target: 500), Stage(duration: second, target: 0)]
        let plans: [ExecutorPlan] = [
            .constantArrivals(rate: 333, duration: 2 * second, users: even),
            .constantArrivals(rate: 333, duration: 2 * second, users: random),
            .rampingArrivals(start: 10, stages: stages, users: even),
            .rampingArrivals(start: 10, stages: stages, users: random),
        ]
        for plan in plans {
            let whole = times(plan, .whole)
            #expect(whole.count > 400)
            for count in [2, 3, 5] {
                #expect(parts(count).flatMap { times(plan, $0) }.sorted() == whole)
            }
        }
        let rows = (0..<101).map { UInt64($0) * 1_000_000 }
        let trace = ExecutorPlan.trace(speed: 1, duration: second, users: even)
        #expect(parts(4).flatMap { times(trace, $0, rows: rows) }.sorted() == rows)
    }

    @Test func partsNumberWhatTheyShare() {
        let plan = ExecutorPlan.sharedIterations(users: 4, iterations: 101, maxDuration: second)
        var taken: [UInt64] = []
        for part in parts(3) {
            let progress = ScenarioProgress(plan, seed: 1, segment: part)
            #expect(progress.untakenIterations(limit: 101) == part.share(of: UInt64(101)))
            while let number = progress.takeIteration(limit: 101) { taken.append(number) }
            #expect(progress.untakenIterations(limit: 101) == 0)
            let made = (0..<9).filter { _ in progress.makeUser(limit: 4) }.count
            #expect(made == part.share(of: 4))
            #expect((0..<4).filter { part.contains($0) }.allSatisfy { progress.isMade($0) })
        }
        #expect(taken.sorted() == Array(0..<101))
    }
}

@Suite struct WireTests {
    private func read<T>(_ bytes: [UInt8], _ body: (inout WireReader) throws(WireProblem) -> T) throws -> T {
        var reader = WireReader(bytes)
        let result = try body(&reader)
        #expect(reader.left == 0)
        return result
    }

    @Test func histogramsComeBackWhole() throws {
        var histogram = ValueHistogram()
        var random = RandomSource(seed: 3)
        for _ in 0..<5_000 { histogram.record((random.unit() - 0.3) * 1e4) }
        histogram.record(0, count: 17)
        for one in [histogram, ValueHistogram()] {
            var wire = WireWriter()
            one.write(to: &wire)
            #expect(try read(wire.bytes) { (reader) throws(WireProblem) in try ValueHistogram(&reader) } == one)
        }
    }

    @Test func sinksAndChecksComeBackWhole() throws {
        for kind in MetricKind.allCases {
            var sink = MetricSink(kind)
            for sample in [3.5, 0, 12] { sink.add(sample) }
            var wire = WireWriter()
            sink.write(to: &wire)
            let back = try read(wire.bytes) { (reader) throws(WireProblem) in try MetricSink(kind, &reader) }
            #expect(back.trend == sink.trend && back.value == sink.value && back.samples == sink.samples)
            #expect(back.passes == sink.passes && back.minimum == sink.minimum && back.maximum == sink.maximum)
        }
        var checks = CheckGroup()
        checks.count("is there", in: [], passes: 3, fails: 1)
        checks.count("is fast", in: ["a", "b"], passes: 2, fails: 0)
        checks.note(["a", "empty"])
        var wire = WireWriter()
        checks.write(to: &wire)
        #expect(try read(wire.bytes) { (reader) throws(WireProblem) in try CheckGroup(&reader) } == checks)
    }

    @Test func numbersOfAnySizeComeBack() throws {
        for number in [0, 1, 127, 128, 300, UInt64(1) << 63, .max] {
            var wire = WireWriter()
            wire.put(number)
            #expect(try read(wire.bytes) { (reader) throws(WireProblem) in try reader.number() } == number)
        }
    }

    /// Whatever is cut off or changed, what is read is an error or numbers that agree: nothing traps, and nothing is
    /// larger than the message.
    @Test func hostileBytesAreErrors() throws {
        var histogram = ValueHistogram()
        for index in 0..<200 { histogram.record(Double(index)) }
        var sink = MetricSink(.trend)
        sink.trend = histogram
        var checks = CheckGroup()
        checks.count("c", in: ["g"], passes: 1, fails: 1)
        var wire = WireWriter()
        sink.write(to: &wire)
        checks.write(to: &wire)
        let whole = wire.bytes
        var random = RandomSource(seed: 11)
        var failed = 0
        for round in 0..<3_000 {
            var bytes = whole
            if round % 2 == 0 { bytes.removeLast(Int(random.unit() * Double(whole.count - 1)) + 1) }
            for _ in 0..<3 where !bytes.isEmpty {
                bytes[Int(random.unit() * Double(bytes.count))] = UInt8(random.unit() * 256)
            }
            var reader = WireReader(bytes)
            do throws(WireProblem) {
                let read = try MetricSink(.trend, &reader)
                _ = read.trend.quantile(0.5)
                _ = try CheckGroup(&reader)
            } catch {
                failed += 1
            }
        }
        #expect(failed > 1_000)
    }
}

@Suite struct SHA256Tests {
    private func hex(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// The examples of FIPS 180-4, and one longer than a block in uneven pieces.
    @Test func digestsAreThoseOfTheStandard() {
        #expect(
            hex(SHA256.digest(Array("abc".utf8)))
                == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        #expect(hex(SHA256.digest([])) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        let long = Array("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".utf8)
        let expected = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        #expect(hex(SHA256.digest(long)) == expected)
        var pieces = SHA256()
        for piece in [long[..<1], long[1..<40], long[40...]] { pieces.update(Array(piece)) }
        #expect(hex(pieces.finish()) == expected)
        let million = [UInt8](repeating: UInt8(ascii: "a"), count: 1_000_000)
        #expect(hex(SHA256.digest(million)) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
    }

    /// Cases 2 and 6 of RFC 4231.
    @Test func codesAreThoseOfTheStandard() {
        let short = SHA256.code(key: Array("Jefe".utf8), [Array("what do ya want ".utf8), Array("for nothing?".utf8)])
        #expect(hex(short) == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        let text = "Test Using Larger Than Block-Size Key - Hash Key First"
        let long = SHA256.code(key: [UInt8](repeating: 0xaa, count: 131), [Array(text.utf8)])
        #expect(hex(long) == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
        #expect(SHA256.isSame(short, short) && !SHA256.isSame(short, long) && !SHA256.isSame(short, []))
    }
}

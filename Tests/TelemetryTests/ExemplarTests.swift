// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import Testing

@testable import Telemetry

@Suite struct ExemplarTests {
    private func exemplar(_ number: UInt64, took nanoseconds: UInt64 = 60_000) -> Exemplar {
        Exemplar(
            traceHigh: number, traceLow: number &* 3, span: number &* 7, nanoseconds: nanoseconds,
            unixNanoseconds: 1_000 + number)
    }

    @Test func keepsTheLastOfEachBucket() {
        let cells = ExemplarCells(isOn: true)
        #expect(cells.last(bucket: 1) == nil)
        cells.note(exemplar(1))
        cells.note(exemplar(2, took: 2_000_000_000))
        cells.note(exemplar(3))
        #expect(cells.last(bucket: 1) == exemplar(3))
        #expect(cells.last(bucket: LatencyHistogram.boundedBucketCount) == exemplar(2, took: 2_000_000_000))
        #expect(cells.last(bucket: 0) == nil)
    }

    @Test func keepsNothingWhereNothingIsTraced() {
        let cells = ExemplarCells(isOn: false)
        cells.note(exemplar(1))
        #expect(cells.last(bucket: 1) == nil)
        var sum = HistogramSnapshot()
        sum.add(cells)
        #expect(sum.exemplars.isEmpty)
    }

    @Test func ofSeveralThreadsTheLaterOneStays() {
        let first = ExemplarCells(isOn: true)
        let second = ExemplarCells(isOn: true)
        first.note(exemplar(9))
        second.note(exemplar(4))
        second.note(exemplar(5, took: 200_000))
        for order in [true, false] {
            var sum = HistogramSnapshot()
            if order { sum.add(first) }
            sum.add(second)
            if !order { sum.add(first) }
            #expect(sum.exemplars[1] == exemplar(9))
            #expect(sum.exemplars[2] == exemplar(5, took: 200_000))
        }
    }

    @Test func onlyOpenMetricsShowsThem() {
        let histogram = LatencyHistogram()
        let cells = ExemplarCells(isOn: true)
        histogram.record(nanoseconds: 60_000)
        cells.note(
            Exemplar(
                traceHigh: 0x0102_0304_0506_0708, traceLow: 0x090a_0b0c_0d0e_0f10, span: 0xab, nanoseconds: 60_000,
                unixNanoseconds: 1_700_000_000_123_456_789))
        func page(_ format: Exposition.Format, traced: Bool) -> [String] {
            var snapshot = histogram.snapshot()
            if traced { snapshot.add(cells) }
            var exposition = Exposition(format: format)
            exposition.family("x_seconds", .histogram, help: "X.")
            exposition.sample(snapshot)
            exposition.finish()
            return String(decoding: exposition.bytes, as: UTF8.self).split(separator: "\n").map(String.init)
        }
        let plain = page(.openMetrics, traced: false)
        let traced = page(.openMetrics, traced: true)
        let differing = zip(plain, traced).filter { $0 != $1 }
        #expect(differing.count == 1)
        #expect(
            traced.contains(
                #"x_seconds_bucket{le="0.0001"} 1 # {trace_id="0102030405060708090a0b0c0d0e0f10","#
                    + #"span_id="00000000000000ab"} 6e-05 1700000000.123456"#))
        #expect(page(.prometheus, traced: true) == page(.prometheus, traced: false))
    }

    /// A reader never sees parts of two.
    @Test func readersSeeWholeExemplars() throws {
        final class Shared: Sendable {
            let cells = ExemplarCells(isOn: true)
            let isOver = Atomic<Bool>(false)
        }
        let shared = Shared()
        let writer = try Thread(name: "writer") {
            var number: UInt64 = 1
            while !shared.isOver.load(ordering: .relaxed) {
                shared.cells.note(
                    Exemplar(
                        traceHigh: number, traceLow: number, span: number, nanoseconds: 60_000,
                        unixNanoseconds: number))
                number += 1
            }
        }
        var (seen, torn) = (0, 0)
        while seen < 20_000 {
            guard let found = shared.cells.last(bucket: 1) else { continue }
            seen += 1
            if found.traceHigh != found.traceLow || found.span != found.traceLow
                || found.unixNanoseconds != found.traceLow
            {
                torn += 1
            }
        }
        shared.isOver.store(true, ordering: .relaxed)
        writer.join()
        #expect(torn == 0)
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

extension ValueHistogram {
    /// Appends everything that was recorded; empty buckets take no room.
    package func write(to wire: inout WireWriter) {
        wire.put(count)
        guard count > 0 else { return }
        wire.put(sum)
        wire.put(minimum)
        wire.put(maximum)
        wire.put(zeros)
        for side in [positives, negatives] {
            let filled = side.indices.filter { side[$0] > 0 }
            wire.put(filled.count)
            var last = 0
            for index in filled {
                wire.put(index - last)
                wire.put(side[index])
                last = index
            }
        }
    }

    /// What ``write(to:)`` wrote. Throws what cannot be a histogram.
    package init(_ wire: inout WireReader) throws(WireProblem) {
        self.init()
        let all = try wire.number()
        guard all > 0 else { return }
        let (sum, low, high) = (try wire.finite(), try wire.finite(), try wire.finite())
        let zeros = try wire.number()
        var seen = zeros
        var sides: [[UInt64]] = []
        for _ in 0..<2 {
            let filled = try wire.count(upTo: Self.bucketCount)
            var side: [UInt64] = filled == 0 ? [] : Array(repeating: 0, count: Self.bucketCount)
            var index = 0
            for _ in 0..<filled {
                index += try wire.number(upTo: Self.bucketCount)
                guard index < Self.bucketCount else { throw WireProblem("a bucket that there is not") }
                side[index] = try wire.number()
                let (more, isOver) = seen.addingReportingOverflow(side[index])
                guard !isOver else { throw WireProblem("a histogram of too many numbers") }
                seen = more
            }
            sides.append(side)
        }
        guard seen == all, low <= high else { throw WireProblem("a histogram that contradicts itself") }
        restore(count: all, sum: sum, range: low...high, zeros: zeros, positives: sides[0], negatives: sides[1])
    }
}

extension MetricSink {
    /// Appends what was gathered.
    package func write(to wire: inout WireWriter) {
        guard kind != .trend else { return trend.write(to: &wire) }
        wire.put(samples)
        guard samples > 0 else { return }
        wire.put(passes)
        for figure in [value, minimum, maximum] { wire.put(figure) }
    }

    /// What ``write(to:)`` wrote of a metric of that kind.
    package init(_ kind: MetricKind, _ wire: inout WireReader) throws(WireProblem) {
        self.init(kind)
        guard kind != .trend else {
            trend = try ValueHistogram(&wire)
            return
        }
        samples = try wire.number()
        guard samples > 0 else { return }
        passes = try wire.number()
        guard passes <= samples else { throw WireProblem("a rate of more than 1") }
        (value, minimum, maximum) = (try wire.finite(), try wire.finite(), try wire.finite())
    }
}

extension CheckGroup {
    /// Checks and groups of a message at most.
    private static let wireLimit = 100_000
    private static let depthLimit = 64

    /// Appends all checks, of the groups in it too.
    package func write(to wire: inout WireWriter) {
        var entries: [(names: [String], check: CheckResult?)] = []
        gather([], &entries)
        wire.put(entries.count)
        for entry in entries {
            wire.put(entry.names.count)
            for name in entry.names { wire.put(name) }
            wire.put(entry.check == nil ? 0 : 1)
            guard let check = entry.check else { continue }
            wire.put(check.name)
            wire.put(check.passes)
            wire.put(check.fails)
        }
    }

    private func gather(_ names: [String], _ entries: inout [(names: [String], check: CheckResult?)]) {
        guard names.count <= Self.depthLimit else { return }
        if !names.isEmpty { entries.append((names, nil)) }
        for check in checks { entries.append((names, check)) }
        for group in groups { group.gather(names + [group.name], &entries) }
        if entries.count > Self.wireLimit { entries.removeLast(entries.count - Self.wireLimit) }
    }

    /// What ``write(to:)`` wrote.
    package init(_ wire: inout WireReader) throws(WireProblem) {
        self.init()
        for _ in 0..<(try wire.count(upTo: Self.wireLimit)) {
            var names: [String] = []
            for _ in 0..<(try wire.count(upTo: Self.depthLimit)) { names.append(try wire.text()) }
            if try wire.number(upTo: 1) == 0 {
                note(names[...])
            } else {
                let name = try wire.text()
                count(name, in: names[...], passes: try wire.number(), fails: try wire.number())
            }
        }
    }
}

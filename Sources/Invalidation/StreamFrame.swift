// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// What a consumer says first: who it is, and from where it wants the stream.
package struct StreamHello: Sendable, Equatable {
    /// The format of the frames that it speaks.
    package var version: UInt8 = StreamFrame.version
    /// Whether it wants values, where the source has them.
    package var wantsValues = false
    /// Whether it takes batches packed by LZ4.
    package var takesPacked = false
    /// Whether it says what it has cached, when it is asked.
    package var answersLooks = false
    /// Whether it gets no records, and nothing is kept for it: it is asked what it has cached, and probes are answered
    /// at once.
    package var onlyLooks = false
    /// Whether it understands what a promotion has kept of the numbering before, and what time it is at the source.
    package var takesSuccession = false
    /// The cluster, which must be the source's.
    package var cluster = ""
    /// Its region.
    package var region = ""
    /// What names it among the consumers of its region, the same over connections.
    package var name = ""
    /// Where it was; nil joins the stream where it is.
    package var position: StreamPosition?

    /// A hello of nobody yet.
    package init() {}
}

/// A message of the direct transport: four bytes of length, one of kind, the body. Numbers have their highest byte
/// first; records are Avro single objects. See docs/streams.md.
package enum StreamFrame: Sendable, Equatable {
    /// Consumer: the first frame.
    case hello(StreamHello)
    /// Source: the stream goes on behind this position; with the source's region, and for a consumer that understands
    /// it, what a promotion has kept of the numbering before.
    case welcome(region: String, StreamPosition, StreamSuccession?)
    /// Source: there is no stream for this consumer, for this reason. The last frame.
    case refused(String)
    /// Consumer: so many more bytes of records may be sent.
    case grant(Int)
    /// Consumer: send a slot again from behind this sequence number.
    case seek(slot: Int, after: Int64)
    /// Consumer: was this all? With the number of the last probe whose answer has come; 0 when none has.
    case probe(UInt64, answered: UInt64)
    /// Source, behind all records that were committed when the probe came: their last numbers; for who understands it,
    /// with the time at the source, in milliseconds of Unix time.
    case complete(UInt64, epoch: Int64, sequences: [Int64], milliseconds: Int64? = nil)
    /// Source: records, each as it stands in the outbox.
    case batch([[UInt8]])
    /// Source: the records of a slot up to this one are not kept any more.
    case lost(slot: Int, through: Int64)
    /// Source: a batch's body of so many bytes, as an LZ4 block, for a consumer that takes it.
    case packed(bytes: Int, [UInt8])
    /// Source: what have you cached of these keys? And, where that is asked for, what do you remember of them?
    case look(UInt64, explains: Bool, keys: [[UInt8]])
    /// Consumer: the answer, a report for each key.
    case sights(UInt64, [CopyReport])
    /// A node of another region, in place of a hello: which region is home? With its cluster and region. May be asked
    /// again.
    case ask(cluster: String, region: String)
    /// The answer: what this node knows; of the home region itself, with what it has of the numbering before.
    case home(HomeTerm, StreamSuccession?)
    /// Whoever has asked, to a node of the home region: take no writes any more, as this is to hold. Answered by
    /// ``done(epoch:)``, ``contested(_:)`` or ``refused(_:)``.
    case fence(HomeTerm)
    /// The standby has what the fence ends: no other promotion is to take this one's place any more. Answered alike.
    case claim(HomeTerm)
    /// The promotion came to nothing: take writes again. Answered alike.
    case release(HomeTerm)
    /// What was asked for is done.
    case done(epoch: Int64)
    /// Nothing was done, as this promotion stands against it.
    case contested(HomeTerm)

    /// The format that this program speaks.
    package static let version: UInt8 = 1
    /// Bytes of a frame at most; who sends more is hung up on.
    package static let bytesMax = 4 << 20
    /// Bytes before the body.
    package static let headerBytes = 5
    /// Keys of a question at most; who asks for more is hung up on.
    package static let lookKeysMax = 256

    /// The kind of ``batch(_:)``, for those who write it piece by piece.
    package static let batchKind: UInt8 = 8

    private static let magic: UInt32 = 0x4D52_5453

    private var kind: UInt8 {
        switch self {
        case .hello: 1
        case .welcome: 2
        case .refused: 3
        case .grant: 4
        case .seek: 5
        case .probe: 6
        case .complete: 7
        case .batch: Self.batchKind
        case .lost: 9
        case .packed: 10
        case .ask: 11
        case .home: 12
        case .fence: 13
        case .release: 14
        case .done: 15
        case .look: 16
        case .sights: 17
        case .claim: 18
        case .contested: 19
        }
    }

    // MARK: Writing

    /// Appends the frame.
    package func encode(into bytes: inout [UInt8]) {
        let start = bytes.count
        Self.append(UInt32(0), to: &bytes)
        bytes.append(kind)
        switch self {
        case .hello(let hello):
            Self.append(Self.magic, to: &bytes)
            bytes.append(hello.version)
            let flags =
                (hello.wantsValues ? 1 : 0) | (hello.takesPacked ? 2 : 0) | (hello.answersLooks ? 8 : 0)
                | (hello.takesSuccession ? 4 : 0) | (hello.onlyLooks ? 16 : 0)
            bytes.append(UInt8(flags))
            for text in [hello.cluster, hello.region, hello.name] { Self.append(text, to: &bytes) }
            bytes.append(hello.position == nil ? 0 : 1)
            if let position = hello.position { Self.append(position, to: &bytes) }
        case .welcome(let region, let position, let succession):
            bytes.append(Self.version)
            Self.append(region, to: &bytes)
            Self.append(position, to: &bytes)
            if let succession { Self.append(succession, to: &bytes) }
        case .refused(let reason): Self.append(reason, to: &bytes)
        case .grant(let count): Self.append(UInt32(clamping: count), to: &bytes)
        case .seek(let slot, let sequence), .lost(let slot, let sequence):
            bytes.append(UInt8(clamping: slot))
            Self.append(sequence, to: &bytes)
        case .probe(let number, let answered):
            Self.append(number, to: &bytes)
            Self.append(answered, to: &bytes)
        case .complete(let number, let epoch, let sequences, let milliseconds):
            Self.append(number, to: &bytes)
            Self.append(epoch, to: &bytes)
            for sequence in sequences { Self.append(sequence, to: &bytes) }
            if let milliseconds { Self.append(milliseconds, to: &bytes) }
        case .batch(let records):
            for record in records {
                Self.append(UInt32(record.count), to: &bytes)
                bytes.append(contentsOf: record)
            }
        case .packed(let count, let block):
            Self.append(UInt32(clamping: count), to: &bytes)
            bytes.append(contentsOf: block)
        case .look(let number, let explains, let keys):
            Self.append(number, to: &bytes)
            bytes.append(explains ? 1 : 0)
            for key in keys {
                bytes.append(UInt8(clamping: key.count))
                bytes.append(contentsOf: key.prefix(255))
            }
        case .sights(let number, let reports):
            Self.append(number, to: &bytes)
            for report in reports { Self.append(report, to: &bytes) }
        case .ask, .home, .fence, .claim, .release, .done, .contested: encodeTerm(into: &bytes)
        }
        let length = UInt32(bytes.count - start - 4)
        for index in 0..<4 { bytes[start + index] = UInt8(truncatingIfNeeded: length >> UInt32(24 - 8 * index)) }
    }

    /// The body of a frame about which region is home.
    private func encodeTerm(into bytes: inout [UInt8]) {
        switch self {
        case .ask(let cluster, let region):
            Self.append(Self.magic, to: &bytes)
            Self.append(cluster, to: &bytes)
            Self.append(region, to: &bytes)
        case .home(let term, let succession):
            Self.append(term, to: &bytes)
            if let succession { Self.append(succession, to: &bytes) }
        case .fence(let term), .claim(let term), .release(let term), .contested(let term): Self.append(term, to: &bytes)
        case .done(let epoch): Self.append(epoch, to: &bytes)
        default: preconditionFailure("the frame is about no home")
        }
    }

    private static func append(_ term: HomeTerm, to bytes: inout [UInt8]) {
        append(term.epoch, to: &bytes)
        append(term.region, to: &bytes)
    }

    private static func append(_ succession: StreamSuccession, to bytes: inout [UInt8]) {
        append(succession.previous, to: &bytes)
        bytes.append(succession.isWhole ? 1 : 0)
        for sequence in succession.included { append(sequence, to: &bytes) }
    }

    private static func append<T: FixedWidthInteger>(_ number: T, to bytes: inout [UInt8]) {
        for shift in stride(from: T.bitWidth - 8, through: 0, by: -8) {
            bytes.append(UInt8(truncatingIfNeeded: number >> T(shift)))
        }
    }

    private static func append(_ text: String, to bytes: inout [UInt8]) {
        let utf8 = Array(text.utf8.prefix(Int(UInt16.max)))
        append(UInt16(utf8.count), to: &bytes)
        bytes.append(contentsOf: utf8)
    }

    private static func append(_ position: StreamPosition, to bytes: inout [UInt8]) {
        append(position.source, to: &bytes)
        append(position.epoch, to: &bytes)
        for sequence in position.sequences { append(sequence, to: &bytes) }
    }

    private static func append(_ report: CopyReport, to bytes: inout [UInt8]) {
        let state: (code: UInt8, version: UInt64) =
            switch report.sight {
            case .nothing: (0, 0)
            case .hidden: (1, 0)
            case .copy(let version): (2, version)
            }
        bytes.append(state.code)
        append(state.version, to: &bytes)
        guard let trace = report.trace else { return bytes.append(0) }
        bytes.append(1)
        append(trace.epoch, to: &bytes)
        append(trace.position, to: &bytes)
        append(trace.reachMicroseconds, to: &bytes)
        bytes.append(UInt8(clamping: trace.events.count))
        for event in trace.events.suffix(255) {
            bytes.append(event.kind.rawValue)
            append(event.version, to: &bytes)
            append(event.sequence, to: &bytes)
            append(event.agoMicroseconds, to: &bytes)
        }
    }

    // MARK: Reading

    /// What is at the start of some input.
    package enum Reading: Sendable, Equatable {
        /// A frame, and how many bytes it takes.
        case frame(StreamFrame, bytes: Int)
        /// The beginning of a frame; so many bytes are needed.
        case incomplete(Int)
        /// No frame of ours, for this reason.
        case invalid(String)
    }

    /// Reads the frame that `input` begins with.
    package static func read(_ input: Span<UInt8>) -> Reading {
        guard input.count >= 4 else { return .incomplete(headerBytes) }
        var length = 0
        for index in 0..<4 { length = length << 8 | Int(input[index]) }
        guard length >= 1, length <= bytesMax else { return .invalid("a frame of \(length) bytes") }
        guard input.count >= 4 + length else { return .incomplete(4 + length) }
        var reader = FrameReader(input.extracting(5..<4 + length))
        guard let frame = parse(input[4], &reader), reader.isAtEnd else {
            return .invalid("a frame of kind \(input[4]) that makes no sense")
        }
        return .frame(frame, bytes: 4 + length)
    }

    private static func parse(_ kind: UInt8, _ reader: inout FrameReader) -> StreamFrame? {
        switch kind {
        case 1: return reader.hello(magic).map { .hello($0) }
        case 2:
            guard let spoken = reader.number(UInt8.self) else { return nil }
            guard spoken == version else {
                // What stands behind it is of that version.
                _ = reader.rest()
                return .refused("the source speaks frames of version \(spoken); this node speaks version \(version)")
            }
            guard let region = reader.text(), let position = reader.position() else { return nil }
            if reader.isAtEnd { return .welcome(region: region, position, nil) }
            return reader.succession().map { .welcome(region: region, position, $0) }
        case 3: return reader.text().map { .refused($0) }
        case 4: return reader.number(UInt32.self).map { .grant(Int($0)) }
        case 5, 9:
            guard let slot = reader.number(UInt8.self), Int(slot) < StreamSlots.count,
                let sequence = reader.sequence()
            else { return nil }
            return kind == 5 ? .seek(slot: Int(slot), after: sequence) : .lost(slot: Int(slot), through: sequence)
        case 6:
            guard let number = reader.number(UInt64.self) else { return nil }
            // Whoever does not say what has come has his records kept for their time.
            if reader.isAtEnd { return .probe(number, answered: 0) }
            return reader.number(UInt64.self).map { .probe(number, answered: $0) }
        case 7:
            guard let number = reader.number(UInt64.self), let epoch = reader.number(Int64.self),
                let sequences = reader.sequences()
            else { return nil }
            if reader.isAtEnd { return .complete(number, epoch: epoch, sequences: sequences) }
            return reader.number(Int64.self)
                .map { .complete(number, epoch: epoch, sequences: sequences, milliseconds: $0) }
        case 8: return records(&reader).map { .batch($0) }
        case 10:
            guard let count = reader.number(UInt32.self), count <= UInt32(bytesMax) else { return nil }
            return reader.rest().map { .packed(bytes: Int(count), $0) }
        case 16: return readLook(&reader)
        case 17: return readSights(&reader)
        default: return parseTerm(kind, &reader)
        }
    }

    private static func parseTerm(_ kind: UInt8, _ reader: inout FrameReader) -> StreamFrame? {
        switch kind {
        case 11:
            guard reader.number(UInt32.self) == magic, let cluster = reader.text(), let region = reader.text() else {
                return nil
            }
            return .ask(cluster: cluster, region: region)
        case 12:
            guard let term = reader.term() else { return nil }
            if reader.isAtEnd { return .home(term, nil) }
            return reader.succession().map { .home(term, $0) }
        case 13: return reader.term().map { .fence($0) }
        case 14: return reader.term().map { .release($0) }
        case 15: return reader.number(Int64.self).map { .done(epoch: $0) }
        case 18: return reader.term().map { .claim($0) }
        case 19: return reader.term().map { .contested($0) }
        default: return nil
        }
    }

    private static func readLook(_ reader: inout FrameReader) -> StreamFrame? {
        guard let number = reader.number(UInt64.self), let flags = reader.number(UInt8.self) else { return nil }
        var keys: [[UInt8]] = []
        while !reader.isAtEnd {
            guard keys.count < lookKeysMax, let length = reader.number(UInt8.self), length > 0,
                let key = reader.bytes(Int(length))
            else { return nil }
            keys.append(key)
        }
        return .look(number, explains: flags & 1 != 0, keys: keys)
    }

    private static func readSights(_ reader: inout FrameReader) -> StreamFrame? {
        guard let number = reader.number(UInt64.self) else { return nil }
        var reports: [CopyReport] = []
        while !reader.isAtEnd {
            guard reports.count < lookKeysMax, let report = reader.report() else { return nil }
            reports.append(report)
        }
        return .sights(number, reports)
    }

    private static func records(_ reader: inout FrameReader) -> [[UInt8]]? {
        var records: [[UInt8]] = []
        while !reader.isAtEnd {
            guard let length = reader.number(UInt32.self), let record = reader.bytes(Int(length)) else { return nil }
            records.append(record)
        }
        return records
    }

    /// The records of a batch's body; nil where it is none.
    package static func records(ofBatch body: Span<UInt8>) -> [[UInt8]]? {
        var reader = FrameReader(body)
        return records(&reader)
    }
}

/// Reads the parts of a frame's body; each call gives nil when the bytes end too early or make no sense.
private struct FrameReader: ~Escapable {
    private let content: Span<UInt8>
    private var place = 0

    @_lifetime(copy content)
    init(_ content: Span<UInt8>) { self.content = content }

    var isAtEnd: Bool { place == content.count }

    mutating func number<T: FixedWidthInteger>(_ type: T.Type) -> T? {
        let size = T.bitWidth / 8
        guard content.count - place >= size else { return nil }
        var value: UInt64 = 0
        for index in place..<place + size { value = value << 8 | UInt64(content[index]) }
        place += size
        return T(truncatingIfNeeded: value)
    }

    mutating func bytes(_ count: Int) -> [UInt8]? {
        guard count >= 0, count <= content.count - place else { return nil }
        var copy: [UInt8] = []
        copy.reserveCapacity(count)
        for index in place..<place + count { copy.append(content[index]) }
        place += count
        return copy
    }

    /// Everything that is left.
    mutating func rest() -> [UInt8]? { bytes(content.count - place) }

    mutating func text() -> String? {
        guard let count = number(UInt16.self), let bytes = bytes(Int(count)) else { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// A sequence number that another can follow.
    mutating func sequence() -> Int64? {
        number(Int64.self).flatMap { (0...OutboxRecord.sequenceMax).contains($0) ? $0 : nil }
    }

    mutating func sequences() -> [Int64]? {
        var numbers: [Int64] = []
        for _ in 0..<StreamSlots.count {
            guard let next = sequence() else { return nil }
            numbers.append(next)
        }
        return numbers
    }

    mutating func position() -> StreamPosition? {
        guard let source = text(), let epoch = number(Int64.self), let sequences = sequences() else { return nil }
        return StreamPosition(source: source, epoch: epoch, sequences: sequences)
    }

    mutating func report() -> CopyReport? {
        guard let state = number(UInt8.self), let version = number(UInt64.self), let hasTrace = number(UInt8.self)
        else { return nil }
        var report = CopyReport(.nothing)
        switch state {
        case 0: break
        case 1: report.sight = .hidden
        case 2: report.sight = .copy(version)
        default: return nil
        }
        guard hasTrace != 0 else { return report }
        var trace = CopyTrace()
        guard let epoch = number(Int64.self), let position = number(Int64.self), let reach = number(UInt64.self),
            let count = number(UInt8.self)
        else { return nil }
        (trace.epoch, trace.position, trace.reachMicroseconds) = (epoch, position, reach)
        for _ in 0..<count {
            guard let kind = number(UInt8.self).flatMap(CopyEvent.Kind.init), let version = number(UInt64.self),
                let sequence = number(Int64.self), let ago = number(UInt64.self)
            else { return nil }
            trace.events.append(CopyEvent(kind, version: version, sequence: sequence, agoMicroseconds: ago))
        }
        report.trace = trace
        return report
    }

    mutating func term() -> HomeTerm? {
        // There is room behind it for the next one.
        guard let epoch = sequence(), let region = text() else { return nil }
        return HomeTerm(epoch: epoch, region: region)
    }

    mutating func succession() -> StreamSuccession? {
        guard let previous = number(Int64.self), let isWhole = number(UInt8.self), let included = sequences() else {
            return nil
        }
        return StreamSuccession(previous: previous, included: included, isWhole: isWhole != 0)
    }

    mutating func hello(_ magic: UInt32) -> StreamHello? {
        var hello = StreamHello()
        guard number(UInt32.self) == magic, let version = number(UInt8.self), let values = number(UInt8.self),
            let cluster = text(), let region = text(), let name = text(), let hasPosition = number(UInt8.self)
        else { return nil }
        (hello.version, hello.wantsValues, hello.takesPacked) = (version, values & 1 != 0, values & 2 != 0)
        hello.answersLooks = values & 8 != 0
        hello.takesSuccession = values & 4 != 0
        hello.onlyLooks = values & 16 != 0
        (hello.cluster, hello.region, hello.name) = (cluster, region, name)
        if hasPosition != 0 {
            guard let position = position() else { return nil }
            hello.position = position
        }
        return hello
    }
}

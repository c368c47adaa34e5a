// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Storage

/// What the home region's replies mean.
struct RegionReply {
    /// The home region's name, for errors.
    let home: String
    /// When the reply came, in milliseconds of Unix time.
    var answeredMilliseconds: Int64 = 0

    /// An answer for the tier.
    enum Answer: Equatable {
        case read(ReadOutcome)
        case write(WriteOutcome)
    }

    /// What a whole reply says about a request; nil where it is no reply to it.
    func answer(_ unit: ReplyUnit, _ input: Span<UInt8>, to request: RegionRequest) -> Answer? {
        switch request.question {
        case .read: read(unit, input, request).map { .read($0) }
        case .write(let write): self.write(unit, input, write, request).map { .write($0) }
        }
    }

    // MARK: Reads

    private func read(_ unit: ReplyUnit, _ input: Span<UInt8>, _ request: RegionRequest) -> ReadOutcome? {
        switch unit.kind {
        case .metaMiss: .absent
        case .metaValue: row(unit, input, request).map { found($0.row, $0.flags) }
        case .error, .clientError, .serverError: .failed(failure(unit, input))
        default: nil
        }
    }

    private func found(_ row: StoredRow, _ flags: RegionFlags) -> ReadOutcome {
        // Stale, and nobody is told to renew it: what the home region's cache has left while its store fails.
        guard flags.isStale, !flags.isBeingRenewed else { return .found(row) }
        return .failed(StorageFailure(.notSent, "the home region \(home) has a stale copy only: its store fails"))
    }

    /// The row that a value with its flags is; nil where it lacks some.
    private func row(
        _ unit: ReplyUnit, _ input: Span<UInt8>, _ request: RegionRequest
    ) -> (row: StoredRow, flags: RegionFlags)? {
        let flags = RegionFlags(input.extracting(unit.restStart..<unit.textEnd))
        guard let version = flags.version, let seconds = flags.seconds else { return nil }
        var row = StoredRow(
            version: version, expiryMilliseconds: 0, clientFlags: flags.clientFlags, value: value(unit, input))
        if seconds >= 0 {
            RegionTime.expire(
                &row, seconds: seconds, asked: request.askedMilliseconds, answered: answeredMilliseconds)
        }
        return (row, flags)
    }

    private func value(_ unit: ReplyUnit, _ input: Span<UInt8>) -> [UInt8] {
        [UInt8](copying: input.extracting(unit.lineEnd..<unit.lineEnd + unit.blockLength))
    }

    // MARK: Writes

    private func write(
        _ unit: ReplyUnit, _ input: Span<UInt8>, _ write: StorageWrite, _ request: RegionRequest
    ) -> WriteOutcome? {
        if unit.kind.isError { return refused(unit, input, write) }
        switch (write.operation, unit.kind) {
        case (.touch, .metaValue): return row(unit, input, request).map { .stored($0.row) }
        case (.touch, .metaMiss): return .notFound
        case (.touch, _): return nil
        case (.delete, .metaDone): return .deleted(version: 0)
        case (.increment, .metaValue), (.decrement, .metaValue): return counted(unit, input, write, request)
        case (.delete, .metaValue), (.increment, .metaDone), (.decrement, .metaDone): return nil
        case (_, .metaDone): return stored(unit, input, write, request)
        case (_, .metaNotFound): return .notFound
        case (_, .metaExists): return .exists
        case (_, .metaNotStored):
            // A counter that another made in the same moment.
            let isCounter = write.operation == .increment || write.operation == .decrement
            return isCounter ? .failed(StorageFailure(.refused, "the counter came into being meanwhile")) : .notStored
        default: return nil
        }
    }

    private func stored(
        _ unit: ReplyUnit, _ input: Span<UInt8>, _ write: StorageWrite, _ request: RegionRequest
    ) -> WriteOutcome? {
        let flags = RegionFlags(input.extracting(unit.restStart..<unit.textEnd))
        guard let version = flags.version else { return nil }
        var row = StoredRow(
            version: version, expiryMilliseconds: 0, clientFlags: write.clientFlags, value: write.value)
        switch write.operation {
        case .set, .add, .replace:
            let exptime = RegionTime.exptime(write.expiryMilliseconds, at: request.askedMilliseconds)
            RegionTime.expire(
                &row, exptime: exptime, write.expiryMilliseconds, asked: request.askedMilliseconds,
                answered: answeredMilliseconds)
        default:
            // What it was joined to, nobody said.
            row.value = []
            row.partialLength = flags.size ?? write.value.count
        }
        return .stored(row)
    }

    private func counted(
        _ unit: ReplyUnit, _ input: Span<UInt8>, _ write: StorageWrite, _ request: RegionRequest
    ) -> WriteOutcome? {
        let flags = RegionFlags(input.extracting(unit.restStart..<unit.textEnd))
        guard let version = flags.version else { return nil }
        // The number; flags and padding, nobody said.
        var row = StoredRow(version: version, expiryMilliseconds: 0, clientFlags: 0, value: value(unit, input))
        row.partialLength = row.value.count
        if write.tellsEarlierExpiry, let seconds = flags.seconds {
            row.earlierExpiryMilliseconds = seconds < 0 ? 0 : answeredMilliseconds + seconds * 1000
            // A counter with just the time that a new one gets is taken for one.
            let expiry = write.initialExpiryMilliseconds ?? write.expiryMilliseconds
            if write.initial != nil, seconds >= 0,
                seconds == RegionTime.exptime(expiry, at: request.askedMilliseconds)
            {
                row.earlierExpiryMilliseconds = nil
            }
        }
        return .stored(row)
    }

    // MARK: Errors

    private func refused(_ unit: ReplyUnit, _ input: Span<UInt8>, _ write: StorageWrite) -> WriteOutcome {
        let text = text(unit, input)
        if unit.kind == .serverError, text.hasPrefix("object too large") { return .tooLarge }
        if unit.kind == .clientError, text.hasPrefix("cannot increment or decrement") { return .notNumeric }
        return .failed(failure(unit, input))
    }

    private func text(_ unit: ReplyUnit, _ input: Span<UInt8>) -> String {
        String(decoding: [UInt8](copying: input.extracting(unit.restStart..<unit.textEnd)), as: UTF8.self)
    }

    /// Beginnings of errors after which nothing was done, and may be tried again: those of a router that sent nothing,
    /// and of whoever has too much to do.
    private static let notSent = [
        "307 busy", "busy", "out of memory: busy", "connection timeout", "connection error", "unavailable",
        "local error", "302 try again",
    ]

    private func failure(_ unit: ReplyUnit, _ input: Span<UInt8>) -> StorageFailure {
        let text = text(unit, input)
        // Its colon would hide from clients what follows it.
        let told = text.hasPrefix("storage: ") ? String(text.dropFirst(9)) : text
        let reason = "the home region \(home) refuses, \(told)"
        guard unit.kind == .serverError else {
            return StorageFailure(.refused, unit.kind == .error ? "the home region \(home) says ERROR" : reason)
        }
        if text.hasPrefix("storage: ") { return StorageFailure(.refused, reason) }
        if Self.notSent.contains(where: { text.hasPrefix($0) }) { return StorageFailure(.notSent, reason) }
        // A router's timeout, or what is not known here: it may have been done.
        return StorageFailure(.unknownOutcome, "the home region \(home) does not know the outcome, \(told)")
    }
}

/// The flags of a meta reply.
struct RegionFlags {
    var version: UInt64?
    var clientFlags: UInt32 = 0
    /// Seconds left; negative for ever.
    var seconds: Int64?
    var size: Int?
    /// X.
    var isStale = false
    /// W or Z.
    var isBeingRenewed = false

    init(_ text: Span<UInt8>) {
        var index = 0
        while index < text.count {
            let letter = text[index]
            index += 1
            var (number, isNegative): (UInt64, Bool) = (0, false)
            while index < text.count, text[index] != UInt8(ascii: " ") {
                let digit = text[index] &- 48
                if digit < 10 { number = number &* 10 &+ UInt64(digit) }
                if text[index] == UInt8(ascii: "-") { isNegative = true }
                index += 1
            }
            index += 1
            switch letter {
            case UInt8(ascii: "c"): version = number
            case UInt8(ascii: "f"): clientFlags = UInt32(truncatingIfNeeded: number)
            case UInt8(ascii: "t"): seconds = isNegative ? -1 : Int64(clamping: min(number, UInt64(Int32.max) * 64))
            case UInt8(ascii: "s"): size = Int(clamping: number)
            case UInt8(ascii: "X"): isStale = true
            case UInt8(ascii: "W"), UInt8(ascii: "Z"): isBeingRenewed = true
            default: break
            }
        }
    }
}

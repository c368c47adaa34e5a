// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Storage

/// What the home region is asked.
struct RegionRequest: Sendable {
    enum Question: Sendable {
        case read([UInt8])
        case write(StorageWrite)
    }

    /// Names it in the answer.
    var token: UInt64
    var question: Question
    /// When it was submitted, in monotonic nanoseconds.
    var sinceNanoseconds: UInt64
    /// When it was written to a connection, in milliseconds of Unix time: no second of a time to live is counted from
    /// earlier.
    var askedMilliseconds: Int64 = 0

    var key: [UInt8] {
        switch question {
        case .read(let key): key
        case .write(let write): write.key
        }
    }

    /// About how many bytes the command has.
    var bytes: Int {
        switch question {
        case .read(let key): key.count + 64
        case .write(let write): write.key.count + write.value.count + 128
        }
    }

    /// Why it cannot be asked; nil where it can.
    var obstacle: String? {
        guard RegionKey.needsEncoding(key), RegionKey.encodedLength(key) > ProtocolLimits.keyBytes else { return nil }
        return "of a key with spaces or control characters the home region takes \(RegionKey.encodedMax) bytes at most"
    }
}

/// How keys are spelled in the meta protocol.
enum RegionKey {
    /// The longest key that fits a line in base64.
    static var encodedMax: Int { ProtocolLimits.keyBytes / 4 * 3 }

    /// Whether it can only be spelled in base64.
    static func needsEncoding(_ key: [UInt8]) -> Bool { key.contains { $0 <= 32 || $0 == 127 } }

    /// How many characters that has.
    static func encodedLength(_ key: [UInt8]) -> Int { (key.count + 2) / 3 * 4 }
}

/// Times to live: seconds that count from when the home region reads them.
enum RegionTime {
    private static var longestRelative: Int64 { 60 * 60 * 24 * 30 }

    /// The expiry of a row, in milliseconds of Unix time, as memcached takes it. A time that counts is rounded up, so
    /// that a row is never for ever or gone that was to live for a moment.
    static func exptime(_ expiryMilliseconds: Int64, at now: Int64) -> Int64 {
        guard expiryMilliseconds != 0 else { return 0 }
        let rest = expiryMilliseconds - now
        guard rest > 0 else { return -1 }
        // The node adds 5 ms to a client's whole seconds: see NodeClock.
        let seconds = max(1, (rest - 5 + 999) / 1000)
        guard seconds > longestRelative else { return seconds }
        // A date, which the protocol's 32 bits end in 2038.
        return min(Int64(Int32.max), (expiryMilliseconds + 999) / 1000)
    }

    /// Gives a row that has `seconds` left, as the home region said or was told between two readings of the clock, the
    /// time at which it surely is gone, and how much earlier that may be.
    static func expire(_ row: inout StoredRow, seconds: Int64, asked: Int64, answered: Int64) {
        let answered = max(asked, answered)
        row.expiryMilliseconds = answered + max(1, seconds) * 1000
        row.expiryUncertaintyMilliseconds = answered - asked + 1000
    }

    /// The same of a row that was stored with `exptime`, for `expiryMilliseconds`.
    static func expire(
        _ row: inout StoredRow, exptime: Int64, _ expiryMilliseconds: Int64, asked: Int64, answered: Int64
    ) {
        switch exptime {
        case 0: row.expiryMilliseconds = 0
        case ..<0: row.expiryMilliseconds = max(1, min(expiryMilliseconds, asked))
        case 1...longestRelative: expire(&row, seconds: exptime, asked: asked, answered: answered)
        default:
            // By the home region's clock, which may be another.
            row.expiryMilliseconds = expiryMilliseconds + 1000
            row.expiryUncertaintyMilliseconds = max(1000, row.expiryMilliseconds - asked - longestRelative * 1000)
        }
    }
}

/// Requests on the wire. Source: memcached's protocol.txt, "Meta Commands".
extension OutputBuffer {
    /// Appends a request; `mark` is the home region's: see ``RegionMark``. A read says how far the stream was followed,
    /// where that is known.
    mutating func append(_ request: RegionRequest, mark: [UInt8], place: RegionPlace? = nil) {
        switch request.question {
        case .read(let key):
            append("mg ")
            append(key: key)
            append(" v c f t")
            if let place { append(place) }
            append(mark: mark)
        case .write(let write): append(write, at: request.askedMilliseconds, mark: mark)
        }
    }

    private mutating func append(_ write: StorageWrite, at now: Int64, mark: [UInt8]) {
        switch write.operation {
        case .set, .add, .replace, .append, .prepend, .appendOrCreate, .prependOrCreate:
            append(storing: write, at: now, mark: mark)
        case .increment, .decrement: append(counting: write, at: now, mark: mark)
        case .delete:
            append("md ")
            append(key: write.key)
            append(compare: write)
            append(mark: mark)
        case .touch:
            append("mg ")
            append(key: write.key)
            append(flag: UInt8(ascii: "T"), RegionTime.exptime(write.expiryMilliseconds, at: now))
            append(" v c f t")
            append(mark: mark)
        }
    }

    private mutating func append(storing write: StorageWrite, at now: Int64, mark: [UInt8]) {
        append("ms ")
        let isEncoded = append(text: write.key)
        append(UInt8(ascii: " "))
        append(decimal: UInt64(write.value.count))
        if isEncoded { append(" b") }
        let exptime = RegionTime.exptime(write.expiryMilliseconds, at: now)
        var expiryFlag = UInt8(ascii: "T")
        switch write.operation {
        case .add: append(" ME")
        case .replace: append(" MR")
        case .append: append(" MA")
        case .prepend: append(" MP")
        case .appendOrCreate, .prependOrCreate:
            append(write.operation == .appendOrCreate ? " MA" : " MP")
            expiryFlag = UInt8(ascii: "N")
        default: break
        }
        // Of a join, N says that it may create, also for ever.
        if exptime != 0 || expiryFlag != UInt8(ascii: "T") { append(flag: expiryFlag, exptime) }
        if write.clientFlags != 0 { append(flag: UInt8(ascii: "F"), Int64(write.clientFlags)) }
        append(compare: write)
        append(" c s")
        append(mark: mark)
        append(write.value.span)
        append("\r\n")
    }

    private mutating func append(counting write: StorageWrite, at now: Int64, mark: [UInt8]) {
        append("ma ")
        append(key: write.key)
        append(write.operation == .increment ? " MI D" : " MD D")
        append(decimal: write.delta)
        if let initial = write.initial {
            append(" J")
            append(decimal: initial)
            let expiry = write.initialExpiryMilliseconds ?? write.expiryMilliseconds
            append(flag: UInt8(ascii: "N"), RegionTime.exptime(expiry, at: now))
        }
        append(compare: write)
        append(" v c")
        // Between N and T: it shows what was there before T, or what N made.
        if write.tellsEarlierExpiry { append(" t") }
        if write.setsExpiry {
            append(flag: UInt8(ascii: "T"), RegionTime.exptime(write.expiryMilliseconds, at: now))
        }
        append(mark: mark)
    }

    /// Appends a key, and says so where it is in base64.
    private mutating func append(key: [UInt8]) {
        if append(text: key) { append(" b") }
    }

    /// Appends a key's text; whether it is in base64.
    private mutating func append(text key: [UInt8]) -> Bool {
        guard RegionKey.needsEncoding(key) else {
            append(key.span)
            return false
        }
        appendBase64(key.span)
        return true
    }

    private mutating func append(compare write: StorageWrite) {
        guard write.compare != 0 else { return }
        append(" C")
        append(decimal: write.compare)
    }

    private mutating func append(flag: UInt8, _ number: Int64) {
        append(UInt8(ascii: " "))
        append(flag)
        append(decimal: number)
    }

    private mutating func append(mark: [UInt8]) {
        append(UInt8(ascii: " "))
        append(mark.span)
        append("\r\n")
    }
}

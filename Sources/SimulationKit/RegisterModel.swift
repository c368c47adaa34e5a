// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// What memcached's verbs do to one key, naively: the specification that histories are checked against. Written
/// without ``WriteEvaluation``, so that a fault there shows.
struct RegisterModel: Hashable {
    /// nil: no row.
    var value: [UInt8]?
    var clientFlags: UInt32 = 0
    var expiryMilliseconds: Int64 = 0
    /// The version of the row; 0 where no answer told it.
    var version: UInt64 = 0
    /// The highest version that an answer told so far.
    var highestVersion: UInt64 = 0
    /// The last operation took effect at this time at the earliest.
    var milliseconds: Int64 = .min

    /// The states after an operation that was answered so; none where that is impossible here.
    func after(_ operation: RecordedOperation) -> [RegisterModel] {
        // A store decides by the time that it is before it commits: what is committed behind a step of the clock may
        // have been decided before it, though others have read by then what was there.
        let mayBeOlder = operation.spansStep && operation.action != .read
        let earliest = mayBeOlder ? operation.invokedMilliseconds : max(milliseconds, operation.invokedMilliseconds)
        guard earliest <= operation.returnedMilliseconds else { return [] }
        var successors: [RegisterModel] = []
        let mayExpire = value != nil && expiryMilliseconds != 0
        if !mayExpire || earliest < expiryMilliseconds {
            var view = self
            view.milliseconds = max(milliseconds, earliest)
            if let next = view.apply(operation) { successors.append(next) }
        }
        let expired = max(earliest, expiryMilliseconds)
        if mayExpire, expired <= operation.returnedMilliseconds {
            var view = self
            view.milliseconds = max(milliseconds, expired)
            view.clear()
            if let next = view.apply(operation) { successors.append(next) }
        }
        return successors
    }

    private mutating func clear() {
        value = nil
        clientFlags = 0
        expiryMilliseconds = 0
        version = 0
    }

    private func apply(_ operation: RecordedOperation) -> RegisterModel? {
        switch operation.action {
        case .read:
            guard case .read(let outcome) = operation.result else { return nil }
            return read(outcome)
        case .write(let write):
            switch operation.result {
            case .unknown: return unknown(write)
            case .write(let outcome): return self.write(write, outcome)
            case .read: return nil
            }
        }
    }

    private func read(_ outcome: ReadOutcome) -> RegisterModel? {
        switch outcome {
        case .absent: return value == nil ? self : nil
        case .failed: return self
        case .found(let row):
            var next = self
            guard next.matches(row) else { return nil }
            return next
        }
    }

    /// Whether this is the row, learning its version from it.
    private mutating func matches(_ row: StoredRow) -> Bool {
        guard value == row.value, clientFlags == row.clientFlags, expiryMilliseconds == row.expiryMilliseconds else {
            return false
        }
        if version != 0 { return version == row.version }
        return learn(row.version)
    }

    /// Takes a version that an answer told: versions of a key only grow.
    private mutating func learn(_ told: UInt64) -> Bool {
        version = told
        if told == 0 { return true }
        guard told > highestVersion else { return false }
        highestVersion = told
        return true
    }

    /// What a write may come to here.
    private enum Effect {
        case put(RegisterModel)
        case delete
        case refuse(WriteOutcome)
    }

    private func write(_ write: StorageWrite, _ outcome: WriteOutcome) -> RegisterModel? {
        for effect in effects(of: write) {
            switch (effect, outcome) {
            case (.put(var next), .stored(let row)):
                next.version = 0
                if next.matches(row) { return next }
            case (.delete, .deleted(let version)):
                var next = self
                next.clear()
                guard next.learn(version) else { return nil }
                next.version = 0
                return next
            case (.refuse(let expected), _):
                if expected == outcome { return self }
            default: break
            }
        }
        return nil
    }

    /// A write of which nobody knows the outcome, where it does take effect.
    private func unknown(_ write: StorageWrite) -> RegisterModel? {
        for effect in effects(of: write) {
            switch effect {
            case .put(var next):
                next.version = 0
                return next
            case .delete:
                var next = self
                next.clear()
                return next
            case .refuse: break
            }
        }
        return self
    }

    /// What the verbs mean. Two effects where a compare meets a version that no answer told.
    private func effects(of write: StorageWrite) -> [Effect] {
        let mismatch = Effect.refuse(value == nil ? .notFound : .exists)
        let compares = write.compare != 0
        let isMatch = !compares || (value != nil && (version == 0 || version == write.compare))
        let isSure = !compares || value == nil || version != 0
        var fresh = self
        fresh.value = write.value
        fresh.clientFlags = write.clientFlags
        fresh.expiryMilliseconds = write.expiryMilliseconds
        var kept = self
        let effect: Effect
        switch write.operation {
        case .set: effect = .put(fresh)
        case .add: return [value == nil ? .put(fresh) : .refuse(.notStored)]
        case .replace: return [value == nil ? .refuse(.notStored) : .put(fresh)]
        case .append, .appendOrCreate, .prepend, .prependOrCreate:
            let creates = write.operation == .appendOrCreate || write.operation == .prependOrCreate
            guard let value else { return [creates ? .put(fresh) : .refuse(.notStored)] }
            let isAppend = write.operation == .append || write.operation == .appendOrCreate
            kept.value = isAppend ? value + write.value : write.value + value
            effect = .put(kept)
        case .increment, .decrement:
            guard let value else {
                fresh.value = write.initial.map { Array(String($0).utf8) }
                return [write.initial == nil ? .refuse(.notFound) : .put(fresh)]
            }
            guard let text = Self.counted(value, write) else { return [.refuse(.notNumeric)] }
            kept.value = text
            if write.setsExpiry { kept.expiryMilliseconds = write.expiryMilliseconds }
            effect = .put(kept)
        case .delete:
            if value == nil { return [.refuse(.notFound)] }
            effect = .delete
        case .touch:
            if value == nil { return [.refuse(.notFound)] }
            kept.expiryMilliseconds = write.expiryMilliseconds
            effect = .put(kept)
        }
        if !isMatch { return [mismatch] }
        return isSure ? [effect] : [effect, mismatch]
    }

    private static func counted(_ value: [UInt8], _ write: StorageWrite) -> [UInt8]? {
        let digits = String(decoding: value, as: UTF8.self).split(separator: " ")
        guard digits.count == 1, let first = digits.first, let number = UInt64(first) else { return nil }
        let isUp = write.operation == .increment
        let result = isUp ? number &+ write.delta : number - min(number, write.delta)
        let text = Array(String(result).utf8)
        return text + [UInt8](repeating: 32, count: max(0, value.count - text.count))
    }
}

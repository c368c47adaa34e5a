// Martlet
// SPDX-License-Identifier: Apache-2.0

extension RouteMachine {
    /// What a frame of this handle waits for.
    private enum Phase {
        static let first = 0, second = 1, plainSecond = 2, gone = 3, both = 4, stored = 5, marked = 6
    }

    mutating func beginSizeSplit(
        _ handle: Int, _ first: Int, _ second: Int, _ split: SizeSplit, _ form: Int, _ place: Place, _ turn: inout Turn
    ) {
        let operation = forms[form].operation
        // What is stored in the first level may be a mark, which is neither lengthened nor given to a client.
        if operation.isExtending || operation == .gat || operation == .gats {
            return deliver(
                .made(.clientError, "append, prepend and gat do not go with sizeSplit"), to: place, &turn)
        }
        if isValueless(form) { return begin(first, form, place, &turn) }
        let number = UInt32(truncatingIfNeeded: turn.engine.random.next())
        let isRead = operation.group == .get
        if !isRead, isShort(form, split, turn.clock) { return begin(first, form, place, &turn) }
        let frame = open(handle, form, place, .sizeSplit(number: number, retries: split.retries))
        if isRead { return begin(first, form, child(of: frame), &turn) }
        if split.storesBoth {
            frames[frame].phase = Phase.both
            return begin(first, form, child(of: frame), &turn)
        }
        // The second first: who finds the mark must find the value.
        frames[frame].phase = Phase.stored
        var write = forms[form]
        (write.operation, write.isSame, write.casToken) = (.set, operation == .set && write.isSame, nil)
        if operation == .leaseSet { write.key = key(of: form) + Self.suffix(Array(String(number).utf8)) }
        begin(second, add(write), child(of: frame), &turn)
    }

    /// What stands between a key and the number of its long value.
    private static func suffix(_ number: [UInt8]) -> [UInt8] { Array("|==|".utf8) + number }

    private func isShort(_ form: Int, _ split: SizeSplit, _ clock: RouteClock) -> Bool {
        guard forms[form].value == .request else { return true }
        let seconds = clock.secondsLeft(of: forms[form].exptime ?? request.exptime)
        return split.thresholdBytes == 0 || valueCount < split.thresholdBytes
            || (split.ttlThreshold != 0 && seconds < split.ttlThreshold)
            || key(of: form).count + 24 > Self.maximumKeyBytes
    }

    mutating func continueSizeSplit(
        _ frame: Int, _ first: Int, _ second: Int, _ split: SizeSplit, _ outcome: Outcome, _ turn: inout Turn
    ) {
        guard case .sizeSplit(let number, let retries) = frames[frame].work else { return }
        let form = frames[frame].form
        switch frames[frame].phase {
        case Phase.first: continueFirst(frame, second, outcome, &turn)
        case Phase.second: continueSecond(frame, first, outcome, number, retries, &turn)
        case Phase.gone:
            frames[frame].phase = Phase.first
            begin(first, form, child(of: frame), &turn)
        case Phase.both:
            finish(frame, outcome, &turn)
            guard outcome.result.isStored else { return }
            var write = forms[form]
            (write.operation, write.casToken, write.isSame) = (.set, nil, false)
            begin(second, add(write), frames[frame].place.nobody, &turn)
        case Phase.stored:
            frames[frame].phase = Phase.marked
            let isLease = forms[form].operation == .leaseSet
            guard outcome.result.isStored || isLease else { return finish(frame, outcome, &turn) }
            var mark = forms[form]
            mark.isSame = false
            if outcome.result.isStored {
                mark.flags = (mark.flags ?? request.flags) | SizeSplit.flag
                mark.value = .bytes(isLease ? Array(String(number).utf8) : [])
            } else {
                mark.exptime = turn.clock.exptime(mark.exptime ?? request.exptime, atMostSeconds: split.failureTTL)
            }
            begin(first, add(mark), child(of: frame), &turn)
        default: finish(frame, outcome, &turn)
        }
    }

    /// The first level has answered a read.
    private mutating func continueFirst(_ frame: Int, _ second: Int, _ outcome: Outcome, _ turn: inout Turn) {
        let form = frames[frame].form
        let operation = forms[form].operation
        let isMark = outcome.flags & SizeSplit.flag != 0 && (operation != .get || outcome.result.isHit)
        guard isMark else { return finish(frame, outcome, &turn) }
        if operation == .leaseGet, outcome.hasLease || outcome.result.isHotMiss {
            var miss = Outcome.made(.notFound)
            (miss.hasLease, miss.newToken) = (outcome.hasLease, outcome.casToken)
            return finish(frame, miss, &turn)
        }
        frames[frame].best = outcome
        if operation == .get, outcome.text.isEmpty {
            frames[frame].phase = Phase.plainSecond
            return begin(second, form, child(of: frame), &turn)
        }
        frames[frame].phase = Phase.second
        var key = key(of: form)
        if !outcome.text.isEmpty { key += Self.suffix(outcome.text) }
        begin(second, add(Form(operation: .get, key: key, isSame: false)), child(of: frame), &turn)
    }

    /// The second level has answered, or not.
    private mutating func continueSecond(
        _ frame: Int, _ first: Int, _ outcome: Outcome, _ number: UInt32, _ retries: Int, _ turn: inout Turn
    ) {
        let operation = forms[frames[frame].form].operation
        let mark = frames[frame].best ?? .made(.notFound)
        if outcome.result.isHit {
            var found = outcome
            if operation == .gets { found.newToken = mark.casToken }
            return finish(frame, found, &turn)
        }
        if outcome.result.isError || operation == .get {
            let isLocal = !outcome.result.isError
            if isLocal || outcome.result.isFailoverError {
                takeAway(frame, first, mark, frames[frame].place.nobody, &turn)
            }
            return finish(frame, .made(isLocal ? .localError : outcome.result, "no long value"), &turn)
        }
        guard retries > 0 else { return finish(frame, .made(.localError, "no long value"), &turn) }
        frames[frame].work = .sizeSplit(number: number, retries: retries - 1)
        frames[frame].phase = Phase.gone
        takeAway(frame, first, mark, child(of: frame), &turn)
    }

    /// Takes away what stands for a long value that is gone.
    private mutating func takeAway(_ frame: Int, _ first: Int, _ mark: Outcome, _ place: Place, _ turn: inout Turn) {
        let form = frames[frame].form
        let chain = open(
            frames[frame].handle, form, place, .chain(.sentinel(target: first, text: mark.text)))
        begin(first, read(form, .gets), child(of: chain), &turn)
    }
}

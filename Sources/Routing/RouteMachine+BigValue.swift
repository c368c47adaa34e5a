// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A long value on its way, in pieces.
struct Pieces {
    /// What the pieces go through.
    let target: Int
    let values: BigValues
    let isRead: Bool
    var retries = 1
    var suffix: UInt64 = 0
    var count = 0
    /// The next one to send.
    var next = 0
    var outcomes: [RouteMachine.Outcome?] = []
    /// Pieces that are on their way, of one batch.
    var pending = 0
    /// The list of pieces, as it was read.
    var list: RouteMachine.Outcome?
    /// Whether it is read anew, for its version.
    var isListPending = false
    var listAnew: RouteMachine.Outcome?
    /// Whether a batch is being sent: what is answered at once waits for the rest of it.
    var isSending = false
}

extension RouteMachine {
    /// Slots of what is no piece.
    private enum Slot {
        static let list = -2, listAnew = -3, removal = -4, last = -5
    }

    mutating func beginBigValue(
        handle: Int, _ values: BigValues, _ form: Int, _ place: Place, _ turn: inout Turn
    ) {
        // The handle above all cuts up what goes through all of them.
        var target = Self.root
        if handle >= 0, case .bigValue(let child, _) = turn.plan.tree.handles[handle] { target = child.index }
        let operation = forms[form].operation
        // What is stored under the key may be a list of pieces, which must not get longer.
        if operation.isExtending {
            return deliver(.made(.clientError, "append and prepend do not go with bigValue"), to: place, &turn)
        }
        let isRead = operation.group == .get
        if isRead, isValueless(form) { return begin(target, form, place, &turn) }
        if isRead {
            let frame = open(handle, form, place, .pieces(Pieces(target: target, values: values, isRead: true)))
            return begin(target, form, child(of: frame, Slot.list), &turn)
        }
        guard forms[form].value == .request, valueCount > values.thresholdBytes else {
            return begin(target, form, place, &turn)
        }
        var pieces = Pieces(target: target, values: values, isRead: false)
        pieces.count = (valueCount + values.thresholdBytes - 1) / values.thresholdBytes
        pieces.suffix = UInt64(valueHash)
        guard pieces.count <= BigValues.maximumPieces else {
            return deliver(
                .made(.localError, "a value of more than \(BigValues.maximumPieces) pieces"), to: place, &turn)
        }
        pieces.outcomes = Array(repeating: nil, count: pieces.count)
        let frame = open(handle, form, place, .pieces(pieces))
        goOn(frame, &turn)
    }

    mutating func continuePieces(_ frame: Int, _ slot: Int, _ outcome: Outcome, _ turn: inout Turn) {
        guard case .pieces(var pieces) = frames[frame].work else { return }
        switch slot {
        case Slot.list: return continueList(frame, pieces, outcome, &turn)
        case Slot.last: return finish(frame, outcome, &turn)
        case Slot.removal:
            if outcome.result.isError { return finish(frame, .made(outcome.result), &turn) }
            return readAnew(frame, pieces, &turn)
        case Slot.listAnew:
            pieces.listAnew = outcome
            pieces.isListPending = false
        default:
            pieces.outcomes[slot] = outcome
            pieces.pending -= 1
        }
        frames[frame].work = .pieces(pieces)
        if !pieces.isSending { goOn(frame, &turn) }
    }

    /// Sends the next pieces, or finishes when all have come.
    private mutating func goOn(_ frame: Int, _ turn: inout Turn) {
        while case .pieces(let pieces) = frames[frame].work, !frames[frame].isDone, pieces.pending == 0 {
            if pieces.next < pieces.count {
                sendBatch(frame, pieces, &turn)
            } else {
                if pieces.isListPending { return }
                return pieces.isRead ? finishRead(frame, pieces, &turn) : finishWrite(frame, pieces, &turn)
            }
        }
    }

    private mutating func sendBatch(_ frame: Int, _ pieces: Pieces, _ turn: inout Turn) {
        var pieces = pieces
        let form = frames[frame].form
        let key = key(of: form)
        let size = pieces.values.batchSize == 0 ? pieces.count : pieces.values.batchSize
        let batch = pieces.next..<min(pieces.next + size, pieces.count)
        let longest = key.count - RoutingPrefix.length(in: key.span) + ":\(pieces.count):\(pieces.suffix)".utf8.count
        guard longest <= Self.maximumKeyBytes else {
            return finish(frame, .made(.localError, "no room in the key for the number of a piece"), &turn)
        }
        (pieces.next, pieces.pending, pieces.isSending) = (batch.upperBound, batch.count, true)
        frames[frame].work = .pieces(pieces)
        for index in batch {
            var piece = Form(operation: .get, key: key + Array(":\(index):\(pieces.suffix)".utf8), isSame: false)
            if !pieces.isRead {
                let start = index * pieces.values.thresholdBytes
                piece.operation = .set
                piece.exptime = forms[form].exptime
                piece.value = .slice(start..<min(start + pieces.values.thresholdBytes, valueCount))
                piece.flags = forms[form].flags
            }
            begin(pieces.target, add(piece), child(of: frame, index), &turn)
        }
        guard case .pieces(var latest) = frames[frame].work else { return }
        latest.isSending = false
        frames[frame].work = .pieces(latest)
    }

    /// What is worst of all pieces; nil while one is missing.
    private static func worst(_ pieces: Pieces) -> RouteResult {
        var worst: RouteResult?
        for outcome in pieces.outcomes {
            let result = outcome?.result ?? .unknown
            if worst.map({ result.isWorse(than: $0) }) ?? true { worst = result }
        }
        return worst ?? .unknown
    }

    private mutating func finishWrite(_ frame: Int, _ pieces: Pieces, _ turn: inout Turn) {
        let worst = Self.worst(pieces)
        guard worst.isStored else { return finish(frame, .made(worst), &turn) }
        var list = forms[frames[frame].form]
        list.flags = (list.flags ?? request.flags) | BigValues.flag
        list.value = .bytes(Array("1-\(pieces.count)-\(pieces.suffix)".utf8))
        list.isSame = false
        begin(pieces.target, add(list), child(of: frame, Slot.last), &turn)
    }

    /// The list of pieces has come, or a value that is in one.
    private mutating func continueList(_ frame: Int, _ pieces: Pieces, _ outcome: Outcome, _ turn: inout Turn) {
        guard outcome.flags & BigValues.flag != 0 else { return finish(frame, outcome, &turn) }
        var pieces = pieces
        let operation = forms[frames[frame].form].operation
        guard outcome.result.isHit else {
            var made = Outcome.made(outcome.result)
            (made.hasLease, made.newToken) = (outcome.hasLease, operation == .leaseGet ? outcome.casToken : nil)
            return finish(frame, made, &turn)
        }
        guard let (count, suffix) = Self.parsed(outcome.text), count > 0 else {
            return finish(frame, .made(.notFound), &turn)
        }
        (pieces.count, pieces.suffix, pieces.list, pieces.next) = (count, suffix, outcome, 0)
        pieces.outcomes = Array(repeating: nil, count: count)
        pieces.isListPending = operation == .leaseGet
        pieces.listAnew = nil
        frames[frame].work = .pieces(pieces)
        if pieces.isListPending {
            begin(pieces.target, read(frames[frame].form, .gets), child(of: frame, Slot.listAnew), &turn)
        }
        goOn(frame, &turn)
    }

    /// How many pieces a list names, and what their keys end in: `1-COUNT-SUFFIX`.
    static func parsed(_ text: [UInt8]) -> (count: Int, suffix: UInt64)? {
        let parts = text.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0].elementsEqual("1".utf8),
            let count = Int(String(decoding: parts[1], as: UTF8.self)), 0...BigValues.maximumPieces ~= count,
            let suffix = UInt64(String(decoding: parts[2], as: UTF8.self))
        else { return nil }
        return (count, suffix)
    }

    private mutating func finishRead(_ frame: Int, _ pieces: Pieces, _ turn: inout Turn) {
        let worst = Self.worst(pieces)
        guard let list = pieces.list else { return }
        if worst.isHit {
            var tokens: [Int] = []
            for outcome in pieces.outcomes {
                switch outcome?.source {
                case .token(let token): tokens.append(token)
                case .pieces(let inner): tokens += inner
                case .made, nil: return finish(frame, .made(.localError, "a piece without a value"), &turn)
                }
            }
            var whole = Outcome(result: worst, source: .pieces(tokens), flags: list.flags, casToken: list.casToken)
            whole.newFlags = pieces.values.hidesFlag ? list.flags & ~BigValues.flag : list.flags
            whole.newToken = list.casToken
            return finish(frame, whole, &turn)
        }
        guard forms[frames[frame].form].operation == .leaseGet, worst.isMiss else {
            return finish(frame, .made(worst), &turn)
        }
        // The list is there and a piece is not: somebody has to take the list away before anybody gets the lease.
        let anew = pieces.listAnew ?? .made(.unknown)
        if anew.result.isError {
            return pieces.retries > 0 ? readAnew(frame, pieces, &turn) : finish(frame, .made(anew.result), &turn)
        }
        guard anew.result.isHit else { return readAnew(frame, pieces, &turn) }
        let gone = Form(
            operation: .cas, key: forms[frames[frame].form].key, exptime: -1, value: .bytes([]), flags: 0,
            casToken: anew.casToken, isSame: false)
        begin(pieces.target, add(gone), child(of: frame, Slot.removal), &turn)
    }

    /// Begins with the list again, once.
    private mutating func readAnew(_ frame: Int, _ pieces: Pieces, _ turn: inout Turn) {
        guard pieces.retries > 0 else {
            return finish(frame, .made(.remoteError, "pieces of the value are missing"), &turn)
        }
        var again = Pieces(target: pieces.target, values: pieces.values, isRead: true)
        again.retries = pieces.retries - 1
        frames[frame].work = .pieces(again)
        begin(pieces.target, frames[frame].form, child(of: frame, Slot.list), &turn)
    }
}

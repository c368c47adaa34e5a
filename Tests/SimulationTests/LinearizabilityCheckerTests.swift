// Martlet
// SPDX-License-Identifier: Apache-2.0

import SimulationKit
import Storage
import Testing

/// The checker on histories that are known to be possible, and on ones that are not.
struct LinearizabilityCheckerTests {
    private let key: [UInt8] = [107]

    private func row(
        _ value: String, version: UInt64, expiry: Int64 = 0, flags: UInt32 = 0
    ) -> StoredRow {
        StoredRow(version: version, expiryMilliseconds: expiry, clientFlags: flags, value: Array(value.utf8))
    }

    private func write(
        _ operation: StorageWrite.Operation, _ value: String = "", expiry: Int64 = 0, compare: UInt64 = 0,
        delta: UInt64 = 0
    ) -> RecordedOperation.Action {
        var write = StorageWrite(operation, key: key)
        write.value = Array(value.utf8)
        write.expiryMilliseconds = expiry
        write.compare = compare
        write.delta = delta
        return .write(write)
    }

    /// An operation of a client from one time to another; times are stamps and milliseconds at once.
    private func by(
        _ client: Int, _ from: UInt64, _ to: UInt64, _ action: RecordedOperation.Action,
        _ result: RecordedOperation.Result
    ) -> RecordedOperation {
        RecordedOperation(
            client: client, action, result, invoked: from, returned: to, invokedMilliseconds: Int64(from),
            returnedMilliseconds: to == .max ? .max : Int64(to))
    }

    private func found(_ row: StoredRow) -> RecordedOperation.Result { .read(.found(row)) }
    private func stored(_ row: StoredRow) -> RecordedOperation.Result { .write(.stored(row)) }
    private let absent = RecordedOperation.Result.read(.absent)

    private func isPossible(_ history: [RecordedOperation]) -> Bool {
        LinearizabilityChecker().check(history) == .linearizable
    }

    private func isImpossible(_ history: [RecordedOperation]) -> Bool {
        if case .violation = LinearizabilityChecker().check(history) { true } else { false }
    }

    @Test func acceptsOneAfterTheOther() {
        let (a, b) = (row("a", version: 1), row("b", version: 2))
        #expect(isPossible([]))
        #expect(
            isPossible([
                by(1, 1, 2, .read, absent), by(1, 3, 4, write(.set, "a"), stored(a)), by(2, 5, 6, .read, found(a)),
                by(2, 7, 8, write(.set, "b"), stored(b)), by(1, 9, 10, .read, found(b)),
            ]))
    }

    @Test func rejectsAStaleRead() {
        let (a, b) = (row("a", version: 1), row("b", version: 2))
        let writes = [by(1, 1, 2, write(.set, "a"), stored(a)), by(1, 3, 4, write(.set, "b"), stored(b))]
        #expect(isImpossible(writes + [by(2, 5, 6, .read, found(a))]))
        #expect(isPossible(writes + [by(2, 3, 6, .read, found(a))]), "overlapping, it may")
        #expect(isImpossible(writes + [by(2, 5, 6, .read, absent)]))
    }

    @Test func rejectsReadsThatGoBack() {
        let (a, b) = (row("a", version: 1), row("b", version: 2))
        let writes = [by(1, 1, 2, write(.set, "a"), stored(a)), by(1, 3, 20, write(.set, "b"), stored(b))]
        #expect(isPossible(writes + [by(2, 5, 6, .read, found(a)), by(3, 7, 8, .read, found(b))]))
        #expect(isImpossible(writes + [by(2, 5, 6, .read, found(b)), by(3, 7, 8, .read, found(a))]))
    }

    @Test func rejectsAValueThatNobodyWrote() {
        #expect(isImpossible([by(1, 1, 2, .read, found(row("a", version: 1)))]))
    }

    @Test func keepsTheOrderOfOneClient() {
        let a = row("a", version: 1)
        let pipelined = [by(1, 1, 10, write(.set, "a"), stored(a)), by(1, 2, 9, .read, absent)]
        #expect(isImpossible(pipelined))
        var other = pipelined
        other[1].client = 2
        #expect(isPossible(other))
    }

    @Test func anUnknownWriteMayHappenAtAnyTimeOrNever() {
        let a = row("a", version: 1)
        let unknown = by(1, 1, .max, write(.set, "a"), .unknown)
        #expect(isPossible([unknown, by(2, 5, 6, .read, absent), by(2, 7, 8, .read, absent)]))
        #expect(isPossible([unknown, by(2, 5, 6, .read, absent), by(2, 700, 800, .read, found(a))]))
        #expect(isImpossible([unknown, by(2, 5, 6, .read, found(a)), by(2, 7, 8, .read, absent)]), "but not undone")
    }

    @Test func anUnknownWriteHappensBeforeItsEnd() {
        let a = row("a", version: 1)
        let unknown = by(1, 1, 4, write(.set, "a"), .unknown)
        #expect(isImpossible([unknown, by(2, 5, 6, .read, absent), by(2, 7, 8, .read, found(a))]))
    }

    @Test func comparesByVersion() {
        let (a, b) = (row("a", version: 5), row("b", version: 6))
        let set = by(1, 1, 2, write(.set, "a"), stored(a))
        #expect(isPossible([set, by(2, 3, 4, write(.set, "b", compare: 5), stored(b))]))
        #expect(isImpossible([set, by(2, 3, 4, write(.set, "b", compare: 4), stored(b))]))
        #expect(isPossible([set, by(2, 3, 4, write(.set, "b", compare: 4), .write(.exists))]))
        #expect(isImpossible([set, by(2, 3, 4, write(.set, "b", compare: 5), .write(.exists))]))
        #expect(isImpossible([by(2, 3, 4, write(.set, "b", compare: 4), .write(.exists))]))
    }

    @Test func oneOfTwoComparesFails() {
        let a = row("a", version: 5)
        let both = [
            by(1, 1, 2, write(.set, "a"), stored(a)),
            by(2, 3, 9, write(.set, "b", compare: 5), stored(row("b", version: 6))),
            by(3, 4, 8, write(.set, "c", compare: 5), stored(row("c", version: 7))),
        ]
        #expect(isImpossible(both))
    }

    @Test func versionsOnlyGrow() {
        #expect(
            isImpossible([
                by(1, 1, 2, write(.set, "a"), stored(row("a", version: 5))),
                by(1, 3, 4, write(.set, "b"), stored(row("b", version: 5))),
            ]))
        #expect(
            isImpossible([
                by(1, 1, 2, write(.set, "a"), stored(row("a", version: 5))),
                by(1, 3, 4, .read, found(row("a", version: 6))),
            ]))
    }

    @Test func countsOnce() {
        func plus(_ client: Int, _ from: UInt64, _ to: UInt64, _ value: String, _ version: UInt64) -> RecordedOperation
        {
            by(client, from, to, write(.increment, delta: 1), stored(row(value, version: version)))
        }
        let start = by(1, 1, 2, write(.set, "9"), stored(row("9", version: 1)))
        #expect(isPossible([start, plus(2, 3, 9, "11", 3), plus(3, 4, 8, "10", 2)]))
        #expect(isImpossible([start, plus(2, 3, 9, "10", 2), plus(3, 4, 8, "10", 3)]), "one was lost")
        let down = by(2, 10, 11, write(.decrement, delta: 5), stored(row("5 ", version: 4)))
        #expect(isPossible([start, plus(3, 4, 8, "10", 2), down]), "padded")
    }

    @Test func joinsAndConditionsNeedARow() {
        let a = row("a", version: 1)
        #expect(isPossible([by(1, 1, 2, write(.append, "x"), .write(.notStored))]))
        #expect(isPossible([by(1, 1, 2, write(.replace, "x"), .write(.notStored))]))
        #expect(isPossible([by(1, 1, 2, write(.delete), .write(.notFound))]))
        #expect(isPossible([by(1, 1, 2, write(.touch), .write(.notFound))]))
        let set = by(1, 1, 2, write(.set, "a"), stored(a))
        #expect(isPossible([set, by(1, 3, 4, write(.append, "x"), stored(row("ax", version: 2)))]))
        #expect(isPossible([set, by(1, 3, 4, write(.prepend, "x"), stored(row("xa", version: 2)))]))
        #expect(isImpossible([set, by(1, 3, 4, write(.add, "x"), stored(row("x", version: 2)))]))
        #expect(isImpossible([set, by(1, 3, 4, write(.delete), .write(.notFound))]))
        let delete = by(1, 3, 4, write(.delete), .write(.deleted(version: 2)))
        #expect(isPossible([set, delete, by(1, 5, 6, .read, absent)]))
        #expect(isImpossible([set, delete, by(1, 5, 6, .read, found(a))]))
    }

    @Test func rowsExpireAtTheirTime() {
        let a = row("a", version: 1, expiry: 100)
        let set = by(1, 1, 2, write(.set, "a", expiry: 100), stored(a))
        #expect(isPossible([set, by(1, 50, 60, .read, found(a))]))
        #expect(isImpossible([set, by(1, 50, 60, .read, absent)]))
        #expect(isPossible([set, by(1, 150, 160, .read, absent)]))
        #expect(isImpossible([set, by(1, 150, 160, .read, found(a))]))
        #expect(isPossible([set, by(1, 99, 101, .read, found(a))]))
        #expect(isPossible([set, by(1, 99, 101, .read, absent)]))
        let touched = row("a", version: 2, expiry: 200)
        let touch = by(1, 3, 4, write(.touch, expiry: 200), stored(touched))
        #expect(isPossible([set, touch, by(1, 150, 160, .read, found(touched))]))
        #expect(isImpossible([set, touch, by(1, 150, 160, .read, absent)]))
    }

    /// What expired cannot have been seen live by something that came after: the time of an order only goes forward.
    @Test func timeDoesNotGoBackInAnOrder() {
        let a = row("a", version: 1, expiry: 100)
        let set = by(1, 1, 2, write(.set, "a", expiry: 100), stored(a))
        let late = by(2, 98, 120, .read, absent)
        let replace = by(3, 97, 130, write(.replace, "b"), stored(row("b", version: 2)))
        #expect(isImpossible([set, late, replace]))
        #expect(isPossible([set, replace]))
        #expect(isPossible([set, late, by(3, 97, 130, write(.replace, "b"), .write(.notStored))]))
    }

    /// Others read what was there behind a step of the clock, while writes are committed that were decided before it.
    @Test func aWriteMayHaveBeenDecidedBeforeTheClockWasSet() {
        let old = row("o", version: 1)
        let before = [by(1, 1, 2, write(.set, "o"), stored(old)), by(2, 120, 121, .read, found(old))]
        let set = by(1, 97, 130, write(.set, "a", expiry: 100), stored(row("a", version: 2, expiry: 100)))
        var replace = by(3, 97, 130, write(.replace, "b"), stored(row("b", version: 3)))
        #expect(isImpossible(before + [set, replace]), "what is set so late has expired at once")
        replace.spansStep = true
        #expect(isPossible(before + [set, replace]))
        #expect(isImpossible(before + [set, replace, by(2, 140, 150, .read, absent)]), "it is done all the same")
        replace.invokedMilliseconds = 101
        #expect(isImpossible(before + [set, replace]), "no earlier than it was asked")
    }

    /// Twelve unknown writes at once, and a history that needs the right one of them to happen last.
    @Test func findsItsWayThroughManyUnknownWrites() {
        var history = (1...12).map { by($0, UInt64($0), .max, write(.set, "v\($0)"), .unknown) }
        history.append(by(20, 30, 31, .read, found(row("v7", version: 7))))
        history.append(by(20, 32, 33, .read, found(row("v3", version: 8))))
        #expect(isPossible(history))
        history.append(by(20, 34, 35, .read, found(row("v7", version: 9))))
        #expect(!isPossible(history))
    }

    @Test func givesUpAtItsBound() {
        let history = (1...12).map { by($0, UInt64($0), .max, write(.set, "v\($0)"), .unknown) }
        let impossible = history + [by(20, 30, 31, .read, found(row("other", version: 7)))]
        #expect(LinearizabilityChecker(stepsMax: 1000).check(impossible) == .undecided)
    }
}

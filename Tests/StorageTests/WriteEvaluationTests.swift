// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

/// memcached's conditions, case by case. Source: protocol.txt, and memcached 1.6.45's answers.
struct WriteEvaluationTests {
    private let live = StoredRow(version: 7, expiryMilliseconds: 500, clientFlags: 3, value: Array("10".utf8))

    private func decide(
        _ operation: StorageWrite.Operation, _ value: String = "x", on row: StoredRow?,
        _ change: (inout StorageWrite) -> Void = { _ in }
    ) -> WriteEvaluation {
        var write = StorageWrite(operation, key: [107])
        write.value = Array(value.utf8)
        write.clientFlags = 9
        write.expiryMilliseconds = 900
        change(&write)
        return WriteEvaluation.decide(write, live: row)
    }

    private func row(_ value: String, flags: UInt32 = 9, expiry: Int64 = 900) -> WriteEvaluation {
        .put(StoredRow(version: 0, expiryMilliseconds: expiry, clientFlags: flags, value: Array(value.utf8)))
    }

    private func counter(_ value: String) -> StoredRow {
        StoredRow(version: 7, expiryMilliseconds: 500, clientFlags: 3, value: Array(value.utf8))
    }

    @Test func setStoresAlways() {
        #expect(decide(.set, on: nil) == row("x"))
        #expect(decide(.set, on: live) == row("x"))
    }

    @Test func setWithAVersionIsCas() {
        #expect(decide(.set, on: live) { $0.compare = 7 } == row("x"))
        #expect(decide(.set, on: live) { $0.compare = 8 } == .refuse(.exists))
        #expect(decide(.set, on: nil) { $0.compare = 7 } == .refuse(.notFound))
    }

    @Test func addAndReplaceLookForARow() {
        #expect(decide(.add, on: nil) == row("x"))
        #expect(decide(.add, on: live) == .refuse(.notStored))
        #expect(decide(.replace, on: live) == row("x"))
        #expect(decide(.replace, on: nil) == .refuse(.notStored))
        // As in memcached, a version beside them says nothing.
        #expect(decide(.add, on: nil) { $0.compare = 1 } == row("x"))
        #expect(decide(.replace, on: live) { $0.compare = 1 } == row("x"))
    }

    @Test func touchesTellWhatTheExpiryWas() {
        guard case .put(let row) = decide(.touch, on: live, { $0.tellsEarlierExpiry = true }) else {
            Issue.record("not touched")
            return
        }
        #expect(row.earlierExpiryMilliseconds == 500)
        guard case .put(let silent) = decide(.touch, on: row) else {
            Issue.record("not touched")
            return
        }
        #expect(silent.earlierExpiryMilliseconds == nil)
    }

    @Test func joinsKeepFlagsAndExpiry() {
        #expect(decide(.append, on: live) == row("10x", flags: 3, expiry: 500))
        #expect(decide(.prepend, on: live) == row("x10", flags: 3, expiry: 500))
        #expect(decide(.append, on: nil) == .refuse(.notStored))
        #expect(decide(.prepend, on: nil) == .refuse(.notStored))
        #expect(decide(.append, on: live) { $0.compare = 8 } == .refuse(.exists))
        #expect(decide(.append, on: live) { $0.compare = 7 } == row("10x", flags: 3, expiry: 500))
    }

    @Test func joinsThatCreate() {
        #expect(decide(.appendOrCreate, on: nil) == row("x"))
        #expect(decide(.prependOrCreate, on: nil) { $0.compare = 7 } == row("x"))
        #expect(decide(.appendOrCreate, on: live) == row("10x", flags: 3, expiry: 500))
        #expect(decide(.prependOrCreate, on: live) == row("x10", flags: 3, expiry: 500))
    }

    @Test func valuesHaveALimit() {
        #expect(decide(.set, "xxx", on: nil) { $0.valueLimitBytes = 2 } == .refuse(.tooLarge))
        #expect(decide(.set, "xx", on: nil) { $0.valueLimitBytes = 2 } == row("xx"))
        #expect(decide(.append, "x", on: live) { $0.valueLimitBytes = 2 } == .refuse(.tooLarge))
        #expect(decide(.increment, on: counter("99")) { ($0.delta, $0.valueLimitBytes) = (1, 2) } == .refuse(.tooLarge))
    }

    @Test(
        arguments: [
            ("10", 5, "15"), ("0", 0, "0"), ("99", 1, "100"), ("007", 1, "8  "), ("5 ", 1, "6 "), (" 5", 1, "6 "),
            ("+5", 1, "6 "), ("5\r", 1, "6 "), ("18446744073709551615", 1, "0                   "),
            ("18446744073709551614", 1, "18446744073709551615"), ("5 apples", 1, "6       "),
            ("000000000000000000000009", 1, "10                      "),
            ("-18446744073709551615", 1, "2                    "),
        ] as [(String, UInt64, String)])
    func incrementCounts(_ value: String, _ delta: UInt64, _ result: String) {
        #expect(decide(.increment, on: counter(value)) { $0.delta = delta } == row(result, flags: 3, expiry: 500))
    }

    @Test(
        arguments: [("10", 1, "9 "), ("10", 11, "0 "), ("10", 10, "0 "), ("100", 1, "99 "), ("5", 2, "3")]
            as [(String, UInt64, String)])
    func decrementStopsAtZeroAndKeepsTheLength(_ value: String, _ delta: UInt64, _ result: String) {
        #expect(decide(.decrement, on: counter(value)) { $0.delta = delta } == row(result, flags: 3, expiry: 500))
    }

    @Test(arguments: ["", "x", "5x", "18446744073709551616", "999999999999999999999", " ", "-", "-5", "--5", "1.5"])
    func whatIsNoNumberIsRefused(_ value: String) {
        #expect(decide(.increment, on: counter(value)) == .refuse(.notNumeric))
        #expect(decide(.decrement, on: counter(value)) == .refuse(.notNumeric))
    }

    /// What `ma` shows with t, and what a counter gets that it makes.
    @Test func countersTellWhenTheyExpiredBefore() {
        func earlier(_ row: StoredRow?, _ change: (inout StorageWrite) -> Void) -> StoredRow? {
            guard case .put(let row) = decide(.increment, on: row, change) else { return nil }
            return row
        }
        let touched = earlier(live) { ($0.tellsEarlierExpiry, $0.setsExpiry) = (true, true) }
        #expect(touched?.earlierExpiryMilliseconds == 500 && touched?.expiryMilliseconds == 900)
        let made = earlier(nil) {
            ($0.tellsEarlierExpiry, $0.initial, $0.initialExpiryMilliseconds) = (true, 1, 700)
        }
        #expect(made != nil && made?.earlierExpiryMilliseconds == nil && made?.expiryMilliseconds == 700)
        #expect(earlier(nil) { $0.initial = 1 }?.expiryMilliseconds == 900)
        // Nobody else hears of it, whatever the row has from before.
        var told = live
        told.earlierExpiryMilliseconds = 1
        for operation: StorageWrite.Operation in [.increment, .append, .touch, .set] {
            guard case .put(let row) = decide(operation, on: told) else {
                Issue.record("\(operation) was refused")
                continue
            }
            #expect(row.earlierExpiryMilliseconds == nil, "\(operation)")
        }
    }

    @Test func countersMayStart() {
        #expect(decide(.increment, on: nil) == .refuse(.notFound))
        #expect(decide(.increment, on: nil) { $0.initial = 42 } == row("42"))
        #expect(decide(.decrement, on: nil) { $0.initial = .max } == row("18446744073709551615"))
        #expect(decide(.increment, on: live) { ($0.initial, $0.delta) = (42, 1) } == row("11", flags: 3, expiry: 500))
    }

    @Test func countersCompareAndTouch() {
        #expect(decide(.increment, on: live) { ($0.compare, $0.delta) = (7, 1) } == row("11", flags: 3, expiry: 500))
        #expect(decide(.increment, on: live) { $0.compare = 8 } == .refuse(.exists))
        // The version is looked at before the digits, an empty value before the version.
        #expect(decide(.increment, on: counter("x")) { $0.compare = 8 } == .refuse(.exists))
        #expect(decide(.increment, on: counter("")) { $0.compare = 8 } == .refuse(.notNumeric))
        #expect(
            decide(.increment, on: live) { ($0.setsExpiry, $0.delta) = (true, 1) } == row("11", flags: 3, expiry: 900))
    }

    @Test func deleteNeedsARowAndItsVersion() {
        #expect(decide(.delete, on: live) == .tombstone)
        #expect(decide(.delete, on: nil) == .refuse(.notFound))
        #expect(decide(.delete, on: live) { $0.compare = 7 } == .tombstone)
        #expect(decide(.delete, on: live) { $0.compare = 8 } == .refuse(.exists))
    }

    @Test func touchChangesTheExpiryAlone() {
        #expect(decide(.touch, on: live) == row("10", flags: 3, expiry: 900))
        #expect(decide(.touch, on: nil) == .refuse(.notFound))
        #expect(decide(.touch, on: live) { $0.expiryMilliseconds = 0 } == row("10", flags: 3, expiry: 0))
    }

    @Test func decimalsAreWhatTheyWere() {
        for value in [0, 1, 9, 10, 99, 100, 12_345_678_901, UInt64.max] {
            #expect(WriteEvaluation.decimal(value) == Array(String(value).utf8))
            #expect(WriteEvaluation.number(WriteEvaluation.decimal(value)) == value)
        }
    }
}

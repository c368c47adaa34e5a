// Martlet
// SPDX-License-Identifier: Apache-2.0

import Hosting
import Testing

@Suite struct SheddingWatchTests {
    private let second: UInt64 = 1_000_000_000

    @Test func tellsTheBeginningOnceAndTheEndAfterQuiet() {
        var watch = SheddingWatch()
        // What was before it looked is nothing new.
        #expect(watch.look(refused: 7, at: 0) == nil)
        #expect(watch.look(refused: 7, at: second) == nil)
        #expect(watch.look(refused: 9, at: 2 * second) == .began)
        for moment in 3..<20 { #expect(watch.look(refused: UInt64(moment * 10), at: UInt64(moment) * second) == nil) }
        // A pause that is shorter than the quiet is a part of it.
        #expect(watch.look(refused: 190, at: 25 * second) == nil)
        #expect(watch.look(refused: 200, at: 28 * second) == nil)
        #expect(watch.look(refused: 200, at: 37 * second) == nil)
        #expect(watch.look(refused: 200, at: 38 * second) == .ended(refused: 193, milliseconds: 26_000))
        #expect(watch.look(refused: 200, at: 60 * second) == nil)
        #expect(watch.look(refused: 201, at: 61 * second) == .began)
    }

    /// A router counts the servers of its plan: one that is taken from it takes its counts along.
    @Test func goesOnWhereWhatWasCountedIsGone() {
        var watch = SheddingWatch()
        #expect(watch.look(refused: 100, at: 0) == nil)
        #expect(watch.look(refused: 150, at: second) == .began)
        #expect(watch.look(refused: 20, at: 2 * second) == nil)
        #expect(watch.look(refused: 25, at: 3 * second) == nil)
        #expect(watch.look(refused: 25, at: 13 * second) == .ended(refused: 55, milliseconds: 2000))
        #expect(watch.look(refused: 0, at: 14 * second) == nil)
        #expect(watch.look(refused: 1, at: 15 * second) == .began)
    }
}

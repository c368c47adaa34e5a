// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform

/// A thread beside what the main thread runs of a script: takes the signals meanwhile, and ends the process when the
/// script does not even let itself be stopped.
final class ScriptGuard: Sendable {
    /// How long a script may go on after a signal, in nanoseconds: it is asked several times in between.
    static let signalPatienceNanoseconds: UInt64 = 3_000_000_000

    private let isOver = Flag()
    private let signalled = Flag()

    /// Begins to look after `name`, which is to be over at `end`, on the monotonic clock. When it is not a while
    /// later, the process says `words` and ends with `code`; after a signal, or at once after a second one, with 105.
    init(_ name: String, until end: UInt64, words: String, code: ExitCode) throws(SystemError) {
        let (isOver, signalled) = (isOver, signalled)
        _ = try Thread(name: "martlet-guard") {
            var last = end + RunWatch.patienceNanoseconds
            var (words, code) = (words, code)
            while !isOver.isSet {
                let now = Clock.monotonicNanoseconds()
                if let signal = Signal.wait(milliseconds: 0), signal != .user1 {
                    last = signalled.isSet ? 0 : min(last, now + Self.signalPatienceNanoseconds)
                    (words, code) = ("\(name): a signal ended it", .interrupted)
                    signalled.set()
                }
                if now > last {
                    writeWhole(Array("\(words)\n".utf8), to: 2)
                    exitProcess(code.rawValue)
                }
                Thread.sleep(microseconds: 20_000)
            }
        }
    }

    /// Whether a signal asks for the end: of what runs, and of the test.
    var isSignalled: Bool { signalled.isSet }

    /// What runs is over.
    func finish() { isOver.set() }
}

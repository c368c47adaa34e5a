// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What passes between a script and its host.
package enum ScriptValue: Sendable, Equatable {
    case undefined
    case null
    case boolean(Bool)
    case number(Double)
    /// A BigInt.
    case big(UInt64)
    /// UTF-8.
    case text([UInt8])
    /// A Uint8Array.
    case bytes([UInt8])
    /// Of a host's answer only: what evaluating this script gives. UTF-8, and the name that errors call it by.
    case script([UInt8], url: String)

    /// A text.
    package static func string(_ text: String) -> ScriptValue { .text(Array(text.utf8)) }
}

/// What went wrong in a script, or with running scripts at all.
package struct ScriptProblem: Error, Equatable, CustomStringConvertible {
    /// In words, with the places in the script behind.
    package let description: String

    /// A problem.
    package init(_ description: String) { self.description = description }
}

/// What a script's context asks of the program.
package protocol ScriptHost: AnyObject {
    /// Does `operation` (a whole number) for the context of that number. A problem becomes an exception of the script.
    func call(
        _ context: Int, _ operation: Int, _ arguments: borrowing ScriptArguments
    ) throws(ScriptProblem) -> ScriptValue
    /// Makes the request of a key that the context asked for. `key` is valid during the call. A problem becomes an
    /// exception of the script.
    func ask(_ ask: ScriptAsk, key: Span<UInt8>) throws(ScriptProblem)
}

/// A call of a context's function that is made together with others.
package struct ScriptEvent {
    /// Events that are dispatched at once, at most.
    package static let limit = 64

    /// Which function.
    package enum Kind: Int, Sendable {
        /// `run(id)`, `settle(id, answer, values…)`, `fire(id)`.
        case run, settle, fire
    }

    /// What begins the values of an event, out of the bytes that all events share.
    package enum Slice {
        case none
        /// A range that a zero follows, as text.
        case text(Range<Int>)
        case bytes(Range<Int>)
    }

    /// Which function is called.
    package var kind: Kind
    /// The context's number.
    package var context: Int
    /// Of the request or timer, or the iteration's number.
    package var id: Double
    /// The kind of answer, as the prelude's `settle` has them.
    package var answer: Int
    /// What begins the values.
    package var slice: Slice
    /// The values behind it: three at most, the slice included.
    package var values: [ScriptValue]

    /// An event.
    package init(
        _ kind: Kind, _ context: Int, id: Double, answer: Int = 0, slice: Slice = .none, values: [ScriptValue] = []
    ) {
        self.kind = kind
        self.context = context
        self.id = id
        self.answer = answer
        self.slice = slice
        self.values = values
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// A source's side of one consumer: what was sent, what may be sent, and when a probe is answered. Pure: whoever runs
/// it reads the outbox and sends the frames.
package struct StreamFeed: Sendable {
    private let configuration: InvalidationConfiguration
    /// The last number that was sent of each slot.
    package private(set) var sent: StreamPosition
    /// Bytes of records that may be sent.
    package private(set) var credit = 0
    /// Probes without an answer, each with what it asks for.
    private var probes: [(number: UInt64, targets: [Int64])] = []
    /// Slots whose next record is to be read from the outbox, because the tail has gone past it.
    private var behind: UInt64 = 0

    /// The consumer that said `hello` to a source that keeps records behind `kept` and has committed up to `last`:
    /// where its stream begins. A consumer of this epoch goes on where it was, or where the kept records begin; so does
    /// one of the epoch that `succession` follows, up to where that was taken over.
    package init(
        _ configuration: InvalidationConfiguration, hello: StreamHello, kept: [Int64], last: StreamPosition,
        succession: StreamSuccession? = nil
    ) {
        self.configuration = configuration
        var start = last
        if let wanted = hello.position, wanted.source == last.source {
            let isSuccessor = hello.takesSuccession && wanted.epoch == succession?.previous
            for slot in 0..<StreamSlots.count where wanted.epoch == last.epoch || isSuccessor {
                let known = isSuccessor ? succession?.included[slot] ?? 0 : last.sequences[slot]
                start.sequences[slot] = min(max(min(wanted.sequences[slot], known), kept[slot]), last.sequences[slot])
            }
        }
        sent = start
        for slot in 0..<StreamSlots.count where start.sequences[slot] < last.sequences[slot] {
            behind |= StreamSlots.mask(slot)
        }
    }

    /// The tail is read from behind what was sent. What it does not have all the same shows as a gap, or with the next
    /// probe, and is read from the outbox then.
    mutating func takesTail() { behind = 0 }

    /// The consumer takes so many bytes more.
    package mutating func grant(_ bytes: Int) { credit = min(credit + bytes, configuration.windowBytes * 4) }

    /// The consumer asks for a slot again.
    package mutating func seek(slot: Int, after sequence: Int64) {
        guard sequence >= 0, sequence < sent.sequences[slot] else { return }
        sent.sequences[slot] = sequence
        behind |= StreamSlots.mask(slot)
    }

    /// The consumer asks whether this was all; the source has committed up to `last` by now.
    package mutating func probe(_ number: UInt64, last: [Int64]) {
        if probes.count >= configuration.probesMax { probes.removeFirst() }
        probes.append((number, last))
    }

    /// Whether anything may be sent.
    package var maySend: Bool { credit > 0 }

    /// A slot whose next records are to be read from the outbox; nil when the tail has all that is missing.
    package var slotBehind: Int? { behind == 0 ? nil : behind.trailingZeroBitCount }

    /// The tail begins behind what was sent: slots that have more committed than sent are read from the outbox.
    package mutating func missedTail(last: [Int64]) {
        for slot in 0..<StreamSlots.count where sent.sequences[slot] < last[slot] { behind |= StreamSlots.mask(slot) }
    }

    /// The tail has no more: slots of which a probe asks for what was not sent are read from the outbox. Whether there
    /// are any.
    package mutating func missesAnswers() -> Bool {
        for slot in 0..<StreamSlots.count where sent.sequences[slot] < asked(slot) { behind |= StreamSlots.mask(slot) }
        return behind != 0
    }

    /// The last number of a slot that a probe asks for; 0 when none does.
    package func asked(_ slot: Int) -> Int64 { probes.reduce(0) { max($0, $1.targets[slot]) } }

    /// Whether the record `sequence` of a slot, met in the tail, is the next one to be sent. When it is not because
    /// others come before it, the slot is read from the outbox.
    package mutating func takesFromTail(slot: Int, sequence: Int64) -> Bool {
        guard behind & StreamSlots.mask(slot) == 0 else { return false }
        let last = sent.sequences[slot]
        if sequence <= last { return false }
        if sequence > last + 1 {
            behind |= StreamSlots.mask(slot)
            return false
        }
        return true
    }

    /// The outbox was read for a slot: from here on the tail has what comes next, if this is all there is.
    package mutating func caughtUp(slot: Int) { behind &= ~StreamSlots.mask(slot) }

    /// A record of so many bytes goes out, its value among them.
    package mutating func noteSent(slot: Int, sequence: Int64, bytes: Int) {
        sent.sequences[slot] = sequence
        credit -= bytes
    }

    /// The outbox has lost what comes next in a slot, up to `sequence`.
    package mutating func noteLost(slot: Int, through sequence: Int64) {
        sent.sequences[slot] = max(sent.sequences[slot], sequence)
    }

    /// The oldest probe whose records were all sent; to be answered, and forgotten, now.
    package mutating func answerable() -> (number: UInt64, sequences: [Int64])? {
        guard let first = probes.first,
            (0..<StreamSlots.count).allSatisfy({ sent.sequences[$0] >= first.targets[$0] })
        else { return nil }
        probes.removeFirst()
        // What was sent beyond is part of the answer: the consumer has it too.
        return (first.number, sent.sequences)
    }

    /// Whether a probe waits: its records are not to wait for company.
    package var hasProbes: Bool { !probes.isEmpty }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// What a database said of its stream in one round, under the lock of those who publish.
struct PublishedState: Equatable {
    /// How often its numbering began anew.
    var epoch: Int64
    /// By slot, the last number that was given.
    var last = [Int64](repeating: 0, count: StreamSlots.count)
    /// By slot, the number that the first kept record follows.
    var kept = [Int64](repeating: 0, count: StreamSlots.count)

    /// From a row of ``StreamSchema/state``; nil when the row makes no sense.
    init?(_ row: [[UInt8]?]) {
        let texts = row.compactMap { $0.map { String(decoding: $0, as: UTF8.self) } }
        guard texts.count == 2, let epoch = Int64(texts[0]) else { return nil }
        self.epoch = epoch
        for part in texts[1].split(separator: ",") {
            let numbers = part.split(separator: ":").compactMap { Int64($0) }
            guard numbers.count == 3, (0..<Int64(StreamSlots.count)).contains(numbers[0]) else { return nil }
            (last[Int(numbers[0])], kept[Int(numbers[0])]) = (numbers[1], numbers[2])
        }
    }

    /// Whether the database went back behind what it said before, in the same epoch: a backup or a snapshot was put in
    /// its place.
    func isBehind(_ earlier: PublishedState) -> Bool {
        epoch == earlier.epoch && (0..<StreamSlots.count).contains { last[$0] < earlier.last[$0] }
    }
}

/// The last record that was read, by which a stream that was put back and has grown again is told from one that only
/// grew.
struct PublishedMark: Equatable {
    var place: Int64
    var slot: Int64
    var sequence: Int64
    var version: Int64

    /// Whether another record is now in its place. That there is none says nothing: it may have been let go.
    func isReplaced(by rows: SQLRows) -> Bool {
        guard let row = rows.first else { return false }
        let numbers = row.compactMap { $0.flatMap { Int64(String(decoding: $0, as: UTF8.self)) } }
        return numbers != [slot, sequence, version]
    }
}

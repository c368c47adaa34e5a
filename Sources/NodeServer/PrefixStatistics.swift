// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Synchronization

/// Reads, writes and deletes by key prefix, while somebody wants them (`stats detail on`, `-D`).
///
/// Bounded: past `prefixLimit` prefixes, new ones are not counted. Source: memcached protocol.txt, "stats detail".
final class PrefixStatistics: Sendable {
    struct Counts: Sendable {
        var gets: UInt64 = 0
        var hits: UInt64 = 0
        var sets: UInt64 = 0
        var deletes: UInt64 = 0
    }

    static var prefixLimit: Int { 10_000 }

    private let delimiter: UInt8
    private let on: Atomic<Bool>
    private let counts = Guarded<[[UInt8]: Counts]>([:])

    init(delimiter: UInt8, isOn: Bool) {
        self.delimiter = delimiter
        on = Atomic(isOn)
    }

    /// Whether commands are counted.
    var isOn: Bool {
        get { on.load(ordering: .relaxed) }
        set { on.store(newValue, ordering: .relaxed) }
    }

    @inline(never)
    func noteGet(_ key: Span<UInt8>, isHit: Bool) {
        note(key) {
            $0.gets += 1
            if isHit { $0.hits += 1 }
        }
    }

    @inline(never)
    func noteSet(_ key: Span<UInt8>) { note(key) { $0.sets += 1 } }

    @inline(never)
    func noteDelete(_ key: Span<UInt8>) { note(key) { $0.deletes += 1 } }

    private func note(_ key: Span<UInt8>, _ change: (inout Counts) -> Void) {
        var prefix: [UInt8] = []
        for index in key.indices {
            if key[index] == delimiter { break }
            prefix.append(key[index])
        }
        // A key without the delimiter has no prefix.
        guard prefix.count < key.count else { return }
        counts.withLock { table in
            guard table.count < Self.prefixLimit || table[prefix] != nil else { return }
            change(&table[prefix, default: Counts()])
        }
    }

    /// Every prefix with its counts, in the order of the prefixes.
    func all() -> [(prefix: [UInt8], counts: Counts)] {
        counts.withLock { table in
            table.map { (prefix: $0.key, counts: $0.value) }
        }.sorted { $0.prefix.lexicographicallyPrecedes($1.prefix) }
    }

    /// Forgets all counts.
    func reset() { counts.withLock { $0.removeAll() } }
}

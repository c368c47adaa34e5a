// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A page that ends before it has found anything, as behind many rows that are dead, still says where the next one
/// begins: by a record of a damaged place that has no reason. Who does not know it, and lists it, goes on there, too.
extension DumpRecord {
    /// Appends the key behind which the next page goes on.
    package static func append(place key: [UInt8], to bytes: inout [UInt8]) {
        append(damage: ScanDamage(position: 0, key: key, isOneRow: false, reason: ""), to: &bytes)
    }
}

extension ScanDamage {
    /// Whether nothing is damaged: it says where the next page goes on.
    package var isOnlyPlace: Bool { reason.isEmpty && !isOneRow }
}

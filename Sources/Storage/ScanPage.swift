// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How much one scan gives.
package struct ScanBounds: Sendable {
    /// Rows at most.
    package var rows: Int
    /// Bytes of keys and values after which it ends: with the row that reaches them.
    package var bytes: Int
    /// Whether the rows come with their values, or with none.
    package var hasValues: Bool

    /// At most `rows` rows.
    package init(rows: Int, bytes: Int = .max, hasValues: Bool = true) {
        self.rows = rows
        self.bytes = bytes
        self.hasValues = hasValues
    }
}

/// What one scan gave.
package struct ScanPage: Sendable {
    /// Live rows, in the order of their keys. There may be none where there are more behind ``next``.
    package var rows: [(key: [UInt8], row: StoredRow)]
    /// What lies between them and cannot be read, in the same order.
    package var damage: [ScanDamage]
    /// Behind which key the next scan goes on; nil when there is nothing more.
    package var next: [UInt8]?

    /// A page of rows, and where it goes on.
    package init(rows: [(key: [UInt8], row: StoredRow)] = [], damage: [ScanDamage] = [], next: [UInt8]? = nil) {
        self.rows = rows
        self.damage = damage
        self.next = next
    }
}

/// A place in the order of keys that a scan passed over, because what is there is damaged.
package struct ScanDamage: Sendable, Equatable {
    /// How many rows of the page come before it.
    package var position: Int
    /// The key of the damaged row; where it is not known whose rows are damaged, a key behind them and before the next.
    package var key: [UInt8]
    /// Whether it is one row, whose key is known.
    package var isOneRow: Bool
    /// What is wrong with it.
    package var reason: String

    /// A damaged place.
    package init(position: Int, key: [UInt8], isOneRow: Bool, reason: String) {
        self.position = position
        self.key = key
        self.isOneRow = isOneRow
        self.reason = reason
    }
}

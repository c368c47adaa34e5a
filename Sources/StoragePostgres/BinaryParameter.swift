// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Parameters and columns in PostgreSQL's binary form: numbers with their highest byte first; an array is its number of
/// dimensions, whether it has nulls, the elements' type, the length, the lower bound, then each element behind its
/// length. Source: PostgreSQL 15, array_send in arrayfuncs.c.
enum BinaryParameter {
    static func bigint(_ value: Int64) -> [UInt8] { bytes(UInt64(bitPattern: value)) }

    static func integer(_ value: Int32) -> [UInt8] { bytes(UInt32(bitPattern: value)) }

    /// Values; nil is null.
    static func array(bytea values: [[UInt8]?]) -> [UInt8] {
        var result = head(OID.bytea, values.count, hasNulls: values.contains { $0 == nil })
        result.reserveCapacity(values.reduce(result.count) { $0 + ($1?.count ?? 0) + 4 })
        for value in values {
            guard let value else {
                append(UInt32.max, to: &result)
                continue
            }
            append(UInt32(value.count), to: &result)
            result += value
        }
        return result
    }

    static func array(bigint values: [Int64]) -> [UInt8] {
        var result = head(OID.bigint, values.count)
        for value in values {
            append(UInt32(8), to: &result)
            append(UInt64(bitPattern: value), to: &result)
        }
        return result
    }

    static func array(integer values: [Int32]) -> [UInt8] {
        var result = head(OID.integer, values.count)
        for value in values {
            append(UInt32(4), to: &result)
            append(UInt32(bitPattern: value), to: &result)
        }
        return result
    }

    static func array(smallint values: [Int16]) -> [UInt8] {
        var result = head(OID.smallint, values.count)
        for value in values {
            append(UInt32(2), to: &result)
            append(UInt16(bitPattern: value), to: &result)
        }
        return result
    }

    static func array(boolean values: [Bool]) -> [UInt8] {
        var result = head(OID.boolean, values.count)
        for value in values {
            append(UInt32(1), to: &result)
            result.append(value ? 1 : 0)
        }
        return result
    }

    static func array(text values: [String?]) -> [UInt8] {
        var result = head(OID.text, values.count, hasNulls: values.contains { $0 == nil })
        for value in values {
            guard let value else {
                // Minus one: a null has no length.
                append(UInt32.max, to: &result)
                continue
            }
            append(UInt32(value.utf8.count), to: &result)
            result += Array(value.utf8)
        }
        return result
    }

    /// A whole number of any width; nil when it has another.
    static func number(_ column: [UInt8]?) -> Int64? {
        guard let column, [2, 4, 8].contains(column.count) else { return nil }
        let value = column.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let unused = UInt64(64 - 8 * column.count)
        return Int64(bitPattern: value << unused) >> Int64(unused)
    }

    private static func head(_ type: UInt32, _ count: Int, hasNulls: Bool = false) -> [UInt8] {
        var result: [UInt8] = []
        // An empty array has no dimension.
        append(UInt32(count == 0 ? 0 : 1), to: &result)
        append(UInt32(hasNulls ? 1 : 0), to: &result)
        append(type, to: &result)
        guard count > 0 else { return result }
        append(UInt32(count), to: &result)
        append(UInt32(1), to: &result)
        return result
    }

    private static func bytes(_ number: some FixedWidthInteger & UnsignedInteger) -> [UInt8] {
        var result: [UInt8] = []
        append(number, to: &result)
        return result
    }

    private static func append(_ number: some FixedWidthInteger & UnsignedInteger, to bytes: inout [UInt8]) {
        for shift in stride(from: number.bitWidth - 8, through: 0, by: -8) {
            bytes.append(UInt8(truncatingIfNeeded: number >> shift))
        }
    }
}

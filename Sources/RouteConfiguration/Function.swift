// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Settings

/// The functions that configurations can call. Source: the list of built-in calls in mcrouter's documentation.
enum Function: String, CaseIterable {
    case `import`, hash, weightedHash, int, double, str, bool, keys, values, merge, select, shuffle, slice, split, range
    case contains, empty, equals, isArray, isBool, isInt, isDouble, isObject, isString, less
    case bitwiseAnd, bitwiseOr, bitwiseXor, bitwiseNot, bitwiseLeftShift, bitwiseRightShift
    case and, or, not, size, add, sub, mul, div, mod, fail, sort, set, `if`, define, defined, isLocalIp

    var parameters: [Preprocessor.Parameter] {
        switch self {
        case .import: Self.parameters("path", optional: "default")
        case .hash, .int, .double, .str, .bool, .isArray, .isBool, .isInt, .isDouble, .isObject, .isString:
            Self.parameters("value")
        case .weightedHash, .contains: Self.parameters("dictionary", "key")
        case .keys, .values, .empty, .size, .sort: Self.parameters("dictionary")
        case .merge: Self.parameters("params")
        case .select: Self.parameters("dictionary", "key", optional: "default")
        case .shuffle: Self.parameters("dictionary", optional: "seed")
        case .slice: Self.parameters("dictionary", "from", "to")
        case .split: Self.parameters("dictionary", "delim")
        case .range: Self.parameters("from", "to")
        case .equals, .less, .bitwiseAnd, .bitwiseOr, .bitwiseXor, .bitwiseLeftShift, .bitwiseRightShift, .and, .or,
            .add,
            .sub, .mul, .div, .mod:
            Self.parameters("A", "B")
        case .bitwiseNot, .not: Self.parameters("A")
        case .fail: Self.parameters("msg")
        case .set: Self.parameters("dictionary", "key", "value")
        case .if: Self.parameters("condition", "is_true", "is_false")
        case .define: Self.parameters("result")
        case .defined: Self.parameters("name")
        case .isLocalIp: Self.parameters("ip")
        }
    }

    private static func parameters(_ names: String..., optional: String? = nil) -> [Preprocessor.Parameter] {
        names.map { Preprocessor.Parameter(name: $0) }
            + [optional].compactMap { $0.map { Preprocessor.Parameter(name: $0, isRequired: false) } }
    }
}

/// A function with its arguments, which are not expanded yet.
struct FunctionCall {
    let function: Function
    let arguments: [String: JSONNode]
    let scope: Preprocessor.Scope
    let place: JSONNode.Place

    func problem(_ text: String) -> RouteProblem { RouteProblem(text, at: place) }
}

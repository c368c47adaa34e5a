// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Routing

/// What a command of a route's own making carries.
struct MadeCommand {
    let operation: RouteOperation
    let key: CommandKey
    let value: [UInt8]
    let exptime: Int64
    let flags: UInt32
    let casToken: UInt64
    let delta: UInt64
}

/// Commands that routes make which are not the client's.
extension OutputBuffer {
    /// Appends a command of a route's own making, in the protocol that ``CommandKey/form(_:)`` says.
    mutating func append(_ made: MadeCommand) {
        if made.operation == .delete { return appendDelete(made.key) }
        switch made.key.form(made.operation) {
        case .classic: appendClassic(made)
        case .meta: appendMeta(made)
        case .binary, nil: preconditionFailure("a key that no command says")
        }
    }

    private mutating func appendClassic(_ made: MadeCommand) {
        append(Self.name(made.operation))
        if made.operation == .gat || made.operation == .gats {
            append(decimal: made.exptime)
            append(UInt8(ascii: " "))
        }
        append(made.key)
        switch made.operation {
        case .set, .add, .replace, .append, .prepend, .cas:
            for number in [Int64(made.flags), made.exptime, Int64(made.value.count)] {
                append(UInt8(ascii: " "))
                append(decimal: number)
            }
            if made.operation == .cas {
                append(UInt8(ascii: " "))
                append(decimal: made.casToken)
            }
        case .increment, .decrement:
            append(UInt8(ascii: " "))
            append(decimal: made.delta)
        case .touch:
            append(UInt8(ascii: " "))
            append(decimal: made.exptime)
        default: break
        }
        append("\r\n")
        appendValue(made)
    }

    private static func name(_ operation: RouteOperation) -> StaticString {
        switch operation {
        case .get: "get "
        case .gets: "gets "
        case .gat: "gat "
        case .gats: "gats "
        case .set: "set "
        case .add: "add "
        case .replace: "replace "
        case .append: "append "
        case .prepend: "prepend "
        case .cas: "cas "
        case .increment: "incr "
        case .decrement: "decr "
        case .touch: "touch "
        case .delete, .metaGet, .leaseGet, .leaseSet: preconditionFailure("not a classic command")
        }
    }

    private mutating func appendMeta(_ made: MadeCommand) {
        let operation = made.operation
        let stores = operation.group == .update
        append(stores ? "ms " : operation.group == .arithmetic ? "ma " : "mg ")
        append(made.key)
        if stores {
            append(UInt8(ascii: " "))
            append(decimal: UInt64(made.value.count))
        }
        switch operation {
        case .metaGet: append(" t f s c")
        case .get, .gat: append(" v f")
        case .gets, .gats, .leaseGet: append(" v f c")
        case .increment, .decrement:
            append(operation == .increment ? " v D" : " v MD D")
            append(decimal: made.delta)
        case .add: append(" ME")
        case .replace: append(" MR")
        case .append: append(" MA")
        case .prepend: append(" MP")
        case .set, .cas, .leaseSet, .delete, .touch: break
        }
        if stores || operation == .gat || operation == .gats || operation == .touch {
            append(" T")
            append(decimal: made.exptime)
        }
        if stores {
            append(" F")
            append(decimal: UInt64(made.flags))
        }
        if operation == .cas || operation == .leaseSet {
            append(" C")
            append(decimal: made.casToken)
        }
        append(made.key.spelling == .base64 ? " b\r\n" : "\r\n")
        appendValue(made)
    }

    private mutating func appendValue(_ made: MadeCommand) {
        guard made.operation.group == .update else { return }
        append(made.value.span)
        append("\r\n")
    }
}

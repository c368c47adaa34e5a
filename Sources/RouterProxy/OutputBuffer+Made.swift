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
        let key = made.key.bytes.span
        switch made.operation {
        case .get, .gets:
            appendKeyLine(made.operation == .get ? "get " : "gets ", key: key)
            appendLineEnd()
        case .gat, .gats:
            appendGetAndTouch(made.operation == .gat ? "gat " : "gats ", key: key, expiry: made.exptime)
        case .increment, .decrement:
            appendArithmetic(made.operation == .increment ? "incr " : "decr ", key: key, delta: made.delta)
        case .touch: appendTouch(key: key, expiry: made.exptime)
        case .set: appendStore(.set, made)
        case .add: appendStore(.add, made)
        case .replace: appendStore(.replace, made)
        case .append: appendStore(.append, made)
        case .prepend: appendStore(.prepend, made)
        case .cas: appendStore(.cas, made)
        case .delete, .metaGet, .leaseGet, .leaseSet: preconditionFailure("not a classic command")
        }
    }

    private mutating func appendStore(_ verb: StoreVerb, _ made: MadeCommand) {
        appendStoreLine(
            verb, key: made.key.bytes.span, clientFlags: made.flags, expiry: made.exptime, length: made.value.count,
            cas: made.casToken)
        appendValue(made)
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

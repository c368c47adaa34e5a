// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Routing

/// A key as a command that the router makes says it. There is no other way for a key into such a command: what a client
/// put into its key, a line end above all, must not be read as anything else. (Binary clients, and base64 keys of meta
/// ones, may have any byte in a key.)
struct CommandKey {
    /// How it is said.
    enum Spelling: Equatable {
        /// In text, as it is.
        case plain
        /// In base64, which only a meta command has.
        case base64
        /// In a binary packet.
        case packet
    }

    let bytes: [UInt8]
    let spelling: Spelling

    private init(_ bytes: [UInt8], _ spelling: Spelling) {
        self.bytes = bytes
        self.spelling = spelling
    }

    /// For a command of the router's own making.
    init(made bytes: [UInt8]) {
        let spelling: Spelling =
            if bytes.count <= ProtocolLimits.keyBytes, bytes.allSatisfy({ $0 > 0x20 && $0 != 0x7f }) {
                .plain
            } else if Base64.length(of: bytes.count) <= ProtocolLimits.keyBytes {
                .base64
            } else if bytes.count <= ProtocolLimits.keyBytes, Self.isToken(bytes) {
                .plain
            } else {
                .packet
            }
        self.init(bytes, spelling)
    }

    /// For the client's own command under this key; nil when it cannot be said the way that the client said its own.
    init?(_ bytes: [UInt8], asIn request: Request) {
        switch request.form {
        case .binary:
            guard bytes.count <= ProtocolLimits.keyBytes else { return nil }
            self.init(bytes, .packet)
        case .meta where request.keyIsDecoded:
            guard Base64.length(of: bytes.count) <= ProtocolLimits.keyBytes else { return nil }
            self.init(bytes, .base64)
        case .classic, .meta:
            guard bytes.count <= ProtocolLimits.keyBytes, Self.isToken(bytes) else { return nil }
            self.init(bytes, .plain)
        }
    }

    /// Whether servers take these bytes in a line for one word. They make nothing of other control characters; but
    /// memcached 1.6.18, as Debian has it, takes a NUL for the line's end.
    private static func isToken(_ bytes: [UInt8]) -> Bool {
        bytes.allSatisfy { $0 != 0x20 && $0 != 0x0a && $0 != 0 }
    }

    /// The protocol in which a made command with this key is sent; nil where there is none that says both. Binary
    /// packets are made of deletes only, which must not be lost.
    func form(_ operation: RouteOperation) -> ProtocolForm? {
        switch spelling {
        case .plain: operation.isMetaOnly ? .meta : .classic
        case .base64: .meta
        case .packet: operation == .delete ? .binary : nil
        }
    }
}

extension RouteOperation {
    /// Whether only a meta command says it.
    var isMetaOnly: Bool { self == .metaGet || self == .leaseGet || self == .leaseSet }
}

extension OutputBuffer {
    /// Appends a key of a line, or of a packet.
    mutating func append(_ key: CommandKey) {
        if key.spelling == .base64 { Base64.encode(key.bytes.span, into: &self) } else { append(key.bytes.span) }
    }

    /// Appends a delete, in the protocol that ``CommandKey/form(_:)`` says.
    mutating func appendDelete(_ key: CommandKey) {
        switch key.spelling {
        case .plain: appendDelete(key: key.bytes.span)
        case .base64:
            append("md ")
            append(key)
            append(" b\r\n")
        case .packet:
            let length = UInt64(key.bytes.count)
            append(
                bigEndian: UInt64(BinaryHeader.requestMagic) << 56 | UInt64(BinaryOpcode.delete) << 48 | length << 32)
            append(bigEndian: length << 32)
            append(bigEndian: UInt64(0))
            append(key)
        }
    }
}

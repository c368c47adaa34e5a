// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Why bytes are no record of the stream, with what can be read of its place; nothing of keys and values,
/// which may stand where its place does when a length is damaged.
package struct RecordFault: Sendable, Equatable {
    /// What is wrong.
    package var reason: String
    /// The slot that it says it is in, if there is such a one.
    package var slot: Int?
    /// The source that it says it is of.
    private var source: [UInt8]?

    /// What is wrong with bytes that are no single object of a record: see ``OutboxRecord/init(object:)``.
    package init(object bytes: [UInt8]) {
        guard bytes.count >= OutboxRecord.objectHeaderBytes, bytes[0] == 0xc3, bytes[1] == 0x01 else {
            self.init(reason: "it is no Avro single object")
            return
        }
        let fingerprint = (0..<8).reduce(UInt64(0)) { $0 | UInt64(bytes[2 + $1]) << UInt64(8 * $1) }
        guard fingerprint == OutboxRecord.fingerprint else {
            let (found, known) = (Hexadecimal.digits(fingerprint), Hexadecimal.digits(OutboxRecord.fingerprint))
            self.init(reason: "its schema has the fingerprint \(found); this version knows \(known)")
            return
        }
        self.init(body: bytes, from: OutboxRecord.objectHeaderBytes)
    }

    /// What is wrong with a body that is none: see ``OutboxRecord/init(body:from:)``.
    package init(body bytes: [UInt8], from start: Int) {
        self.init(reason: "it ends too early, or is not as its schema says")
        guard start >= 0, start <= bytes.count else { return }
        var reader = AvroReader(bytes, from: start)
        guard reader.long() != nil, reader.string() != nil, let key = reader.bytes(), let hash = reader.long(),
            reader.long() != nil, reader.long() != nil, reader.string() != nil, let source = reader.bytes(),
            let epoch = reader.long(), let slot = reader.long()
        else { return }
        self.source = source
        let isSlot = (0..<Int64(StreamSlots.count)).contains(slot)
        if isSlot { self.slot = Int(slot) }
        let isKeysSlot = key.isEmpty || StreamSlots.slot(keyHash: UInt64(bitPattern: hash)) == Int(clamping: slot)
        if !isSlot || !isKeysSlot {
            reason = "its slot is not its key's"
        } else if epoch < 0 || Self.hasOddNumbers(reader) {
            reason = "it has numbers that no record has"
        }
    }

    private init(reason: String) { self.reason = reason }

    /// The source as a log names it, where a stream of `followed` is followed: that one, also where the record does not
    /// say whose it is, or `another`. It is `unknown` where none is followed, or one that is not 64 bytes of printable
    /// ASCII at most.
    package func source(followed: String?) -> String {
        guard let followed, followed.utf8.count <= 64, followed.utf8.allSatisfy({ (0x20..<0x7f).contains($0) }) else {
            return "unknown"
        }
        return source.map { $0.elementsEqual(followed.utf8) } ?? true ? followed : "another"
    }

    /// Whether what follows the slot can be read, so that its numbers are to blame.
    private static func hasOddNumbers(_ reader: AvroReader) -> Bool {
        var rest = reader
        return rest.long() != nil && rest.long() != nil && rest.string() != nil && rest.long() != nil
            && rest.optional({ $0.string() }) != nil && rest.optional({ $0.bytes() }) != nil
            && rest.optional({ $0.long() }) != nil && rest.optional({ $0.string() }) != nil && rest.isAtEnd
    }
}

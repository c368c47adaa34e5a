// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Spans as a request of OTLP in JSON. Pure. Sources: opentelemetry-proto 1.x, trace_service.proto and trace.proto;
/// OTLP specification, JSON Protobuf Encoding: ids in hexadecimal digits, 64-bit numbers as texts, enumerations as
/// numbers.
struct OTLPEncoder {
    private(set) var bytes: [UInt8] = []
    private let peers: [String]
    private let own: String?
    private let storageSystem: String?
    /// What is added to monotonic time to make it Unix time, in nanoseconds.
    private let epoch: UInt64
    private var isFirstAttribute = true

    /// `ExportTraceServiceRequest` with these spans of one resource.
    static func encode(
        _ records: [SpanRecord], resource: [TracingConfiguration.Attribute], version: String, peers: [String],
        own: String?, storageSystem: String? = nil, epoch: UInt64
    ) -> [UInt8] {
        var encoder = OTLPEncoder(peers: peers, own: own, storageSystem: storageSystem, epoch: epoch)
        encoder.bytes.reserveCapacity(512 + 640 * records.count)
        encoder.append(#"{"resourceSpans":[{"resource":{"attributes":["#)
        for attribute in resource { encoder.append(text: attribute.value, named: attribute.name) }
        encoder.append(#"]},"scopeSpans":[{"scope":{"name":"martlet","version":"#)
        encoder.append(JSONString.quoted(version))
        encoder.append(#"},"spans":["#)
        for (index, record) in records.enumerated() {
            if index > 0 { encoder.append(",") }
            encoder.append(record)
        }
        encoder.append("]}]}]}")
        return encoder.bytes
    }

    private init(peers: [String], own: String?, storageSystem: String?, epoch: UInt64) {
        self.storageSystem = storageSystem
        self.peers = peers
        self.own = own
        self.epoch = epoch
    }

    private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    private mutating func append(_ record: SpanRecord) {
        let context = record.context
        append(#"{"traceId":"\#(context.traceText)","spanId":"\#(context.spanText)""#)
        if record.parent != 0 { append(#","parentSpanId":"\#(Hexadecimal.digits(record.parent))""#) }
        // Bits 8 and 9: whether the parent is of another process is known, and is so.
        let isRemote = record.parent != 0 && (record.kind == .server || record.kind == .consumer)
        append(#","flags":\#(UInt32(context.flags) | 0x100 | (isRemote ? 0x200 : 0))"#)
        append(#","name":"\#(record.name.text)","kind":\#(record.kind.rawValue)"#)
        append(#","startTimeUnixNano":"\#(record.start &+ epoch)""#)
        append(#","endTimeUnixNano":"\#(max(record.end, record.start) &+ epoch)","attributes":["#)
        isFirstAttribute = true
        if record.name.isCommand { appendCommand(record) }
        if record.name.isStorage, let storageSystem { append(text: storageSystem, named: "db.system.name") }
        if record.count > 1 { append(number: UInt64(record.count), named: Self.countName(record.name)) }
        if record.keyHash != 0 { append(text: Hexadecimal.digits(record.keyHash), named: "martlet.key.hash") }
        if record.keyLength > 0 {
            append(text: String(decoding: record.shownKey, as: UTF8.self), named: "martlet.key")
        }
        if record.hit != .unknown { append(boolean: record.hit == .hit, named: "martlet.cache.hit") }
        switch record.reason {
        case .sampled: break
        case .slow: append(text: "slow", named: "martlet.trace.reason")
        case .failed: append(text: "failed", named: "martlet.trace.reason")
        }
        if record.error != .none { append(text: record.error.text, named: "error.type") }
        append("]")
        // Without a code the status is unset, as it should be where nothing failed.
        append(record.error == .none ? "}" : #","status":{"code":2}}"#)
    }

    /// What OpenTelemetry says of requests to databases. Source: semantic conventions 1.x, database spans.
    private mutating func appendCommand(_ record: SpanRecord) {
        append(text: "memcached", named: "db.system.name")
        append(text: record.name.text, named: "db.operation.name")
        let isCall = record.kind == .client
        let name = isCall ? (peers.indices.contains(Int(record.peer)) ? peers[Int(record.peer)] : nil) : own
        guard let name, !name.isEmpty else { return }
        guard !name.hasPrefix("/"), let colon = name.lastIndex(of: ":"),
            let port = UInt64(name[name.index(after: colon)...])
        else { return append(text: name, named: "server.address") }
        let host = name[..<colon]
        let isBracketed = host.hasPrefix("[") && host.hasSuffix("]")
        append(text: String(isBracketed ? host.dropFirst().dropLast() : host), named: "server.address")
        append(number: port, named: "server.port")
    }

    private static func countName(_ name: SpanName) -> String {
        name.isCommand ? "db.operation.batch.size" : "martlet.storage.batch.size"
    }

    // MARK: Attributes

    private mutating func begin(_ name: String) {
        append(isFirstAttribute ? #"{"key":"# : #",{"key":"#)
        isFirstAttribute = false
        append(JSONString.quoted(name))
        append(#","value":{"#)
    }

    private mutating func append(text: String, named name: String) {
        begin(name)
        append(#""stringValue":"#)
        append(JSONString.quoted(text))
        append("}}")
    }

    private mutating func append(number: UInt64, named name: String) {
        begin(name)
        append(#""intValue":"\#(number)"}}"#)
    }

    private mutating func append(boolean: Bool, named name: String) {
        begin(name)
        append(#""boolValue":\#(boolean)}}"#)
    }
}

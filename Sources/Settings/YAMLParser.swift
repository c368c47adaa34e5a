// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CYAML

/// Reads one YAML document into nodes, with libyaml. Source: YAML 1.1; JSON is a subset of it.
///
/// What a configuration does not need is refused rather than guessed: several documents, anchors and aliases (which
/// also can blow up), tags, and keys that are not texts.
@safe
struct YAMLParser: ~Copyable {
    /// Levels of nesting at most.
    static let depthLimit = 32
    /// Bytes of a file at most.
    static let sizeLimitBytes = 4 << 20

    private let parser: UnsafeMutablePointer<yaml_parser_t>
    private let event: UnsafeMutablePointer<yaml_event_t>
    private let file: String

    /// The document in `bytes`; nil when there is none, that is, when all is blank or comment.
    static func parse(_ bytes: [UInt8], file: String) throws(SettingsError) -> SettingsNode? {
        guard bytes.count <= sizeLimitBytes else {
            throw SettingsError(["\(file): larger than \(spell(size: UInt64(sizeLimitBytes)))"])
        }
        var result: Result<SettingsNode?, SettingsError> = .success(nil)
        unsafe bytes.withUnsafeBufferPointer { buffer in
            let parser = YAMLParser(file: file)
            // SAFETY: the bytes live until the closure ends, and the parser does not outlive it.
            unsafe yaml_parser_set_input_string(parser.parser, buffer.baseAddress ?? emptyInput, buffer.count)
            result = Result { () throws(SettingsError) in try parser.document() }
        }
        return try result.get()
    }

    private init(file: String) {
        self.file = file
        // SAFETY: libyaml keeps addresses inside its parser, so it lives on the heap; both are freed in deinit.
        unsafe parser = .allocate(capacity: 1)
        unsafe parser.initialize(to: yaml_parser_t())
        unsafe event = .allocate(capacity: 1)
        unsafe event.initialize(to: yaml_event_t())
        let made = unsafe yaml_parser_initialize(parser)
        precondition(made == 1, "no memory for a YAML parser")
        unsafe yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)
    }

    deinit {
        // SAFETY: an event is deleted before the next is parsed, and deleting an empty one does nothing.
        unsafe yaml_event_delete(event)
        unsafe yaml_parser_delete(parser)
        unsafe event.deallocate()
        unsafe parser.deallocate()
    }

    private var line: Int { unsafe Int(event.pointee.start_mark.line) + 1 }

    private func document() throws(SettingsError) -> SettingsNode? {
        try next()  // the stream's start
        guard try next() == YAML_DOCUMENT_START_EVENT else { return nil }
        try next()
        let root = try node(depth: 0)
        try next()  // the document's end
        if try next() == YAML_DOCUMENT_START_EVENT { throw problem("a second document; only one is allowed") }
        return root
    }

    /// Moves to the next event.
    @discardableResult
    private func next() throws(SettingsError) -> yaml_event_type_t {
        // SAFETY: both are initialised and ours alone; the old event's memory is freed first.
        unsafe yaml_event_delete(event)
        guard unsafe yaml_parser_parse(parser, event) == 1 else {
            let line = unsafe Int(parser.pointee.problem_mark.line) + 1
            // SAFETY: libyaml's problem texts are constants of its own.
            let reason = unsafe parser.pointee.problem.map { unsafe String(cString: $0) } ?? "cannot be read"
            throw SettingsError(["\(file):\(line): not valid YAML: \(reason)"])
        }
        return unsafe event.pointee.type
    }

    /// The node that the current event begins.
    private func node(depth: Int) throws(SettingsError) -> SettingsNode {
        guard depth < Self.depthLimit else { throw problem("nested more than \(Self.depthLimit) levels deep") }
        let line = line
        switch unsafe event.pointee.type {
        case YAML_SCALAR_EVENT:
            // SAFETY: libyaml gives `length` bytes, which live until the event is deleted; they are copied here.
            let scalar = unsafe event.pointee.data.scalar
            try refuse(anchor: unsafe scalar.anchor != nil, tag: unsafe scalar.tag != nil)
            return SettingsNode(content: unsafe Self.content(of: scalar), line: line)
        case YAML_SEQUENCE_START_EVENT:
            let start = unsafe event.pointee.data.sequence_start
            try refuse(anchor: unsafe start.anchor != nil, tag: unsafe start.tag != nil)
            var elements: [SettingsNode] = []
            while try next() != YAML_SEQUENCE_END_EVENT { elements.append(try node(depth: depth + 1)) }
            return SettingsNode(content: .sequence(elements), line: line)
        case YAML_MAPPING_START_EVENT:
            let start = unsafe event.pointee.data.mapping_start
            try refuse(anchor: unsafe start.anchor != nil, tag: unsafe start.tag != nil)
            return SettingsNode(content: .mapping(try entries(depth: depth)), line: line)
        default:
            throw problem("an alias (*name); aliases are not allowed")
        }
    }

    private func entries(depth: Int) throws(SettingsError) -> [SettingsNode.Entry] {
        var entries: [SettingsNode.Entry] = []
        var lines: [String: Int] = [:]
        while try next() != YAML_MAPPING_END_EVENT {
            let key = try node(depth: depth + 1)
            guard case .scalar(let name, _) = key.content else { throw problem("a key that is not a text", key.line) }
            if let first = lines.updateValue(key.line, forKey: name) {
                throw problem("\(name) twice; it stands on line \(first) already", key.line)
            }
            try next()
            entries.append(SettingsNode.Entry(key: name, line: key.line, value: try node(depth: depth + 1)))
        }
        return entries
    }

    private static func content(
        of scalar: yaml_event_t.__Unnamed_union_data.__Unnamed_struct_scalar
    )
        -> SettingsNode.Content
    {
        // SAFETY: see node(depth:).
        let bytes = unsafe UnsafeBufferPointer(start: scalar.value, count: scalar.length)
        let text = unsafe String(decoding: bytes, as: UTF8.self)
        return unsafe .scalar(text, isPlain: scalar.style == YAML_PLAIN_SCALAR_STYLE)
    }

    private func refuse(anchor: Bool, tag: Bool) throws(SettingsError) {
        if anchor { throw problem("an anchor (&name); anchors are not allowed") }
        if tag { throw problem("a tag (!name); tags are not allowed") }
    }

    private func problem(_ text: String, _ line: Int? = nil) -> SettingsError {
        SettingsError(["\(file):\(line ?? self.line): \(text)"])
    }
}

/// An address for an input of no bytes.
// SAFETY: a constant that nobody reads through.
private nonisolated(unsafe) let emptyInput: UnsafePointer<UInt8> = {
    // SAFETY: never read, never freed: the parser is told that it has no bytes.
    let byte = UnsafeMutablePointer<UInt8>.allocate(capacity: 1)
    unsafe byte.initialize(to: 0)
    return unsafe UnsafePointer(byte)
}()

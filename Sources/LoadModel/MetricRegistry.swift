// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The metrics of a test, and their parts by tags that thresholds ask for. A place (an index) belongs to each; every
/// thread keeps an array of sinks in this order.
package struct MetricRegistry: Sendable {
    /// Metrics at most, parts included.
    package static let limit = 4096

    /// A part of a metric: the samples that have all of the tags.
    package struct Part: Sendable, Equatable {
        /// As it was written: `name{key:value}`.
        package let name: String
        /// The metric's place.
        package let metric: Int
        /// What its samples are tagged with.
        package let tags: [String: String]
    }

    /// One place: a metric, or a part of one.
    package enum Place: Sendable {
        case metric(MetricDefinition)
        case part(Part)
    }

    /// All places.
    package private(set) var places: [Place] = []
    private var byName: [String: Int] = [:]
    private var partsOf: [Int: [Int]] = [:]
    /// The values of each tag that any part asks for.
    private var asked: [String: Set<String>] = [:]

    package init() {}

    /// The place of the metric, made if it is new; nil when there is one of that name of another kind or content.
    package mutating func register(_ definition: MetricDefinition) -> Int? {
        if let known = byName[definition.name] { return self.definition(known) == definition ? known : nil }
        guard places.count < Self.limit else { return nil }
        places.append(.metric(definition))
        byName[definition.name] = places.count - 1
        return places.count - 1
    }

    /// The place of the metric or part of that name; nil when there is none.
    package func place(_ name: String) -> Int? { byName[name] }

    /// The place of what a threshold names, `metric` or `metric{key:value,…}`; a part is made if it is new. nil when
    /// there is no such metric, or the text is not of that form.
    package mutating func resolve(_ text: String) -> Int? {
        if let known = byName[text] { return known }
        guard let (name, tags) = Self.split(text), !tags.isEmpty, let metric = byName[name] else { return nil }
        guard places.count < Self.limit else { return nil }
        places.append(.part(Part(name: text, metric: metric, tags: tags)))
        byName[text] = places.count - 1
        partsOf[metric, default: []].append(places.count - 1)
        for (key, value) in tags { asked[key, default: []].insert(value) }
        return places.count - 1
    }

    /// Those of `tags` that decide where a sample goes: the rest no part asks for.
    package func relevant(_ tags: [String: String]) -> [String: String] {
        tags.filter { asked[$0.key]?.contains($0.value) ?? false }
    }

    /// The metric at `place`, or that the part there belongs to.
    package func definition(_ place: Int) -> MetricDefinition {
        switch places[place] {
        case .metric(let definition): definition
        case .part(let part): self.definition(part.metric)
        }
    }

    /// The name at `place`, tags included.
    package func name(_ place: Int) -> String {
        switch places[place] {
        case .metric(let definition): definition.name
        case .part(let part): part.name
        }
    }

    /// The parts of the metric at `place`.
    package func parts(of place: Int) -> [Int] { partsOf[place] ?? [] }

    /// Where a sample of the metric at `place` with these tags goes: the metric, and its parts that match.
    package func places(_ place: Int, tags: [String: String]) -> [Int] {
        [place]
            + parts(of: place).filter { index in
                guard case .part(let part) = places[index] else { return false }
                return part.tags.allSatisfy { tags[$0.key] == $0.value }
            }
    }

    /// An empty sink for each place.
    package func makeSinks() -> [MetricSink] { places.indices.map { MetricSink(definition($0).kind) } }

    /// `name{key:value,key2:"value 2"}` taken apart; the tags are empty without braces. nil when it is malformed.
    package static func split(_ text: String) -> (name: String, tags: [String: String])? {
        guard let brace = text.firstIndex(of: "{") else { return (trimmed(text), [:]) }
        let name = trimmed(text[..<brace])
        guard text.hasSuffix("}"), MetricDefinition.isName(name) else { return nil }
        var tags: [String: String] = [:]
        for piece in text[text.index(after: brace)...].dropLast().split(separator: ",") {
            guard let colon = piece.firstIndex(of: ":") else { return nil }
            let key = unquoted(trimmed(piece[..<colon]))
            guard !key.isEmpty else { return nil }
            tags[key] = unquoted(trimmed(piece[piece.index(after: colon)...]))
        }
        return (name, tags)
    }

    private static func unquoted(_ text: String) -> String {
        guard text.count >= 2, let first = text.first, first == "\"" || first == "'", text.last == first else {
            return text
        }
        return String(text.dropFirst().dropLast())
    }

    static func trimmed(_ text: some StringProtocol) -> String {
        var rest = Substring(text)
        while rest.first?.isWhitespace == true { rest.removeFirst() }
        while rest.last?.isWhitespace == true { rest.removeLast() }
        return String(rest)
    }
}

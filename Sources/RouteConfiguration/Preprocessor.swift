// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Settings

/// Where the files of a configuration come from, and what it may ask about the router.
struct PreprocessorSurroundings {
    /// The bytes of an imported file, and the name it has in messages. Throws why it cannot be read, as text.
    var read: (String) throws(RouteProblem) -> (name: String, bytes: [UInt8])
    /// Constants that every configuration has.
    var constants: [String: JSONNode.Content] = [:]
    /// Whether an address is one of this machine's.
    var isLocalAddress: (String) -> Bool = { _ in false }
    /// What `@shuffle` shuffles by, where the configuration names no number.
    var seed: UInt64 = 0
}

/// Expands what mcrouter's configurations may have written once and used often: macros, constants, variables, imports,
/// and calls of the built-in functions that its documentation names.
///
/// Hostile input ends in an error: nesting, the number of values that expansion makes, and the length of texts are
/// limited.
final class Preprocessor {
    /// Calls and values inside of each other.
    static let nestingLimit = 250
    /// Values that expansion makes.
    static let sizeLimit = 4_000_000
    /// Bytes of one text.
    static let textLimitBytes = 1 << 20

    let surroundings: PreprocessorSurroundings
    var macros: [String: Macro] = [:]
    private var constants: [String: Constant] = [:]
    private var imports: [String: JSONNode] = [:]
    private var importing: Set<String> = []
    private var nesting = 0
    private var made = 0

    /// A function of a configuration's own.
    struct Macro {
        let parameters: [Parameter]
        let result: JSONNode
    }

    struct Parameter {
        let name: String
        var standard: JSONNode?
        var isRequired = true
    }

    private enum Constant {
        case raw(JSONNode)
        case expanding
        case expanded(JSONNode)
    }

    /// Names that stand for values, and where to look further.
    final class Scope {
        enum State {
            case expanded
            case raw
            case expanding
        }

        private var values: [String: (value: JSONNode, state: State)] = [:]
        let outer: Scope?
        /// Whether names end here: a macro's own parameters.
        let isBase: Bool

        init(_ outer: Scope? = nil, isBase: Bool = false) {
            self.outer = outer
            self.isBase = isBase
        }

        func set(_ name: String, _ value: JSONNode, _ state: State = .expanded) { values[name] = (value, state) }

        func find(_ name: String, _ preprocessor: Preprocessor) throws(RouteProblem) -> JSONNode? {
            guard let found = values[name] else { return isBase ? nil : try outer?.find(name, preprocessor) }
            switch found.state {
            case .expanded: return found.value
            case .expanding: throw RouteProblem("the variable \(name) is made from itself", at: found.value.place)
            case .raw:
                values[name]?.state = .expanding
                let value: JSONNode
                do throws(RouteProblem) { value = try preprocessor.expand(found.value, self) } catch {
                    throw error.within("the variable \(name)")
                }
                values[name] = (value, .expanded)
                return value
            }
        }

        func holds(_ name: String) -> Bool { values[name] != nil || (!isBase && outer?.holds(name) ?? false) }
    }

    init(_ surroundings: PreprocessorSurroundings) {
        self.surroundings = surroundings
        let place = JSONNode.Place(file: "the router", line: 0)
        for (name, content) in surroundings.constants {
            constants[name] = .expanded(JSONNode(content, at: place))
        }
    }

    /// A whole file without macros.
    func process(_ file: JSONNode) throws(RouteProblem) -> JSONNode {
        guard var object = file.object else {
            throw RouteProblem("the configuration is \(file.kind); an object is expected", at: file.place)
        }
        if let definitions = object["macros"] {
            try define(definitions)
            object["macros"] = nil
        }
        return try expand(JSONNode(.object(object), at: file.place), Scope())
    }

    // MARK: Definitions

    private func define(_ definitions: JSONNode) throws(RouteProblem) {
        let expanded = try expand(definitions, Scope())
        switch expanded.content {
        case .object(let object): for entry in object.entries { try define(entry.key, entry.value) }
        case .array(let elements): for element in elements { try define(element) }
        default: throw RouteProblem("macros is \(expanded.kind); an object or a list is expected", at: expanded.place)
        }
    }

    private func define(_ name: String, _ definition: JSONNode) throws(RouteProblem) {
        guard let object = definition.object, let type = object["type"]?.text else {
            throw RouteProblem("the macro \(name) is no object with a type", at: definition.place)
        }
        guard let result = object["result"] else {
            throw RouteProblem("the macro \(name) has no result", at: definition.place)
        }
        switch type {
        case "constDef": constants[name] = .raw(result)
        case "macroDef":
            macros[name] = Macro(parameters: try parameters(of: name, object["params"]), result: result)
        default:
            throw RouteProblem(
                "the macro \(name) has the type \(type); macroDef and constDef are allowed", at: definition.place)
        }
    }

    private func parameters(of name: String, _ list: JSONNode?) throws(RouteProblem) -> [Parameter] {
        guard let list else { return [] }
        guard let elements = list.array else {
            throw RouteProblem("the parameters of \(name) are \(list.kind); a list is expected", at: list.place)
        }
        var parameters: [Parameter] = []
        for element in elements {
            var parameter = Parameter(name: element.text ?? "")
            if let object = element.object {
                guard let own = object["name"]?.text else {
                    throw RouteProblem("a parameter of \(name) has no name", at: element.place)
                }
                parameter = Parameter(name: own)
                let isOptional = object["optional"]?.boolean
                if object["optional"] != nil, isOptional == nil {
                    throw RouteProblem("the parameter \(own) of \(name): optional is no boolean", at: element.place)
                }
                parameter.standard = object["default"]
                if parameter.standard != nil, isOptional == false {
                    throw RouteProblem(
                        "the parameter \(own) of \(name) has a default and is not optional", at: element.place)
                }
                parameter.isRequired = parameter.standard == nil && isOptional != true
            } else if element.text == nil {
                throw RouteProblem(
                    "a parameter of \(name) is \(element.kind); a text or an object is expected", at: element.place)
            }
            if parameter.isRequired, parameters.last?.isRequired == false {
                throw RouteProblem(
                    "of the parameters of \(name), those behind an optional one must be, too", at: element.place)
            }
            parameters.append(parameter)
        }
        return parameters
    }

    /// The value of a constant; nil when there is none.
    func constant(_ name: String) throws(RouteProblem) -> JSONNode? {
        switch constants[name] {
        case nil: return nil
        case .expanded(let value): return value
        case .expanding: throw RouteProblem("the constant \(name) is made from itself", at: nil)
        case .raw(let raw):
            constants[name] = .expanding
            let value: JSONNode
            do throws(RouteProblem) { value = try expand(raw, Scope()) } catch {
                throw error.within("the constant \(name)")
            }
            constants[name] = .expanded(value)
            return value
        }
    }

    func isDefined(_ name: String, _ scope: Scope) -> Bool { scope.holds(name) || constants[name] != nil }

    // MARK: Expansion

    /// A value without macros.
    func expand(_ node: JSONNode, _ scope: Scope) throws(RouteProblem) -> JSONNode {
        nesting += 1
        defer { nesting -= 1 }
        guard nesting < Self.nestingLimit else {
            throw RouteProblem("nested more than \(Self.nestingLimit) deep: a macro that calls itself?", at: node.place)
        }
        try count(1, node.place)
        switch node.content {
        case .text(let text): return try expand(text: text, scope, node.place)
        case .object(let object): return try expand(object, scope, node.place)
        case .array(let elements):
            var expanded: [JSONNode] = []
            for (index, element) in elements.enumerated() {
                do throws(RouteProblem) { expanded.append(try expand(element, scope)) } catch {
                    throw error.place == nil
                        ? RouteProblem("element \(index): \(error.text)", at: element.place) : error
                }
            }
            return JSONNode(.array(expanded), at: node.place)
        default: return node
        }
    }

    /// Counts values that were made.
    func count(_ number: Int, _ place: JSONNode.Place) throws(RouteProblem) {
        made += min(number, Self.sizeLimit + 1)
        guard made <= Self.sizeLimit else {
            throw RouteProblem("macros make more than \(Self.sizeLimit) values", at: place)
        }
    }

    private func expand(
        _ object: JSONObject, _ scope: Scope, _ place: JSONNode.Place
    ) throws(RouteProblem) -> JSONNode {
        var object = object
        var scope = scope
        if let variables = object["vars"] {
            guard let entries = variables.object?.entries else {
                throw RouteProblem("vars is \(variables.kind); an object is expected", at: variables.place)
            }
            scope = Scope(scope)
            for entry in entries { scope.set(entry.key, entry.value, .raw) }
            for entry in entries { _ = try scope.find(entry.key, self) }
            object["vars"] = nil
        }
        if let type = object["type"], let name = try expand(type, scope).text {
            do throws(RouteProblem) {
                if let result = try call(name, object, scope, place) { return result }
            } catch {
                throw error.within(name)
            }
        }
        var result = JSONObject()
        for entry in object.entries {
            let key = try expand(text: entry.key, scope, entry.value.place)
            guard let name = key.text else {
                throw RouteProblem(
                    "the key \(entry.key) becomes \(key.kind); a text is expected", at: entry.value.place)
            }
            result[name] = try expand(entry.value, scope)
        }
        return JSONNode(.object(result), at: place)
    }

    /// Calls what an object names by its type; nil when that is no macro and no function.
    private func call(
        _ name: String, _ object: JSONObject, _ scope: Scope, _ place: JSONNode.Place
    ) throws(RouteProblem) -> JSONNode? {
        switch name {
        case "macroDef", "constDef": return JSONNode(.object(object), at: place)
        case "transform": return try transform(object, scope, place)
        case "process": return try process(object, scope, place)
        case "foreach": return try forEach(object, scope, place)
        default: break
        }
        if let macro = macros[name] {
            let inner = Scope(scope, isBase: true)
            for parameter in macro.parameters {
                if let argument = object[parameter.name] {
                    inner.set(parameter.name, try expand(argument, scope))
                } else if parameter.isRequired {
                    throw RouteProblem("the parameter \(parameter.name) is missing", at: place)
                } else if let standard = parameter.standard {
                    inner.set(parameter.name, standard)
                }
            }
            return try expand(macro.result, inner)
        }
        guard let function = Function(rawValue: name) else { return nil }
        var arguments: [String: JSONNode] = [:]
        for parameter in function.parameters { arguments[parameter.name] = object[parameter.name] }
        for parameter in function.parameters where parameter.isRequired && arguments[parameter.name] == nil {
            throw RouteProblem("the parameter \(parameter.name) is missing", at: place)
        }
        return try evaluate(FunctionCall(function: function, arguments: arguments, scope: scope, place: place))
    }

    // MARK: Texts

    private func expand(
        text: String, _ scope: Scope, _ place: JSONNode.Place
    ) throws(RouteProblem) -> JSONNode {
        guard text.utf8.first == UInt8(ascii: "@") else { return try substitute(text, scope, place) }
        let bytes = Array(text.utf8)
        var arguments: [String] = []
        var end = bytes.count
        if let open = MacroText.firstUnescaped(UInt8(ascii: "("), in: bytes[...]) {
            guard bytes.last == UInt8(ascii: ")") else {
                throw RouteProblem("no closing parenthesis in '\(text.prefix(100))'", at: place)
            }
            arguments = try MacroText.arguments(bytes[(open + 1)..<(bytes.count - 1)], place)
            end = open
        }
        let name = try substitute(String(decoding: bytes[1..<end], as: UTF8.self), scope, place)
        guard let name = name.text else { throw RouteProblem("the name of a macro is \(name.kind)", at: place) }
        do throws(RouteProblem) { return try call(name, arguments, scope, place) } catch {
            throw error.within("@\(name)")
        }
    }

    private func call(
        _ name: String, _ arguments: [String], _ scope: Scope, _ place: JSONNode.Place
    ) throws(RouteProblem) -> JSONNode {
        let parameters: [Parameter]
        let macro = macros[name]
        let function = Function(rawValue: name)
        if let macro {
            parameters = macro.parameters
        } else if let function {
            parameters = function.parameters
        } else {
            throw RouteProblem("there is no such macro", at: place)
        }
        let least = parameters.filter(\.isRequired).count
        guard least...parameters.count ~= arguments.count else {
            let wanted = least == parameters.count ? "\(least)" : "\(least) to \(parameters.count)"
            throw RouteProblem("\(arguments.count) arguments, where \(wanted) are expected", at: place)
        }
        var given: [String: JSONNode] = [:]
        for (parameter, argument) in zip(parameters, arguments) {
            given[parameter.name] = JSONNode(.text(argument), at: place)
        }
        if let macro {
            let inner = Scope(scope, isBase: true)
            for parameter in parameters {
                if let argument = given[parameter.name] {
                    inner.set(parameter.name, try expand(argument, scope))
                } else if let standard = parameter.standard {
                    inner.set(parameter.name, standard)
                }
            }
            return try expand(macro.result, inner)
        }
        guard let function else { throw RouteProblem("there is no such macro", at: place) }
        return try evaluate(FunctionCall(function: function, arguments: given, scope: scope, place: place))
    }

    /// Puts values where a text has their names between percent signs.
    private func substitute(
        _ text: String, _ scope: Scope, _ place: JSONNode.Place
    ) throws(RouteProblem) -> JSONNode {
        guard text.utf8.contains(where: { $0 == UInt8(ascii: "%") || $0 == UInt8(ascii: "\\") }) else {
            return JSONNode(.text(text), at: place)
        }
        var rest = Array(text.utf8)[...]
        var result: [UInt8] = []
        while !rest.isEmpty {
            guard MacroText.unescape(&rest, into: &result, until: UInt8(ascii: "%")) else { break }
            var name: [UInt8] = []
            guard MacroText.unescape(&rest, into: &name, until: UInt8(ascii: "%")) else {
                throw RouteProblem("an odd number of percent signs in '\(text.prefix(100))'", at: place)
            }
            let spelled = String(decoding: name, as: UTF8.self)
            var found = try scope.find(spelled, self)
            if found == nil { found = try constant(spelled) }
            guard let value = found else {
                throw RouteProblem("'\(spelled)' is no parameter, variable or constant", at: place)
            }
            if result.isEmpty, rest.isEmpty {
                try count(value.size, place)
                return value
            }
            guard let part = value.text else {
                throw RouteProblem("'\(spelled)' is \(value.kind); inside of a text, a text is expected", at: place)
            }
            result += Array(part.utf8)
            guard result.count <= Self.textLimitBytes else {
                throw RouteProblem("a text of more than \(Self.textLimitBytes) bytes", at: place)
            }
        }
        return JSONNode(.text(String(decoding: result, as: UTF8.self)), at: place)
    }

    // MARK: Imports

    /// The value of another file, without macros of its own; each file is read once.
    func load(_ path: String, _ place: JSONNode.Place) throws(RouteProblem) -> JSONNode {
        if let known = imports[path] {
            try count(known.size, place)
            return known
        }
        guard importing.insert(path).inserted else {
            throw RouteProblem("the file imports itself", at: place)
        }
        defer { importing.remove(path) }
        let file = try surroundings.read(path)
        let value = try expand(try JSONParser.parse(file.bytes, file: file.name), Scope())
        imports[path] = value
        return value
    }

    /// Remembers what stands for a file that cannot be read.
    func replace(_ path: String, with value: JSONNode) { imports[path] = value }
}

/// Texts that call macros.
enum MacroText {
    /// The first such byte that no backslash stands before.
    static func firstUnescaped(_ wanted: UInt8, in bytes: ArraySlice<UInt8>) -> Int? {
        var index = bytes.startIndex
        while index < bytes.endIndex {
            if bytes[index] == UInt8(ascii: "\\") {
                index += 2
                continue
            }
            if bytes[index] == wanted { return index }
            index += 1
        }
        return nil
    }

    /// Moves bytes without their backslashes until one such byte, which is skipped. Returns whether there was one.
    static func unescape(_ rest: inout ArraySlice<UInt8>, into result: inout [UInt8], until wanted: UInt8) -> Bool {
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "\\") {
                guard let escaped = rest.popFirst() else { return false }
                result.append(escaped)
            } else if byte == wanted {
                return true
            } else {
                result.append(byte)
            }
        }
        return false
    }

    /// Arguments, with commas between them; parentheses of inner calls belong together.
    static func arguments(
        _ text: ArraySlice<UInt8>, _ place: JSONNode.Place
    ) throws(RouteProblem) -> [String] {
        var result: [String] = []
        var (depth, start, index) = (0, text.startIndex, text.startIndex)
        while index < text.endIndex {
            switch text[index] {
            case UInt8(ascii: "\\"): index += 1
            case UInt8(ascii: "("): depth += 1
            case UInt8(ascii: ")"): depth -= 1
            case UInt8(ascii: ",") where depth == 0:
                result.append(trimmed(text[start..<index]))
                start = index + 1
            default: break
            }
            guard depth >= 0 else { throw RouteProblem("parentheses do not match", at: place) }
            index += 1
        }
        guard depth == 0 else { throw RouteProblem("parentheses do not match", at: place) }
        result.append(trimmed(text[min(start, text.endIndex)..<text.endIndex]))
        return result
    }

    /// Without blanks at the ends; one behind a backslash stays.
    private static func trimmed(_ text: ArraySlice<UInt8>) -> String {
        func isBlank(_ byte: UInt8) -> Bool { byte == 32 || 9...13 ~= byte }
        var rest = text.drop(while: isBlank)
        while let last = rest.last, isBlank(last) {
            let slashes = rest.dropLast().reversed().prefix { $0 == UInt8(ascii: "\\") }.count
            if slashes % 2 == 1 { break }
            rest.removeLast()
        }
        return String(decoding: rest, as: UTF8.self)
    }
}

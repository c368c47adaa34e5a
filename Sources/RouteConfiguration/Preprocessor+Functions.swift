// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Settings

extension Preprocessor {
    /// The value of an argument.
    private func argument(_ name: String, _ call: FunctionCall) throws(RouteProblem) -> JSONNode {
        guard let raw = call.arguments[name] else { throw call.problem("the parameter \(name) is missing") }
        return try expand(raw, call.scope)
    }

    private func integer(_ name: String, _ call: FunctionCall) throws(RouteProblem) -> Int64 {
        let value = try argument(name, call)
        guard let number = value.integer else {
            throw call.problem("\(name) is \(value.kind); a whole number is expected")
        }
        return number
    }

    private func boolean(_ name: String, _ call: FunctionCall) throws(RouteProblem) -> Bool {
        let value = try argument(name, call)
        guard let boolean = value.boolean else { throw call.problem("\(name) is \(value.kind); a boolean is expected") }
        return boolean
    }

    private func text(_ name: String, _ call: FunctionCall) throws(RouteProblem) -> String {
        let value = try argument(name, call)
        guard let text = value.text else { throw call.problem("\(name) is \(value.kind); a text is expected") }
        return text
    }

    func evaluate(_ call: FunctionCall) throws(RouteProblem) -> JSONNode {
        func made(_ content: JSONNode.Content) -> JSONNode { JSONNode(content, at: call.place) }
        switch call.function {
        case .import: return try importFile(call)
        case .define: return try argument("result", call)
        case .defined: return made(.boolean(isDefined(try text("name", call), call.scope)))
        case .isLocalIp: return made(.boolean(surroundings.isLocalAddress(try text("ip", call))))
        case .fail:
            let message = try argument("msg", call)
            throw call.problem(message.text ?? "the configuration says so")
        case .if: return try argument(try boolean("condition", call) ? "is_true" : "is_false", call)
        case .and: return made(.boolean(try boolean("A", call) ? try boolean("B", call) : false))
        case .or: return made(.boolean(try boolean("A", call) ? true : try boolean("B", call)))
        case .not: return made(.boolean(!(try boolean("A", call))))
        case .equals: return made(.boolean(JSONNode.isSame(try argument("A", call), try argument("B", call))))
        case .less: return made(.boolean(try Self.isLess(try argument("A", call), try argument("B", call), call)))
        case .isArray: return made(.boolean(try argument("value", call).array != nil))
        case .isBool: return made(.boolean(try argument("value", call).boolean != nil))
        case .isInt: return made(.boolean(try argument("value", call).integer != nil))
        case .isDouble:
            if case .double = try argument("value", call).content { return made(.boolean(true)) }
            return made(.boolean(false))
        case .isObject: return made(.boolean(try argument("value", call).object != nil))
        case .isString: return made(.boolean(try argument("value", call).text != nil))
        case .int, .double, .str, .bool: return made(try cast(call))
        case .hash, .weightedHash: return made(try hash(call))
        case .add, .sub, .mul, .div, .mod, .bitwiseAnd, .bitwiseOr, .bitwiseXor, .bitwiseNot, .bitwiseLeftShift,
            .bitwiseRightShift:
            return made(.integer(try calculate(call)))
        default: return made(try collect(call))
        }
    }

    private func importFile(_ call: FunctionCall) throws(RouteProblem) -> JSONNode {
        let path = try text("path", call)
        do throws(RouteProblem) { return try load(path, call.place) } catch {
            guard let standard = call.arguments["default"] else { throw error.within("import of \(path)") }
            let value = try expand(standard, call.scope)
            replace(path, with: value)
            return value
        }
    }

    private static func isLess(
        _ left: JSONNode, _ right: JSONNode, _ call: FunctionCall
    ) throws(RouteProblem) -> Bool {
        if let left = left.number, let right = right.number { return left < right }
        if let left = left.text, let right = right.text {
            return left.utf8.lexicographicallyPrecedes(right.utf8)
        }
        if let left = left.boolean, let right = right.boolean { return !left && right }
        throw call.problem("\(left.kind) and \(right.kind) cannot be compared")
    }

    private func cast(_ call: FunctionCall) throws(RouteProblem) -> JSONNode.Content {
        let value = try argument("value", call)
        let refusal = call.problem("\(value.text.map { "'\($0)'" } ?? value.kind) cannot be made one")
        switch (call.function, value.content) {
        case (.int, .integer), (.double, .double), (.bool, .boolean), (.str, .text): return value.content
        case (.int, .double(let number)):
            guard let whole = Int64(exactly: number.rounded(.towardZero)) else { throw refusal }
            return .integer(whole)
        case (.int, .boolean(let value)): return .integer(value ? 1 : 0)
        case (.int, .text(let text)):
            guard let number = Int64(text) else { throw refusal }
            return .integer(number)
        case (.double, .integer(let number)): return .double(Double(number))
        case (.double, .boolean(let value)): return .double(value ? 1 : 0)
        case (.double, .text(let text)):
            guard let number = Double(text) else { throw refusal }
            return .double(number)
        case (.str, .integer(let number)): return .text("\(number)")
        case (.str, .boolean(let value)): return .text(value ? "true" : "false")
        case (.str, .double(let number)):
            return .text(number == number.rounded() && abs(number) < 1e15 ? "\(Int64(number))" : "\(number)")
        case (.bool, .integer(let number)): return .boolean(number != 0)
        case (.bool, .double(let number)): return .boolean(number != 0)
        case (.bool, .text(let text)):
            switch text.lowercased() {
            case "1", "t", "true", "y", "yes", "on": return .boolean(true)
            case "0", "f", "false", "n", "no", "off": return .boolean(false)
            default: throw refusal
            }
        default: throw refusal
        }
    }

    private func hash(_ call: FunctionCall) throws(RouteProblem) -> JSONNode.Content {
        let key = try argument(call.function == .hash ? "value" : "key", call)
        guard key.integer != nil || key.text != nil else {
            throw call.problem("\(key.kind) cannot be hashed; a text or a whole number can")
        }
        if call.function == .hash {
            let hash =
                key.text.map { ConfigurationHash.value(of: $0) } ?? ConfigurationHash.value(of: key.integer ?? 0)
            return .integer(Int64(bitPattern: hash))
        }
        let dictionary = try argument("dictionary", call)
        var weights: [(name: String, weight: Double)] = []
        for entry in dictionary.object?.entries ?? [] {
            guard let weight = entry.value.number, weight >= -0.01 else {
                throw call.problem("the weight of \(entry.key) is no number from 0 on")
            }
            weights.append((entry.key, max(weight, 0)))
        }
        let number = key.text.map { ConfigurationHash.value(of: $0) } ?? UInt64(bitPattern: key.integer ?? 0)
        guard let choice = ConfigurationHash.choice(of: number, weights) else {
            throw call.problem("dictionary is no object with a weight above 0")
        }
        return .text(weights[choice].name)
    }

    private func calculate(_ call: FunctionCall) throws(RouteProblem) -> Int64 {
        let left = try integer("A", call)
        if call.function == .bitwiseNot { return ~left }
        let right = try integer("B", call)
        let result: (partialValue: Int64, overflow: Bool)
        switch call.function {
        case .add: result = left.addingReportingOverflow(right)
        case .sub: result = left.subtractingReportingOverflow(right)
        case .mul: result = left.multipliedReportingOverflow(by: right)
        case .div, .mod:
            guard right != 0 else { throw call.problem("a division by 0") }
            result =
                call.function == .div
                ? left.dividedReportingOverflow(by: right) : left.remainderReportingOverflow(dividingBy: right)
        case .bitwiseAnd: result = (left & right, false)
        case .bitwiseOr: result = (left | right, false)
        case .bitwiseXor: result = (left ^ right, false)
        default:
            guard 0...63 ~= right else { throw call.problem("a shift by \(right); 0 to 63 are allowed") }
            let bits = UInt64(bitPattern: left)
            result = (
                Int64(bitPattern: call.function == .bitwiseLeftShift ? bits << UInt64(right) : bits >> UInt64(right)),
                false
            )
        }
        guard !result.overflow else { throw call.problem("the result needs more than 64 bits") }
        return result.partialValue
    }

    /// Functions of lists, objects and texts.
    private func collect(_ call: FunctionCall) throws(RouteProblem) -> JSONNode.Content {
        switch call.function {
        case .keys, .values, .contains, .empty, .size: return try look(call)
        case .merge: return try merge(call)
        case .select: return try select(call)
        case .slice: return try slice(call)
        case .set: return try replace(call)
        case .split:
            let (text, delimiter) = (try text("dictionary", call), try text("delim", call))
            guard !delimiter.isEmpty else { throw call.problem("an empty delim") }
            return .array(Self.split(text, by: delimiter).map { JSONNode(.text($0), at: call.place) })
        case .range:
            let (from, to) = (try integer("from", call), try integer("to", call))
            guard from <= to else { return .array([]) }
            let length = to.subtractingReportingOverflow(from)
            guard !length.overflow, length.partialValue < 1_000_000 else {
                throw call.problem("a range of more than a million numbers")
            }
            try count(Int(length.partialValue) + 1, call.place)
            return .array((from...to).map { JSONNode(.integer($0), at: call.place) })
        case .sort:
            let value = try argument("dictionary", call)
            guard var elements = value.array else {
                throw call.problem("dictionary is \(value.kind); a list is expected")
            }
            var failure: RouteProblem?
            elements.sort { left, right in
                do throws(RouteProblem) { return try Self.isLess(left, right, call) } catch {
                    failure = error
                    return false
                }
            }
            if let failure { throw failure }
            return .array(elements)
        default: return try shuffle(call)
        }
    }

    private static func split(_ text: String, by delimiter: String) -> [String] {
        let (bytes, mark) = (Array(text.utf8), Array(delimiter.utf8))
        var (parts, start, index) = ([String](), 0, 0)
        while index + mark.count <= bytes.count {
            if bytes[index..<(index + mark.count)].elementsEqual(mark) {
                parts.append(String(decoding: bytes[start..<index], as: UTF8.self))
                index += mark.count
                start = index
            } else {
                index += 1
            }
        }
        return parts + [String(decoding: bytes[start...], as: UTF8.self)]
    }

    private func shuffle(_ call: FunctionCall) throws(RouteProblem) -> JSONNode.Content {
        let value = try argument("dictionary", call)
        guard var elements = value.array else { throw call.problem("dictionary is \(value.kind); a list is expected") }
        var seed = surroundings.seed
        if call.arguments["seed"] != nil {
            let given = try integer("seed", call)
            guard given >= 0 else { throw call.problem("seed is below 0") }
            seed = UInt64(given)
        }
        var random = RouteRandom(seed: seed)
        elements.shuffle(using: &random)
        return .array(elements)
    }

    private func look(_ call: FunctionCall) throws(RouteProblem) -> JSONNode.Content {
        let value = try argument("dictionary", call)
        switch (call.function, value.content) {
        case (.keys, .object(let object)): return .array(object.keys.map { JSONNode(.text($0), at: call.place) })
        case (.values, .object(let object)): return .array(object.entries.map(\.value))
        case (.size, .object(let object)): return .integer(Int64(object.count))
        case (.size, .array(let elements)): return .integer(Int64(elements.count))
        case (.size, .text(let text)): return .integer(Int64(text.utf8.count))
        case (.empty, .object(let object)): return .boolean(object.count == 0)
        case (.empty, .array(let elements)): return .boolean(elements.isEmpty)
        case (.empty, .text(let text)): return .boolean(text.isEmpty)
        case (.contains, .object(let object)): return .boolean(object[try text("key", call)] != nil)
        case (.contains, .array(let elements)):
            let key = try argument("key", call)
            return .boolean(elements.contains { JSONNode.isSame($0, key) })
        case (.contains, .text(let text)):
            let key = try self.text("key", call)
            return .boolean(key.isEmpty || Self.split(text, by: key).count > 1)
        default: throw call.problem("dictionary is \(value.kind), which has none")
        }
    }

    private func merge(_ call: FunctionCall) throws(RouteProblem) -> JSONNode.Content {
        let parameters = try argument("params", call)
        guard let parts = parameters.array, let first = parts.first else {
            throw call.problem("params is \(parameters.kind); a list that is not empty is expected")
        }
        var size = 0
        for part in parts { size = min(size + min(part.size, Self.sizeLimit), Self.sizeLimit + 1) }
        try count(size, call.place)
        switch first.content {
        case .array:
            var result: [JSONNode] = []
            for part in parts {
                guard let elements = part.array else { throw call.problem("lists and \(part.kind) cannot be merged") }
                result += elements
            }
            return .array(result)
        case .object:
            var result = JSONObject()
            for part in parts {
                guard let object = part.object else { throw call.problem("objects and \(part.kind) cannot be merged") }
                for entry in object.entries { result[entry.key] = entry.value }
            }
            return .object(result)
        case .text:
            var result = ""
            for part in parts {
                guard let text = part.text else { throw call.problem("texts and \(part.kind) cannot be merged") }
                result += text
                guard result.utf8.count <= Self.textLimitBytes else {
                    throw call.problem("a text of more than \(Self.textLimitBytes) bytes")
                }
            }
            return .text(result)
        default: throw call.problem("\(first.kind) cannot be merged")
        }
    }

    private func select(_ call: FunctionCall) throws(RouteProblem) -> JSONNode.Content {
        let dictionary = try argument("dictionary", call)
        let key = try argument("key", call)
        switch (dictionary.content, key.content) {
        case (.object(let object), .text(let name)):
            if let value = object[name] { return value.content }
        case (.array(let elements), .integer(let number)):
            let index = number < 0 ? number + Int64(elements.count) : number
            if index >= 0, index < elements.count { return elements[Int(index)].content }
        case (.object, _), (.array, _):
            throw call.problem("the key is \(key.kind); objects have texts and lists have whole numbers")
        default: throw call.problem("dictionary is \(dictionary.kind); an object or a list is expected")
        }
        guard call.arguments["default"] != nil else {
            throw call.problem("there is no \(key.text ?? key.integer.map { "\($0)" } ?? "such key"), and no default")
        }
        return try argument("default", call).content
    }

    private func slice(_ call: FunctionCall) throws(RouteProblem) -> JSONNode.Content {
        let dictionary = try argument("dictionary", call)
        if let object = dictionary.object {
            let (from, to) = (Array(try text("from", call).utf8), Array(try text("to", call).utf8))
            var result = JSONObject()
            for entry in object.entries {
                let isBefore = entry.key.utf8.lexicographicallyPrecedes(from)
                if !isBefore, !to.lexicographicallyPrecedes(entry.key.utf8) { result[entry.key] = entry.value }
            }
            return .object(result)
        }
        let (from, to) = (max(0, try integer("from", call)), try integer("to", call))
        func range(_ count: Int) -> Range<Int> {
            let start = Int(min(from, Int64(count)))
            return start..<max(start, Int(min(to == .max ? to : to + 1, Int64(count))))
        }
        if let elements = dictionary.array { return .array(Array(elements[range(elements.count)])) }
        guard let text = dictionary.text else {
            throw call.problem("dictionary is \(dictionary.kind); an object, a list or a text is expected")
        }
        let bytes = Array(text.utf8)
        return .text(String(decoding: bytes[range(bytes.count)], as: UTF8.self))
    }

    private func replace(_ call: FunctionCall) throws(RouteProblem) -> JSONNode.Content {
        let value = try argument("value", call)
        let dictionary = try argument("dictionary", call)
        switch dictionary.content {
        case .object(var object):
            object[try text("key", call)] = value
            return .object(object)
        case .array(var elements):
            let index = try integer("key", call)
            guard index >= 0, index < elements.count else {
                throw call.problem("the list has \(elements.count) elements, and none of the number \(index)")
            }
            elements[Int(index)] = value
            return .array(elements)
        default: throw call.problem("dictionary is \(dictionary.kind); an object or a list is expected")
        }
    }
}

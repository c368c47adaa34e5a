// Martlet
// SPDX-License-Identifier: Apache-2.0

import Settings
import Testing

@testable import RouteConfiguration

/// Macros, constants, variables, imports and built-in calls.
struct PreprocessorTests {
    /// What `value` becomes, as JSON without blanks.
    static func expanded(
        _ value: String, macros: String = "{}", files: [String: String] = [:],
        constants: [String: JSONNode.Content] = [:]
    ) throws -> String {
        let text = "{\"macros\": \(macros), \"value\": \(value)}"
        var surroundings = PreprocessorSurroundings { path throws(RouteProblem) in
            guard let content = files[path] else { throw RouteProblem("no such file", at: nil) }
            return (path, Array(content.utf8))
        }
        surroundings.constants = constants
        surroundings.isLocalAddress = { $0 == "::1" }
        let root = try JSONParser.parse(Array(text.utf8), file: "test")
        let result = try Preprocessor(surroundings).process(root)
        return Self.json(try #require(result.object?["value"]))
    }

    static func json(_ node: JSONNode) -> String {
        switch node.content {
        case .null: "null"
        case .boolean(let value): "\(value)"
        case .integer(let number): "\(number)"
        case .double(let number): "\(number)"
        case .text(let text): "\"\(text)\""
        case .array(let elements): "[\(elements.map { json($0) }.joined(separator: ","))]"
        case .object(let object):
            "{\(object.entries.map { "\"\($0.key)\":\(json($0.value))" }.joined(separator: ","))}"
        }
    }

    static func problem(_ value: String, macros: String = "{}", files: [String: String] = [:]) -> String {
        do {
            return "none: \(try expanded(value, macros: macros, files: files))"
        } catch let problem as RouteProblem {
            return problem.line
        } catch {
            return "\(error)"
        }
    }

    @Test(arguments: [
        (#""@int(5)""#, "5"), (#""@str(@int(5))""#, #""5""#), (#""@bool(yes)""#, "true"), (#""@double(1.5)""#, "1.5"),
        (#""@add(@int(2),@int(3))""#, "5"), (#""@sub(@int(2),@int(3))""#, "-1"), (#""@mul(@int(4),@int(3))""#, "12"),
        (#""@div(@int(7),@int(2))""#, "3"), (#""@mod(@int(7),@int(4))""#, "3"),
        (#""@bitwiseAnd(@int(6),@int(3))""#, "2"),
        (#""@bitwiseOr(@int(6),@int(3))""#, "7"), (#""@bitwiseXor(@int(6),@int(3))""#, "5"),
        (#""@bitwiseNot(@int(0))""#, "-1"), (#""@bitwiseLeftShift(@int(3),@int(2))""#, "12"),
        (#""@bitwiseRightShift(@int(12),@int(2))""#, "3"), (#""@less(@int(1),@int(2))""#, "true"),
        (#""@less(b,a)""#, "false"), (#""@equals(a,a)""#, "true"), (#""@equals(a,@int(1))""#, "false"),
        (#""@and(@bool(true),@bool(false))""#, "false"), (#""@or(@bool(true),@fail(no))""#, "true"),
        (#""@not(@bool(true))""#, "false"), (#""@if(@bool(true),a,@fail(no))""#, #""a""#),
        (#""@isInt(@int(1))""#, "true"), (#""@isString(@int(1))""#, "false"), (#""@isLocalIp(::1)""#, "true"),
        (#""@isLocalIp(blah)""#, "false"), (#""@split(a.b.c.,.)""#, #"["a","b","c",""]"#),
        (#""@range(@int(1),@int(3))""#, "[1,2,3]"), (#""@contains(abcd,bc)""#, "true"), (#""@size(abc)""#, "3"),
        (#""@empty()""#, "true"), (#""@slice(abcdef,@int(1),@int(3))""#, #""bcd""#),
        (#""@select(@split(a.b.c,.),@int(-1))""#, #""c""#), (#""@defined(nothing)""#, "false"),
        (#""@hash(@int(52135))""#, "\(PreprocessorTests.mixed(52135))"), (#""a\\@b""#, #""a@b""#),
        (#""\\@a""#, #""@a""#),
    ])
    func builtInCallsOfTexts(_ call: String, _ expected: String) throws {
        #expect(try Self.expanded(call) == expected)
    }

    /// T. Wang's mix, written another way.
    static func mixed(_ number: UInt64) -> Int64 {
        var key = (number << 21) &+ ~number
        key = key ^ (key >> 24)
        key = key &* 265
        key = key ^ (key >> 14)
        key = key &* 21
        key = key ^ (key >> 28)
        key = key &* 0x8000_0001
        return Int64(bitPattern: key)
    }

    @Test(arguments: [
        (#"{"type": "keys", "dictionary": {"a": 1, "b": 2}}"#, #"["a","b"]"#),
        (#"{"type": "values", "dictionary": {"a": 1, "b": 2}}"#, "[1,2]"),
        (#"{"type": "merge", "params": [[1], [2, 3]]}"#, "[1,2,3]"),
        (#"{"type": "merge", "params": [{"a": 1, "b": 1}, {"b": 2}]}"#, #"{"a":1,"b":2}"#),
        (#"{"type": "merge", "params": ["a", "b"]}"#, #""ab""#),
        (#"{"type": "select", "dictionary": {"a": 1}, "key": "b", "default": 7}"#, "7"),
        (#"{"type": "slice", "dictionary": [1, 2, 3, 4], "from": 1, "to": 2}"#, "[2,3]"),
        (#"{"type": "slice", "dictionary": {"a": 1, "b": 2, "c": 3}, "from": "b", "to": "c"}"#, #"{"b":2,"c":3}"#),
        (#"{"type": "sort", "dictionary": ["b", "a", "c"]}"#, #"["a","b","c"]"#),
        (#"{"type": "set", "dictionary": {"a": 1}, "key": "b", "value": 2}"#, #"{"a":1,"b":2}"#),
        (#"{"type": "set", "dictionary": [1, 2], "key": 0, "value": 9}"#, "[9,2]"),
        (#"{"type": "if", "condition": false, "is_true": "@fail(no)", "is_false": 2}"#, "2"),
        (#"{"type": "define", "vars": {"A": "B", "C": "%A%!"}, "result": "%C%"}"#, #""B!""#),
        (#"{"type": "transform", "dictionary": {"a": 1, "b": 2}, "keyTransform": "k%key%"}"#, #"{"ka":1,"kb":2}"#),
        (#"{"type": "transform", "dictionary": ["a", "b"], "itemTransform": "x%item%"}"#, #"["xa","xb"]"#),
        (
            #"{"type": "transform", "dictionary": {"a": 1}, "keyTransform": ["x", "y"], "itemTransform": "%item%"}"#,
            #"{"x":1,"y":1}"#
        ),
        (#"{"type": "transform", "dictionary": ["a"], "itemName": "i", "itemTransform": "%i%%i%"}"#, #"["aa"]"#),
        (
            #"{"type": "process", "initialValue": "", "dictionary": ["a", "b"], "transform": "%value%%item%"}"#,
            #""ab""#
        ),
        (
            #"{"type": "foreach", "from": {"a": 1, "b": 2, "c": 3}, "where": "@less(@int(1),%item%)", "top": 1}"#,
            #"{"b":2}"#
        ),
        (#"{"type": "foreach", "from": {"a": 1, "b": 2}, "use": ["%key%"]}"#, #"["a","b"]"#),
        (#"{"type": "foreach", "from": [], "use": ["%key%"], "noMatchResult": 5}"#, "5"),
        (#"{"type": "foreach", "from": [5, 6]}"#, "[5,6]"),
        (#"{"type": "unknown", "a": "@int(1)"}"#, #"{"type":"unknown","a":1}"#),
        (#"{"type": "weightedHash", "dictionary": {"a": 0.5}, "key": 2015}"#, #""a""#),
        (#"{"type": "weightedHash", "dictionary": {"a": 0, "b": 1, "c": 0.5}, "key": 12345}"#, #""b""#),
        (#"{"type": "shuffle", "dictionary": [1], "seed": 3}"#, "[1]"),
    ])
    func builtInCallsOfObjects(_ call: String, _ expected: String) throws {
        #expect(try Self.expanded(call) == expected)
    }

    @Test func weightsArePartsOfTheKeys() throws {
        var counts: [String: Int] = [:]
        for key in 0..<2_000 {
            let call = #"{"type": "weightedHash", "dictionary": {"a": 1, "b": 3}, "key": "\#(key)"}"#
            counts[try Self.expanded(call), default: 0] += 1
        }
        #expect(430...570 ~= counts["\"a\""] ?? 0, "\(counts)")
    }

    @Test func aShuffleHasAllElementsAndHangsOnItsSeed() throws {
        func shuffled(_ seed: Int) throws -> String {
            try Self.expanded(#"{"type": "shuffle", "dictionary": [1,2,3,4,5,6,7,8], "seed": \#(seed)}"#)
        }
        #expect(try shuffled(1) == shuffled(1))
        #expect(try shuffled(1) != shuffled(2))
        #expect(try shuffled(1).split { "[],".contains($0) }.compactMap { Int($0) }.sorted() == Array(1...8))
    }

    @Test func macrosHaveParametersAndDefaults() throws {
        let macros = """
            {
              "pool": {"type": "macroDef", "params": ["name", {"name": "port", "default": "11211"}],
                       "result": {"servers": ["%name%:%port%"]}},
              "twice": {"type": "macroDef", "params": ["x"], "result": ["%x%", "%x%"]},
              "limit": {"type": "constDef", "result": "@add(@int(1),@int(2))"},
              "optional": {"type": "macroDef", "params": [{"name": "x", "optional": true}], "result": "@defined(x)"}
            }
            """
        #expect(try Self.expanded(#""@pool(host)""#, macros: macros) == #"{"servers":["host:11211"]}"#)
        #expect(try Self.expanded(#""@pool(host, 5)""#, macros: macros) == #"{"servers":["host:5"]}"#)
        #expect(
            try Self.expanded(#"{"type": "pool", "name": "h", "port": "7"}"#, macros: macros) == #"{"servers":["h:7"]}"#
        )
        #expect(try Self.expanded(#""@twice(@twice(a))""#, macros: macros) == #"[["a","a"],["a","a"]]"#)
        #expect(try Self.expanded(#""%limit%""#, macros: macros) == "3")
        #expect(try Self.expanded(#"{"%k%": 1, "vars": {"k": "key"}}"#, macros: macros) == #"{"key":1}"#)
    }

    @Test func macrosMayBeListsAndMadeByMacros() throws {
        let macros = """
            [
              {"a": {"type": "constDef", "result": 1}},
              [{"b": {"type": "macroDef", "result": "%a%"}}]
            ]
            """
        #expect(try Self.expanded(#"["%a%", "@b"]"#, macros: macros) == "[1,1]")
    }

    @Test func importsAreFilesWithMacrosOfTheImporter() throws {
        let files = ["x.json": "// a file\n[\"%a%\", \"@import(y.json)\"]", "y.json": "{\"n\": 5}"]
        let macros = #"{"a": {"type": "constDef", "result": "A"}}"#
        #expect(try Self.expanded(#""@import(x.json)""#, macros: macros, files: files) == #"["A",{"n":5}]"#)
        #expect(try Self.expanded(#"{"type": "import", "path": "no", "default": [1]}"#) == "[1]")
    }

    @Test func constantsOfTheRouterAreThere() throws {
        #expect(
            try Self.expanded(#""%default-region%/x""#, constants: ["default-region": .text("east")]) == #""east/x""#)
    }

    @Test(arguments: [
        (#""@nothing(a)""#, "there is no such macro"),
        (#""%nothing%""#, "'nothing' is no parameter, variable or constant"),
        (#""a%b""#, "odd number of percent signs"), (#""@int(x)""#, "@int: 'x' cannot be made one"),
        (#""@add(@int(1))""#, "1 arguments, where 2 are expected"), (#""@int(5""#, "no closing parenthesis"),
        (#""@div(@int(1),@int(0))""#, "a division by 0"),
        (#""@mul(@int(4611686018427387904),@int(4))""#, "more than 64 bits"),
        (#""@fail(out of order)""#, "@fail: out of order"),
        (#""@select(@split(a,.),@int(3))""#, "no 3, and no default"),
        (#""@range(@int(0),@int(99999999))""#, "more than a million"),
        (#""@range(@int(-9223372036854775808),@int(9223372036854775807))""#, "more than a million"),
        (#"{"type": "select", "dictionary": {}}"#, "the parameter key is missing"),
        (#"{"vars": {"a": "%b%", "b": "%a%"}}"#, "is made from itself"),
        (#""@import(x)""#, "import of x: no such file"),
        (#""@less(@int(1),a)""#, "a whole number and a text cannot be compared"),
    ])
    func problemsAreNamedWithTheirPlace(_ value: String, _ expected: String) {
        let problem = Self.problem(value)
        #expect(problem.contains(expected), "\(problem)")
    }

    /// Each file names the one before twice: the last would be 2^40 values.
    @Test func importsThatDoubleAreRefused() {
        var files = ["x0": "[1,2]"]
        for index in 1...40 { files["x\(index)"] = "[\"@import(x\(index - 1))\",\"@import(x\(index - 1))\"]" }
        #expect(Self.problem(#""@import(x40)""#, files: files).contains("macros make more than"))
    }

    @Test func macrosWithoutEndAreRefused() {
        let own = #"{"a": {"type": "macroDef", "result": "@a"}}"#
        #expect(Self.problem(#""@a""#, macros: own).contains("nested more than 250 deep"))
        let constant = #"{"a": {"type": "constDef", "result": "%a%"}}"#
        #expect(Self.problem(#""%a%""#, macros: constant).contains("the constant a is made from itself"))
        #expect(Self.problem(#""@import(x)""#, files: ["x": "\"@import(x)\""]).contains("the file imports itself"))
        let both = ["x": "\"@import(y)\"", "y": "[\"@import(x)\"]"]
        #expect(Self.problem(#""@import(x)""#, files: both).contains("the file imports itself"))
    }

    /// Each level doubles: forty levels would be a terabyte.
    @Test func expansionsThatExplodeAreRefused() {
        var definitions = [#""m0": {"type": "constDef", "result": ["x", "x"]}"#]
        for level in 1...40 {
            definitions.append(
                "\"m\(level)\": {\"type\": \"constDef\", \"result\": [\"%m\(level - 1)%\", \"%m\(level - 1)%\"]}")
        }
        let problem = Self.problem(#""%m40%""#, macros: "{\(definitions.joined(separator: ","))}")
        #expect(problem.contains("macros make more than"), "\(problem)")
        var texts = [#""t0": {"type": "constDef", "result": "xxxxxxxxxxxxxxxx"}"#]
        for level in 1...40 {
            texts.append("\"t\(level)\": {\"type\": \"constDef\", \"result\": \"%t\(level - 1)%%t\(level - 1)%\"}")
        }
        let long = Self.problem(#""%t40%""#, macros: "{\(texts.joined(separator: ","))}")
        #expect(long.contains("a text of more than"), "\(long)")
    }

    @Test(arguments: [
        ("", "the end, where a value"), ("{", "expected a key"), ("[1", "expected a comma or ]"),
        ("[1,,2]", "expected a value"),
        ("{\"a\" 1}", "expected a colon"), ("\"a", "without an end"), ("[01x]", "is no value"),
        ("1 2", "more behind the end"),
        ("/* x", "a comment without an end"), ("\"\\q\"", "unknown escape"), ("\"\\ud800\"", "surrogate"),
        ("\"\\u+12F\"", "four hexadecimal digits"),
        ("[\n\n  nope]", "test:3"),
    ])
    func jsonThatIsNoneIsRefused(_ text: String, _ expected: String) {
        do {
            _ = try JSONParser.parse(Array(text.utf8), file: "test")
            Issue.record("was read")
        } catch {
            #expect(error.line.contains(expected), "\(error.line)")
        }
    }

    @Test func jsonMayHaveCommentsAndLastCommas() throws {
        let text = "// one\n{\"a\": [1, 2.5, -3e2, /* two */ true, null,], \"b\": \"x//y\\u00e9\\ud83d\\ude00\",}"
        let node = try JSONParser.parse(Array(text.utf8), file: "test")
        #expect(Self.json(node) == "{\"a\":[1,2.5,-300.0,true,null],\"b\":\"x//yé😀\"}")
    }

    @Test func jsonOfAnyDepthEndsInAnError() {
        let deep = String(repeating: "[", count: 200_000)
        #expect(throws: RouteProblem.self) { try JSONParser.parse(Array(deep.utf8), file: "test") }
        let objects = String(repeating: "{\"a\":", count: 200_000)
        #expect(throws: RouteProblem.self) { try JSONParser.parse(Array(objects.utf8), file: "test") }
    }
}

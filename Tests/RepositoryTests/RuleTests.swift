// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

/// Every rule sees a bad sample and passes a good one; a rule that cannot fail is a defect.
struct RuleTests {
    private func file(_ text: String, _ path: String = "Sources/NodeServer/Sample.swift") -> SourceFile {
        SourceFile(path: path, text: text)
    }

    private let header = "// Martlet\n// SPDX-License-Identifier: Apache-2.0\n"

    @Test func scannerPartsCodeCommentsAndLiterals() {
        let sample = file(
            #"""
            let a = "x // no \(f("y!")) comment" // yes "no"
            let b = """
                unsafe { !
                """ /* one /* two */ three
            four */ let c = #"\"#
            """#)
        #expect(sample.code[0] == #"let a = "" "#)
        #expect(sample.comments[0] == #"// yes "no""#)
        #expect(sample.code[1] == #"let b = """# && sample.code[2] == "")
        #expect(sample.comments[3].contains("three") && sample.comments[4].contains("four"))
        #expect(sample.code[4] == #" let c = """#)
    }

    @Test func seesLongFiles() {
        func lines(_ count: Int) -> String { String(repeating: "\n", count: count) }
        #expect(TextRules.length(file(lines(600))).isEmpty)
        #expect(TextRules.length(file(lines(601))).count == 1)
        #expect(TextRules.length(file(lines(900), "Tests/ATests/A.swift")).isEmpty)
        #expect(TextRules.length(file(lines(901), "Tests/ATests/A.swift")).count == 1)
        #expect(TextRules.length(file(lines(101), "Sources/a/main.swift")).count == 1)
    }

    @Test func seesLongLines() {
        let line = String(repeating: "ä", count: 120)
        #expect(TextRules.lineWidth(file(line)).isEmpty)
        #expect(TextRules.lineWidth(file("\n" + line + "x")).map(\.line) == [2])
    }

    @Test func seesMissingHeaders() {
        #expect(TextRules.header(file(header + "let a = 1\n")).isEmpty)
        #expect(TextRules.header(file("// Martlet\nlet a = 1\n")).count == 1)
        #expect(TextRules.header(file("")).count == 1)
    }

    @Test func seesEmptyNames() {
        #expect(TextRules.name(file("", "Sources/A/Table.swift")).isEmpty)
        #expect(TextRules.name(file("", "Sources/A/StringUtils.swift")).count == 1)
        #expect(TextRules.name(file("", "Sources/A/Table+Helpers.swift")).count == 1)
    }

    @Test(arguments: ["TODO", "FIXME", "XXX", "HACK"])
    func seesUnfinishedWork(_ mark: String) {
        #expect(TextRules.unfinished(file("let a = 1 // \(mark): more")).count == 1)
        #expect(TextRules.unfinished(file("let \(mark) = \"\(mark)\" // \(mark)S")).isEmpty)
    }

    @Test func seesPathsOfOneMachine() {
        for path in ["/tmp/" + "w/x", "/" + "work/main", "/" + "home/me/x", "/" + "Users/me/x"] {
            #expect(TextRules.machinePaths("a.md", "see\n(\(path))").map(\.line) == [2], "\(path)")
        }
        #expect(TextRules.machinePaths("a.md", "https://host.example/" + "home/x and ./" + "work/x").isEmpty)
    }

    @Test func seesLongFunctions() {
        func function(_ body: Int, _ head: String) -> String {
            head + " {\n" + String(repeating: "    a({ b })\n", count: body) + "}\n"
        }
        for head in [
            "func a(_ b: [Int] = []) -> Int", "    package init()", "deinit",
            "@x(1) static func\u{20}a<T>()\n    where T: B",
        ] {
            #expect(TextRules.functionLength(file(function(66, head))).isEmpty, "\(head)")
            #expect(TextRules.functionLength(file(function(69, head))).count == 1, "\(head)")
        }
        let requirements = "protocol A {\n    func a()\n    init(b: Int)\n}\n" + function(80, "struct B")
        #expect(TextRules.functionLength(file(requirements)).isEmpty)
        let calls = "let a = B.init(c)\nself.init(a: {\n" + String(repeating: "\n", count: 80) + "})\n"
        #expect(TextRules.functionLength(file(calls)).isEmpty)
    }

    @Test func seesFoundation() {
        #expect(CodeRules.noFoundation(file("import Memory\n// import Foundation\n")).isEmpty)
        #expect(CodeRules.noFoundation(file("internal import Foundation\n")).count == 1)
        #expect(CodeRules.noFoundation(file("import struct Foundation.Data\n")).count == 1)
    }

    @Test func seesUnsafeCodeInOtherModules() {
        let text = "let a = unsafe b.pointee // unsafe\n"
        #expect(CodeRules.unsafePlaces(file(text)).map(\.line) == [1])
        #expect(CodeRules.unsafePlaces(file("struct A: @unchecked Sendable {}\n")).count == 1)
        #expect(CodeRules.unsafePlaces(file(text, "Sources/Memory/A.swift")).isEmpty)
        #expect(CodeRules.unsafePlaces(file(text, "Sources/Settings/YAMLParser.swift")).isEmpty)
        #expect(CodeRules.unsafePlaces(file("let a = \"unsafe\" // unsafe\n")).isEmpty)
    }

    @Test func seesUnsafeCodeWithoutAnArgument() {
        let path = "Sources/Memory/A.swift"
        let body = "func a() {\n    let b = 1\n    unsafe c(b)\n}\n"
        #expect(CodeRules.safetyComments(file(body, path)).map(\.line) == [3])
        #expect(CodeRules.safetyComments(file("/// SAFETY: c lives.\n" + body, path)).isEmpty)
        #expect(CodeRules.safetyComments(file("// SAFETY (type): c lives.\nstruct A {\n\(body)}\n", path)).isEmpty)
        #expect(CodeRules.safetyComments(file("func a() {\n    // SAFETY: ok.\n    unsafe b()\n}\n", path)).isEmpty)
        let far = "// SAFETY: another.\nfunc b() {}\n" + String(repeating: "\n", count: 20) + body
        #expect(CodeRules.safetyComments(file(far, path)).count == 1)
    }

    @Test(arguments: [
        "let a = b!", "b![0]", "try! c()", "d as! E", "var f: G!", "h()!.i", "[j][0]! + 1", "fatalError()", "k?.l!()",
    ])
    func seesForce(_ line: String) { #expect(CodeRules.force(file(line)).count == 1) }

    @Test(arguments: ["a != b", "if !c {", "d(!e)", "f = !g", "#if !H", "\"!\"", "// i!", "j!=k", "[!l, !m]"])
    func passesNegation(_ line: String) { #expect(CodeRules.force(file(line)) == []) }

    @Test func seesUndocumentedDeclarations() {
        for line in [
            "package let a = 1", "    package static func a() {}", "@inlinable package init(a: Int) {}",
            "public struct A {}",
            "package final class A {}", "package private(set) var a = 1",
        ] {
            #expect(CodeRules.documentation(file(line)).count == 1, "\(line)")
            #expect(CodeRules.documentation(file("/// What it is.\n" + line)).isEmpty, "\(line)")
            #expect(CodeRules.documentation(file("/// What it is.\n@inlinable @inline(__always)\n" + line)).isEmpty)
            #expect(CodeRules.documentation(file("// What it is.\n" + line)).count == 1, "\(line)")
        }
        for line in [
            "let a = 1", "package import Memory", "package extension A {", "package var description: String { a }",
        ] {
            #expect(CodeRules.documentation(file(line)).isEmpty, "\(line)")
        }
        #expect(CodeRules.documentation(file("package init() {}\npackage init(rawValue: Int) {}\n")).isEmpty)
        let constants = "/// Codes. Source: RFC 1.\nenum A {\n    package static let b = 1\n}\n"
        #expect(CodeRules.documentation(file(constants)).isEmpty)
        #expect(CodeRules.documentation(file("/// Codes.\nenum A {\n    package static let b = 1\n}\n")).count == 1)
        let overloads = "/// Says it.\npackage func a(_ b: Int) {}\n\npackage func a(_ b: String) {}\n"
        #expect(CodeRules.documentation(file(overloads)).isEmpty)
    }

    @Test func seesImportsUpwardsAndSideways() {
        func findings(_ module: String, _ line: String) -> Int {
            ModuleRules.levels(file(line, "Sources/\(module)/A.swift")).count
        }
        #expect(findings("CacheEngine", "internal import Memory\npackage import Platform\nimport Synchronization") == 0)
        #expect(findings("CacheEngine", "internal import Reactor") == 1)
        #expect(findings("CacheEngine", "public import MemcacheProtocol") == 1)
        #expect(findings("Memory", "internal import Platform") == 1)
        #expect(findings("NodeServer", "internal import CYAML") == 1)
        #expect(findings("Settings", "internal import CYAML") == 0)
        #expect(findings("NodeServer", "internal import Glibc") == 1)
        #expect(findings("NodeServer", "@preconcurrency import Dispatch") == 1)
        #expect(findings("Surprise", "") == 1)
    }

    @Test func seesTargetsThatAreNotThere() {
        let makefile = "run: build ## x\nbuild:\n\tmake hidden\n"
        let text = "`make run` and `make rn ARGS=1`\nmake build\nmake nothing # x\nthey make do\n`make`"
        #expect(DocumentRules.makeTargets("a.md", text, makefile: makefile).map(\.line) == [1, 3])
    }

    @Test func seesChangelogsWithoutSections() {
        #expect(DocumentRules.changelog("# Changelog\n\n## Unreleased\n").isEmpty)
        #expect(DocumentRules.changelog("# Changelog\n\n## [1.2.0] - 2026-01-01\n").isEmpty)
        #expect(DocumentRules.changelog("# Changelog\n\n### Added\n## About\n").count == 1)
    }

    @Test func seesDecisionsWithWrongNames() {
        #expect(DocumentRules.decisions(["0001-one.md", "0002-two-words.md"]).isEmpty)
        for name in ["1-one.md", "0001_one.md", "0001-One.md", "0001-.md", "0001-one.txt", "notes.md"] {
            #expect(DocumentRules.decisions([name]).count == 1, "\(name)")
        }
        #expect(DocumentRules.decisions(["0001-one.md", "0001-two.md"]).count == 1)
    }
}

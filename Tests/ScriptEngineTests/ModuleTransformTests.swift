// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ScriptEngine

@Suite struct ModuleTransformTests {
    private func script(_ source: String) throws -> String {
        String(decoding: try ModuleTransform(Array(source.utf8)).script, as: UTF8.self)
    }

    private func body(_ source: String) throws -> String {
        let text = try script(source)
        return String(text.dropFirst("(function(__require,__export,__meta){'use strict';".count).dropLast(3))
    }

    @Test func importsAreBoundAtTheBeginAndLinesStay() throws {
        let text = try body("import a, { b as c,\n  d } from './x.js';\nimport * as e from 'y'\nf();")
        #expect(
            text == "__export({});const {default:a,\"b\":c,\"d\":d}=__require('./x.js',[\"default\",\"b\",\"d\"]);"
                + "const e=__require('y');;\n\n;\nf();")
        #expect(try body("import 'z'; g()") == "__export({});__require('z');; g()")
    }

    @Test func exportsAreGetters() throws {
        #expect(
            try body("export const a = 1, b = [2, 3];")
                == "__export({\"a\":()=>a,\"b\":()=>b}); const a = 1, b = [2, 3];")
        #expect(try body("export function f() {}\nexport class C {}").hasPrefix("__export({\"f\":()=>f,\"C\":()=>C});"))
        #expect(try body("export default class D {}") == "__export({\"default\":()=>D});class D {}")
        #expect(
            try body("export default function () {}\n(1)")
                == "__export({\"default\":()=>__default});const __default=function () {};\n(1)")
        #expect(try body("export { a as b } from 'm';").contains("\"b\":()=>__require('m')[\"a\"]"))
        #expect(try body("export * from 'm';").contains("__export.all(__require('m'));"))
        #expect(
            try body("export const { a, b: { c }, ...d } = e, [f, , g = 1] = h")
                .hasPrefix("__export({\"a\":()=>a,\"c\":()=>c,\"d\":()=>d,\"f\":()=>f,\"g\":()=>g});"))
        #expect(try body("export let a = 1\nlet b = 2, c = 3").hasPrefix("__export({\"a\":()=>a});"))
    }

    @Test func leavesStringsTemplatesCommentsAndExpressionsAlone() throws {
        for text in [
            "const a = 'import x from \"y\"';", "// export default 1", "/* import 'x' */ f();",
            "const b = `export ${`import '${c}'`} }`;", "if (d) /import 'x'/.test(e);", "const f = g / 2 / 'h'.length;",
            "k.import = l.export;", "const m = { import: 1, export: 2 };", "n = o++ / 2; p = '/';",
            "q = [/[/]/, /\\//];",
        ] {
            #expect(try body(text) == "__export({});" + text, "\(text)")
        }
        #expect(try body("a(import('b'), import.meta.url)") == "__export({});a(__require.later('b'), __meta.url)")
    }

    @Test func namesTheLineOfWhatIsWrong() {
        func line(_ source: String) -> Int? {
            do {
                _ = try ModuleTransform(Array(source.utf8))
                return nil
            } catch {
                return error.line
            }
        }
        #expect(line("\n'abc\n") == 2)
        #expect(line("f(\n]") == 2)
        #expect(line("\n\nimport a from b;") == 3)
        #expect(line("export a;") == 1)
        #expect(line("`abc") == 1)
        #expect(line("a = 1;") == nil)
    }

    @Test func asksForTheModulesInTheirOrder() throws {
        let transform = try ModuleTransform(Array("import { sleep } from 'k6';\nexport * as x from './y.js'".utf8))
        #expect(transform.requests.map(\.name) == ["k6", "./y.js"])
        #expect(transform.requests.map(\.line) == [1, 2])
        #expect(transform.requests[0].bindings == ["sleep"])
    }
}

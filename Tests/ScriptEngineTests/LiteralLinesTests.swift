// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ScriptEngine

@Suite struct LiteralLinesTests {
    private static let script = """
        import { check } from 'k6';
        const limit = 5; /* options = {
            vus: 1 */
        export const options = {
            vus: 10, duration: `${limit}s`,
            'scenarios': {
                one: {
                    executor: 'constant-vus', // vus: 7
                    ...{ tags: { a: 'b' } },
                    env: { A: '}' },
                },
            },
            thresholds: {
                "checks{kind:a}": ['rate>0.9',
                    { threshold: 'rate>0.5', abortOnFail: true }],
            },
            short, method() { return { vus: 1 }; },
            tags: { after: 'all' },
        };
        export default function () { const options = { seed: 1 }; }
        """

    private let lines = LiteralLines(Array(script.utf8), of: "options")

    @Test(arguments: [
        ([], 4), (["vus"], 5), (["duration"], 5), (["scenarios"], 6), (["scenarios", "one"], 7),
        (["scenarios", "one", "executor"], 8), (["scenarios", "one", "env", "A"], 10), (["thresholds"], 13),
        (["thresholds", "checks{kind:a}"], 14), (["thresholds", "checks{kind:a}", "0"], 14),
        (["thresholds", "checks{kind:a}", "1"], 15), (["thresholds", "checks{kind:a}", "1", "abortOnFail"], 15),
        (["tags", "after"], 18),
    ])
    func keysHaveTheirLines(_ path: [String], _ line: Int) { #expect(lines.line(path) == line) }

    @Test func whatIsNotWrittenThereHasTheLineOfWhatIs() {
        #expect(lines.line(["scenarios", "one", "tags", "a"]) == 7)
        #expect(lines.line(["seed"]) == 4)
    }

    @Test func aListMayExportIt() {
        let script = "const options = {\n  vus: 1 };\nconst other = 2;\nexport { other as more, options };"
        #expect(LiteralLines(Array(script.utf8), of: "options").line(["vus"]) == 2)
    }

    @Test(arguments: [
        "", "const options = { vus: 1 };", "const options = {}; let a; export { a as options };",
        "export { options } from './o.js';", "options = { vus: 1 };", "const a = {", "export let options;",
    ])
    func whereNothingIsDeclaredThereAreNoLines(_ script: String) {
        let lines = LiteralLines(Array(script.utf8), of: "options")
        #expect(lines.isEmpty && lines.line(["vus"]) == nil)
    }

    @Test(arguments: ["const options = make();", "export let options = [", "var options = { vus: { a: ["])
    func anythingBehindItDoesNoHarm(_ script: String) {
        _ = LiteralLines(Array(script.utf8), of: "options").line(["vus", "a", "0"])
    }
}

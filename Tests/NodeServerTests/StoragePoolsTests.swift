// Martlet
// SPDX-License-Identifier: Apache-2.0

import Hosting
import Storage
import Testing

@testable import NodeServer

/// Pools as the configuration says them, and the one that nobody says anything of.
@Suite struct StoragePoolsTests {
    private func storage(_ settings: String, _ arguments: [String] = []) throws -> StorageSettings {
        try evaluate(settings, arguments).get().storage
    }

    private func evaluate(_ settings: String, _ arguments: [String] = []) -> Result<NodeConfiguration, StartRefusal> {
        let text = "storage: {backend: memory}\n" + settings
        let line = NodeCommandLine(
            program: "memcached", arguments: ["--config", "node.yaml"] + arguments, environment: [:]
        ) { _ in .success(Array(text.utf8)) }
        do throws(StartRefusal) { return .success(try line.configuration()) } catch { return .failure(error) }
    }

    @Test func keysOfNoPoolHaveTheLimitThatIsDocumented() throws {
        let pools = StoragePools(try storage("pools: [{prefix: \"a:\"}]\n").pools)
        let (named, other) = (Array("a:1".utf8), Array("b:1".utf8))
        #expect(pools.settings(of: named.span).policy.valueLimitBytes == 1 << 30)
        #expect(pools.settings(of: other.span).policy.valueLimitBytes == 1 << 30)
        #expect(pools.settings(of: other.span).policy == pools.settings(of: named.span).policy, "told nothing, both")
    }

    @Test(arguments: ["cacheTTL", "staleIfError", "negativeTTL"])
    func fractionsOfSecondsAreRefusedAndNotRounded(_ name: String) throws {
        let others = name == "staleIfError" ? "cacheTTL: 1s, " : ""
        for (written, spelled) in [("900ms", "900ms"), ("1500ms", "1500ms"), ("1ms", "1ms")] {
            guard case .failure(let refusal) = evaluate("pools: [{prefix: a, \(others)\(name): \(written)}]\n") else {
                Issue.record("\(name): \(written) was accepted")
                continue
            }
            #expect(
                refusal.errors.contains("\(name): \(spelled) is not valid; expected whole seconds"),
                "\(refusal.errors)")
        }
        #expect(throws: Never.self) { try storage("pools: [{prefix: a, \(others)\(name): 2s}]\n") }
        #expect(throws: Never.self) { try storage("pools: [{prefix: a, \(others)\(name): 3000ms}]\n") }
    }

    @Test func tombstonesAreWholeSecondsToo() throws {
        guard case .failure(let refusal) = evaluate("", ["--storage-tombstones", "1500ms"]) else {
            Issue.record("1500ms was accepted")
            return
        }
        #expect(refusal.errors.contains("storage.tombstones: 1500ms is not valid; expected whole seconds"))
        #expect(try storage("", ["--storage-tombstones", "2000ms"]).tombstoneSeconds == 2)
    }
}

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

    // MARK: Past the stream's bound

    private static let regions =
        "region: west\nregions: [{name: east, role: home, stream: \"127.0.0.1:11212\"}, {name: west}]\n"

    private func evaluateCache(_ settings: String) -> Result<NodeConfiguration, StartRefusal> {
        let line = NodeCommandLine(
            program: "memcached", arguments: ["--config", "node.yaml"], environment: [:]
        ) { _ in .success(Array(settings.utf8)) }
        do throws(StartRefusal) { return .success(try line.configuration()) } catch { return .failure(error) }
    }

    @Test func theLongestPrefixSaysWhatBecomesOfReadsPastTheBound() throws {
        let settings = try evaluateCache(
            Self.regions + "pools: [{prefix: \"a:\", lagPolicy: serveStale}, {prefix: \"a:b:\", lagPolicy: fail}, "
                + "{prefix: \"c:\", lagPolicy: revalidate}]\n"
        ).get()
        let pools = StoragePools(settings.storage.pools)
        let wanted: [(key: String, policy: LagPolicy)] = [
            ("a:1", .serveStale), ("a:b:1", .fail), ("c:1", .revalidate), ("d", .revalidate),
        ]
        for (key, policy) in wanted { #expect(pools.lagPolicy(of: Array(key.utf8).span) == policy, "\(key)") }
    }

    @Test(arguments: [
        (
            regions + "pools: [{prefix: a, lagPolicy: serve_stale}]\n",
            "lagPolicy: \"serve_stale\" is not valid; expected one of revalidate, serveStale, fail"
        ),
        ("pools: [{prefix: a, lagPolicy: fail}]\n", "lagPolicy: there are no `regions`"),
        (
            "region: east\nregions: [{name: east, role: home}, {name: west}]\nstorage: {backend: rocksdb}\n"
                + "pools: [{prefix: a, storage: false, lagPolicy: fail}]\n", "lagPolicy: the pool has storage: false"
        ),
        (
            regions + "members: [\"127.0.0.1:1\"]\nregister: {address: \"127.0.0.1:1\"}\n"
                + "warmUp: {hash: multiProbe}\npools: [{prefix: a, lagPolicy: serveStale}]\n",
            "lagPolicy: serveStale; not with warmUp.hash"
        ),
        (
            regions + "udp: {port: 11211}\npools: [{prefix: a, lagPolicy: fail}]\n",
            "UDP must be off (-U 0) with a pool's lagPolicy fail"
        ),
    ])
    func policiesThatCannotBeAreRefused(_ settings: String, _ said: String) {
        guard case .failure(let refusal) = evaluateCache(settings) else {
            Issue.record("was accepted: \(settings)")
            return
        }
        #expect(refusal.errors.contains(said), "\(refusal.errors)")
    }
}

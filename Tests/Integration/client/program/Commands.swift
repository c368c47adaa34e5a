// Martlet
// SPDX-License-Identifier: Apache-2.0

import MartletClient
import Platform

/// Prints what is wrong, and ends.
func expect(_ isTrue: Bool, _ what: String) {
    guard !isTrue else { return }
    print("not so: \(what)")
    exitProcess(1)
}

/// Every operation once, with what it must give.
func runCommands(_ configuration: ClientConfiguration) async throws {
    let isMeta: Bool = if case .meta = configuration.wireProtocol { true } else { false }
    let cache = try await MartletClient(configuration)
    let name = "probe:\(Clock.realtimeNanoseconds())"
    expect(try await cache.get(name) == nil, "nothing is there at first")
    try await cache.set(name, "one", flags: 77)
    let one = try await cache.get(name)
    expect(one?.string == "one" && one?.flags == 77 && one?.cas != 0, "set and get: \(String(describing: one))")
    expect(try await cache.add(name, [1]) == false, "add where there is one")
    expect(try await cache.replace(name, Array("two".utf8)), "replace where there is one")
    expect(try await cache.replace(name + "x", [1]) == false, "replace where there is none")
    expect(try await cache.append(name, Array("!".utf8)), "append")
    expect(try await cache.prepend(name, Array(">".utf8)), "prepend")
    expect(try await cache.append(name + "x", [1]) == false, "append where there is none")
    let two = try await cache.get(name)
    expect(two?.string == ">two!", "append and prepend: \(String(describing: two))")
    expect(try await cache.compareAndSwap(name, [3], cas: one?.cas ?? 0) == .changed, "an old version")
    expect(try await cache.compareAndSwap(name, [3], cas: two?.cas ?? 0) == .stored, "this version")
    expect(try await cache.compareAndSwap(name + "x", [3], cas: 5) == .missing, "no version")
    expect(try await cache.touch(name, ttl: .seconds(100)), "touch")
    expect(try await cache.touch(name + "x", ttl: nil) == false, "touch where there is none")
    expect(try await cache.getAndTouch(name, ttl: .seconds(50))?.bytes == [3], "get and touch")
    expect(try await cache.exists(name), "exists")
    expect(try await cache.exists(name + "x") == false, "exists not")
    expect(try await cache.increment(name + "n") == nil, "no counter")
    try await cache.set(name + "n", "9")
    expect(try await cache.increment(name + "n", by: 3) == 12, "increment")
    expect(try await cache.decrement(name + "n", by: 100) == 0, "decrement stops at 0")
    if isMeta {
        expect(try await cache.increment(name + "m", initial: 5, ttl: .seconds(60)) == 5, "a counter that begins")
        expect(try await cache.increment(name + "m", initial: 5) == 6, "and goes on")
        try await cache.set(name + "s", "old", ttl: .seconds(100))
        expect(try await cache.invalidate(name + "s", ttl: .seconds(30)), "invalidate")
        expect(try await cache.get(name + "s")?.isStale == true, "a stale value says so")
        expect(try await cache.invalidate(name + "x") == false, "invalidate where there is none")
    }
    let trace = TraceContext("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    try await cache.set(name + "t", "traced", options: CallOptions(trace: trace))
    expect(try await cache.get(name + "t", options: CallOptions(trace: trace))?.string == "traced", "a traced call")
    let large = [UInt8]((0..<900_000).map { UInt8(truncatingIfNeeded: $0) })
    try await cache.set(name + "l", large)
    expect(try await cache.get(name + "l")?.bytes == large, "a large value")
    try await cache.set(name + "e", [UInt8]())
    expect(try await cache.get(name + "e")?.bytes == [], "an empty value")
    let keys = (0..<200).map { "\(name):\($0)" }
    for key in keys.prefix(100) { try await cache.set(key, key) }
    let many = await cache.get(keys)
    expect(many.failures.isEmpty && many.values.count == 100, "many keys: \(many.values.count), \(many.failures)")
    expect(many.values.allSatisfy { $0.key == $0.value.string }, "to each key its value")
    expect(try await cache.delete(name), "delete")
    expect(try await cache.delete(name) == false, "delete twice")
    try await cache.set(name, "gone", ttl: .zero)
    expect(try await cache.get(name) == nil, "no time to live")
    await expectErrors(cache, name)
    print("ok \(cache.servers.count) servers, \(cache.metrics.calls) calls")
    await cache.shutDown()
    do throws(CacheError) {
        _ = try await cache.get(name)
        expect(false, "a call after the end")
    } catch { expect(error == .shutDown, "the end: \(error)") }
}

private func expectErrors(_ cache: MartletClient, _ name: String) async {
    do throws(CacheError) {
        _ = try await cache.get("a b")
        expect(false, "a key with a space")
    } catch { expect(error == .invalidKey("a b") && !error.isRetryable, "\(error)") }
    do throws(CacheError) {
        try await cache.set(name, "abc")
        _ = try await cache.increment(name)
        expect(false, "a counter that is no number")
    } catch {
        guard case .rejected = error else { return expect(false, "\(error)") }
        expect(!error.isRetryable, "\(error)")
    }
}

/// Which server each of some keys belongs to, as they are now and after a while.
func showOwners(_ configuration: ClientConfiguration) async throws {
    let cache = try await MartletClient(configuration)
    for round in 0..<number("rounds", 1) {
        if round > 0 { try await Task.sleep(for: .milliseconds(number("pause", 500))) }
        let owners = (0..<number("keys", 10)).map { "\"\(cache.server(for: "key:\($0)") ?? "any")\"" }
        let names = cache.servers.map { "\"\($0)\"" }.joined(separator: ", ")
        print("{\"servers\": [\(names)], \"owners\": [\(owners.joined(separator: ", "))]}")
    }
    await cache.shutDown()
}

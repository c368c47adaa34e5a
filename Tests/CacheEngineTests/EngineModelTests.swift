// Martlet
// SPDX-License-Identifier: Apache-2.0

import CacheEngine
import Memory
import Testing

/// Millions of seeded operations on the engine and on a naive map beside it: a hit always is the newest write.
struct EngineModelTests {
    struct Scenario: Sendable, CustomTestStringConvertible {
        let name: String
        let limitBytes: Int
        let keys: Int
        let valueMax: Int
        let largeShare: Int
        let operations: Int
        let evicts: Bool
        var testDescription: String { name }

        /// Sanitizers slow each step down tenfold, and look for other faults than this test does.
        var steps: Int { countsThreadAllocations ? operations : operations / 10 }
    }

    static let scenarios = [
        Scenario(
            name: "roomy", limitBytes: 64 << 20, keys: 5000, valueMax: 300, largeShare: 0, operations: 600_000,
            evicts: true),
        Scenario(
            name: "evicting", limitBytes: 2 << 20, keys: 40_000, valueMax: 300, largeShare: 0, operations: 800_000,
            evicts: true),
        Scenario(
            name: "large items", limitBytes: 8 << 20, keys: 2000, valueMax: 3000, largeShare: 20, operations: 200_000,
            evicts: true),
        Scenario(
            name: "no eviction", limitBytes: 2 << 20, keys: 40_000, valueMax: 300, largeShare: 0, operations: 300_000,
            evicts: false),
        Scenario(
            name: "tiny", limitBytes: 1 << 20, keys: 3000, valueMax: 2000, largeShare: 50, operations: 200_000,
            evicts: true),
    ]

    @Test(arguments: scenarios)
    func aHitIsAlwaysTheNewestWrite(_ scenario: Scenario) throws {
        let seed = Seed.current
        var driver = ModelDriver(scenario, seed: seed)
        for _ in 0..<scenario.steps { driver.step() }
        driver.checkAll()
        #expect(driver.mismatches == 0, "seed \(seed): \(driver.firstMismatch)")
        #expect(driver.hits > scenario.steps / 50, "seed \(seed): too few hits to mean anything")
        if scenario.evicts, scenario.limitBytes < 4 << 20, scenario.steps == scenario.operations {
            #expect(driver.engine.statistics().evictions > 0)
        }
        driver.checkAccounts()
    }
}

/// One engine, one map, one clock, and the operations that are applied to both.
struct ModelDriver {
    struct Entry {
        var value: [UInt8]
        var flags: UInt32
        var expiry: UInt32
        var version: UInt64
    }

    let engine: CacheEngine
    let scenario: EngineModelTests.Scenario
    let keys: [[UInt8]]
    var model: [Int: Entry] = [:]
    var random: SplitMix
    var now: UInt32 = 100
    var mismatches = 0
    var firstMismatch = ""
    var hits = 0

    init(_ scenario: EngineModelTests.Scenario, seed: UInt64) {
        self.scenario = scenario
        var configuration = EngineConfiguration(limitBytes: scenario.limitBytes, hashSeed: seed)
        configuration.evicts = scenario.evicts
        configuration.itemSizeMax = 1 << 30
        engine = CacheEngine(configuration)
        random = SplitMix(state: seed)
        keys = (0..<scenario.keys).map { Array("key:\($0):".utf8) + Array(repeating: 120, count: $0 % 60) }
    }

    mutating func fail(_ what: String) {
        mismatches += 1
        if firstMismatch.isEmpty { firstMismatch = what }
    }

    mutating func randomValue() -> [UInt8] {
        let isLarge = random.below(1000) < scenario.largeShare
        let length = isLarge ? random.below(scenario.limitBytes / 6) : random.below(scenario.valueMax)
        let first = UInt8(truncatingIfNeeded: random.next())
        var value = [UInt8](repeating: first, count: length)
        for index in 0..<min(length, 64) { value[index] = first &+ UInt8(truncatingIfNeeded: index) }
        return value
    }

    mutating func step() {
        let key = random.below(3) == 0 ? random.below(keys.count) : random.below(keys.count / 10 + 1)
        switch random.below(100) {
        case 0..<45: get(key)
        case 45..<70: store(key, .set)
        case 70..<73: store(key, .add)
        case 73..<76: store(key, .replace)
        case 76..<80: store(key, random.below(2) == 0 ? .append : .prepend)
        case 80..<82: store(key, random.below(2) == 0 ? .appendOrCreate : .prependOrCreate)
        case 82..<86: store(key, .compareAndSet)
        case 86..<90: delete(key)
        case 90..<94: touch(key)
        case 94..<97: arithmetic(key)
        case 97..<98: number(key)
        case 98..<99:
            now += UInt32(random.below(3))
            _ = engine.sweepExpired(shard: random.below(engine.shardCount), now: now)
        default: if random.below(2000) == 0 { flush() } else { get(key) }
        }
    }

    func hash(_ key: Int) -> UInt64 {
        let bytes = keys[key]
        return stableHash(bytes.span, seed: engine.hashSeed)
    }

    /// What the model says is there; expired entries are not.
    mutating func expected(_ key: Int) -> Entry? {
        guard let entry = model[key] else { return nil }
        if entry.expiry != 0, entry.expiry <= now {
            model[key] = nil
            return nil
        }
        return entry
    }

    mutating func observe(_ key: Int) -> Entry? {
        let bytes = keys[key]
        let now = self.now
        return engine.withShard(hash(key)) { shard -> Entry? in
            guard var item = shard.find(hash(key), bytes.span, now: now) else { return nil }
            item.noteRead(now: now)
            let value = item.bytes.slice(item.valueOffset, item.valueLength).withSpan { span in
                var bytes = [UInt8](repeating: 0, count: span.count)
                for index in span.indices { bytes[index] = span[index] }
                return bytes
            }
            return Entry(value: value, flags: item.clientFlags, expiry: item.expiry, version: item.version)
        }
    }

    /// An absent item is always legal (eviction); one that is there must be the newest write.
    @discardableResult
    mutating func get(_ key: Int) -> Bool {
        let want = expected(key)
        guard let got = observe(key) else {
            if want != nil, !scenario.evicts { fail("key \(key) is gone without eviction") }
            model[key] = nil
            return false
        }
        hits += 1
        guard let want else {
            fail("key \(key) is there but should not")
            return true
        }
        if want.value != got.value { fail("key \(key): value of \(got.value.count) bytes, not \(want.value.count)") }
        if want.flags != got.flags || want.expiry != got.expiry || want.version != got.version {
            fail("key \(key): flags, expiry or version differ")
        }
        return true
    }

    mutating func store(_ key: Int, _ mode: StoreMode) {
        // What is there is looked up first, so that an eviction before the operation is known to the model.
        get(key)
        let old = expected(key)
        let value = randomValue()
        let flags: UInt32 = random.below(2) == 0 ? 0 : UInt32(truncatingIfNeeded: random.next())
        let expiry: UInt32 = random.below(3) == 0 ? now + UInt32(random.below(20)) : 0
        let compare: UInt64
        switch (mode, random.below(3)) {
        case (.compareAndSet, 0): compare = 1
        case (.compareAndSet, _): compare = old?.version ?? 7
        default: compare = 0
        }
        let version = engine.newVersion()
        let request = StoreRequest(mode: mode, clientFlags: flags, expiry: expiry, compare: compare, version: version)
        let result = perform(key, value, request)
        let fresh = Entry(value: value, flags: flags, expiry: expiry, version: version)
        apply(key, mode, old, fresh, compare, result)
    }

    mutating func perform(_ key: Int, _ value: [UInt8], _ request: StoreRequest) -> StoreResult {
        let bytes = keys[key]
        let (hash, now) = (hash(key), self.now)
        if value.count > 64 << 10 {
            let shape = ItemShape(
                keyLength: bytes.count, valueLength: value.count, clientFlags: request.clientFlags,
                expiry: request.expiry)
            if let prepared = engine.prepare(key: bytes.span, shape, now: now) {
                prepared.value.copy(value.span, at: 0)
                return engine.commit(prepared, hash, key: bytes.span, request, now: now)
            }
        }
        for _ in 0..<3 {
            let result = engine.withShard(hash) {
                $0.store(hash, key: bytes.span, value: value.span, request, now: now)
            }
            guard result.outcome == .outOfMemory else { return result }
            guard engine.makeRoom(bytes: value.count + (1 << 16), now: now) else { return result }
        }
        return engine.withShard(hash) { $0.store(hash, key: bytes.span, value: value.span, request, now: now) }
    }

    mutating func apply(
        _ key: Int, _ mode: StoreMode, _ old: Entry?, _ fresh: Entry, _ compare: UInt64, _ result: StoreResult
    ) {
        if result.outcome == .outOfMemory {
            model[key] = nil
            let (bytes, hash, now) = (keys[key], hash(key), self.now)
            engine.withShard(hash) { shard in
                if let item = shard.find(hash, bytes.span, now: now) { shard.remove(item, hash) }
            }
            return
        }
        var want = StoreOutcome.stored
        var entry = fresh
        switch mode {
        case .set: break
        case .add: if old != nil { want = .notStored }
        case .replace: if old == nil { want = .notStored }
        case .compareAndSet:
            if let old { if old.version != compare { want = .exists } } else { want = .notFound }
        case .append, .prepend, .appendOrCreate, .prependOrCreate:
            if let old {
                let atEnd = mode == .append || mode == .appendOrCreate
                entry = old
                entry.value = atEnd ? old.value + fresh.value : fresh.value + old.value
                entry.version = fresh.version
            } else if mode == .append || mode == .prepend {
                want = .notStored
            }
        }
        var joinedNothing = result.outcome == .stored && result.valueLength != entry.value.count
        if scenario.evicts, let old, old.value.isEmpty, entry.flags != fresh.flags || entry.expiry != fresh.expiry {
            // What was made anew is as long as what was joined to nothing.
            let got = observe(key)
            joinedNothing = joinedNothing || got?.flags == fresh.flags && got?.expiry == fresh.expiry
        }
        if scenario.evicts, old != nil, result.outcome != want || joinedNothing {
            // Making room may have dropped the item that the operation looked for: then it was as if absent.
            return apply(key, mode, nil, fresh, compare, result)
        }
        if result.outcome != want { return fail("\(mode) of key \(key): \(result.outcome), not \(want)") }
        if want == .stored { model[key] = entry } else if old == nil { model[key] = nil }
    }

    mutating func delete(_ key: Int) {
        get(key)
        let (bytes, hash, now) = (keys[key], hash(key), self.now)
        let was = engine.withShard(hash) { shard -> Bool in
            guard let item = shard.find(hash, bytes.span, now: now) else { return false }
            shard.remove(item, hash)
            return true
        }
        if was != (expected(key) != nil) { fail("delete of key \(key)") }
        model[key] = nil
    }

    mutating func touch(_ key: Int) {
        get(key)
        let expiry: UInt32 = random.below(4) == 0 ? 0 : now + UInt32(random.below(30))
        let (bytes, hash, now) = (keys[key], hash(key), self.now)
        // nil: the item is gone; false: there was no room for an expiry.
        let outcome = engine.withShard(hash) { shard -> Bool? in
            guard let item = shard.find(hash, bytes.span, now: now) else { return nil }
            return shard.setExpiry(expiry, of: item, hash, key: bytes.span, now: now).map { $0.expiry == expiry }
        }
        if outcome == true { model[key]?.expiry = expiry }
        get(key)
    }

    mutating func number(_ key: Int) {
        let version = engine.newVersion()
        let text = Array(String(random.next() >> UInt64(random.below(60))).utf8)
        let request = StoreRequest(mode: .set, clientFlags: 0, expiry: 0, compare: 0, version: version)
        let result = perform(key, text, request)
        let fresh = Entry(value: text, flags: 0, expiry: 0, version: version)
        apply(key, .set, nil, fresh, 0, result)
    }

    mutating func arithmetic(_ key: Int) {
        get(key)
        let old = expected(key)
        let delta = random.next() >> UInt64(random.below(64))
        let increment = random.below(2) == 0
        let version = engine.newVersion()
        let (bytes, hash, now) = (keys[key], hash(key), self.now)
        let outcome = engine.withShard(hash) {
            $0.add(delta, increment: increment, hash, key: bytes.span, compare: 0, version: version, now: now)
        }
        let number = old.flatMap { Self.number($0.value) }
        switch outcome {
        case .value(let result, _, _):
            guard var entry = old, let before = number else { return fail("arithmetic on key \(key)") }
            let want = increment ? before &+ delta : (delta > before ? 0 : before - delta)
            if want != result { fail("arithmetic on key \(key): \(result), not \(want)") }
            var text = Array(String(want).utf8)
            while text.count < entry.value.count { text.append(32) }
            entry.value = text
            entry.version = version
            model[key] = entry
        case .notFound: if old != nil { fail("arithmetic on key \(key): not found") }
        case .notNumeric: if number != nil { fail("arithmetic on key \(key): not numeric") }
        case .versionMismatch, .outOfMemory: get(key)
        }
    }

    /// A number as memcached reads one: white space, an optional plus, digits, then the end or white space.
    static func number(_ value: [UInt8]) -> UInt64? {
        let blanks: [UInt8] = [9, 10, 11, 12, 13, 32]
        var rest = value.drop { blanks.contains($0) }
        if rest.first == UInt8(ascii: "+") { rest = rest.dropFirst() }
        let digits = rest.prefix { (48...57).contains($0) }
        let next = rest.dropFirst(digits.count).first
        guard next.map({ blanks.contains($0) }) ?? true else { return nil }
        return UInt64(String(decoding: digits, as: UTF8.self))
    }

    mutating func flush() {
        engine.removeAll()
        model = [:]
    }

    mutating func checkAll() {
        for key in 0..<keys.count { get(key) }
    }

    /// The accounts agree with what is there.
    func checkAccounts() {
        var items = 0
        var bytes = 0
        for shard in 0..<engine.shardCount {
            var bucket = 0
            while engine.forEachItem(
                shard: shard, bucket: bucket,
                { item in
                    items += 1
                    bytes += item.size
                })
            { bucket += 1 }
        }
        let statistics = engine.statistics()
        #expect(statistics.items == items)
        #expect(statistics.itemBytes == bytes)
        #expect(statistics.usedBytes <= scenario.limitBytes + engine.shardCount * (80 << 10))
        engine.removeAll()
        let after = engine.statistics()
        #expect(after.items == 0 && after.itemBytes == 0 && after.segments == 0 && after.deadBytes == 0)
    }
}

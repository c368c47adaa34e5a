// Martlet
// SPDX-License-Identifier: Apache-2.0

import MemcacheProtocol
import Platform
import Settings
import Synchronization
import Telemetry
import Testing

@testable import Hosting

/// When tests begin, in nanoseconds: some while after the machine did.
private let start: UInt64 = 5_000_000_000
private let second: UInt64 = 1_000_000_000

/// Source: Marsaglia, "Xorshift RNGs", 2003.
private struct Numbers: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state
    }
}

private func tenant(_ quotas: (inout TenantQuotas) -> Void) -> Tenant {
    var given = TenantQuotas()
    quotas(&given)
    return Tenant(
        "one", TenantPermissions(commands: .all, prefixes: [], readPrefixes: []), given, number: 1,
        reactors: 2, before: nil)
}

@Suite struct CellRateTests {
    @Test func aBurstAtOnceAndThenAsManyAsTheRate() {
        let meter = RateMeter(CellRate(rate: 100, burst: 20))
        #expect((0..<50).count { _ in meter.take(upTo: 1, at: start) == 1 } == 20)
        // A hundredth of a second is one more.
        #expect(meter.take(upTo: 1, at: start + 9_900_000) == 0)
        #expect(meter.take(upTo: 5, at: start + 10_000_000) == 1)
        #expect(meter.take(upTo: 5, at: start + 10_000_000) == 0)
    }

    @Test func restSavesNoMoreThanTheBurst() {
        let meter = RateMeter(CellRate(rate: 1000, burst: 7))
        #expect(meter.take(upTo: 100, at: start) == 7)
        #expect(meter.take(upTo: 100, at: start + 1000 * second) == 7)
        #expect(meter.take(upTo: 100, at: start + 1000 * second) == 0)
    }

    @Test(arguments: [1, 3, 1000, 333_333, 3_000_000, 700_000_001, 1_000_000_000] as [UInt64])
    func nobodyGetsMoreThanTheRate(_ rate: UInt64) {
        let meter = RateMeter(CellRate(rate: rate, burst: 1))
        var taken = 0
        let steps: UInt64 = 100_000
        let length = 4 * second + steps * 1_000_000_000 / rate / 4
        for step in 0...steps { taken += meter.take(upTo: .max, at: start + length / steps * step) }
        let most = Double(rate) * Double(length / steps * steps) / 1e9 + 1
        #expect(Double(taken) <= most * 1.001 + 1)
    }

    @Test(arguments: [1000, 333_333, 3_000_000, 1_000_000_000] as [UInt64])
    func theRateIsUsedUpWhereTheBurstAllowsIt(_ rate: UInt64) {
        let meter = RateMeter(CellRate(rate: rate, burst: rate))
        #expect(meter.take(upTo: .max, at: start) == Int(rate))
        var taken = 0
        for step in 1...10_000 as ClosedRange<UInt64> { taken += meter.take(upTo: .max, at: start + step * 1_000_000) }
        #expect(abs(Double(taken) / Double(10 * rate) - 1) < 0.001)
    }

    @Test func whatIsGivenBackCanBeTakenAgain() {
        let meter = RateMeter(CellRate(rate: 100, burst: 64))
        #expect(meter.take(upTo: 64, at: start) == 64)
        meter.giveBack(63)
        #expect(meter.take(upTo: 100, at: start) == 63)
    }

    @Test func creditIsPaidBackFirst() {
        let meter = RateMeter(CellRate(rate: 1000, burst: 1000))
        #expect(meter.available(at: start) == 1000)
        meter.charge(5000, at: start)
        #expect(meter.available(at: start) == 0)
        #expect(meter.available(at: start + 3_990_000_000) == 0)
        #expect((1...20).contains(meter.available(at: start + 4_010_000_000)))
        #expect(meter.available(at: start + 5 * second) == 1000)
    }

    @Test func nothingIsOwedForLongerThanAnHour() {
        let meter = RateMeter(CellRate(rate: 1024, burst: 1024))
        for _ in 0..<1000 { meter.charge(1 << 40, at: start) }
        #expect(meter.available(at: start + 3590 * second) == 0)
        #expect(meter.available(at: start + 3610 * second) > 0)
    }

    @Test func anotherRateKeepsWhatIsOwed() {
        let slow = RateMeter(CellRate(rate: 1024, burst: 1024))
        slow.charge(1 << 20, at: start)
        let fast = RateMeter(CellRate(rate: 1 << 20, burst: 1024), before: slow, now: start)
        #expect(fast.available(at: start + 900_000_000) == 0)
        #expect(fast.available(at: start + 1_010_000_000) > 0, "a second's units of the new rate, not of the old")
        let fresh = RateMeter(CellRate(rate: 10, burst: 10), before: RateMeter(CellRate(rate: 1, burst: 5)), now: start)
        #expect(fresh.available(at: start) == 10)
    }

    /// Beside a bucket of tokens in plain arithmetic.
    @Test func agreesWithABucketOfTokens() {
        let seed = Seed.current
        var random = Numbers(state: seed | 1)
        for _ in 0..<200 {
            let (rate, burst) = (
                UInt64.random(in: 1...100_000, using: &random), UInt64.random(in: 1...1000, using: &random)
            )
            let meter = RateMeter(CellRate(rate: rate, burst: burst))
            var (tokens, last, now) = (Double(burst), start, start)
            for _ in 0..<300 {
                now += UInt64.random(in: 0...2_000_000_000 / rate, using: &random)
                tokens = min(Double(burst), tokens + Double(now - last) * Double(rate) / 1e9)
                last = now
                let wanted = Int.random(in: 1...4, using: &random)
                let granted = meter.take(upTo: wanted, at: now)
                let exact = min(Double(wanted), tokens)
                // Rounding may move the last of them.
                #expect(Double(granted) <= exact + 0.02 && Double(granted) > exact - 1.02, "seed \(seed)")
                tokens -= Double(granted)
            }
        }
    }

    @Test func severalThreadsTakeNoMoreThanThereIs() throws {
        let meter = RateMeter(CellRate(rate: 1000, burst: 100_000))
        let sum = Atomic<Int>(0)
        try withThreads(4) { _ in
            var own = 0
            for round in 0..<60_000 {
                own += meter.take(upTo: 1 + round % 3, at: start)
                if round % 5 == 0, own > 0 {
                    meter.giveBack(1)
                    own -= 1
                }
            }
            sum.add(own, ordering: .relaxed)
        }
        let taken = sum.load(ordering: .relaxed)
        // Each giving back and taking may round by a tick.
        #expect(abs(taken - 100_000) <= 2, "\(taken)")
    }

    private func withThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) throws {
        let threads = try (0..<count).map { index in try Thread(name: "quota-\(index)") { body(index) } }
        for thread in threads { thread.join() }
    }
}

@Suite struct QuotaGateTests {
    @Test func aPipelineGetsWhatThereIsAndGivesTheRestBack() {
        let one = tenant { $0.operations = CellRate(rate: 1000, burst: 100) }
        var gate = QuotaGate()
        gate.begin(one, at: start)
        #expect(gate.isOn)
        for _ in 0..<40 { #expect(gate.admit(bytes: 10, sent: 0, isInvalidation: false) == nil) }
        gate.end(sent: 0, reactor: 0)
        #expect(!gate.isOn)
        // On another reactor, at the same time.
        var other = QuotaGate()
        other.begin(one, at: start)
        let served = (0..<100).count { _ in other.admit(bytes: 1, sent: 0, isInvalidation: false) == nil }
        #expect(served == 60)
        #expect(other.admit(bytes: 1, sent: 0, isInvalidation: false) == .operations)
        other.end(sent: 0, reactor: 1)
        other.begin(one, at: start + 10_000_000)
        #expect((0..<100).count { _ in other.admit(bytes: 1, sent: 0, isInvalidation: false) == nil } == 10)
    }

    @Test func withoutQuotasNothingIsCounted() {
        var gate = QuotaGate()
        gate.begin(tenant { $0.connections = 3 }, at: start)
        #expect(!gate.isOn)
        gate.begin(nil, at: start)
        #expect(!gate.isOn)
        #expect(gate.admit(bytes: 1, sent: 0, isInvalidation: false) == nil)
    }

    @Test func whatMakesDataDisappearMayRunASecondAhead() {
        let one = tenant { $0.operations = CellRate(rate: 50, burst: 10) }
        var gate = QuotaGate()
        gate.begin(one, at: start)
        for _ in 0..<10 { #expect(gate.admit(bytes: 1, sent: 0, isInvalidation: false) == nil) }
        #expect(gate.admit(bytes: 1, sent: 0, isInvalidation: false) == .operations)
        #expect((0..<100).count { _ in gate.admit(bytes: 1, sent: 0, isInvalidation: true) == nil } == 50)
        #expect(gate.admit(bytes: 1, sent: 0, isInvalidation: true) == .operations)
        gate.end(sent: 0, reactor: 0)
        // What they ran ahead is what others have to wait for.
        gate.begin(one, at: start + second)
        #expect(gate.admit(bytes: 1, sent: 0, isInvalidation: false) == .operations)
        gate.end(sent: 0, reactor: 0)
        gate.begin(one, at: start + second + 25_000_000)
        #expect(gate.admit(bytes: 1, sent: 0, isInvalidation: false) == nil)
    }

    @Test func bytesCountBothWaysAndAreOwed() {
        let one = tenant { $0.bytes = CellRate(rate: 10_000, burst: 10_000) }
        var gate = QuotaGate()
        gate.begin(one, at: start)
        #expect(gate.admit(bytes: 4000, sent: 0, isInvalidation: false) == nil)
        #expect(gate.admit(bytes: 4000, sent: 1900, isInvalidation: false) == nil)
        // 8,000 bytes came in and 2,100 went out.
        #expect(gate.admit(bytes: 10, sent: 2100, isInvalidation: false) == .bytes)
        #expect(gate.admit(bytes: 10, sent: 2100, isInvalidation: true) == nil, "a delete runs ahead")
        gate.end(sent: 30_000, reactor: 1)
        #expect(one.totals[.bytes] == 38_010)
        gate.begin(one, at: start + 2 * second)
        #expect(gate.admit(bytes: 10, sent: 0, isInvalidation: false) == .bytes)
        gate.end(sent: 0, reactor: 1)
        gate.begin(one, at: start + 3 * second)
        #expect(gate.admit(bytes: 10, sent: 0, isInvalidation: false) == nil)
    }

    @Test func refusalsCostNothing() {
        let one = tenant {
            $0.operations = CellRate(rate: 10, burst: 1)
            $0.bytes = CellRate(rate: 1024, burst: 1024)
        }
        var gate = QuotaGate()
        gate.begin(one, at: start)
        #expect(gate.admit(bytes: 10, sent: 0, isInvalidation: false) == nil)
        var sent = 0
        for _ in 0..<1000 {
            #expect(gate.admit(bytes: 10, sent: sent, isInvalidation: false) == .operations)
            sent += 50
            gate.exclude(50)
        }
        gate.end(sent: sent, reactor: 0)
        #expect(one.totals[.bytes] == 10)
    }

    @Test func aLookTakesNothingAndWhatIsReceivedIsCharged() {
        let one = tenant { $0.operations = CellRate(rate: 10, burst: 1) }
        var gate = QuotaGate()
        gate.begin(one, at: start)
        #expect(gate.look(sent: 0) == nil && gate.look(sent: 0) == nil)
        gate.charge(bytes: 1 << 20)
        #expect(gate.look(sent: 0) == .operations)
        gate.giveBack(bytes: 1 << 20)
        #expect(gate.look(sent: 0) == nil)
    }
}

@Suite struct TenantQuotasTests {
    private func read(_ fields: String) throws -> (quotas: TenantQuotas?, problems: [String]) {
        let schema = SettingsSchema([TenantSettings.setting])
        let yaml = "tenants:\n  - {name: a\(fields)}\n"
        var problems: [String] = []
        let resolved = try? schema.resolve(file: ("file", Array(yaml.utf8)), environment: [:], flags: [])
        guard let values = resolved?.values else { return (nil, ["refused"]) }
        return (TenantSettings.read(values, problems: &problems).first?.quotas, problems)
    }

    @Test func readsQuotas() throws {
        let (quotas, problems) = try read(
            ", operationsPerSecond: 500, operationsBurst: 2000, bytesPerSecond: 2MiB, connections: 9")
        #expect(problems == [])
        #expect(quotas?.operations == CellRate(rate: 500, burst: 2000))
        #expect(quotas?.bytes == CellRate(rate: 2 << 20, burst: 2 << 20), "a second's, where nobody says")
        #expect(quotas?.connections == 9)
        #expect(TenantQuota.allCases.map { quotas?.limit(of: $0) } == [500, 2 << 20, 9])
        #expect(try read("").quotas == TenantQuotas())
    }

    @Test(arguments: [
        (", operationsBurst: 5", "operationsBurst: there is no operationsPerSecond"),
        (", bytesBurst: 5MiB", "bytesBurst: there is no bytesPerSecond"),
    ])
    func aBurstNeedsARate(_ fields: String, _ reason: String) throws {
        let problems = try read(fields).problems
        #expect(problems.contains { $0.contains(reason) && $0.hasPrefix("file:2") }, "\(problems)")
    }

    @Test(arguments: ["operationsPerSecond: 0", "bytesPerSecond: 10", "connections: 0", "operationsPerSecond: many"])
    func refusesWhatCannotBe(_ field: String) throws {
        #expect(try read(", \(field)").problems == ["refused"])
    }
}

@Suite struct TenantConnectionsTests {
    private func settings(_ name: String, users: [String], connections: Int?) -> TenantSettings {
        var settings = TenantSettings(
            name: name, permissions: TenantPermissions(commands: .all, prefixes: [], readPrefixes: []))
        settings.users = users
        settings.quotas.connections = connections
        return settings
    }

    private func open(_ directory: TenantDirectory) -> [Int] { directory.all.map(\.meters.connections) }

    @Test func connectionsBeyondTheQuotaAreRefused() {
        var everybody = settings("all", users: [], connections: 2)
        everybody.includesOthers = true
        let directory = TenantDirectory([everybody], reactors: 1)
        var clients = (0..<3).map { _ in ClientIdentity() }
        let outcomes = clients.indices.map { clients[$0].findTenant(in: directory, certificates: []) }
        #expect(outcomes == [true, true, false])
        #expect(open(directory)[0] == 2)
        // One that was refused holds no place, and is not counted when it goes.
        clients[2].leave()
        clients[0].leave()
        clients[0].leave()
        #expect(open(directory)[0] == 1)
        var next = ClientIdentity()
        #expect(next.findTenant(in: directory, certificates: []) == true)
    }

    @Test func nobodyIsCountedBeforeTheLogin() {
        var others = settings("others", users: [], connections: 1)
        others.includesOthers = true
        let directory = TenantDirectory([others], reactors: 1)
        var clients = (0..<5).map { _ in ClientIdentity(mustLogIn: true) }
        for index in clients.indices {
            let isRoom = clients[index].findTenant(in: directory, certificates: [])
            #expect(isRoom)
        }
        #expect(open(directory)[0] == 0)
    }

    @Test func aReloadKeepsConnectionsAndMovesThemWithTheirTenant() {
        func everybody(_ name: String, _ connections: Int?) -> [TenantSettings] {
            ["a", "b"].map { one in
                var settings = settings(one, users: [], connections: connections)
                settings.includesOthers = one == name
                return settings
            }
        }
        let directory = TenantDirectory(everybody("a", nil), reactors: 1)
        var clients = (0..<4).map { _ in ClientIdentity() }
        func find() -> [Bool] { clients.indices.map { clients[$0].findTenant(in: directory, certificates: []) } }
        #expect(find() == [true, true, true, true])
        // Fewer are allowed now: those that are there stay, no more come.
        directory.replace(everybody("a", 2))
        #expect(find() == [true, true, true, true])
        #expect(open(directory) == [4, 0, 0])
        var late = ClientIdentity()
        #expect(late.findTenant(in: directory, certificates: []) == false)
        directory.replace(everybody("b", 2))
        #expect(find() == [true, true, true, true])
        #expect(open(directory) == [0, 4, 0])
        directory.replace([])
        #expect(find() == [true, true, true, true])
        for index in clients.indices { clients[index].leave() }
        directory.replace(everybody("b", 2))
        #expect(open(directory) == [0, 0, 0])
    }

    @Test func aReloadKeepsWhatIsUsedUp() throws {
        func one(_ rate: UInt64) -> [TenantSettings] {
            var settings = settings("a", users: ["u"], connections: nil)
            settings.quotas.operations = CellRate(rate: rate, burst: rate)
            return [settings]
        }
        let directory = TenantDirectory(one(1000), reactors: 1)
        func meter() throws -> RateMeter { try #require(directory.all[0].meters.operations) }
        let now = Clock.monotonicNanoseconds()
        #expect(try meter().take(upTo: 2000, at: now) == 1000)
        var more = one(1000)
        more[0].users = ["u", "v"]
        directory.replace(more)
        #expect(try meter().take(upTo: 1, at: now) == 0)
        // A thousand of the five are owed.
        directory.replace(one(5000))
        let rest = try meter().take(upTo: 9999, at: now)
        #expect((2000...4100).contains(rest), "\(rest)")
    }

    @Test func statisticsAndMetricsTellOfQuotas() throws {
        var given = settings("a", users: ["u"], connections: 1)
        given.quotas.operations = CellRate(rate: 7, burst: 7)
        let directory = TenantDirectory([given], reactors: 1)
        directory.all[0].noteOver(.operations, reactor: 0)
        directory.all[0].noteOver(.connections, reactor: 0)
        let shown = try #require(directory.statistics["a"])
        #expect(shown.contains("over_operations:1 over_bytes:0 over_connections:1"))
        var page = Exposition(format: .prometheus)
        directory.appendMetrics(to: &page, prefix: "p")
        let text = String(decoding: page.bytes, as: UTF8.self)
        #expect(text.contains("p_over_quota_total{tenant=\"a\",quota=\"operations\"} 1\n"))
        #expect(text.contains("p_quota{tenant=\"a\",quota=\"operations\"} 7\n"))
        #expect(!text.contains("p_quota{tenant=\"a\",quota=\"bytes\"}"))
        #expect(!text.contains("p_bytes_total{"))
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

import Overload

/// Routers and nodes in virtual time, in ticks of a quarter of a millisecond: clients ask for keys by Zipf's law and
/// try again at once when they are refused, routers spare nodes by their ``BackendGuard``, nodes shed by their
/// ``OverloadController``. A part of the nodes may be lost on the way.
///
/// A node serves 2,000 requests a second and its target is 5 ms, a fifth and five times of an ordinary one: the law
/// sees the same queues, and there are fewer requests to work out.
struct FleetSimulation {
    struct Configuration {
        var nodes = 1000
        var routers = 100
        var keys = 200_000
        var zipf = 0.9
        /// The part of all requests that is for one key.
        var hotPart = 0.05
        /// Requests a second for each node.
        var ratePerNode = 1600.0
        /// When a part of the nodes is lost, in seconds; and when routers have found out.
        var lossAt = Double.infinity
        var lossPart = 1.0 / 3
        var noticedAfter = 0.25
        /// How often a client tries again.
        var retries = 2
        var sheds = true
        /// Whether routers bound what waits for a node (`upstream.delayTarget`), which they do not by default.
        var limits = false
        var serviceTime = 500e-6
        var refusalTime = 4e-6
        var targetNanoseconds: UInt64 = 5_000_000
        /// What is answered later than that after it was first asked is of no use, in seconds.
        var objective = 25e-3
    }

    /// What happened in a tenth of a second.
    struct Tenth {
        var offered = 0
        var inTime = 0
        var refused = 0
        /// What nodes that are left can do of what is asked of them.
        var possible = 0.0
    }

    private struct Message {
        var asked: Double
        var sent: Double
        var key: Int32
        var router: Int32
        var tries: Int8
        var outcome = Int8(0)
    }

    private static let tick = 250e-6
    private static let ring = 4096

    private let configuration: Configuration
    private var random: UInt64
    private var inboxes: [[Message]]
    private var busyUntil: [Double]
    private var turnStart: [Double]
    private var guards: [BackendGuard]
    private var inFlight: [Int32]
    /// Answers by the tick at which they are there, and from which node.
    private var due: [[(node: Int32, message: Message)]]
    private var again: [Message] = []
    private var cumulative: [Double] = []
    private var nodeOfKey: [Int32] = []
    private var isLost: [Bool]
    private var demand: [Int]
    private(set) var tenths: [Tenth] = []
    private(set) var throttled = 0
    private var now = 0.0

    init(_ configuration: Configuration, seed: UInt64) {
        self.configuration = configuration
        random = seed &* 0x9E37_79B9_7F4A_7C15 | 1
        let nodes = configuration.nodes
        inboxes = Array(repeating: [], count: nodes)
        busyUntil = Array(repeating: 0, count: nodes)
        turnStart = Array(repeating: 0, count: nodes)
        isLost = Array(repeating: false, count: nodes)
        demand = Array(repeating: 0, count: nodes)
        var gate = BackendGuard.Configuration()
        gate.limit.targetNanoseconds = configuration.limits ? 2 * configuration.targetNanoseconds : 0
        gate.throttles = configuration.sheds
        guards = (0..<nodes * configuration.routers).map { BackendGuard(gate, seed: UInt64($0) &* 77 | 1) }
        inFlight = Array(repeating: 0, count: nodes * configuration.routers)
        due = Array(repeating: [], count: Self.ring)
        var total = 0.0
        for rank in 1...configuration.keys {
            total += power(Double(rank), -configuration.zipf)
            cumulative.append(total)
            nodeOfKey.append(0)
        }
        for key in cumulative.indices { cumulative[key] /= total }
        place()
    }

    /// Deals the keys out to the nodes that are left.
    private mutating func place() {
        let alive = isLost.indices.filter { !isLost[$0] }
        for key in nodeOfKey.indices where isLost[Int(nodeOfKey[key])] || now == 0 {
            var hash = UInt64(key) &* 0xff51_afd7_ed55_8ccd
            hash = (hash ^ hash >> 33) &* 0xc4ce_b9fe_1a85_ec53
            nodeOfKey[key] = Int32(alive[Int((hash ^ hash >> 29) % UInt64(alive.count))])
        }
    }

    /// Runs for so many seconds.
    mutating func run(seconds: Double) {
        // One for each node: they cannot be copied into an array.
        var overload = OverloadConfiguration()
        overload.targetNanoseconds = configuration.sheds ? configuration.targetNanoseconds : 0
        var controllers = ControllerList(count: configuration.nodes, overload)
        tenths = Array(repeating: Tenth(), count: Int(seconds * 10 + 0.5))
        var step = 0
        var lossLeft = true
        var isNoticed = false
        while now < seconds - 1e-9 {
            if lossLeft, now >= configuration.lossAt {
                lossLeft = false
                for node in 0..<Int(Double(configuration.nodes) * configuration.lossPart) { isLost[node] = true }
            }
            if !lossLeft, !isNoticed, now >= configuration.lossAt + configuration.noticedAfter {
                isNoticed = true
                place()
            }
            deliver(step)
            arrive()
            for node in isLost.indices where !isLost[node] && !inboxes[node].isEmpty && busyUntil[node] <= now {
                turn(node, &controllers)
            }
            step += 1
            now = Double(step) * Self.tick
            if step % 400 == 0 { noteDemand(at: min(step / 400 - 1, tenths.count - 1)) }
        }
    }

    private mutating func noteDemand(at tenth: Int) {
        let capacity = 0.1 / configuration.serviceTime
        for node in demand.indices {
            if !isLost[node] { tenths[tenth].possible += min(Double(demand[node]), capacity) }
            demand[node] = 0
        }
    }

    private var tenth: Int { min(Int(now * 10 + 1e-6), tenths.count - 1) }

    /// New requests, and those that are tried again.
    private mutating func arrive() {
        let retried = again
        again.removeAll(keepingCapacity: true)
        for message in retried { send(message) }
        let mean = configuration.ratePerNode * Double(configuration.nodes) * Self.tick
        // Close enough to Poisson's law for so many.
        let count = Int(mean + (uniform() + uniform() + uniform() - 1.5) * 2 * mean.squareRoot() + 0.5)
        for _ in 0..<max(count, 0) {
            let key = uniform() < configuration.hotPart ? 0 : pickKey()
            let router = Int32(uniform() * Double(configuration.routers))
            tenths[tenth].offered += 1
            demand[Int(nodeOfKey[key])] += 1
            send(Message(asked: now, sent: now, key: Int32(key), router: router, tries: 0))
        }
    }

    private mutating func pickKey() -> Int {
        let wanted = uniform()
        var (low, high) = (0, cumulative.count - 1)
        while low < high {
            let middle = (low + high) / 2
            if cumulative[middle] < wanted { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private mutating func send(_ message: Message) {
        let node = Int(nodeOfKey[Int(message.key)])
        let pair = Int(message.router) * configuration.nodes + node
        var message = message
        message.sent = now
        guard Int(inFlight[pair]) < guards[pair].inFlightLimit, guards[pair].admits(.standard, now: clock(now)) else {
            throttled += 1
            return retry(message)
        }
        // Nobody hears of what is sent to a node that is gone.
        guard !isLost[node] else { return }
        inFlight[pair] += 1
        inboxes[node].append(message)
    }

    private mutating func retry(_ message: Message) {
        guard Int(message.tries) < configuration.retries else { return tenths[tenth].refused += 1 }
        var message = message
        message.tries += 1
        again.append(message)
    }

    private func clock(_ time: Double) -> UInt64 { UInt64(time * 1e9) + 1_000_000_000 }

    /// A node's turn: all that is there is served or refused.
    private mutating func turn(_ node: Int, _ controllers: inout ControllerList) {
        var time = max(busyUntil[node], inboxes[node][0].sent)
        let began = time
        let arrival = busyUntil[node] >= inboxes[node][0].sent ? turnStart[node] : time
        turnStart[node] = began
        controllers.turnBegan(node, arrival: clock(arrival), now: clock(began))
        for var message in inboxes[node] {
            if controllers.serves(node, tenant: UInt64(message.router) &* 0x9E37_79B9 | 1, now: clock(time)) {
                time += configuration.serviceTime
                controllers.served(node, UInt64(configuration.serviceTime * 1e9))
                message.outcome = 1
            } else {
                time += configuration.refusalTime
                message.outcome = 2
            }
            let at = Int(time / Self.tick) + 1
            // What takes longer than the ring is of no use to anybody, but it has been served.
            let ahead = min(at - Int(now / Self.tick + 0.5), Self.ring - 1)
            due[(Int(now / Self.tick + 0.5) + max(ahead, 1)) % Self.ring].append((Int32(node), message))
        }
        inboxes[node].removeAll(keepingCapacity: true)
        busyUntil[node] = time
    }

    /// Answers that are there now.
    private mutating func deliver(_ step: Int) {
        let place = step % Self.ring
        guard !due[place].isEmpty else { return }
        let answers = due[place]
        due[place].removeAll(keepingCapacity: true)
        for (node, message) in answers {
            let pair = Int(message.router) * configuration.nodes + Int(node)
            let flying = Int(inFlight[pair])
            inFlight[pair] -= 1
            if message.outcome == 2 {
                guards[pair].refused(.standard, now: clock(now))
                retry(message)
                continue
            }
            let latency = UInt64((now - message.sent) * 1e9)
            guards[pair].answered(.standard, latency: latency, inFlight: flying, now: clock(now))
            if now - message.asked <= configuration.objective { tenths[tenth].inTime += 1 }
        }
    }

    private mutating func uniform() -> Double {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return Double(random >> 11) / Double(1 << 53)
    }

    private func power(_ base: Double, _ exponent: Double) -> Double { exponential(exponent * logarithm(base)) }
}

/// Overload controllers by number: they cannot be copied, so each has an object of its own.
struct ControllerList {
    private final class Box {
        var controller: OverloadController
        init(_ configuration: OverloadConfiguration, seed: UInt64) {
            controller = OverloadController(configuration, seed: seed)
        }
    }

    private let boxes: [Box]

    init(count: Int, _ configuration: OverloadConfiguration) {
        boxes = (0..<count).map { Box(configuration, seed: UInt64($0) &* 991 | 1) }
    }

    mutating func turnBegan(_ node: Int, arrival: UInt64, now: UInt64) {
        _ = boxes[node].controller.turnBegan(arrival: arrival, now: now, ran: now)
        boxes[node].controller.visitBegan()
    }

    mutating func serves(_ node: Int, tenant: UInt64, now: UInt64) -> Bool {
        guard boxes[node].controller.isOverloaded else { return true }
        return boxes[node].controller.judge(.standard, tenant: tenant, now: now) == .serve
    }

    mutating func served(_ node: Int, _ nanoseconds: UInt64) {
        if boxes[node].controller.isOverloaded { boxes[node].controller.served(.standard, nanoseconds: nanoseconds) }
    }
}

/// ln by the series of atanh, with the exponent taken out: no library is worth this.
func logarithm(_ value: Double) -> Double {
    var (mantissa, exponent) = (value, 0.0)
    while mantissa > 1 {
        mantissa /= 2
        exponent += 1
    }
    let ratio = (mantissa - 1) / (mantissa + 1)
    var (power, sum) = (ratio, 0.0)
    for term in 0..<30 {
        sum += power / Double(2 * term + 1)
        power *= ratio * ratio
    }
    return 2 * sum + exponent * 0.693147180559945
}

/// e to a power, by its series.
func exponential(_ value: Double) -> Double {
    var (sum, term) = (1.0, 1.0)
    let part = value / 16
    for number in 1...20 {
        term *= part / Double(number)
        sum += term
    }
    var result = 1.0
    for _ in 0..<16 { result *= sum }
    return result
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

import Overload

/// A reactor in virtual time: connections whose requests arrive at random, served turn by turn as the node's reactor
/// serves them.
struct QueueSimulation {
    /// A stream of requests, over some connections.
    struct Source {
        var requestClass = RequestClass.standard
        var tenant: UInt64 = 0
        var connections = 20
        /// How often a request is sent again at once that is refused.
        var retries = 0
        /// Requests a second at a moment in seconds.
        var rate: @Sendable (Double) -> Double
    }

    /// What became of a source's requests.
    struct Outcome {
        var offered = 0
        var served = 0
        var inTime = 0
        var latencies: [Double] = []
        /// When requests were refused, in seconds from the start.
        var refusals: [Double] = []

        /// The part of the requests that was served, of those from a moment on in a steady run of so many seconds.
        func served(from begin: Double, of seconds: Double) -> Double {
            let refused = refusals.filter { $0 >= begin }.count
            return 1 - Double(refused) / (Double(offered) * (seconds - begin) / seconds)
        }

        /// A quantile of the latency of what was served, in seconds.
        func quantile(_ part: Double) -> Double {
            guard !latencies.isEmpty else { return 0 }
            let sorted = latencies.sorted()
            return sorted[min(sorted.count - 1, Int(part * Double(sorted.count)))]
        }
    }

    private struct Arrival {
        var time: Double
        var source: Int
        var retries: Int
    }

    /// Seconds that serving and refusing take.
    var serviceTime = 50e-6
    var refusalTime = 0.4e-6
    /// What a turn costs besides, for each connection.
    var visitTime = 4e-6
    /// How long a connection may go on in a turn of a node that is not overloaded.
    var quantum = 500e-6
    var isExponential = false
    /// Requests reach the node in bundles, at multiples of this many seconds; 0 is one by one.
    var bundle = 0.0
    /// Latency within which a reply counts.
    var objective = 5e-3

    let sources: [Source]
    private(set) var outcomes: [Outcome]
    /// What was served in time, and the largest latency of it, by tenths of a second.
    private(set) var goodputByTenth: [Int] = []
    private(set) var shed = 0
    private(set) var entries = 0
    /// How long the node was overloaded, in turns' seconds.
    private(set) var lastShed = 0.0
    private var random: UInt64

    init(_ sources: [Source], seed: UInt64) {
        self.sources = sources
        outcomes = sources.map { _ in Outcome() }
        random = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    }

    private mutating func uniform() -> Double {
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        return (Double(random >> 11) + 0.5) / Double(1 << 53)
    }

    private func log(_ value: Double) -> Double {
        // ln by the series of atanh, with the exponent taken out: no library is worth this one call.
        var mantissa = value
        var exponent = 0.0
        while mantissa < 0.5 {
            mantissa *= 2
            exponent -= 1
        }
        let ratio = (mantissa - 1) / (mantissa + 1)
        var power = ratio
        var sum = 0.0
        for term in 0..<30 {
            sum += power / Double(2 * term + 1)
            power *= ratio * ratio
        }
        return 2 * sum + exponent * 0.693147180559945
    }

    private mutating func exponential() -> Double { -log(uniform()) }

    private var nextArrival: [Double] = []
    private var connections: [[Arrival]] = []
    /// The first connection of each source.
    private var first: [Int] = []
    private var queue: [Int] = []
    private var isQueued: [Bool] = []
    private var now = 0.0

    /// Runs for so many seconds.
    mutating func run(seconds: Double, _ configuration: OverloadConfiguration) {
        var controller = OverloadController(configuration, seed: random)
        goodputByTenth = Array(repeating: 0, count: Int(seconds * 10) + 1)
        for source in sources {
            first.append(connections.count)
            connections += Array(repeating: [], count: source.connections)
        }
        isQueued = connections.map { _ in false }
        nextArrival = sources.indices.map { advance($0, from: 0) }
        var turnStart = 0.0
        while now < seconds {
            pull()
            let sleeps = queue.isEmpty
            if sleeps {
                now = max(now, visible(nextArrival.min() ?? seconds))
                pull()
            }
            let arrival = sleeps ? now : turnStart
            turnStart = now
            _ = controller.turnBegan(arrival: nanoseconds(arrival), now: nanoseconds(now), ran: nanoseconds(now))
            let ready = queue
            queue.removeAll(keepingCapacity: true)
            for connection in ready { visit(connection, &controller) }
        }
        entries = controller.entries
    }

    private func nanoseconds(_ time: Double) -> UInt64 { UInt64(time * 1e9) + 1_000_000_000 }

    /// A connection's turn.
    private mutating func visit(_ connection: Int, _ controller: inout OverloadController) {
        // What came since the turn began is read too.
        pull()
        controller.visitBegan()
        controller.turnGoesOn(now: nanoseconds(now), ran: nanoseconds(now))
        let visitStart = now
        now += visitTime
        var answered: [Arrival] = []
        var again: [Arrival] = []
        var index = 0
        while index < connections[connection].count {
            let arrival = connections[connection][index]
            if !controller.isOverloaded, now - visitStart > quantum { break }
            if serves(arrival, &controller) {
                answered.append(arrival)
            } else if arrival.retries > 0 {
                again.append(Arrival(time: arrival.time, source: arrival.source, retries: arrival.retries - 1))
            }
            index += 1
        }
        for arrival in answered { note(arrival) }
        connections[connection].removeFirst(index)
        connections[connection] += again
        isQueued[connection] = false
        if !connections[connection].isEmpty { enqueue(connection) }
    }

    /// Serves a request, or refuses it.
    private mutating func serves(_ arrival: Arrival, _ controller: inout OverloadController) -> Bool {
        let source = sources[arrival.source]
        if controller.isOverloaded,
            controller.judge(source.requestClass, tenant: source.tenant, now: nanoseconds(now)) != .serve
        {
            shed += 1
            lastShed = now
            outcomes[arrival.source].refusals.append(now)
            now += refusalTime
            return false
        }
        let took = isExponential ? serviceTime * exponential() : serviceTime
        now += took
        if controller.isOverloaded { controller.served(source.requestClass, nanoseconds: UInt64(took * 1e9)) }
        return true
    }

    private mutating func note(_ arrival: Arrival) {
        let latency = now - arrival.time
        outcomes[arrival.source].served += 1
        outcomes[arrival.source].latencies.append(latency)
        guard latency <= objective else { return }
        outcomes[arrival.source].inTime += 1
        let tenth = Int(arrival.time * 10)
        if tenth < goodputByTenth.count { goodputByTenth[tenth] += 1 }
    }

    private mutating func enqueue(_ connection: Int) {
        guard !isQueued[connection] else { return }
        isQueued[connection] = true
        queue.append(connection)
    }

    /// Lets arrive what has arrived by now.
    private mutating func pull() {
        for index in sources.indices {
            while visible(nextArrival[index]) <= now {
                let connection = first[index] + Int(uniform() * Double(sources[index].connections))
                connections[connection].append(
                    Arrival(time: nextArrival[index], source: index, retries: sources[index].retries))
                outcomes[index].offered += 1
                enqueue(connection)
                nextArrival[index] = advance(index, from: nextArrival[index])
            }
        }
    }

    /// When a request that is sent at `time` is there.
    private func visible(_ time: Double) -> Double {
        bundle > 0 ? (time / bundle).rounded(.up) * bundle : time
    }

    private mutating func advance(_ index: Int, from time: Double) -> Double {
        let rate = sources[index].rate(time)
        // A source that is silent is asked again soon.
        return rate <= 0 ? time + 1e-3 : time + exponential() / rate
    }
}

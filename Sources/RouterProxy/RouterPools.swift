// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Hosting
internal import Routing
internal import Telemetry

/// What is shown of pools, and of those who are in them.
extension Router {
    /// What `stats pools` shows: a line for each pool, and for each source of members.
    func poolStatistics() -> StatisticsList {
        var list = StatisticsList()
        let plan = plan
        for pool in plan.routes.pools {
            let up = pool.destinations.count { plan.backends[$0].state == .open }
            let source = pool.members.map { " members:\($0) epoch:\(plan.memberEpochs[$0] ?? 0)" } ?? ""
            let warming = pool.warming.isEmpty ? "" : " warming:\(pool.warming.count)"
            list.add(pool.name, "servers:\(pool.destinations.count) up:\(up)\(warming)\(source)")
        }
        for (source, state) in members.states {
            let age = state.ageSeconds.map { "\(Int($0))" } ?? "-"
            let hold = state.hold.map { " held:\($0.text)" } ?? ""
            let failure = state.failure.map { " failure:\($0)" } ?? ""
            list.add(
                "members:\(source)",
                "count:\(state.members.members.count) epoch:\(state.members.epoch) age_s:\(age)\(hold)\(failure)")
        }
        return list
    }

    func appendPoolMetrics(to page: inout Exposition) {
        let plan = plan
        page.family("martlet_router_plan_epoch", .gauge, help: "Counts changes of routes and of members, from 1 on.")
        page.sample(plan.epoch)
        page.family("martlet_router_pool_servers", .gauge, help: "Servers of a pool.")
        for pool in plan.routes.pools { page.sample(UInt64(pool.destinations.count), ("pool", pool.name)) }
        page.family(
            "martlet_router_pool_warming_servers", .gauge,
            help: "Servers of a pool that are warming up: they are not read from.")
        for pool in plan.routes.pools { page.sample(UInt64(pool.warming.count), ("pool", pool.name)) }
        page.family(
            "martlet_router_pool_seconds", .histogram,
            help: "Time from a request's arrival to the reply of a server of the pool.")
        for pool in plan.routes.pools {
            var sum = HistogramSnapshot()
            for destination in Set(pool.destinations) {
                for meter in plan.backends[destination].meters {
                    sum.add(meter.latency)
                    sum.add(meter.exemplars)
                }
            }
            page.sample(sum, ("pool", pool.name))
        }
        page.family(
            "martlet_router_route_seconds", .histogram,
            help: "Time from arrival to reply of requests that a route gave more than one server a part in.")
        for meter in plan.routeMeters.values.sorted(by: { $0.name < $1.name }) {
            page.sample(meter.sum(), ("route", meter.name))
        }
        let states = members.states
        page.family("martlet_router_members", .gauge, help: "Members that a source of them named last and that count.")
        for (source, state) in states { page.sample(UInt64(state.members.members.count), ("source", source)) }
        page.family("martlet_router_members_epoch", .gauge, help: "Counts the changes of a source's members.")
        for (source, state) in states { page.sample(state.members.epoch, ("source", source)) }
        page.family("martlet_router_members_failing", .gauge, help: "Whether a source of members cannot be asked.")
        for (source, state) in states { page.sample(UInt64(state.failure == nil ? 0 : 1), ("source", source)) }
        page.family(
            "martlet_router_members_held", .gauge,
            help: "Whether a source names members that do not count: too few, or too many that are gone.")
        for (source, state) in states { page.sample(UInt64(state.isHeldBack ? 1 : 0), ("source", source)) }
    }
}

extension RouterPlan {
    /// By server of a fleet in etcd: where its members are, and marks of repair beside them.
    var repairPlaces: [String: EtcdAddress] {
        var places: [String: EtcdAddress] = [:]
        for pool in routes.pools {
            guard let source = pool.members, case .etcd(let address)? = try? MemberSource([source]) else { continue }
            for destination in pool.servers { places[backends[destination].name] = address }
        }
        return places
    }

    /// A source that pools need and nobody was found at; nil when there is none.
    var unknownMembers: String? { memberEpochs.filter { $0.value == 0 }.keys.min() }
}

extension MemberWatch.State {
    /// Whether more than a moment's wait keeps members from counting.
    fileprivate var isHeldBack: Bool {
        switch hold {
        case nil, .debounce: false
        case .loss, .tooFew: true
        }
    }
}

extension MembershipCore.Hold {
    /// In a word.
    fileprivate var text: String {
        switch self {
        case .debounce: "new"
        case .loss(let count, let all): "\(count)-of-\(all)-gone"
        case .tooFew(let count): "only-\(count)"
        }
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Admin
internal import Memory
internal import Platform
internal import Storage
internal import StreamDirect

/// The pages about which region is home.
extension Node {
    func regionRoutes() -> [AdminRoute] {
        guard configuration.regions.isOn else { return [] }
        return [
            AdminRoute("/region", "which region is home, what others say of it, and how the region's database is") {
                [self] _ in .json(regionJSON)
            },
            AdminRoute(
                "/region/promote",
                "makes ?region, the node's own, the home region; accept-loss=1 goes on where the old one cannot be "
                    + "fenced; timeout in seconds for the standby",
                access: .action, queryNames: ["region", "accept-loss", "timeout"]
            ) { [self] in promote($0) },
            AdminRoute("/region/promotion", "how the last promotion goes", access: .guarded) { [self] _ in
                .json(home.map { Self.json($0.state.withLock { $0.promotion }) } ?? "{\"number\":0}\n")
            },
        ]
    }

    private func promote(_ request: AdminRequest) -> AdminResponse {
        guard let region = request.query["region"], !region.isEmpty else {
            return .failure("region: expected the name of the region that is to be home", status: 400)
        }
        guard let seconds = Int(request.query["timeout"] ?? "10"), (1...600).contains(seconds) else {
            return .failure("timeout: expected seconds, from 1 to 600", status: 400)
        }
        guard let home else {
            let known = configuration.regions.regions.map(\.name)
            let reason =
                known.contains(region)
                ? "no other region could be home: `regions` names a `stream` of one region only"
                : "no region is called \(region); there are: \(known.joined(separator: ", "))"
            return .failure(reason, status: 409)
        }
        let loss = ["1", "true", ""].contains(request.query["accept-loss"])
        switch home.beginPromotion(region, acceptsLoss: loss, timeoutSeconds: seconds) {
        case .success(let number): return .json("{\"begun\":true,\"number\":\(number)}\n", status: 202)
        case .failure(let failure): return .failure(failure.reason, status: 409)
        }
    }

    private static func json(_ status: PromotionStatus) -> String {
        let failure = status.failure.map(JSONString.quoted) ?? "null"
        var text =
            "{\"number\":\(status.number),\"running\":\(status.isRunning),"
            + "\"phase\":\(JSONString.quoted(status.phase)),\"failure\":\(failure)"
        if let outcome = status.outcome {
            text +=
                ",\"home\":\(JSONString.quoted(outcome.report.term.region)),\"epoch\":\(outcome.report.term.number),"
                + "\"old_home\":\(JSONString.quoted(outcome.old)),\"lossless\":\(outcome.report.isWhole),"
                + "\"safe_until_ms\":\(outcome.report.safeUntilMilliseconds),"
                + "\"given_up_ms\":\(outcome.givenUpMilliseconds),\"loss_window_ms\":\(outcome.lossMilliseconds),"
                + "\"took_ms\":\(outcome.tookMilliseconds)"
        }
        return text + "}\n"
    }

    private var regionJSON: String {
        let settings = configuration.regions
        let term = home?.term ?? HomeTerm(epoch: 0, region: settings.home?.name ?? "")
        let role = term.region == settings.own ? "home" : "replica"
        var text =
            "{\"region\":\(JSONString.quoted(settings.own)),\"role\":\"\(role)\","
            + "\"home\":\(JSONString.quoted(term.region)),\"epoch\":\(term.number)"
        guard let home else { return text + ",\"database\":null,\"peers\":[],\"left_behind\":null}\n" }
        let (database, reason, left) = home.state.withLock { ($0.database, $0.databaseReason, $0.left) }
        let standstill = home.standstill?.seconds
        let own = home.database == nil ? "null" : Self.json(database, reason, standstillSeconds: standstill)
        text += ",\"database\":\(own),\"peers\":["
        text += home.peers.map { peer in
            let said = peer.term.map { "\"home\":\(JSONString.quoted($0.region)),\"epoch\":\($0.number)," } ?? ""
            return "{\"region\":\(JSONString.quoted(peer.region)),\"answers\":\(peer.answers),\(said)"
                + "\"reason\":\(JSONString.quoted(peer.reason))}"
        }.joined(separator: ",")
        let lost = left.map { "{\"at_most\":\($0.count),\"first_ms\":\($0.first),\"last_ms\":\($0.last)}" }
        return text + "],\"left_behind\":\(lost ?? "null")}\n"
    }

    private static func json(_ found: HomeState?, _ reason: String, standstillSeconds: Int?) -> String {
        guard let found else { return "{\"state\":\"unreachable\",\"reason\":\(JSONString.quoted(reason))}" }
        let state = found.isStandby ? "standby" : found.isFenced ? "fenced" : "primary"
        let behind = max(0, Int64(Clock.realtimeNanoseconds() / 1_000_000) - found.seenMilliseconds)
        let region = found.isFenced ? JSONString.quoted(found.fence.region) : "null"
        return "{\"state\":\"\(state)\",\"epoch\":\(found.term.number),\"fenced\":\(found.isFenced),"
            + "\"fenced_for\":\(region),\"last_step\":\(found.isClaimed),"
            + "\"standstill_s\":\(standstillSeconds.map { String($0) } ?? "null"),"
            + "\"seen_ms\":\(found.seenMilliseconds),\"behind_ms\":\(found.seenMilliseconds == 0 ? -1 : behind)}"
    }
}

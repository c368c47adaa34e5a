// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Admin
internal import Invalidation
internal import Memory
internal import Storage

/// The stream's page on the admin port: what consumers of the node's stream get, for people and tools.
extension Node {
    func streamRoutes() -> [AdminRoute] {
        guard configuration.regions.isOn else { return [] }
        return [
            AdminRoute(
                "/stream/records",
                "records of the stream behind ?cursor (or from=kept, from=now), a line of JSON each, the last with the "
                    + "next cursor; ?bytes of records at most",
                access: .guarded, queryNames: ["cursor", "from", "bytes"]
            ) { [self] in streamRecords($0) },
            AdminRoute(
                "/stream/repair", "asks for records that are missing again, and whether that is all", access: .action
            ) { [self] _ in order(slots: 0) { _ in .repair } },
            AdminRoute(
                "/stream/replay", "has what the source keeps sent again; ?slot, or all", access: .action,
                queryNames: ["slot"]
            ) { [self] request in
                guard let mask = Self.slots(request.query["slot"] ?? "all") else { return Self.noSlot }
                return order(slots: mask) { .replay($0) }
            },
            AdminRoute(
                "/stream/skip", "gives the copies of ?slot (or all) up, and goes on behind what is known",
                access: .action, queryNames: ["slot"]
            ) { [self] request in
                guard let mask = request.query["slot"].flatMap(Self.slots) else { return Self.noSlot }
                return order(slots: mask) { .skip($0) }
            },
        ]
    }

    private static let noSlot = AdminResponse.failure("slot: expected a number from 0 to 63, or all", status: 400)

    private static func slots(_ text: String) -> UInt64? {
        if text == "all" { return StreamSlots.all }
        return Int(text).flatMap { (0..<StreamSlots.count).contains($0) ? StreamSlots.mask($0) : nil }
    }

    private func order(slots mask: UInt64, _ make: (UInt64) -> StreamOrder) -> AdminResponse {
        guard let following = streamFollowing else { return .failure("this node follows no stream", status: 409) }
        do throws(StreamOrderRefusal) { try following.order(make(mask)) } catch {
            return .failure(error.reason, status: error.isPassing ? 503 : 409)
        }
        return .json("{\"asked\":true,\"slots\":\(mask.nonzeroBitCount)}\n", status: 202)
    }

    private func streamRecords(_ request: AdminRequest) -> AdminResponse {
        guard let source = (storage?.backend as? any FollowedStore)?.changes else {
            return .failure("this node has no stream of its own: ask a node of the home region", status: 409)
        }
        guard let bytes = Int(request.query["bytes"] ?? "262144"), (1...(8 << 20)).contains(bytes) else {
            return .failure("bytes: expected a number from 1 to \(8 << 20)", status: 400)
        }
        guard let last = source.position else {
            return .failure("the stream is not open yet", status: 503)
        }
        var hello = StreamHello()
        if let text = request.query["cursor"] {
            guard let position = StreamPosition(cursor: text) else {
                return .failure("cursor: expected one that an earlier answer gave", status: 400)
            }
            hello.position = position
        } else if request.query["from"] == "kept" {
            hello.position = StreamPosition(
                source: last.source, epoch: last.epoch, sequences: [Int64](repeating: 0, count: StreamSlots.count))
        } else if let from = request.query["from"], from != "now" {
            return .failure("from: expected kept or now", status: 400)
        }
        do throws(StorageFailure) {
            return AdminResponse(
                contentType: "application/x-ndjson", body: try StreamPage.lines(source, hello, last, bytes: bytes))
        } catch { return .failure(error.reason, status: 503) }
    }
}

/// Records as lines of JSON.
enum StreamPage {
    /// What a consumer that said `hello` gets next, up to about so many bytes of records, and where it goes on. Blocks.
    static func lines(
        _ source: any ChangeSource, _ hello: StreamHello, _ last: StreamPosition, bytes: Int
    ) throws(StorageFailure) -> [UInt8] {
        var text = ""
        var configuration = InvalidationConfiguration()
        configuration.windowBytes = bytes
        let kept = source.keptSequences
        if let wanted = hello.position {
            if !wanted.isNumbered(as: last) {
                let name = JSONString.quoted(last.source)
                text += "{\"op\":\"reset\",\"source\":\(name),\(epoch(last.epoch))}\n"
            } else {
                for (slot, sequence) in wanted.sequences.enumerated() where sequence > 0 && sequence < kept[slot] {
                    text += lost(slot, through: kept[slot])
                }
            }
        }
        var feed = StreamFeed(configuration, hello: hello, kept: kept, last: last)
        feed.grant(bytes)
        var pump = FeedPump(feed, place: source.tail.end, tail: source.tail)
        let hasMore = try pump.run(source, limitBytes: bytes) { item in
            switch item {
            case .lost(let slot, let through): text += lost(slot, through: through)
            case .record(let entry): text += OutboxRecord(object: entry.bytes).map { json($0) } ?? damaged(entry)
            }
        }
        let more = hasMore || !pump.feed.maySend
        text += "{\"op\":\"cursor\",\"cursor\":\"\(pump.feed.sent.cursor)\",\"more\":\(more)}\n"
        return Array(text.utf8)
    }

    private static func lost(_ slot: Int, through: Int64) -> String {
        "{\"op\":\"lost\",\"slot\":\(slot),\"through\":\(through)}\n"
    }

    private static func damaged(_ entry: ChangeTail.Entry) -> String {
        "{\"op\":\"damaged\",\"slot\":\(entry.slot),\"seq\":\(entry.sequence)}\n"
    }

    /// An epoch as a number, and as a text: behind 32 promotions it is larger than what programs that keep numbers as
    /// doubles can tell apart.
    static func epoch(_ epoch: Int64) -> String { "\"epoch\":\(epoch),\"epoch_text\":\"\(epoch)\"" }

    /// A record, its key percent-encoded: it may have any bytes.
    static func json(_ record: OutboxRecord) -> String {
        let reason = record.reason.map(JSONString.quoted) ?? "null"
        return "{\"op\":\"\(record.operation)\",\"key\":\"\(PercentEncoding.encoded(record.key.span))\","
            + "\"pool\":\(JSONString.quoted(record.pool)),\"version\":\(record.version),"
            + "\"exp_ms\":\(record.expiryMilliseconds),\"region\":\(JSONString.quoted(record.region)),"
            + "\"source\":\(JSONString.quoted(record.source)),\(epoch(record.epoch)),\"slot\":\(record.slot),"
            + "\"seq_first\":\(record.firstSequence),\"seq\":\(record.sequence),\"ts_ms\":\(record.timeMilliseconds),"
            + "\"reason\":\(reason)}\n"
    }
}

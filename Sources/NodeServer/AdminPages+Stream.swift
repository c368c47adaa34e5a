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
            ) { [self] in streamRecords($0) }
        ]
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
                text += "{\"op\":\"reset\",\"source\":\(JSONString.quoted(last.source)),\"epoch\":\(last.epoch)}\n"
            } else {
                for (slot, sequence) in wanted.sequences.enumerated() where sequence > 0 && sequence < kept[slot] {
                    text += lost(slot, through: kept[slot])
                }
            }
        }
        var feed = StreamFeed(configuration, hello: hello, kept: kept, last: last)
        feed.grant(bytes)
        var pump = FeedPump(feed, place: source.tail.end)
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

    /// A record, its key percent-encoded: it may have any bytes.
    static func json(_ record: OutboxRecord) -> String {
        let reason = record.reason.map(JSONString.quoted) ?? "null"
        return "{\"op\":\"\(record.operation)\",\"key\":\"\(PercentEncoding.encoded(record.key.span))\","
            + "\"pool\":\(JSONString.quoted(record.pool)),\"version\":\(record.version),"
            + "\"exp_ms\":\(record.expiryMilliseconds),\"region\":\(JSONString.quoted(record.region)),"
            + "\"source\":\(JSONString.quoted(record.source)),\"epoch\":\(record.epoch),\"slot\":\(record.slot),"
            + "\"seq_first\":\(record.firstSequence),\"seq\":\(record.sequence),\"ts_ms\":\(record.timeMilliseconds),"
            + "\"reason\":\(reason)}\n"
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import MemcacheProtocol
internal import Memory

/// `stats detail` and `stats cachedump`.
extension Node {
    /// Bytes of a `stats cachedump` answer at most.
    private static var cacheDumpLimitBytes: Int { 2 << 20 }
    /// Classes that memcached has; higher numbers are errors. Ours are 1, the queue of new items, and 2, the main
    /// queue.
    static var classLimit: UInt32 { 64 }

    func answerDetail(_ tokens: Tokenizer, _ line: Span<UInt8>, _ output: inout OutputBuffer) {
        guard configuration.allowsDump else { return output.append("CLIENT_ERROR stats detail not allowed\r\n") }
        if tokens.abbreviates(2, "on", in: line) {
            prefixes.isOn = true
            output.append("OK\r\n")
        } else if tokens.abbreviates(2, "off", in: line) {
            prefixes.isOn = false
            output.append("OK\r\n")
        } else if tokens.abbreviates(2, "dump", in: line) {
            let dump = prefixDump()
            output.append(dump.span)
        } else {
            output.append("CLIENT_ERROR usage: stats detail on|off|dump\r\n")
        }
    }

    func answerBinaryDetail(_ request: borrowing Request, _ key: Span<UInt8>, _ output: inout OutputBuffer) {
        let start = 6
        guard configuration.allowsDump else { return output.appendBinaryStatus(.notFound, replyTo: request) }
        if key.holds(" dump", at: start) {
            let name = Array("detailed".utf8)
            let dump = prefixDump()
            output.appendBinaryStatistic(name: name.span, value: dump.span, replyTo: request)
        } else if key.holds(" on", at: start) {
            prefixes.isOn = true
        } else if key.holds(" off", at: start) {
            prefixes.isOn = false
        } else {
            return output.appendBinaryStatus(.notFound, replyTo: request)
        }
        StatisticsList.appendBinaryEnd(to: &output, replyTo: request)
    }

    /// A line for each prefix, and END.
    private func prefixDump() -> [UInt8] {
        var text: [UInt8] = []
        for (prefix, counts) in prefixes.all() {
            text += Array("PREFIX ".utf8)
            text += prefix
            let figures = "get \(counts.gets) hit \(counts.hits) set \(counts.sets) del \(counts.deletes)"
            text += Array(" \(figures)\r\n".utf8)
        }
        return text + Array("END\r\n".utf8)
    }

    func answerCacheDump(_ tokens: Tokenizer, _ line: Span<UInt8>, _ output: inout OutputBuffer) {
        guard configuration.allowsDump else { return output.append("CLIENT_ERROR stats cachedump not allowed\r\n") }
        guard tokens.count >= 4 else { return output.append("CLIENT_ERROR bad command line\r\n") }
        guard let number = tokens.uint32(2, in: line), let limit = tokens.uint32(3, in: line) else {
            return output.append("CLIENT_ERROR bad command line format\r\n")
        }
        guard number < Self.classLimit else { return output.append("CLIENT_ERROR Illegal slab id\r\n") }
        if number == 1 || number == 2 {
            appendItems(queue: Int(number), limit: limit == 0 ? Int.max : Int(limit), &output)
        }
        output.append("END\r\n")
    }

    /// Appends a line for each item of a queue until `limit` or the most bytes are reached: of each shard's segments
    /// the newest first. Binary keys are left out.
    private func appendItems(queue: Int, limit: Int, _ output: inout OutputBuffer) {
        let end = output.count + Self.cacheDumpLimitBytes
        // The longest line that can follow, and END.
        let reserve = 250 + 64
        var shown = 0
        for shard in 0..<engine.shardCount {
            for segment in engine.segments(shard: shard, queue: queue) {
                engine.forEachItem(shard: shard, queue: queue, segment: segment) { item in
                    guard shown < limit, output.count + reserve <= end else { return false }
                    if item.isKeyBinary { return true }
                    shown += 1
                    output.append("ITEM ")
                    output.append(item.bytes, from: item.keyOffset, length: item.keyLength)
                    output.append(" [")
                    output.append(decimal: UInt64(item.valueLength))
                    output.append(" b; ")
                    output.append(decimal: item.expiry == 0 ? 0 : Int64(item.expiry) + clock.epoch)
                    output.append(" s]\r\n")
                    return true
                }
                if shown >= limit || output.count + reserve > end { return }
            }
        }
    }
}

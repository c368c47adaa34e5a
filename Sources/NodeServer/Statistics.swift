// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import MemcacheProtocol
internal import Memory

extension RequestExecutor {
    /// `stats` and everything under it.
    mutating func statistics(
        _ request: Request, key: Span<UInt8>, _ line: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        node.answerStatistics(request, key: key, line, &output)
    }
}

extension Node {
    /// Answers `stats`: in text the sub-command is in the line, in binary it is the key. Source: memcached
    /// protocol.txt, "Statistics". `stats hotkeys` and `stats martlet` are ours.
    func answerStatistics(
        _ request: borrowing Request, key: Span<UInt8>, _ line: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        if request.form == .binary {
            answerBinary(request, key, &output)
        } else {
            answerText(request, Tokenizer(line), line, &output)
        }
    }

    private func answerText(
        _ request: borrowing Request, _ tokens: Tokenizer, _ line: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        // memcached's order: it decides what an abbreviation means.
        if tokens.count < 2 {
            generalStatistics().append(to: &output, replyTo: request)
        } else if tokens.abbreviates(1, "reset", in: line) {
            resetStatistics()
            output.append("RESET\r\n")
        } else if tokens.abbreviates(1, "detail", in: line) {
            answerDetail(tokens, line, &output)
        } else if tokens.abbreviates(1, "settings", in: line) {
            settingsStatistics().append(to: &output, replyTo: request)
        } else if tokens.abbreviates(1, "cachedump", in: line) {
            answerCacheDump(tokens, line, &output)
        } else if tokens.abbreviates(1, "conns", in: line) {
            connectionStatistics().append(to: &output, replyTo: request)
        } else if tokens.abbreviates(1, "extstore", in: line) {
            // What memcached says without external storage.
            output.append("END\r\n")
        } else if let list = whole(where: { tokens.equals(1, $0, in: line) }) {
            list.append(to: &output, replyTo: request)
        } else {
            output.append(.error, replyTo: request)
        }
    }

    /// The lists whose names are not abbreviated.
    private func whole(where isName: (StaticString) -> Bool) -> StatisticsList? {
        if isName("items") { return itemStatistics() }
        if isName("slabs") { return slabStatistics() }
        if isName("sizes") { return sizeStatistics() }
        if isName("hotkeys") { return hotKeyStatistics() }
        if isName("hotrates") { return hotRateStatistics() }
        if isName("martlet") { return internalStatistics() }
        if isName("storage") { return storageStatistics() }
        if isName("stream") { return streamStatistics() }
        if isName("overload") { return overloadStatistics() }
        if isName("tenants") { return tenants.statistics }
        return nil
    }

    private func answerBinary(_ request: borrowing Request, _ key: Span<UInt8>, _ output: inout OutputBuffer) {
        if key.isEmpty {
            generalStatistics().append(to: &output, replyTo: request)
        } else if key.holds("reset", at: 0) {
            resetStatistics()
            StatisticsList.appendBinaryEnd(to: &output, replyTo: request)
        } else if key.holds("settings", at: 0) {
            settingsStatistics().append(to: &output, replyTo: request)
        } else if key.holds("detail", at: 0) {
            answerBinaryDetail(request, key, &output)
        } else if let list = whole(where: { key.count == $0.utf8CodeUnitCount && key.holds($0, at: 0) }) {
            list.append(to: &output, replyTo: request)
        } else {
            output.appendBinaryStatus(.notFound, replyTo: request)
        }
    }
}

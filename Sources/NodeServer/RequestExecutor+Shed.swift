// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import MemcacheProtocol
internal import Memory

/// Refusals of requests that an overloaded node does not serve. A refusal changes nothing behind a pool with storage;
/// in a look-aside pool a refused set takes the old value with it, as memcached's own refusals do.
extension RequestExecutor {
    /// Whether the request is one of those keys of a classic get that come behind its refusal: it has its answer.
    mutating func skips(_ request: Request) -> Bool {
        guard shedder.caller.skipsKeysOfGet else { return false }
        shedder.caller.skipsKeysOfGet = !request.isLastKeyOfGet
        return true
    }

    /// Whether a plain read that is refused needs a line and nothing else.
    var refusesLines: Bool { !defers && !traces && shedder.judgesPlainly }

    /// Answers a request that is not served: for want of time, or because its tenant is `over` a quota.
    mutating func refuseBusy(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer,
        over quota: TenantQuota? = nil
    ) {
        let isLookAside = storagePool(key) == nil
        if shedder.reply == .miss, isLookAside, request.isRead {
            return missInstead(request, key: key, input, &output)
        }
        switch request.form {
        case .binary:
            output.appendBinaryStatus(shedder.reply == .busy ? .busy : .outOfMemory, replyTo: request)
        case .meta: appendBusy(quota, &output)
        case .classic:
            let isRetrieval = request.verb.rawValue <= Verb.gats.rawValue
            if isRetrieval || !request.isQuiet { appendBusy(quota, &output) }
            if isRetrieval {
                if defers { noteEndOfGet(output) }
                shedder.caller.skipsKeysOfGet = !request.isLastKeyOfGet
            }
        }
        guard isLookAside, request.verb == .set || (request.verb == .metaSet && request.storeVerb == .set) else {
            return
        }
        let hash = hash(request, key)
        let now = self.now
        engine.withShard(hash) { shard in
            if let item = shard.find(hash, key, now: now) { shard.remove(item, hash) }
        }
    }

    /// Answers a text request that is not served.
    mutating func appendBusy(_ quota: TenantQuota?, _ output: inout OutputBuffer) {
        switch (shedder.reply, quota) {
        case (.busy, nil): output.append("SERVER_ERROR 307 busy\r\n")
        case (.busy, .operations?): ErrorReply.overOperations.appendText(to: &output)
        case (.busy, _): ErrorReply.overBytes.appendText(to: &output)
        // What follows the first words is not looked at by clients that keep their connections for them.
        case (_, nil): output.append("SERVER_ERROR out of memory: busy\r\n")
        case (_, .operations?): output.append("SERVER_ERROR out of memory: busy: over the quota of operations\r\n")
        case (_, _): output.append("SERVER_ERROR out of memory: busy: over the quota of bytes\r\n")
        }
    }

    private mutating func missInstead(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        switch request.form {
        case .binary: binaryMiss(request, key: key, &output)
        case .meta: answerMetaMiss(request, key: key, opaque: Self.opaque(of: request, in: input), &output)
        case .classic:
            // The keys behind it may be served.
            if request.isLastKeyOfGet {
                output.append("END\r\n")
                if defers { noteEndOfGet(output) }
            }
        }
    }
}

extension Request {
    /// Whether it only reads an item.
    fileprivate var isRead: Bool { verb == .get || verb == .gets || verb == .metaGet }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Telemetry

/// me. Source: memcached protocol.txt, "Meta Debug".
extension RequestExecutor {
    mutating func metaDebug(_ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer) {
        count(.other)
        counters.commands.add(.cmdMeta)
        let hash = hash(request, key)
        if waitForOwn(request, key: key, hash, opaque: Span(), .other, output) { return }
        debugCopy(request, key: key, hash, &output)
    }

    /// me of what the cache holds.
    func debugCopy(_ request: Request, key: Span<UInt8>, _ hash: UInt64, _ output: inout OutputBuffer) {
        let now = self.now
        let keyIsBinary = storagePool(key) == nil ? nil : request.options.contains(.base64Key)
        let found = engine.withShard(hash) { shard in
            guard let item = shard.findToRead(hash, key, now: now), !item.isAbsent else { return false }
            output.append("ME ")
            if keyIsBinary ?? item.isKeyBinary { output.appendBase64(key) } else { output.append(key) }
            output.append(" exp=")
            if item.expiry == 0 { output.append("-1") } else { output.append(decimal: Int64(item.expiry) - Int64(now)) }
            output.append(" la=")
            output.append(decimal: UInt64(item.secondsSinceAccess(now: now)))
            output.append(" cas=")
            output.append(decimal: item.version)
            output.append(item.isFetched ? " fetch=yes cls=" : " fetch=no cls=")
            output.append(decimal: UInt64(shard.queueNumber(of: item)))
            output.append(" size=")
            output.append(decimal: UInt64(item.size))
            output.append("\r\n")
            return true
        }
        if !found { output.append("EN\r\n") }
    }
}

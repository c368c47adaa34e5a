// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory

/// What watchers are told of commands. Called only while somebody watches.
extension RequestExecutor {
    @inline(never)
    func watchFetch(_ hash: UInt64, _ key: Span<UInt8>, isHit: Bool) {
        guard watched.contains(.fetchers) else { return }
        let now = self.now
        let length = engine.withShard(hash) { $0.findToRead(hash, key, now: now)?.valueLength ?? 0 }
        node.watchers.noteFetch(key, isHit: isHit, length, fd, topics: watched)
    }

    @inline(never)
    func watchStore(_ key: Span<UInt8>, _ result: StoreResult, _ storing: StoreRequest, _ length: Int) {
        guard watched.contains(.mutations) else { return }
        var shown = storing
        shown.expiry = storing.expiry > now ? storing.expiry - now : 0
        node.watchers.noteStore(key, result, shown, length, fd, topics: watched)
    }
}

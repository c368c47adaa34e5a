// Martlet
// SPDX-License-Identifier: Apache-2.0

import MartletClient

struct UserNames {
    let cache: MartletClient

    /// The name of a user: from the cache, or from the database, which is asked once however many want it.
    func name(of user: Int) async throws -> String {
        var lease = LeaseOptions()
        lease.renewsBefore = .seconds(10)
        let value = try await cache.getOrCompute("user:\(user):name", ttl: .seconds(300), lease: lease) {
            try await loadName(user)
        }
        return value.string
    }

    /// Changes it: others take the old name for at most five seconds more, while one of them loads the new one.
    func rename(_ user: Int, to name: String) async throws {
        try await storeName(user, name)
        do throws(CacheError) {
            try await cache.invalidate("user:\(user):name", ttl: .seconds(5))
        } catch {
            guard error.isRetryable else { throw error }
            // Until it expires, the cache has the old name. Whoever cannot have that repeats the deletion later.
            try await cache.delete("user:\(user):name", options: CallOptions(timeout: .seconds(5)))
        }
    }
}

func example(_ servers: [String]) async throws -> String {
    var configuration = ClientConfiguration(servers: servers)
    configuration.placement = .ketama
    configuration.timeout = .milliseconds(500)
    let cache = try await MartletClient(configuration)
    try await cache.set("greeting", "hello", ttl: .seconds(60))
    let found = await cache.get(["greeting", "nothing"])
    let visits = try await cache.increment("visits", initial: 1, ttl: .seconds(3600)) ?? 0
    let name = try await UserNames(cache: cache).name(of: 7)
    try await UserNames(cache: cache).rename(7, to: "Grace")
    await cache.shutDown()
    return "\(found.values["greeting"]?.string ?? "?") \(name) \(visits)"
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

import MartletClient

struct Names {
    let cache: MartletClient

    init(servers: [String]) async throws {
        var configuration = ClientConfiguration(servers: servers)
        configuration.placement = .ketama
        configuration.timeout = .milliseconds(500)
        cache = try await MartletClient(configuration)
    }

    func name(of user: Int) async throws -> String {
        let value = try await cache.getOrCompute("user:\(user):name", ttl: .seconds(300)) {
            Array(try await loadName(user).utf8)
        }
        return value.string
    }

    func rename(_ user: Int, to name: String) async throws {
        try await storeName(user, name)
        do throws(CacheError) {
            try await cache.invalidate("user:\(user):name", ttl: .seconds(5))
        } catch {
            guard error.isRetryable else { throw error }
            try await cache.delete("user:\(user):name", options: CallOptions(timeout: .seconds(5)))
        }
    }
}

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
}

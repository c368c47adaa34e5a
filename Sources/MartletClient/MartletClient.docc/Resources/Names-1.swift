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
}

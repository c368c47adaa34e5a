// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Admin
internal import Platform
internal import Telemetry

extension NodeService {
    /// The pages of a node's admin server.
    package func adminRoutes() -> [AdminRoute] {
        AdminPages.liveness() + [
            AdminPages.readiness { [self] in
                [HealthCheck("listeners", failure: listeners.isEmpty ? "nothing is listened on" : nil)]
            },
            AdminPages.metrics { exposition in
                exposition.family("martlet_build_info", .gauge, help: "What runs: always 1.")
                exposition.sample(
                    1 as UInt64, ("version", ProductVersion.martlet), ("memcached", ProductVersion.memcached))
            },
        ]
    }
}

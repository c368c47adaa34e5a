// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Admin
internal import Platform
package import Telemetry

extension AdminEndpoint {
    /// Binds an admin server for a program that calls itself `product` behind its version. nil, and a line in the log,
    /// where that fails and nobody asked for one: a port that is taken stops the start only then.
    package func bind(
        product: String, token: [UInt8]?, routes: [AdminRoute], log: Log
    ) throws(StartRefusal) -> AdminServer? {
        var options = AdminConfiguration()
        options.host = host
        options.port = port
        options.token = token
        options.product = "Martlet \(ProductVersion.martlet), \(product)"
        do throws(SystemError) {
            return try AdminServer(options, routes: routes)
        } catch {
            if isExplicit {
                throw StartRefusal(
                    code: StartRefusal.Code.system,
                    errors: "the admin server cannot listen on \(host):\(port): \(error.reason)\n")
            }
            log.warning("no admin server", ["reason": .of(error), "setting": "--admin"])
            return nil
        }
    }
}

extension AdminServer {
    /// Begins to answer; logs where, or why not: the program goes on without.
    package func start(log: Log) {
        do throws(SystemError) {
            try start()
            log.info("admin listening", ["address": .text(address)])
        } catch {
            log.error("no admin server", ["reason": .of(error)])
        }
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What this program calls itself.
package enum ProductVersion {
    /// Martlet's own version.
    package static let martlet = "0.1.0"
    /// The memcached that it behaves as, which clients and tools are told.
    package static let memcached = "1.6.45"
}

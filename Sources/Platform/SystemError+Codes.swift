// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

/// Codes that callers outside of Platform tell apart.
extension SystemError {
    /// EAGAIN.
    package static var wouldBlockCode: Int32 { EAGAIN }
    /// ECONNABORTED.
    package static var connectionAbortedCode: Int32 { ECONNABORTED }
    /// EADDRINUSE.
    package static var addressInUseCode: Int32 { EADDRINUSE }
}

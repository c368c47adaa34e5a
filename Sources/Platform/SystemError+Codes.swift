// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

/// Codes that callers outside of Platform tell apart.
extension SystemError {
    /// EAGAIN.
    package static var wouldBlockCode: Int32 { EAGAIN }
    /// EEXIST.
    package static var existsCode: Int32 { EEXIST }
    /// ECONNABORTED.
    package static var connectionAbortedCode: Int32 { ECONNABORTED }
    /// EPERM.
    package static var notPermittedCode: Int32 { EPERM }
    /// What is asked for is of a kind that is not known here.
    package static var notSupportedCode: Int32 { ENOTSUP }
    /// ENOTEMPTY.
    package static var notEmptyCode: Int32 { ENOTEMPTY }
    /// EADDRINUSE.
    package static var addressInUseCode: Int32 { EADDRINUSE }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

extension SystemError {
    /// The C library's words for the code alone, without the call and its subject.
    package var reason: String {
        // SAFETY: strerror gives a terminated string that we copy at once.
        unsafe String(cString: strerror(code))
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

/// A system call that failed: which one, with which errno, on what.
package struct SystemError: Error, CustomStringConvertible {
    /// The call's name, such as `bind`.
    package let call: String
    /// The errno it set.
    package let code: Int32
    /// What it was applied to, such as an address or a path; empty when nothing names it.
    package let subject: String

    /// The failure of `call`, with the code it left in errno unless another is given.
    package init(_ call: String, code: Int32 = martlet_errno(), subject: String = "") {
        self.call = call
        self.code = code
        self.subject = subject
    }

    /// Whether the same call may succeed later.
    package var isRetryable: Bool { [EAGAIN, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(code) }

    package var description: String {
        // SAFETY: strerror gives a terminated string that we copy at once.
        let reason = unsafe String(cString: strerror(code))
        return subject.isEmpty ? "\(call): \(reason)" : "\(call) \(subject): \(reason)"
    }
}

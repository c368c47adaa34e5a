// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

/// An owned file descriptor, closed when it goes out of scope.
package struct Descriptor: ~Copyable, Sendable {
    /// The number, valid while this value lives.
    package let number: Int32

    /// Takes the descriptor over: nobody else closes it from here on.
    package init(owning number: Int32) {
        precondition(number >= 0, "a descriptor is not negative")
        self.number = number
    }

    deinit { close(number) }

    /// Gives the number up: the caller closes it.
    package consuming func release() -> Int32 {
        let number = self.number
        discard self
        return number
    }
}

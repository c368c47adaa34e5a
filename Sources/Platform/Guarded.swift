// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A value that several threads reach, each under the same short lock.
///
/// Inlinable, because a call that is not specialised costs some hundred instructions for the types it is told of.
@usableFromInline
package final class Guarded<Value>: @unchecked Sendable {
    // SAFETY (Sendable): `value` is touched only under `lock`.
    @usableFromInline let lock = Lock()
    @usableFromInline var value: Value

    /// Guards `value`.
    @inlinable package init(_ value: sending Value) { self.value = value }

    /// Runs `body` with the value; nobody else has it meanwhile. `body` must not block or come back here.
    @inlinable @inline(__always)
    package func withLock<R, E: Error>(_ body: (inout Value) throws(E) -> R) throws(E) -> R {
        lock.lock()
        defer { lock.unlock() }
        return try body(&value)
    }
    /// Puts `new` in the value's place, and returns what was there.
    @inlinable
    package func exchange(_ new: sending Value) -> Value {
        lock.lock()
        defer { lock.unlock() }
        let old = value
        value = new
        return old
    }
}

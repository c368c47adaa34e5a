// Martlet
// SPDX-License-Identifier: Apache-2.0

public import CXXHash

/// XXH3, 64 bits: the same value for the same bytes and seed in every process and version.
///
/// Used for the cache's index (with a seed of the process, against chosen collisions) and, with seed 0, wherever two
/// programs must agree. Source: xxHash 0.8 specification.
@inlinable @inline(__always)
package func stableHash(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> UInt64 {
    // SAFETY: the buffer is the caller's, alive and readable over its whole length for the call.
    unsafe martlet_xxh3(bytes.baseAddress, bytes.count, seed)
}

/// XXH3 of a span's bytes.
@inlinable @inline(__always)
package func stableHash(_ bytes: Span<UInt8>, seed: UInt64 = 0) -> UInt64 {
    // SAFETY: the pointer is used only inside the closure, where the span keeps its bytes alive.
    unsafe bytes.withUnsafeBytes { unsafe martlet_xxh3($0.baseAddress, $0.count, seed) }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

extension [UInt8] {
    /// The span's bytes, copied. Allocates, unless the span is empty.
    package init(copying span: Span<UInt8>) {
        // Without this the count of the one empty array that all threads share would be written.
        guard !span.isEmpty else {
            self = []
            return
        }
        // SAFETY: the new array has room for the span's bytes, and all of them are written.
        unsafe self.init(unsafeUninitializedCapacity: span.count) { target, count in
            unsafe span.withUnsafeBytes { source in
                unsafe UnsafeMutableRawBufferPointer(target).copyMemory(from: source)
            }
            count = span.count
        }
    }

    /// Appends the span's bytes.
    package mutating func append(copying span: Span<UInt8>) {
        // SAFETY: read in the call, from a span that is borrowed.
        unsafe span.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CLZ4
internal import Invalidation

/// Batches on the wire: LZ4 blocks. Source: lz4.h, "Simple Functions".
enum BatchCompression {
    /// Below so many bytes, packing saves less than it costs.
    static let bytesMin = 256

    /// `body` packed; nil where that saves less than an eighth of it.
    static func pack(_ body: [UInt8]) -> [UInt8]? {
        guard body.count >= bytesMin, body.count <= StreamFrame.bytesMax else { return nil }
        let room = body.count - body.count / 8
        let packed = unsafe [UInt8](unsafeUninitializedCapacity: room) { target, count in
            // SAFETY: both buffers are alive in the closures, and LZ4 writes `room` bytes at most.
            count = unsafe body.withUnsafeBytes { source in
                guard let from = unsafe source.bindMemory(to: CChar.self).baseAddress,
                    let to = unsafe UnsafeMutableRawBufferPointer(target).bindMemory(to: CChar.self).baseAddress
                else { return 0 }
                return Int(unsafe LZ4_compress_default(from, to, Int32(body.count), Int32(room)))
            }
        }
        return packed.isEmpty ? nil : packed
    }

    /// What was packed, `count` bytes of it; nil where it is not just that.
    static func unpack(_ packed: [UInt8], count: Int) -> [UInt8]? {
        guard count > 0, count <= StreamFrame.bytesMax, packed.count <= StreamFrame.bytesMax else { return nil }
        let body = unsafe [UInt8](unsafeUninitializedCapacity: count) { target, found in
            // SAFETY: both buffers are alive in the closures, and LZ4 reads and writes within the bounds given,
            // whatever the bytes say.
            let length = unsafe packed.withUnsafeBytes { source in
                guard let from = unsafe source.bindMemory(to: CChar.self).baseAddress,
                    let to = unsafe UnsafeMutableRawBufferPointer(target).bindMemory(to: CChar.self).baseAddress
                else { return Int32(-1) }
                return unsafe LZ4_decompress_safe(from, to, Int32(packed.count), Int32(count))
            }
            found = max(0, Int(length))
        }
        return body.count == count ? body : nil
    }
}

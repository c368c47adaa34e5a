// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Memory

/// The eight bytes before the data of each UDP datagram: which request, which part of how many.
@usableFromInline
package struct DatagramHeader: BitwiseCopyable, Sendable, Equatable {
    /// Bytes of the header.
    @usableFromInline package static let bytes = 8
    /// The largest datagram that is sent, header included.
    @usableFromInline package static let datagramBytes = 1400
    /// The most reply data that one datagram carries.
    @usableFromInline package static let payloadBytes = 1392

    /// The client's number for the request; replies repeat it.
    @usableFromInline package var requestID: UInt16
    /// This datagram's place among the reply's, from 0.
    @usableFromInline package var sequence: UInt16
    /// How many datagrams there are.
    @usableFromInline package var count: UInt16

    /// The header of datagram `sequence` of `count`.
    @inlinable
    package init(requestID: UInt16, sequence: UInt16, count: UInt16) {
        self.requestID = requestID
        self.sequence = sequence
        self.count = count
    }

    /// Reads the header of a request; nil for what memcached drops: no data after the header, or one of several parts.
    ///
    /// (Only the count is looked at, as in memcached: a single datagram with an odd sequence number is served.)
    package init?(_ datagram: Span<UInt8>) {
        guard datagram.count > DatagramHeader.bytes else { return nil }
        requestID = datagram.bigEndian(at: 0, as: UInt16.self)
        sequence = datagram.bigEndian(at: 2, as: UInt16.self)
        count = datagram.bigEndian(at: 4, as: UInt16.self)
        guard count == 1 else { return nil }
    }

    /// Appends the header's eight bytes; the last two are reserved and 0.
    package func append(to output: inout OutputBuffer) {
        output.append(bigEndian: UInt64(requestID) << 48 | UInt64(sequence) << 32 | UInt64(count) << 16)
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Sizes that memcached 1.6.45 sets and clients can see. Bytes, unless said otherwise.
@usableFromInline
package enum ProtocolLimits {
    /// The longest key. A base64 key is measured as it is sent.
    @usableFromInline package static let keyBytes = 250
    /// How much may arrive without a line feed before the connection is closed; `get` and `gets` lines are exempt.
    @usableFromInline package static let unterminatedBytes = 2048
    /// The longest line that is no `get` or `gets`, line end included: memcached's read buffer.
    @usableFromInline package static let lineBytes = 16384
    /// How many spaces may stand before a `get` that is exempt from the limits above.
    @usableFromInline package static let leadingSpaces = 100
    /// How many tokens of a line are looked at.
    @usableFromInline package static let tokens = 23
    /// How far into a line tokens are looked for.
    @usableFromInline package static let tokenizedBytes = 65534
    /// How many tokens a meta command has at most, its name and key included.
    @usableFromInline package static let metaTokens = 20
    /// The longest `O` token, its letter included.
    @usableFromInline package static let opaqueBytes = 32
    /// The largest data block a client may announce.
    @usableFromInline package static let valueBytes = Int(Int32.max) - 2
    /// The largest body of a binary request.
    @usableFromInline package static let binaryBodyBytes = 1 << 30
    /// The longest login data of `-Y` authentication.
    @usableFromInline package static let loginBytes = 16384
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What of a reply is not passed on: the client asked with `noreply`, meta `q` or a quiet opcode, the server was asked
/// aloud, so that replies can be told apart by their place.
package enum HideRule: UInt8, BitwiseCopyable, Sendable {
    case nothing
    case everything
    /// meta `mg … q`: `EN`.
    case metaMiss
    /// meta `ms`, `md`, `ma` with `q`: `HD`, and `VA` of ma.
    case metaHit
    /// Binary GETQ and its like: not found.
    case binaryMiss
    /// Binary SETQ and its like: success.
    case binaryHit
}

extension Request {
    /// What of the reply to it is not passed on.
    package var hideRule: HideRule {
        guard isQuiet else { return .nothing }
        switch form {
        case .classic: return .everything
        case .meta: return verb == .metaGet ? .metaMiss : .metaHit
        case .binary: return hidesMiss ? .binaryMiss : .binaryHit
        }
    }
}

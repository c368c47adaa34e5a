// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How a request ended, as far as routes tell replies apart.
///
/// Source: mcrouter's results, whose names failover settings use. A number that was counted is `stored`.
package enum RouteResult: UInt8, Sendable, CaseIterable {
    case unknown, deleted, touched, found
    /// A value that is stale, while somebody else has the lease to replace it.
    case foundStale
    case notFound
    /// A miss, while somebody else has the lease to fill it.
    case notFoundHot
    case notStored
    /// Stored as a value that is stale already.
    case staleStored
    case ok, stored, exists
    /// No answer in time, though there was a connection.
    case timeout
    case connectTimeout, connectError
    /// The server is overloaded.
    case busy
    /// The server refused this request and takes others.
    case tryAgain
    case shutdown
    /// Not sent: the destination is knocked out.
    case tko
    case badCommand, badKey, badFlags, badExptime, badLease, badCAS, badValue, aborted
    case clientError, localError, remoteError, deadlineExceeded, permissionDenied, hotKey, overloaded

    /// Whether something went wrong.
    package var isError: Bool { rawValue >= RouteResult.timeout.rawValue }

    /// Whether another destination may do better, where nobody says otherwise.
    package var isFailoverError: Bool {
        switch self {
        case .busy, .shutdown, .tko, .tryAgain, .localError, .connectError, .connectTimeout, .timeout, .remoteError,
            .deadlineExceeded:
            true
        default: false
        }
    }

    /// Whether the destination could not be reached or is shutting down.
    package var isHardFailure: Bool { self == .connectError || self == .connectTimeout || self == .shutdown }

    /// Whether no work was done at all.
    package var isUnreachable: Bool { self == .tko || isHardFailure }

    /// Whether there was what was asked for.
    package var isHit: Bool { self == .deleted || self == .found || self == .touched }

    /// A miss that nobody else is about to fill.
    package var isMiss: Bool { self == .notFound }

    /// A miss or a stale value that somebody else is about to replace.
    package var isHotMiss: Bool { self == .foundStale || self == .notFoundHot }

    /// Whether a value was stored.
    package var isStored: Bool { self == .stored || self == .staleStored }

    /// How bad it is: of several replies, routes that wait for all give the worst. `touched` is as good as `stored`,
    /// though mcrouter ranks it above all errors.
    package var severity: Int {
        switch self {
        case .ok, .stored, .staleStored, .exists, .deleted, .found, .touched: 1
        case .notFound, .notStored, .foundStale, .notFoundHot: 4
        case .timeout, .connectTimeout, .connectError, .busy, .shutdown, .tryAgain, .tko: 5
        case .badKey, .badValue, .aborted, .deadlineExceeded, .overloaded: 6
        case .remoteError, .unknown: 7
        case .localError: 8
        case .clientError: 9
        default: 10
        }
    }

    /// Whether it is worse than another.
    package func isWorse(than other: RouteResult) -> Bool { severity > other.severity }

    /// Its name in configurations.
    package var name: String {
        switch self {
        case .foundStale: "foundstale"
        case .notFound: "notfound"
        case .notFoundHot: "notfoundhot"
        case .notStored: "notstored"
        case .staleStored: "stalestored"
        case .connectTimeout: "connect_timeout"
        case .connectError: "connect_error"
        case .tryAgain: "try_again"
        case .badCommand: "bad_command"
        case .badKey: "bad_key"
        case .badFlags: "bad_flags"
        case .badExptime: "bad_exptime"
        case .badLease: "bad_lease_id"
        case .badCAS: "bad_cas_id"
        case .badValue: "bad_value"
        case .clientError: "client_error"
        case .localError: "local_error"
        case .remoteError: "remote_error"
        case .deadlineExceeded: "deadline_exceeded"
        case .permissionDenied: "permission_denied"
        case .hotKey: "hot_key"
        default: "\(self)"
        }
    }

    /// The error of that name; nil when there is none.
    package init?(errorName: some StringProtocol) {
        guard let found = Self.allCases.first(where: { $0.isError && $0.name == errorName }) else { return nil }
        self = found
    }

    /// The names of all errors, for messages.
    package static var errorNames: [String] { allCases.filter(\.isError).map(\.name) }
}

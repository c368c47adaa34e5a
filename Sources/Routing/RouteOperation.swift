// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a request asks for, as far as routes tell requests apart. The raw values are dense.
///
/// Meta commands have the same names: `mg` is a `get`, with `N` or `R` a `leaseGet`, without `v` a `metaGet`; `ms` is
/// what its mode says. The names are mcrouter's.
package enum RouteOperation: UInt8, Sendable, CaseIterable {
    case get, gets, gat, gats, metaGet, leaseGet
    case set, add, replace, append, prepend, cas, leaseSet
    case delete
    case increment, decrement
    case touch

    /// Requests that policies treat alike.
    package enum Group: Sendable, Equatable {
        case get, update, delete, arithmetic, other
    }

    /// Which kind of request it is. Source: mcrouter's routing groups; `touch` is in none.
    package var group: Group {
        switch self {
        case .get, .gets, .gat, .gats, .metaGet, .leaseGet: .get
        case .set, .add, .replace, .append, .prepend, .cas, .leaseSet: .update
        case .delete: .delete
        case .increment, .decrement: .arithmetic
        case .touch: .other
        }
    }

    /// Whether the request carries an expiry that a route may change. A delete's is never changed.
    package var hasExptime: Bool { group == .update || self == .gat || self == .gats || self == .touch }

    /// Whether it adds to a value that is there.
    var isExtending: Bool { self == .append || self == .prepend }

    /// Its name in configurations.
    package var name: String {
        switch self {
        case .get: "get"
        case .gets: "gets"
        case .gat: "gat"
        case .gats: "gats"
        case .metaGet: "metaget"
        case .leaseGet: "lease-get"
        case .set: "set"
        case .add: "add"
        case .replace: "replace"
        case .append: "append"
        case .prepend: "prepend"
        case .cas: "cas"
        case .leaseSet: "lease-set"
        case .delete: "delete"
        case .increment: "incr"
        case .decrement: "decr"
        case .touch: "touch"
        }
    }

    /// The operation of that name; nil when there is none.
    package init?(name: some StringProtocol) {
        guard let found = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = found
    }

    /// What a request is answered that was sent nowhere: a miss, or that nothing was stored.
    package var defaultResult: RouteResult { group == .update ? .notStored : .notFound }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
package import Memory
package import Reactor

/// Who the client of a connection is: the login that it still owes, and whose its requests are. One belongs to each
/// connection, on its reactor.
package struct ClientIdentity: Sendable {
    /// How far a login came.
    package enum Progress: Sendable, Equatable {
        /// What comes next are requests.
        case loggedIn
        /// More bytes are wanted: at least `needed` from the offset on, or any more when it is 0.
        case incomplete(needed: Int)
        /// Close without a word.
        case close
    }

    /// Whether nothing but a login is understood yet.
    package private(set) var mustLogIn: Bool
    private var login = AuthenticationParser()
    /// Who logged in; nil when nobody did.
    package private(set) var user: [UInt8]?
    /// Whose requests these are, as of ``tenantEpoch``; nil where there are no tenants.
    package private(set) var tenant: Tenant?
    /// The directory's epoch in which ``tenant`` was learnt; 0 before it was asked for, and when it must be again.
    package private(set) var tenantEpoch: UInt64 = 0
    /// With whom the connection is counted.
    private var counted: TenantMeters?

    /// A client that nothing is known of.
    package init(mustLogIn: Bool = false) { self.mustLogIn = mustLogIn }

    /// Takes a login out of `input`, from `offset` on, and moves `offset` past what was used; answers every try.
    ///
    /// `noteTry` is told of every name and password, and whether they were right: the caller counts them.
    package mutating func logIn(
        _ input: Span<UInt8>, at offset: inout Int, users: AuthenticationStore?, _ output: inout OutputBuffer,
        noteTry: (_ isRight: Bool) -> Void
    ) -> Progress {
        while mustLogIn {
            guard offset < input.count else { return .incomplete(needed: 0) }
            switch login.next(input, at: &offset) {
            case .incomplete(let needed): return .incomplete(needed: needed)
            case .close: return .close
            case .refused(let error): error.appendText(to: &output)
            case .credentials(let user, let password):
                let isRight =
                    users?.accepts(user: input.extracting(user), password: input.extracting(password)) ?? false
                noteTry(isRight)
                guard isRight else {
                    ErrorReply.loginFailed.appendText(to: &output)
                    continue
                }
                mustLogIn = false
                self.user = [UInt8](copying: input.extracting(user))
                tenantEpoch = 0
                output.append("STORED\r\n")
            }
        }
        return .loggedIn
    }

    /// The same for a connection, which it tells what to wait for, or to close. False when the turn is over.
    package mutating func logIn(
        _ connection: inout Connection, _ input: Span<UInt8>, at offset: inout Int, users: AuthenticationStore?,
        _ output: inout OutputBuffer, noteTry: (_ isRight: Bool) -> Void
    ) -> Bool {
        switch logIn(input, at: &offset, users: users, &output, noteTry: noteTry) {
        case .loggedIn: return true
        case .incomplete(let needed):
            if needed > 0 { connection.minimumInput(needed) }
        case .close: connection.closeAfterFlush()
        }
        return false
    }

    /// Finds the tenant of a client that is new, or has just logged in, or after the tenants changed: when
    /// ``tenantEpoch`` is not the directory's. Counts the connection as the tenant's, once a login is over. False where
    /// the tenant has as many as it may; one that was there before stays. Takes a lock.
    package mutating func findTenant(in directory: TenantDirectory, certificates: [[UInt8]]) -> Bool {
        let found = directory.membership(user: user, certificates: certificates)
        (tenant, tenantEpoch) = (found.tenant, found.epoch)
        guard !mustLogIn else { return true }
        let (before, meters) = (counted, found.tenant?.meters)
        counted = meters
        guard let meters else {
            before?.leave()
            return true
        }
        if let before, before.countsWith(meters) { return true }
        if meters.enter(already: before != nil) {
            before?.leave()
            return true
        }
        counted = nil
        return false
    }

    /// The connection is gone.
    package mutating func leave() {
        counted?.leave()
        counted = nil
    }
}

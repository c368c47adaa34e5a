// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Telemetry

/// Who a client is, and what it may not do.
extension RouterHandler {
    /// Finds out whose requests come next. False where the connection is one too many of its tenant's, and ends.
    @inline(__always)
    func identify(_ connection: inout Connection, _ output: inout OutputBuffer) -> Bool {
        let slot = connection.slot
        if clients[slot].identity.tenantEpoch != router.tenants.epoch, !findTenant(&connection, &output) {
            return false
        }
        if quota.isOn || clients[slot].identity.tenant != nil { quota.begin(clients[slot].identity.tenant, at: now) }
        return true
    }

    @inline(never)
    func findTenant(_ connection: inout Connection, _ output: inout OutputBuffer) -> Bool {
        let slot = connection.slot
        let isRoom = clients[slot].identity.findTenant(in: router.tenants, certificates: connection.tlsPeerNames)
        if isRoom { return true }
        clients[slot].identity.tenant?.noteOver(.connections, reactor: reactor.index)
        ErrorReply.tooManyConnectionsOfTenant.appendText(to: &output)
        connection.closeAfterFlush()
        return false
    }

    /// Whose requests come over a client's connection; nil where nobody is told apart, or it is gone.
    @inline(never)
    func tenant(of client: UInt64) -> Tenant? {
        let slot = ConnectionID(rawValue: client).slot
        guard slot < clients.count, clients[slot].id == client else { return nil }
        return clients[slot].identity.tenant
    }

    /// Who shares fairly with whom in front of a busy server: a hash of the client's tenant, else of its address; 0
    /// where it is gone.
    @inline(never)
    func share(of client: UInt64) -> UInt64 {
        let slot = ConnectionID(rawValue: client).slot
        guard slot < clients.count, clients[slot].id == client else { return 0 }
        return clients[slot].identity.tenant?.share ?? clients[slot].address
    }

    /// Whether the client's tenant may have the request that was parsed; answers it where not. `isWhole` is false where
    /// the value is still to come, and the request will be asked about again.
    @inline(never)
    func allows(_ slot: Int, _ input: Span<UInt8>, isWhole: Bool = true, _ output: inout OutputBuffer) -> Bool {
        guard let tenant = clients[slot].identity.tenant else { return true }
        let request = requests[0]
        let range = request.keyOffset..<request.keyOffset &+ request.keyLength
        let isAllowed: Bool
        var classes = request.commandClasses
        if request.keyIsDecoded {
            isAllowed = Self.admits(tenant, request, decoded, reactor: reactor.index, isWhole: isWhole)
        } else {
            let key = input.extracting(range)
            // Questions to the router itself.
            if request.isKeyOfGet, Self.isService(key) { classes = .admin }
            isAllowed = tenant.admits(classes, key: key, reactor: reactor.index, isWhole: isWhole)
        }
        guard isAllowed else {
            deny(slot, request, .accessDenied, &output)
            return false
        }
        guard quota.isOn, !classes.isDisjoint(with: .data) else { return true }
        return keepsQuota(slot, request, isWhole: isWhole, tenant, &output)
    }

    /// Whether a request is within the tenant's quotas; refuses it where not.
    private func keepsQuota(
        _ slot: Int, _ request: Request, isWhole: Bool, _ tenant: Tenant, _ output: inout OutputBuffer
    ) -> Bool {
        let isInvalidation = request.verb == .delete || request.verb == .metaDelete
        let used =
            isWhole
            ? quota.admit(bytes: request.quotaBytes, sent: 0, isInvalidation: isInvalidation) : quota.look(sent: 0)
        guard let used else { return true }
        tenant.noteOver(used, reactor: reactor.index)
        let error = used == .operations ? ErrorReply.overOperations : .overBytes
        // What is written at once is not charged, nor is what waits in its place in line.
        let isPart = request.isKeyOfGet && (clients[slot].traits.contains(.inGet) || !request.isLastKeyOfGet)
        let isSilent = request.form == .classic && request.isQuiet
        if !isPart, !isSilent, clients[slot].count > 0 || clients[slot].ready >= 0 {
            clients[slot].freeBytes += error.replyLength(in: request.form)
        }
        deny(slot, request, error, &output)
        return false
    }

    private static func admits(
        _ tenant: Tenant, _ request: Request, _ decoded: borrowing FixedArray<OutputBuffer>, reactor: Int, isWhole: Bool
    ) -> Bool {
        let key = decoded[0].span.extracting(request.keyOffset..<request.keyOffset + request.keyLength)
        return tenant.admits(request.commandClasses, key: key, reactor: reactor, isWhole: isWhole)
    }

    /// Answers a request that is denied. Of a get of several keys, the error stands in place of the rest.
    private func deny(_ slot: Int, _ request: Request, _ error: ErrorReply, _ output: inout OutputBuffer) {
        let isInGet = clients[slot].traits.contains(.inGet)
        guard request.isKeyOfGet, isInGet || !request.isLastKeyOfGet else {
            return refuse(slot, request, error, &output)
        }
        meter.counters.add(.refused)
        if request.isLastKeyOfGet { clients[slot].traits.remove(.inGet) } else { clients[slot].traits.insert(.inGet) }
        guard let ticket = openTicket(slot, request) else { return }
        tickets[ticket].traits.insert(.partOfGet)
        let scratch = takeBuffer()
        error.appendText(to: &buffers[Int(scratch)].bytes)
        buffers[Int(scratch)].bytes.withSpan { errorOfGet(ticket, $0) }
        giveBuffer(scratch)
        done(ticket)
        if request.isLastKeyOfGet { endGet(slot, request) }
    }

    /// Text where there are users: nothing but a login is understood. False when the turn is over.
    func logIn(
        _ connection: inout Connection, _ input: Span<UInt8>, at offset: inout Int, _ output: inout OutputBuffer
    ) -> Bool {
        let isLoggedIn = clients[connection.slot].identity.logIn(
            &connection, input, at: &offset, users: router.users, &output
        ) { isRight in
            if !isRight { meter.counters.add(.refused) }
        }
        return isLoggedIn && offset < input.count
    }
}

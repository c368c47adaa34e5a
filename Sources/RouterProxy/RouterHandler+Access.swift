// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Telemetry

/// Who a client is, and what it may not do.
extension RouterHandler {
    /// Finds out whose requests come next. False where everybody may do everything.
    @inline(__always)
    func identify(_ connection: inout Connection) -> Bool {
        let slot = connection.slot
        if clients[slot].identity.tenantEpoch != router.tenants.epoch { findTenant(&connection) }
        return clients[slot].identity.tenant != nil
    }

    @inline(never)
    private func findTenant(_ connection: inout Connection) {
        clients[connection.slot].identity.findTenant(in: router.tenants, certificates: connection.tlsPeerNames)
    }

    /// Whether the client's tenant may have the request that was parsed; answers it where not. `isWhole` is false where
    /// the value is still to come, and the request will be asked about again.
    @inline(never)
    func allows(_ slot: Int, _ input: Span<UInt8>, isWhole: Bool = true, _ output: inout OutputBuffer) -> Bool {
        guard let tenant = clients[slot].identity.tenant else { return true }
        let request = requests[0]
        let range = request.keyOffset..<request.keyOffset &+ request.keyLength
        let isAllowed: Bool
        if request.keyIsDecoded {
            isAllowed = Self.admits(tenant, request, decoded, reactor: reactor.index, isWhole: isWhole)
        } else {
            let key = input.extracting(range)
            // Questions to the router itself.
            let isService = request.isKeyOfGet && Self.isService(key)
            isAllowed = tenant.admits(
                isService ? .admin : request.commandClasses, key: key, reactor: reactor.index, isWhole: isWhole)
        }
        if !isAllowed { deny(slot, request, &output) }
        return isAllowed
    }

    private static func admits(
        _ tenant: Tenant, _ request: Request, _ decoded: borrowing FixedArray<OutputBuffer>, reactor: Int, isWhole: Bool
    ) -> Bool {
        let key = decoded[0].span.extracting(request.keyOffset..<request.keyOffset + request.keyLength)
        return tenant.admits(request.commandClasses, key: key, reactor: reactor, isWhole: isWhole)
    }

    /// Answers a request that is denied. Of a get of several keys, the error stands in place of the rest.
    private func deny(_ slot: Int, _ request: Request, _ output: inout OutputBuffer) {
        let isInGet = clients[slot].traits.contains(.inGet)
        guard request.isKeyOfGet, isInGet || !request.isLastKeyOfGet else {
            return refuse(slot, request, .accessDenied, &output)
        }
        meter.counters.add(.refused)
        if request.isLastKeyOfGet { clients[slot].traits.remove(.inGet) } else { clients[slot].traits.insert(.inGet) }
        guard let ticket = openTicket(slot, request) else { return }
        tickets[ticket].traits.insert(.partOfGet)
        let scratch = takeBuffer()
        ErrorReply.accessDenied.appendText(to: &buffers[Int(scratch)].bytes)
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

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Reactor

/// What a tenant may not do. A denial changes nothing: of a set, the old value stays.
extension RequestExecutor {
    /// Whether each request is to be looked at by itself.
    var isRestricted: Bool { tenant != nil }

    /// Whether the tenant may have this; answers it where not. `isWhole` is false where the value is still to come, and
    /// the request will be asked about again.
    @inline(never)
    mutating func allows(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, isWhole: Bool = true,
        _ output: inout OutputBuffer
    ) -> Bool {
        guard let tenant else { return true }
        if skipsDeniedGet {
            // Of a get of several keys, the denial of one stands in place of the rest.
            skipsDeniedGet = request.isKeyOfGet && !request.isLastKeyOfGet
            if request.isKeyOfGet { return false }
        }
        // Keys behind a refusal of the same get have had their answer.
        if shedder.caller.skipsKeysOfGet { return !skips(request) }
        let classes = request.commandClasses
        if tenant.admits(classes, key: key, reactor: reactor.index, isWhole: isWhole) {
            guard quota.isOn, !classes.isDisjoint(with: .data) else { return true }
            return keepsQuota(request, key: key, input, isWhole: isWhole, tenant, &output)
        }
        refuse(.accessDenied, request, &output)
        if request.isKeyOfGet {
            noteEndOfGet(output)
            skipsDeniedGet = !request.isLastKeyOfGet
        }
        return false
    }

    /// Whether a request is within the tenant's quotas; refuses it where not, as under overload.
    private mutating func keepsQuota(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, isWhole: Bool, _ tenant: Tenant,
        _ output: inout OutputBuffer
    ) -> Bool {
        let sent = output.totalCount &- outputBefore
        let isInvalidation = request.verb == .delete || request.verb == .metaDelete
        let used =
            isWhole
            ? quota.admit(bytes: request.quotaBytes, sent: sent, isInvalidation: isInvalidation)
            : quota.look(sent: sent)
        guard let used else { return true }
        tenant.noteOver(used, reactor: reactor.index)
        let before = output.count
        refuseBusy(request, key: key, input, &output, over: used)
        quota.exclude(output.count &- before)
        return false
    }

    /// Takes back that a request counts: it is not served after all.
    mutating func returnQuota(_ request: Request) {
        if quota.isOn, !request.commandClasses.isDisjoint(with: .data) { quota.giveBack(bytes: request.quotaBytes) }
    }

    /// Counts a request that was let through before it was whole.
    mutating func noteAllowed(_ request: Request, key: Span<UInt8>) {
        guard let tenant else { return }
        _ = tenant.admits(request.commandClasses, key: key, reactor: reactor.index, isWhole: true)
        quota.charge(bytes: request.quotaBytes)
    }
}

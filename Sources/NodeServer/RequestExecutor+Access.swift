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
        _ request: Request, key: Span<UInt8>, isWhole: Bool = true, _ output: inout OutputBuffer
    ) -> Bool {
        guard let tenant else { return true }
        if skipsDeniedGet {
            // Of a get of several keys, the denial of one stands in place of the rest.
            skipsDeniedGet = request.isKeyOfGet && !request.isLastKeyOfGet
            if request.isKeyOfGet { return false }
        }
        // Keys behind a refusal of the same get have had their answer.
        if shedder.isCareful, shedder.caller.skipsKeysOfGet { return true }
        if tenant.admits(request.commandClasses, key: key, reactor: reactor.index, isWhole: isWhole) { return true }
        refuse(.accessDenied, request, &output)
        if request.isKeyOfGet {
            noteEndOfGet(output)
            skipsDeniedGet = !request.isLastKeyOfGet
        }
        return false
    }

    /// Counts a request that was let through before it was whole.
    func noteAllowed(_ request: Request, key: Span<UInt8>) {
        _ = tenant?.admits(request.commandClasses, key: key, reactor: reactor.index, isWhole: true)
    }
}

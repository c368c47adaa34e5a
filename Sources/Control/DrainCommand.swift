// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// `martletctl drain`: a node or a router is no longer ready, leaves the members, and serves who still comes.
struct DrainCommand {
    let client: HTTPClient
    /// How long to wait for clients to go, in seconds; nil does not wait.
    let waitSeconds: Int?
    let isJSON: Bool

    /// Begins, and waits if that is wanted. What is left of clients then is no error: they are told to go, not made to.
    func run() throws(ControlError) -> String {
        let begun = Clock.monotonicNanoseconds()
        var answer = try client.send("POST", "/drain")
        let parking = Parking()
        while let waitSeconds, answer.field("drained") != "true",
            Clock.monotonicNanoseconds() - begun < UInt64(waitSeconds) * 1_000_000_000
        {
            parking.wait(parking.ticket, timeoutNanoseconds: Self.pauseNanoseconds)
            do throws(ControlError) {
                answer = try client.send("POST", "/drain")
            } catch  where error.code == .unavailable {
                // Somebody ended it meanwhile: nobody is served there any more.
                return isJSON ? "{\"phase\":\"ended\",\"drained\":true}\n" : "ended\n"
            }
        }
        if isJSON { return answer.text }
        let (connections, active) = (answer.field("connections") ?? "?", answer.field("active") ?? "?")
        let head = answer.field("drained") == "true" ? "drained" : answer.field("phase") ?? "draining"
        return "\(head): \(active) of \(connections) connections were used in the last second\n"
    }

    private static var pauseNanoseconds: UInt64 { 100_000_000 }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Platform
internal import Reactor
internal import Storage

/// Those who ask which region is home, or have this one fenced as their own is to be.
extension StreamHandler {
    /// Answers one who asks; whether it is such a one. What is wanted of the database is answered later.
    func answersAsker(
        _ frame: StreamFrame, _ connection: inout Connection, _ output: inout OutputBuffer
    ) -> Bool {
        let slot = connection.slot
        guard let keeper = shared.keeper.withLock({ $0 }) else { return false }
        switch frame {
        case .ask(let cluster, let region):
            var hello = StreamHello()
            (hello.cluster, hello.region) = (cluster, region)
            if let reason = stranger(hello, connection) {
                refuse(reason, &connection, &output)
                return true
            }
            sessions[slot]?.asker = region
            let term = keeper.term
            let isOwn = term.region == configuration.region
            send(.home(term, isOwn ? shared.source?.takeover : nil), &output)
        case .fence(let term): want(.fence, term, keeper, &connection, &output)
        case .claim(let term): want(.claim, term, keeper, &connection, &output)
        case .release(let term): want(.release, term, keeper, &connection, &output)
        default: return false
        }
        return true
    }

    private func want(
        _ wish: HomeWish, _ term: HomeTerm, _ keeper: any HomeKeeper, _ connection: inout Connection,
        _ output: inout OutputBuffer
    ) {
        guard let asker = sessions[connection.slot]?.asker, asker == term.region else {
            return refuse("a region speaks for itself only", &connection, &output)
        }
        let shared = shared
        let errand = HomeErrand(connection: connection.id, wish: wish, term: term)
        if let reason = shared.clerk.take(errand, keeper, ready: { shared.noteAnswers() }) {
            refuse(reason, &connection, &output)
        }
    }

    /// Hands on what came of what other regions wanted, to those who are there yet.
    func answerErrands(_ loop: inout ReactorLoop) {
        for (errand, answer) in shared.clerk.takeAnswers() {
            loop.withConnection(errand.connection) { connection, output in
                switch answer {
                case .done: send(.done(epoch: errand.term.epoch), &output)
                case .contested(let other): send(.contested(other), &output)
                case .refused(let reason): refuse(reason, &connection, &output)
                case .unknown(let reason):
                    // No answer is the answer where it may have been done.
                    noteRefused(reason, connection)
                    connection.closeNow()
                }
            }
        }
    }

    private func refuse(_ reason: String, _ connection: inout Connection, _ output: inout OutputBuffer) {
        noteRefused(reason, connection)
        send(.refused(reason), &output)
        connection.closeAfterFlush()
    }

    private func noteRefused(_ reason: String, _ connection: borrowing Connection) {
        refused += 1
        log("stream: what another region asks is refused", reason, connection)
    }
}

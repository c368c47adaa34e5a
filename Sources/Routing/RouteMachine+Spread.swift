// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A read of a hot key that goes to a copy of it: places in the pool.
struct SpreadRead {
    let pool: Int
    let owner: Int
    let copy: Int
    var isMissing = false
}

/// Reads of hot keys from copies, which are made of what the owner says.
extension RouteMachine {
    /// Asks a server with a copy; false where the pool has too few servers.
    mutating func beginSpread(_ pool: Int, _ form: Int, _ place: Place, _ turn: inout Turn) -> Bool {
        let found = turn.plan.copies(request.copy + 1, ofKey: key(of: form), pool: pool)
        guard request.copy < found.count else { return false }
        let read = SpreadRead(pool: pool, owner: found[0], copy: found[request.copy])
        let frame = open(Self.root, form, place, .spread(read))
        send(form, to: turn.plan.pools[pool].destinations[read.copy], pool: pool, child(of: frame, 0), &turn)
        return true
    }

    /// What a copy's server has counts; otherwise its owner is asked, and what it has is stored there for a while.
    mutating func continueSpread(_ frame: Int, _ slot: Int, _ outcome: Outcome, _ turn: inout Turn) {
        guard case .spread(var read) = frames[frame].work else { return }
        let destinations = turn.plan.pools[read.pool].destinations
        if slot == 0 {
            if outcome.result == .found { return finish(frame, outcome, &turn) }
            // One that cannot answer is not stored to.
            read.isMissing = outcome.result == .notFound
            frames[frame].work = .spread(read)
            return send(frames[frame].form, to: destinations[read.owner], pool: read.pool, child(of: frame, 1), &turn)
        }
        finish(frame, outcome, &turn)
        guard read.isMissing, outcome.result == .found, let token = outcome.token else { return }
        let fill = add(
            Form(
                operation: .add, exptime: turn.clock.exptime(inSeconds: Int64(request.copyTTL)), value: .reply(token),
                flags: outcome.flags, isSame: false))
        var nobody = Place.client.nobody
        nobody.kind = .fill
        send(fill, to: destinations[read.copy], pool: read.pool, nobody, &turn)
    }
}

/// Servers that are warming up.
extension RouteMachine {
    /// Has the server that a key will belong to forget what it fetched of it, whatever is done to the key now. A delete
    /// rather than the write itself: two writes may come to two servers in two orders.
    mutating func deleteAhead(_ pool: Int, _ form: Int, _ place: Place, _ turn: inout Turn) {
        guard forms[form].operation.group != .get, let next = turn.plan.joining(key(of: form), pool: pool) else {
            return
        }
        let delete = add(Form(operation: .delete, key: forms[form].key, isSame: false))
        send(delete, to: next, pool: pool, place.nobody, &turn)
    }
}

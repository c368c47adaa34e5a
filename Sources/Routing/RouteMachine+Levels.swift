// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What is done beside a request, in a frame of no handle.
enum Chain {
    /// The shadow's lease is remembered for the ordinary one's.
    case shadowLease(UInt64)
    /// How long a value lives is asked, and then it is stored elsewhere: what `write` says, but for the expiry.
    case expiry(target: Int, write: RouteMachine.Form)
    /// A mark of a miss is made anew, or replaced.
    case refresh(target: Int, TwoLevels)
    /// What stands for a long value that is gone is taken away: read, and then replaced by nothing.
    case sentinel(target: Int, text: [UInt8])
}

extension RouteMachine {
    /// A simple read of a form's key.
    mutating func read(_ form: Int, _ operation: RouteOperation = .get) -> Int {
        add(Form(operation: operation, key: forms[form].key, isSame: false))
    }

    /// A form that stores what a reply holds; nil when that is not one server's value.
    private func write(
        _ operation: RouteOperation, of outcome: Outcome, _ form: Int, exptime: Int64, casToken: UInt64? = nil
    ) -> Form? {
        guard let token = outcome.token else { return nil }
        return Form(
            operation: operation, key: forms[form].key, exptime: exptime, value: .reply(token), flags: outcome.flags,
            casToken: casToken, isSame: false)
    }

    /// A form that stores what a reply holds for so many seconds; 0 is for ever.
    private func write(
        _ operation: RouteOperation, of outcome: Outcome, _ form: Int, seconds: UInt32, _ clock: RouteClock
    ) -> Form? {
        write(operation, of: outcome, form, exptime: clock.exptime(inSeconds: Int64(seconds)))
    }

    /// The expiry to store with, from what is left of a value's time; nil when it must not be stored.
    private static func expiry(_ outcome: Outcome, _ clock: RouteClock) -> Int64? {
        guard outcome.result.isHit, let left = outcome.exptime else { return nil }
        return left < 0 ? 0 : left == 0 ? nil : clock.exptime(inSeconds: left)
    }

    mutating func continueChain(
        _ frame: Int, _ chain: Chain, _ slot: Int, _ outcome: Outcome, _ turn: inout Turn
    ) {
        let place = frames[frame].place
        switch chain {
        case .shadowLease(let token):
            if outcome.hasLease { turn.engine.remember(shadowLease: outcome.casToken, for: token) }
            finish(frame, outcome, &turn)
        case .expiry(let target, var write):
            finish(frame, outcome, &turn)
            guard let exptime = Self.expiry(outcome, turn.clock) else { return }
            write.exptime = exptime
            begin(target, add(write), place.nobody, &turn)
        case .refresh(let target, let levels):
            finish(frame, outcome, &turn)
            let form = frames[frame].form
            let copied =
                outcome.result.isHit
                ? write(.set, of: outcome, form, seconds: levels.upgradingExptime, turn.clock)
                : missMark(.set, form, levels, turn.clock)
            if let copied { begin(target, add(copied), place.nobody, &turn) }
        case .sentinel(let target, let text):
            let isThere = outcome.result.isHit && outcome.flags & SizeSplit.flag != 0 && outcome.text == text
            guard slot == 0, isThere else { return finish(frame, outcome, &turn) }
            let gone = Form(
                operation: .cas, key: forms[frames[frame].form].key, exptime: -1, value: .bytes([]), flags: 0,
                casToken: outcome.casToken, isSame: false)
            begin(target, add(gone), child(of: frame, 1), &turn)
        }
    }

    // MARK: Warming up

    mutating func continueWarmUp(
        _ frame: Int, _ cold: Int, _ warm: Int, _ exptime: UInt32?, _ outcome: Outcome, _ turn: inout Turn
    ) {
        let form = frames[frame].form
        let operation = forms[form].operation
        switch frames[frame].phase {
        case 0:
            let isFilled = operation == .leaseGet && outcome.result.isHotMiss
            if outcome.result.isHit || isFilled { return finish(frame, outcome, &turn) }
            frames[frame].best = outcome
            frames[frame].phase = 1
            let isPlain = operation == .get || operation == .metaGet
            begin(warm, isPlain ? form : read(form), child(of: frame), &turn)
        case 1: continueWarm(frame, cold, warm, exptime, outcome, &turn)
        case 2:
            // How long the value lives in the warm pool.
            guard let left = Self.expiry(outcome, turn.clock), let found = warmOutcome(frame) else {
                return giveUpWarm(frame, &turn)
            }
            fill(frame, cold, found, exptime: left, &turn)
        case 3:
            frames[frame].phase = 4
            begin(cold, form, child(of: frame), &turn)
        default: finish(frame, outcome, &turn)
        }
    }

    private mutating func continueWarm(
        _ frame: Int, _ cold: Int, _ warm: Int, _ exptime: UInt32?, _ outcome: Outcome, _ turn: inout Turn
    ) {
        let form = frames[frame].form
        switch forms[form].operation {
        case .metaGet: finish(frame, outcome, &turn)
        case .get:
            finish(frame, outcome, &turn)
            guard outcome.result.isHit, let write = write(.add, of: outcome, form, seconds: exptime ?? 0, turn.clock)
            else { return }
            let nobody = frames[frame].place.nobody
            guard exptime == nil else { return begin(cold, add(write), nobody, &turn) }
            let chain = open(frames[frame].handle, form, nobody, .chain(.expiry(target: cold, write: write)))
            begin(warm, read(form, .metaGet), child(of: chain), &turn)
        case .gat, .gats:
            guard outcome.result.isHit else { return giveUpWarm(frame, &turn) }
            fill(frame, cold, outcome, exptime: forms[form].exptime ?? request.exptime, &turn)
        default:
            guard outcome.result.isHit else { return giveUpWarm(frame, &turn) }
            if let exptime {
                return fill(frame, cold, outcome, exptime: turn.clock.exptime(inSeconds: Int64(exptime)), &turn)
            }
            frames[frame].work = .found(outcome)
            frames[frame].phase = 2
            begin(warm, read(form, .metaGet), child(of: frame), &turn)
        }
    }

    private func warmOutcome(_ frame: Int) -> Outcome? {
        if case .found(let outcome) = frames[frame].work { return outcome }
        return nil
    }

    /// The cold pool's reply is the one to give.
    private mutating func giveUpWarm(_ frame: Int, _ turn: inout Turn) {
        finish(frame, frames[frame].best ?? .made(.notFound), &turn)
    }

    /// Stores what the warm pool had in the cold one: for a lease at once, else before the cold one is asked anew.
    private mutating func fill(
        _ frame: Int, _ cold: Int, _ found: Outcome, exptime: Int64, _ turn: inout Turn
    ) {
        let form = frames[frame].form
        guard forms[form].operation == .leaseGet else {
            guard let write = write(.add, of: found, form, exptime: exptime) else { return giveUpWarm(frame, &turn) }
            frames[frame].phase = 3
            return begin(cold, add(write), child(of: frame), &turn)
        }
        let lease = frames[frame].best.flatMap { $0.hasLease ? $0.casToken : nil }
        finish(frame, found, &turn)
        guard let lease, let write = write(.leaseSet, of: found, form, exptime: exptime, casToken: lease) else {
            return
        }
        begin(cold, add(write), frames[frame].place.nobody, &turn)
    }

    // MARK: Two levels

    mutating func continueTwoLevels(
        _ frame: Int, _ first: Int, _ second: Int, _ levels: TwoLevels, _ outcome: Outcome, _ turn: inout Turn
    ) {
        let (form, handle) = (frames[frame].form, frames[frame].handle)
        let nobody = frames[frame].place.nobody
        if frames[frame].phase == 0 {
            guard outcome.result.isHit else {
                frames[frame].phase = 1
                frames[frame].best = outcome.hasLease ? outcome : nil
                return begin(second, form, child(of: frame), &turn)
            }
            guard outcome.flags & TwoLevels.missFlag != 0 else { return finish(frame, outcome, &turn) }
            finish(frame, .made(.notFound), &turn)
            if levels.missPeriod > 0, turn.engine.isRefreshed(handle, period: levels.missPeriod) {
                let chain = open(handle, form, nobody, .chain(.refresh(target: first, levels)))
                begin(second, form, child(of: chain), &turn)
            }
            return
        }
        // The first level's lease: what the second has fills it, else it is the client's.
        let lease = frames[frame].best
        finish(frame, outcome.result.isHit ? outcome : lease ?? outcome, &turn)
        guard forms[form].operation != .metaGet, !isValueless(form) else { return }
        var copied: Form?
        if outcome.result.isHit, let lease {
            let exptime = turn.clock.exptime(inSeconds: Int64(levels.upgradingExptime))
            copied = write(.leaseSet, of: outcome, form, exptime: exptime, casToken: lease.casToken)
        } else if outcome.result.isHit {
            copied = write(.add, of: outcome, form, seconds: levels.upgradingExptime, turn.clock)
        } else if outcome.result.isMiss, lease == nil, levels.missPeriod > 0 {
            copied = missMark(.add, form, levels, turn.clock)
        }
        if let copied { begin(first, add(copied), nobody, &turn) }
    }

    private func missMark(_ operation: RouteOperation, _ form: Int, _ levels: TwoLevels, _ clock: RouteClock) -> Form {
        Form(
            operation: operation, key: forms[form].key, exptime: clock.exptime(inSeconds: Int64(levels.missExptime)),
            value: .bytes(TwoLevels.missValue), flags: TwoLevels.missFlag, isSame: false)
    }
}

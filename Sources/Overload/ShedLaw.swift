// Martlet
// SPDX-License-Identifier: Apache-2.0

/// From the queueing delay to whether the node is overloaded, and to the share of the offered cost that is shed.
///
/// Two laws, each for what the other is bad at. While overloaded, whoever applies it refuses what is too old: that
/// bounds the delay at once, blindly. A proportional-integral controller moves a ratio, slower, until the delay is at
/// its target: that says whose requests to refuse before they wait. The step after the entry starts the ratio where the
/// age rule stood.
package struct ShedLaw: Sendable {
    /// Gains per step. Hand-tuned: from 0 to 0.9 in about 25 steps at twice the target.
    private static let proportional = 0.05
    private static let integral = 0.02
    private static let takeover = 0.25
    private static let lateMin = 0.2
    /// Offered work, of what the time allows, below which nothing is overloaded, whatever waits in a bundle.
    private static let busyLoad = 0.7
    private static let loadWeight = 0.1
    /// What more is offered counts as: or it would long be remembered when it is over.
    private static let mostLoad = 1.2
    /// The ratio never reaches 1: something must be served to see that there is room again.
    private static let ratioMax = 0.98
    /// What is left of the ratio after a step without a queue.
    private static let idleDecay = 0.9
    private static let ratioMin = 0.01
    /// The least part of the time that is ours in an overload of ours. Who runs less waits for a processor that others
    /// have: to refuse what takes a fiftieth of it makes nobody's wait shorter.
    private static let leastShare = 0.02

    /// The share of the offered cost to refuse, 0 to 0.98.
    package private(set) var ratio = 0.0
    /// Whether requests are refused at all.
    package private(set) var isOverloaded = false
    /// How often an overload began.
    package private(set) var entries = 0

    private let configuration: OverloadConfiguration
    private var lastError = 0.0
    private var lastDelay: UInt64 = 0
    private var stepsOver = 0
    /// The largest delay of those steps in a row.
    private var peak: UInt64 = 0
    /// How long they took, and how much of that the reactor ran, in nanoseconds.
    private var timeOver: UInt64 = 0
    private var ranOver: UInt64 = 0
    private var calmSteps = 0
    private var isFirstStep = false
    /// The offered work of late, as a part of the time.
    private var load = 1.0

    /// At rest.
    package init(_ configuration: OverloadConfiguration) {
        self.configuration = configuration
        isOverloaded = configuration.refusesAll
    }

    /// Takes a step: `delay` is the signal in nanoseconds; `offered` and `refused` are what came in and what was
    /// refused since the last step, as cost, and `late` the part of the latter that was within the ratio and waited too
    /// long. `lateShare` is the share of the cost that classes have which matter no more than those that were late.
    /// Where turns take longer than a step, one step stands for as many as went by, `count`. `ran` is how much of the
    /// time since the last step, `elapsed`, the reactor had a processor, both in nanoseconds.
    package mutating func step(
        delay: UInt64, offered: Double, refused: Double, late: Double, lateShare: Double = 1, count: Int = 1,
        ran: UInt64 = 1, elapsed: UInt64 = 1
    ) {
        let target = configuration.targetNanoseconds
        guard target > 0 else { return }
        defer { lastDelay = delay }
        // One turn that the scheduler held up is not the whole of an overload.
        stepsOver = delay > target ? stepsOver + min(count, configuration.entrySteps / 2) : 0
        peak = stepsOver > 0 ? max(peak, delay) : 0
        timeOver = stepsOver > 0 ? timeOver &+ elapsed : 0
        ranOver = stepsOver > 0 ? ranOver &+ ran : 0
        guard isOverloaded else {
            let grows = delay > configuration.entryFactor * target && delay >= lastDelay && lastDelay > target
            if stepsOver >= entrySteps(delay) || grows, Self.isOurs(ran: ranOver, of: timeOver) { enter() }
            return
        }
        load += Self.loadWeight * (min(offered / Double(configuration.stepNanoseconds), Self.mostLoad) - load)
        let isBusy = load >= Self.busyLoad
        // Half the target: the age rule alone holds the delay just below the whole, and the ratio would never grow.
        let aim = Double(target) / 2
        var error = (Double(delay) - aim) / aim
        // A queue that the age rule emptied is no sign of room.
        let isHeldByAge = isBusy && late > Self.lateMin * offered
        error = min(max(error, isHeldByAge ? 0 : -1), 2)
        if isFirstStep, offered > 0 { ratio = max(ratio, min(refused / offered, lateShare)) }
        isFirstStep = false
        ratio += Self.proportional * (error - lastError) + Self.integral * error
        // What waited in vain should have been refused before it waited.
        if isBusy, offered > 0, ratio < lateShare { ratio += Self.takeover * (lateShare - ratio) * late / offered }
        if delay == 0, !isHeldByAge { ratio *= Self.idleDecay }
        ratio = min(max(ratio, 0), Self.ratioMax)
        if ratio < Self.ratioMin, delay <= target { ratio = 0 }
        lastError = error
        calmSteps = delay <= target && (refused == 0 || !isBusy) ? calmSteps + 1 : 0
        if calmSteps >= configuration.exitSteps { leave() }
    }

    /// In the midst of a turn whose input waited `waited` nanoseconds before it, and which goes on for `spent`: what
    /// waits behind both is already too late, and each turn is longer than the one before. Then the next step is too
    /// late as well. `ran` is how much of the time since the last step, `elapsed`, the reactor had a processor.
    package mutating func look(waited: UInt64, spent: UInt64, ran: @autoclosure () -> UInt64, elapsed: UInt64) {
        let target = configuration.targetNanoseconds
        guard target > 0, !isOverloaded, waited > target, spent > waited else { return }
        guard waited &+ spent > 2 * configuration.entryFactor * target else { return }
        if Self.isOurs(ran: ran(), of: elapsed) { enter() }
    }

    /// Steps in a row over the target that make an overload of this delay. What fell from its peak by a quarter is a
    /// burst that drains, and has twice the time for it; what is far over the target and does not fall has less.
    private func entrySteps(_ delay: UInt64) -> Int {
        if delay < peak * 3 / 4 { return 2 * configuration.entrySteps }
        let isFar = delay > configuration.farFactor * configuration.targetNanoseconds && delay > peak * 4 / 5
        return isFar ? configuration.farSteps : configuration.entrySteps
    }

    private static func isOurs(ran: UInt64, of elapsed: UInt64) -> Bool { Double(ran) >= leastShare * Double(elapsed) }

    private mutating func enter() {
        isOverloaded = true
        isFirstStep = true
        entries += 1
        ratio = 0
        lastError = 0
        calmSteps = 0
        load = 1
    }

    private mutating func leave() {
        guard !configuration.refusesAll else { return }
        isOverloaded = false
        ratio = 0
        stepsOver = 0
        timeOver = 0
        ranOver = 0
    }
}

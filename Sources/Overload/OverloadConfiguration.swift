// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How a node tells that it is overloaded, and what it does then. The figures are those of CoDel as Facebook uses it,
/// of Breakwater and of DAGOR, brought to the noise of a Linux socket server, and then tuned by this project's tests.
///
/// Source: folly/executors/Codel; Cho et al., "Overload Control for µs-scale RPCs with Breakwater", OSDI 2020; Zhou et
/// al., "Overload Control for Scaling WeChat Microservices", SoCC 2018.
package struct OverloadConfiguration: Sendable, Equatable {
    /// The queueing delay to hold, in nanoseconds; 0 switches shedding off.
    package var targetNanoseconds: UInt64 = 1_000_000
    /// Whether only is counted what would be refused.
    package var isDryRun = false
    /// Whether all is refused that may be, overload or none: to measure what refusing costs.
    package var refusesAll = false
    /// How often the law takes its step, in nanoseconds.
    package var stepNanoseconds: UInt64 = 10_000_000
    /// Steps in a row over the target that make an overload. A burst that drains in less is none.
    package var entrySteps = 6
    /// A delay of so many targets that still grows is one at once.
    package var entryFactor: UInt64 = 15
    /// A delay of more targets than this that does not fall is one after fewer steps.
    package var farFactor: UInt64 = 4
    /// These steps. With three of them, bursts are taken for one.
    package var farSteps = 4
    /// Steps in a row within the target, without a refusal, that end it.
    package var exitSteps = 10
    /// Share of a step's time that invalidations have for themselves.
    package var reservedShare = 0.2

    /// The defaults.
    package init() {}
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How many virtual users a ramping-vus scenario has at each time: a staircase along its stages. Times are nanoseconds
/// from the scenario's start.
package struct UserRamp: Sendable {
    /// From `time` on there are `users`.
    package struct Step: Sendable, Equatable {
        /// Nanoseconds.
        package let time: UInt64
        /// How many there are from then on.
        package let users: Int
    }

    /// The steps, in rising order of time; the first is at 0.
    package let steps: [Step]
    /// When the last stage ends.
    package let end: UInt64

    /// The staircase from `start` along `stages`. A ramp over n users has n steps, at equal distances, the last one at
    /// its end.
    package init(start: Int, stages: [Stage]) {
        var steps = [Step(time: 0, users: start)]
        var (at, users) = (UInt64(0), start)
        for stage in stages {
            let target = Int(stage.target)
            let change = target - users
            if stage.duration == 0 {
                if change != 0 { steps.append(Step(time: at, users: target)) }
            } else {
                for index in stride(from: 1, through: change.magnitude, by: 1) {
                    let part = Double(stage.duration) * Double(index) / Double(change.magnitude)
                    steps.append(Step(time: at + UInt64(part), users: users + (change > 0 ? 1 : -1) * Int(index)))
                }
            }
            at += stage.duration
            users = target
        }
        self.steps = steps
        end = at
    }

    /// How many there are at `time`; none after the end.
    package func users(at time: UInt64) -> Int {
        guard time < end else { return 0 }
        return steps[index(at: time)].users
    }

    /// Whether user `user` (from 0) runs at `time`, and the time when that changes; nil when it never does again.
    package func state(of user: Int, at time: UInt64) -> (isActive: Bool, until: UInt64?) {
        guard time < end else { return (false, nil) }
        let now = index(at: time)
        let isActive = steps[now].users > user
        for later in steps[(now + 1)...] where (later.users > user) != isActive && later.time < end {
            return (isActive, later.time)
        }
        return (isActive, isActive ? end : nil)
    }

    private func index(at time: UInt64) -> Int {
        var (low, high) = (0, steps.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if steps[middle].time <= time { low = middle } else { high = middle }
        }
        return low
    }
}

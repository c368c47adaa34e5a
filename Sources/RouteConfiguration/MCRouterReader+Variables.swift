// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Settings

/// What mcrouter's configuration says by runtime variables, and how shards are split.
extension MCRouterReader {
    private func allVariables(_ name: String, _ fields: FieldReader) throws(RouteProblem) -> JSONObject {
        guard let variables else {
            throw fields.problem("\(name) needs a file of runtime variables (runtimeVariables)")
        }
        return variables
    }

    /// The part of keys that a variable names; nil where it says nothing.
    func fraction(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> ClosedRange<Double>? {
        let variables = try allVariables("key_fraction_range_rv", fields)
        let numbers: [Double?]
        if let all = variables["key_fractions"]?.object {
            let start = "key_fraction_range_"
            let tier = name.hasPrefix(start) ? String(name.dropFirst(start.count)) : name
            guard let value = all[tier] else { return nil }
            numbers = [0, value.number]
        } else {
            guard let value = variables[name] else { return nil }
            numbers = value.array?.map(\.number) ?? []
        }
        guard numbers.count == 2, let low = numbers[0], let high = numbers[1], 0 <= low, low <= high, high <= 1 else {
            throw fields.problem("the runtime variable \(name) is no part of 1, nor two numbers from 0 to 1")
        }
        return low...high
    }

    /// The weights that a variable names, for so many children as it has.
    func weights(_ name: String, _ fields: FieldReader) throws(RouteProblem) -> [Double] {
        let variables = try allVariables("WeightedCh3Rv", fields)
        guard let list = variables["hash_route_weights"]?.object?[name]?.array else {
            throw fields.problem("there is no list of weights \(name) in the runtime variable hash_route_weights")
        }
        var weights: [Double] = []
        for element in list {
            guard let weight = element.number, 0...1 ~= weight else {
                throw fields.problem(
                    "the runtime variable hash_route_weights: \(name): numbers from 0 to 1 are expected")
            }
            weights.append(weight)
        }
        return weights
    }

    /// `shard_splits`; nil where there are none.
    func shardSplits(_ fields: inout FieldReader) throws(RouteProblem) -> ShardSplits? {
        let given = try fields.object("shard_splits")
        if try fields.integer("split_shard_fanout", in: 0...Int64(UInt32.max)) ?? 0 > 0 {
            throw fields.problem("split_shard_fanout is not supported: memcached's requests carry no such number")
        }
        guard let given else { return nil }
        var inner = FieldReader("\(fields.what): shard_splits", given.object, at: given.place)
        var splits = ShardSplits()
        for entry in given.object.entries {
            guard entry.value.object != nil, let change = try inner.object(entry.key) else {
                splits.shards[entry.key] = ShardSplits.Size(try parts(entry.key, &inner) ?? 1)
                continue
            }
            var details = FieldReader("\(inner.what): \(entry.key)", change.object, at: change.place)
            var size = ShardSplits.Size(try parts("new_split_size", &details) ?? 1)
            size.old = try parts("old_split_size", &details) ?? 1
            size.startSeconds = UInt64(try details.integer("split_start", in: 0...Int64.max / 2) ?? 0)
            size.periodSeconds = UInt64(try details.integer("migration_period", in: 0...Int64.max / 2) ?? 0)
            size.deletesAll = try details.boolean("fanout_deletes") ?? false
            try details.finish()
            splits.shards[entry.key] = size
        }
        try inner.finish()
        return splits
    }

    /// A number of parts: what is too much is the most that there may be.
    private func parts(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> Int? {
        guard let count = try fields.integer(name, in: 1...Int64.max / 2) else { return nil }
        if count > ShardSplits.most {
            problems.warn("\(fields.what): \(name): \(ShardSplits.most) parts are the most", at: fields.place)
        }
        return min(Int(count), ShardSplits.most)
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

import Settings
import Testing

@testable import LoadModel

@Suite struct MetricTests {
    @Test(arguments: [
        ("p(95)<500", "p(95)", Threshold.Comparison.less, 500.0), ("rate >= 0.99", "rate", .notLess, 0.99),
        ("count==0", "count", .equal, 0), ("count===0", "count", .identical, 0), ("avg!=1.5", "avg", .unequal, 1.5),
        ("p(99.9) <= 2", "p(99.9)", .notGreater, 2), ("med>1", "med", .greater, 1),
    ])
    func readsThresholds(_ text: String, _ figure: String, _ comparison: Threshold.Comparison, _ limit: Double) throws {
        let threshold = try Threshold.parse(text).get()
        #expect(threshold.figure == figure && threshold.comparison == comparison && threshold.limit == limit)
    }

    @Test(arguments: ["", "p(95)", "p(95)<", "foo<1", "p(x)<1", "p(101)<1", "rate<<1", "avg<1ms", "<5"])
    func refusesOtherThresholds(_ text: String) {
        #expect(throws: OptionProblem.self) { try Threshold.parse(text).get() }
    }

    @Test func samplesGoToTheMetricAndItsParts() throws {
        var registry = MetricRegistry()
        let builtIn = BuiltInMetrics(&registry)
        let foundPart = registry.resolve("memcached_req_duration{op:get}")
        let part = try #require(foundPart)
        let foundBoth = registry.resolve("memcached_req_duration{op:get,scenario:a}")
        let both = try #require(foundBoth)
        #expect(registry.places(builtIn.requestDuration, tags: ["op": "get"]) == [builtIn.requestDuration, part])
        #expect(
            registry.places(builtIn.requestDuration, tags: ["op": "get", "scenario": "a", "x": "y"])
                == [builtIn.requestDuration, part, both])
        #expect(registry.places(builtIn.requestDuration, tags: ["op": "set"]) == [builtIn.requestDuration])
        let nothing = registry.resolve("nothing{op:get}")
        let malformed = registry.resolve("memcached_reqs{op}")
        let another = registry.register(MetricDefinition("checks", .counter))
        #expect(nothing == nil && malformed == nil && another == nil)
    }

    @Test func thresholdsNameMetricsThatThereAre() throws {
        func set(_ metric: String, _ text: String) throws -> ThresholdSet {
            var registry = MetricRegistry()
            _ = BuiltInMetrics(&registry)
            return try ThresholdSet([MetricThresholds(metric, [try Threshold.parse(text).get()])], &registry)
        }
        #expect(throws: OptionProblem.self) { try set("nothing", "avg<1") }
        #expect(throws: OptionProblem.self) { try set("iterations", "p(95)<1") }
        #expect(throws: OptionProblem.self) { try set("checks", "avg<1") }
        #expect(try !set("checks", "rate>0.9").isEmpty)
    }

    @Test func thresholdsEndATestWhenTheyMay() throws {
        var registry = MetricRegistry()
        let builtIn = BuiltInMetrics(&registry)
        let threshold = try Threshold.parse("count<5", abortsOnFail: true, delayNanoseconds: 10).get()
        let set = try ThresholdSet([MetricThresholds("iterations", [threshold])], &registry)
        var sinks = registry.makeSinks()
        for _ in 0..<5 { sinks[builtIn.iterations].add(1) }
        #expect(set.abort(sinks, nanoseconds: 9) == nil)
        #expect(set.abort(sinks, nanoseconds: 10)?.figure == 5)
        #expect(!set.evaluate(sinks, seconds: 1)[0].isPassed)
    }

    @Test func whatHasNoSamplesYetEndsNoTest() throws {
        var registry = MetricRegistry()
        let builtIn = BuiltInMetrics(&registry)
        let threshold = try Threshold.parse("count>1", abortsOnFail: true).get()
        let set = try ThresholdSet([MetricThresholds("iterations", [threshold])], &registry)
        var sinks = registry.makeSinks()
        #expect(set.abort(sinks, nanoseconds: 10) == nil)
        #expect(!set.evaluate(sinks, seconds: 1)[0].isPassed)
        sinks[builtIn.iterations].add(1)
        #expect(set.abort(sinks, nanoseconds: 10) != nil)
    }

    @Test func figuresOfWhatHasNoSamplesAreK6s() throws {
        var registry = MetricRegistry()
        _ = BuiltInMetrics(&registry)
        _ = registry.register(MetricDefinition("depth", .gauge))
        func isPassed(_ metric: String, _ text: String) throws -> Bool {
            var own = registry
            let set = try ThresholdSet([MetricThresholds(metric, [try Threshold.parse(text).get()])], &own)
            return set.evaluate(own.makeSinks(), seconds: 1)[0].isPassed
        }
        // Trends, gauges and counters are 0; a rate has no figure, and passes.
        #expect(try !isPassed("memcached_req_duration", "p(95)>1"))
        #expect(try isPassed("memcached_req_duration", "p(95)<1"))
        #expect(try !isPassed("depth", "value>0"))
        #expect(try !isPassed("iterations", "count>0"))
        #expect(try isPassed("checks", "rate>0.9") && isPassed("checks", "rate<0.1"))
    }

    @Test func onlyTagsThatThresholdsAskForDecide() throws {
        var registry = MetricRegistry()
        _ = BuiltInMetrics(&registry)
        _ = registry.resolve("memcached_reqs{op:get,kind:a}")
        _ = registry.resolve("iterations{kind:b}")
        #expect(registry.relevant(["id": "17", "kind": "a", "op": "set"]) == ["kind": "a"])
        #expect(registry.relevant(["id": "18", "kind": "c"]) == [:])
    }

    @Test func checksOfEverNewNamesAreLimited() {
        var checks = CheckGroup()
        for index in 0..<CheckGroup.limit + 5 {
            checks.count("check \(index)", in: [], passes: 1, fails: 0)
            checks.count("one", in: ["group \(index)"], passes: 0, fails: 1)
        }
        #expect(checks.checks.count == CheckGroup.limit + 1 && checks.groups.count == CheckGroup.limit + 1)
        #expect(checks.checks.last?.name == CheckGroup.others && checks.checks.last?.passes == 5)
        #expect(checks.totals == (UInt64(CheckGroup.limit + 5), UInt64(CheckGroup.limit + 5)))
    }

    @Test func anyNumberCanBeWritten() {
        for number in [1e300, -1e300, .infinity, .nan, 1e18, 1e22] {
            #expect(!NumberText.duration(milliseconds: number).isEmpty)
            #expect(!NumberText.bytes(number).isEmpty)
        }
        #expect(NumberText.duration(milliseconds: 90_000) == "1m30s")
    }

    @Test func gathersByKind() {
        var rate = MetricSink(.rate)
        for sample in [1.0, 0, 1, 1] { rate.add(sample) }
        #expect(rate.figure("rate", seconds: 9) == 0.75)
        var gauge = MetricSink(.gauge)
        for sample in [3.0, 9, 5] { gauge.add(sample) }
        #expect(gauge.figure("value", seconds: 1) == 5 && gauge.minimum == 3 && gauge.maximum == 9)
        var counter = MetricSink(.counter)
        for sample in [3.0, 9] { counter.add(sample) }
        #expect(counter.figure("count", seconds: 4) == 12 && counter.figure("rate", seconds: 4) == 3)
        #expect(counter.figure("avg", seconds: 1) == nil)
    }

    private func example() throws -> TestResult {
        var registry = MetricRegistry()
        let builtIn = BuiltInMetrics(&registry)
        let threshold = try Threshold.parse("p(95)<2").get()
        let set = try ThresholdSet([MetricThresholds("memcached_req_duration{op:get}", [threshold])], &registry)
        let set2 = registry.places.count - 1
        var sinks = registry.makeSinks()
        for index in 1...10 {
            sinks[builtIn.requestDuration].add(Double(index))
            sinks[set2].add(Double(index))
            sinks[builtIn.iterations].add(1)
            sinks[builtIn.requestFailed].add(0)
            sinks[builtIn.checks].add(index > 2 ? 1 : 0)
        }
        sinks[builtIn.dataSent].add(51_000)
        sinks[builtIn.vus].add(3)
        var result = TestResult(registry: registry, builtIn: builtIn, sinks: sinks)
        result.nanoseconds = 5_000_000_000
        result.verdicts = set.evaluate(sinks, seconds: 5)
        result.checks.count("is stored", in: [], passes: 6, fails: 0)
        result.checks.count("is read", in: ["group"], passes: 2, fails: 2)
        return result
    }

    @Test func summaryLooksAsK6s() throws {
        let text = SummaryText(try example(), trendStats: ["avg", "max"]).text
        #expect(
            text == """


                  █ THRESHOLDS\u{20}

                    memcached_req_duration{op:get}
                    ✗ 'p(95)<2' p(95)=10ms


                  █ TOTAL RESULTS\u{20}

                    checks_total.......: 10 2/s
                    checks_succeeded...: 80.00% 8 out of 10
                    checks_failed......: 20.00% 2 out of 10

                    ✓ is stored

                    █ group

                      ✗ is read
                        ↳  50% — ✓ 2 / ✗ 2

                    MEMCACHED
                    memcached_req_duration...: avg=5.5ms max=10ms
                      { op:get }.............: avg=5.5ms max=10ms
                    memcached_req_failed.....: 0.00% 0 out of 10

                    EXECUTION
                    iterations...............: 10    2/s
                    vus......................: 3     min=3       max=3

                    NETWORK
                    data_sent................: 51 kB 10 kB/s


                """)
    }

    private func given(_ change: (String) -> String = { $0 }) throws -> String {
        let result = try example()
        let options = "{\"summaryTrendStats\":[\"avg\",\"max\"],\"summaryTimeUnit\":\"\",\"noColor\":true}"
        let data = SummaryExport(result, trendStats: ["avg", "max"])
            .scriptData(options: options, state: "{\"testRunDurationMs\":5000}")
        let node = try JSONParser.parse(Array(change(data).utf8), file: "data")
        return SummaryText(try SummaryData(node, original: SummaryData(result, trendStats: ["avg", "max"]))).text
    }

    @Test func dataThatIsNotChangedIsShownAsTheResult() throws {
        #expect(try given() == SummaryText(try example(), trendStats: ["avg", "max"]).text)
    }

    @Test func whatAScriptTakesOutOfTheDataIsNotShown() throws {
        func renamed(_ text: String, _ old: String, _ new: String) -> String {
            var (result, rest) = ("", Substring(text))
            while !rest.isEmpty {
                if rest.hasPrefix(old) {
                    result += new
                    rest = rest.dropFirst(old.count)
                } else {
                    result.append(rest.removeFirst())
                }
            }
            return result
        }
        let text = try given { renamed(renamed($0, "\"iterations\"", "\"mine\""), "\"avg\": 5.5", "\"avg\": 7") }
        #expect(!text.contains("iterations") && text.contains("    mine..."))
        #expect(text.contains("memcached_req_duration...: avg=7ms"))
        let orphan = try given { renamed($0, "\"memcached_req_duration\"", "\"other\"") }
        #expect(orphan.contains("    memcached_req_duration{op:get}...: avg=5.5ms"))
        let checked = try given { renamed($0, "\"passes\": 6", "\"passes\": 0") }
        #expect(checked.contains("✓ is stored"))
        for wrong in ["[]", "{}", "{\"metrics\": {\"a\": 1}}", "{\"metrics\": {\"a\": {\"type\": \"x\"}}}"] {
            #expect(throws: OptionProblem.self) { try given { _ in wrong } }
        }
    }

    @Test func setupsDataIsPassedOn() throws {
        let data = SummaryExport(try example(), trendStats: ["avg"])
            .scriptData(options: "{}", state: "{}", setupData: "{\"token\":5}")
        let node = try JSONParser.parse(Array(data.utf8), file: "data")
        #expect(node.object?["setup_data"]?.object?["token"]?.integer == 5)
        let without = SummaryExport(try example(), trendStats: ["avg"]).scriptData(options: "{}", state: "{}")
        #expect(!without.contains("setup_data"))
    }

    @Test func theFullSummaryHasScenariosAndGroups() throws {
        var result = try example()
        let built = result.builtIn
        for (scenario, group, name) in [("one", "", "a"), ("one", "::outer::inner", "b"), ("two", "", "c")] {
            let tags = ["scenario": scenario, "group": group]
            result.series.add(SeriesKey(built.requestDuration, tags), .trend, 4)
            result.series.add(SeriesKey(built.checks, tags.merging(["check": name]) { $1 }), .rate, 1)
        }
        let text = SummaryText(result, trendStats: ["max"]).text
        let one = try #require(text.split(separator: "█ SCENARIO: two").first)
        #expect(one.contains("█ SCENARIO: one") && text.contains("█ SCENARIO: two"))
        #expect(one.contains("↳ GROUP: outer › inner") && one.contains("✓ a") && !one.contains("✓ c"))
        #expect(one.contains("      memcached_req_duration...: max=4ms"))
        #expect(one.contains("    checks_total.......: 2 0.4/s") && one.contains("      checks_total.......: 1 0.2/s"))
    }

    @Test func seriesAreLimited() {
        var table = SeriesTable()
        for index in 0..<SeriesTable.limit + 3 { table.add(SeriesKey(0, ["id": "\(index)"]), .counter, 1) }
        table.add(SeriesKey(0, ["id": "0"]), .counter, 1)
        #expect(table.all.count == SeriesTable.limit && table.leftOut == 3)
        #expect(table.all[SeriesKey(0, ["id": "0"])]?.value == 2)
        var sum = table
        sum.merge(table)
        #expect(sum.all[SeriesKey(0, ["id": "0"])]?.value == 4 && sum.leftOut == 6)
    }

    @Test func exportHasK6sShape() throws {
        let text = SummaryExport(try example(), trendStats: ["avg", "p(95)"]).file
        #expect(text.contains("\"p(95)<2\": true"))
        #expect(text.contains("\"id\": \"d41d8cd98f00b204e9800998ecf8427e\""))
        #expect(text.contains("\"passes\": 8"))
        #expect(text.contains("\"value\": 0.8"))
        #expect(text.contains("\"path\": \"::group::is read\""))
        let data = SummaryExport(try example(), trendStats: ["avg"]).scriptData(options: "{}", state: "{}")
        #expect(data.contains("\"ok\": false") && data.contains("\"contains\": \"time\""))
    }
}

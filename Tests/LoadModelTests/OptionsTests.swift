// Martlet
// SPDX-License-Identifier: Apache-2.0

import Settings
import Testing

@testable import LoadModel

private let second: UInt64 = 1_000_000_000

private func read(_ text: String) throws -> LoadOptions {
    try OptionsReader.read(SettingsNode.parse(Array(text.utf8), file: "o.yaml"), file: "o.yaml")
}

private func problems(_ text: String) -> [String] {
    do {
        _ = try read(text)
        return []
    } catch let error as SettingsError {
        return error.problems
    } catch {
        return ["\(error)"]
    }
}

@Suite struct OptionsTests {
    @Test(arguments: [
        ("30s", 30 * second), ("1m30s", 90 * second), ("500ms", second / 2), ("1.5h", 5400 * second),
        ("2000", 2 * second), ("1d", 86_400 * second), ("0", 0),
    ])
    func readsDurations(_ text: String, _ nanoseconds: UInt64) { #expect(GoDuration.parse(text) == nanoseconds) }

    @Test(arguments: ["", "s", "5x", "-1s", "1m-3s", "five"])
    func refusesOtherDurations(_ text: String) { #expect(GoDuration.parse(text) == nil) }

    @Test func shortcutsBecomeK6sExecutors() throws {
        func plan(_ text: String) throws -> ExecutorPlan { try read(text).resolvedScenarios()[0].plan }
        #expect(
            try plan("vus: 1") == .perUserIterations(users: 1, iterations: 1, maxDuration: 600 * second))
        #expect(try plan("{vus: 5, duration: 10s}") == .constantUsers(users: 5, duration: 10 * second))
        #expect(
            try plan("{vus: 5, iterations: 20}")
                == .sharedIterations(users: 5, iterations: 20, maxDuration: 600 * second))
        #expect(
            try plan("{vus: 2, stages: [{duration: 5s, target: 9}]}")
                == .rampingUsers(
                    start: 2, stages: [Stage(duration: 5 * second, target: 9)], gracefulRampDown: 30 * second))
    }

    @Test func readsEveryExecutor() throws {
        let scenarios = try read(
            """
            scenarios:
              a: {executor: shared-iterations, vus: 2, iterations: 10, maxDuration: 1m}
              b: {executor: per-vu-iterations, vus: 2, iterations: 10, startTime: 5s, gracefulStop: 0s}
              c: {executor: constant-vus, vus: 3, duration: 5s, exec: other, tags: {k: v}, env: {A: b}}
              d: {executor: ramping-vus, startVUs: 0, stages: [{duration: 1s, target: 5}], gracefulRampDown: 2s}
              e: {executor: constant-arrival-rate, rate: 600, timeUnit: 1m, duration: 5s, preAllocatedVUs: 2,
                  maxVUs: 4}
              f: {executor: ramping-arrival-rate, startRate: 5, stages: [{duration: 1s, target: 50}],
                  preAllocatedVUs: 2, arrival: poisson, busy: wait}
            """
        ).resolvedScenarios()
        #expect(scenarios.map(\.name) == ["a", "b", "c", "d", "e", "f"])
        #expect(scenarios[1].startTime == 5 * second && scenarios[1].gracefulStop == 0)
        #expect(scenarios[2].function == "other" && scenarios[2].tags == ["k": "v", "scenario": "c"])
        var users = ArrivalUsers(preallocated: 2, maximum: 4)
        #expect(scenarios[4].plan == .constantArrivals(rate: 10, duration: 5 * second, users: users))
        (users.maximum, users.spacing, users.busy) = (2, .poisson, .wait)
        #expect(
            scenarios[5].plan
                == .rampingArrivals(start: 5, stages: [Stage(duration: second, target: 50)], users: users))
        #expect(scenarios[4].summary == "10.00 iterations/s for 5s (maxVUs: 2-4, gracefulStop: 30s)")
    }

    @Test func saysWhatIsWrongAndWhere() {
        #expect(problems("vus: many") == ["o.yaml:1: vus: 'many' is no whole number from 0 to 100000"])
        #expect(problems("\ndurration: 5s") == ["o.yaml:2: durration: there is no such option; did you mean duration?"])
        #expect(problems("duration: soon")[0].contains("is no duration"))
        #expect(problems("scenarios: {a: {vus: 1}}")[0].contains("executor is missing"))
        #expect(problems("scenarios: {a: {executor: constant-vus, vus: 1}}")[0].contains("needs a duration"))
        #expect(
            problems("scenarios: {a: {executor: constant-vus, duration: 1s, rate: 5}}")[0]
                .contains("constant-vus has no such option"))
        #expect(
            problems("scenarios: {a: {executor: constant-arrival-rate, rate: 5, duration: 1s}}")[0]
                .contains("needs preAllocatedVUs"))
        #expect(problems("thresholds: {iterations: ['count']}")[0].contains("expected a comparison"))
        #expect(problems("thresholds: {iterations: ['p(101)<5']}")[0].contains("p(0 to 100)"))
        #expect(problems("workload: nope")[0].contains("no preset"))
        #expect(problems("workload: {operations: {gett: 1}}")[0].contains("did you mean get?"))
        #expect(problems("workload: {valueSize: 'gpareto:1'}")[0].contains("is no size"))
    }

    @Test func timesToLiveAreWholeSeconds() throws {
        func expiries(_ text: String) throws -> [Int64] {
            try read("workload: {ttl: \(text)}").workload?.expiries.map(\.seconds) ?? []
        }
        #expect(try expiries("60") == [60])
        #expect(try expiries("60s") == [60])
        #expect(try expiries("0") == [0])
        #expect(try expiries("{1m: 1, 2h: 3}") == [60, 7200])
        for wrong in ["500ms", "1.5s", "soon", "-1", "{60s: 0}", "{60x: 1}"] {
            #expect(!problems("workload: {ttl: \(wrong)}").isEmpty, "\(wrong)")
        }
    }

    @Test func refusesNumbersThatNothingCanBeMadeOf() {
        let arrivals = "executor: constant-arrival-rate, rate: 5, duration: 1s, preAllocatedVUs: 1"
        #expect(problems("scenarios: {a: {\(arrivals), timeUnit: 0s}}")[0].contains("expected more than 0"))
        for wrong in ["inf", "1e19", "nan", "'uniform:1,inf'", "'normal:nan,1'"] {
            #expect(problems("workload: {valueSize: \(wrong)}")[0].contains("is no size"), "\(wrong)")
        }
        #expect(problems("workload: {keyDistribution: 'gaussian:nan,0.1'}")[0].contains("no distribution"))
    }

    @Test func refusesWhatSaysTwiceHowATestRuns() throws {
        func problem(_ text: String) throws -> String {
            let options = try read(text)
            do throws(OptionProblem) {
                _ = try options.resolvedScenarios()
                return ""
            } catch {
                return error.description
            }
        }
        let scenarios = "scenarios: {a: {executor: constant-vus, duration: 1s}}"
        #expect(try problem("{duration: 1s, stages: [{duration: 1s, target: 1}]}").hasPrefix("duration and stages"))
        #expect(try problem("{iterations: 1, \(scenarios)}").hasPrefix("iterations and scenarios"))
        #expect(try problem("{duration: 1s, \(scenarios)}").hasPrefix("duration and scenarios"))
        #expect(try problem("{duration: 1s, iterations: 5}") == "")
        // As in k6, VUs alone stand in the place of the scenarios of a lower place, and of no others.
        let both = try read("{vus: 5, \(scenarios)}")
        #expect(!both.isOverridden)
        #expect(try both.resolvedScenarios().map(\.name) == ["a"])
        for low in [both, try read("{\(scenarios)}")] {
            let overridden = low.overridden(by: try read("{vus: 7}"))
            #expect(overridden.isOverridden)
            #expect(
                try overridden.resolvedScenarios().map(\.plan)
                    == [.sharedIterations(users: 7, iterations: 7, maxDuration: 600 * second)])
            #expect(try !overridden.overridden(by: read("{tags: {a: b}, \(scenarios)}")).isOverridden)
        }
        let below = try read("vus: 7").overridden(by: try read("{\(scenarios)}"))
        #expect(try !below.isOverridden && below.resolvedScenarios().map(\.name) == ["a"])
        let stage = "{duration: 876000h, target: 1}"
        #expect(try problem("stages: [\(stage), \(stage)]").contains("more than a century"))
        #expect(
            try problem(
                "scenarios: {a: {executor: constant-arrival-rate, rate: 1, duration: 1s, preAllocatedVUs: 0, "
                    + "maxVUs: 2, workload: {preload: true}}}"
            ).contains("preload needs a VU"))
    }

    @Test func saysWhatAWorkloadCannotHave() {
        var workload = Workload()
        #expect(Operation.ofWorkloads.allSatisfy { workload.refusal(of: $0) == nil })
        (workload.verifies, workload.wire) = (true, .meta)
        #expect(
            Operation.ofWorkloads.filter { workload.refusal(of: $0) != nil }
                == [.append, .prepend])
    }

    @Test func higherPlacesReplaceHowATestRuns() throws {
        let low = try read("{vus: 5, duration: 10s, tags: {a: '1', b: '1'}, summaryTimeUnit: ms}")
        let high = try read("{iterations: 50, tags: {b: '2'}}")
        let both = low.overridden(by: high)
        #expect(
            try both.resolvedScenarios()[0].plan
                == .sharedIterations(users: 5, iterations: 50, maxDuration: 600 * second))
        #expect(both.tags == ["b": "2"], "as in k6, tags replace those of a lower place")
        #expect(both.summaryTimeUnit == "ms")
    }

    @Test(arguments: [
        ("0:1/4", nil, 0, 4), ("25%", nil, 0, 4), ("1/2:3/4", nil, 2, 4), ("0.5:1", "0,1/2,1", 1, 2),
        ("2/3:1", "0,1/3,2/3,1", 2, 3), ("0:1", "0,1", 0, 1), ("50%:75%", nil, 2, 4),
    ])
    func readsExecutionSegments(_ text: String, _ sequence: String?, _ index: Int, _ count: Int) throws {
        let part = try ExecutionSegment.parse(text, sequence: sequence)
        #expect(part == ExecutionSegment(index: index, count: count))
        #expect(try ExecutionSegment.parse(part.text) == part)
    }

    @Test(arguments: ["1/4:1", "0:2/3", "1/2:1/2", "3/4:1/4", "0:2", "a:b", "", "0:1/1000", "1/8:3/8", "0:1:2", "-1:1"])
    func refusesOtherExecutionSegments(_ text: String) {
        #expect(throws: OptionProblem.self) { try ExecutionSegment.parse(text) }
        #expect(!problems("executionSegment: '\(text)'").isEmpty)
    }

    @Test func executionSegmentsAreOfTheirSequence() throws {
        #expect(throws: OptionProblem.self) { try ExecutionSegment.parse("0:1/4", sequence: "0,1/4,1") }
        #expect(try read("{executionSegment: '1/4:1/2'}").segment == ExecutionSegment(index: 1, count: 4))
        let shown = try read("{executionSegment: '1/4:1/2'}").json([:])
        #expect(shown.contains("\"executionSegment\":\"1/4:1/2\",\"executionSegmentSequence\":\"0,1/4,1/2,3/4,1\""))
    }

    @Test func whatWouldChangeTheLoadIsRefusedOrTold() throws {
        #expect(problems("rps: -1")[0].contains("no whole number from 0 on"))
        #expect(try read("rps: 100").requestsPerSecond == 100)
        #expect(problems("paused: true")[0].contains("no REST API"))
        #expect(problems("systemTags: [url, noise]")[0].contains("'noise' is none of proto"))
        #expect(problems("tlsVersion: tls9")[0].contains("is none of"))
        #expect(try read("{rps: 0, paused: false, hosts: null, noConnectionReuse: false}").notices.isEmpty)
        let told = try read("{hosts: {a: b}, tlsAuth: [{cert: c, key: k}], noVUConnectionReuse: true, batch: 5}")
        #expect(told.notices.count == 3)
        #expect(told.notices.contains { $0.contains("tlsAuth") && $0.contains("tls: {cert, key}") })
        let high = try read("{hosts: {a: b}, dns: {ttl: 0}}")
        #expect(told.overridden(by: high).notices.count == 4, "each once")
    }

    @Test func k6sTLSIsOurs() throws {
        let options = try read("{insecureSkipTLSVerify: true, tlsVersion: {min: tls1.3}}")
        #expect(options.tlsRules.applied(to: nil) == nil, "nothing of it switches TLS on")
        let tls = options.tlsRules.applied(to: LoadTLS())
        #expect(tls?.isInsecure == true && tls?.requiresTLS13 == true)
        #expect(try read("tlsVersion: tls1.2").notices.count == 1)
        #expect(try read("{tlsVersion: {min: tls1.0, max: tls1.3}}").tlsRules == LoadTLSRules())
    }

    @Test func systemTagsAreThoseThatAreAskedFor() throws {
        let scenarios = "scenarios: {a: {executor: constant-vus, duration: 1s}}"
        #expect(try read("{systemTags: [status], \(scenarios)}").resolvedScenarios()[0].tags == [:])
        #expect(try read("{systemTags: [scenario], \(scenarios)}").resolvedScenarios()[0].tags == ["scenario": "a"])
    }

    @Test func summaryModesAreK6s() throws {
        #expect(try read("noSummary: true").summaryMode == .disabled)
        #expect(try read("summaryMode: full").summaryMode == .full)
        #expect(problems("summaryMode: long")[0].contains("compact, full, legacy, disabled"))
    }

    @Test func optionsAreShownAsK6Does() throws {
        let options = try read(
            "{vus: 3, duration: 90s, tags: {a: b}, thresholds: {checks: ['rate>0.9', {threshold: 'rate>0.5', "
                + "abortOnFail: true, delayAbortEval: 5s}]}}")
        let text = options.json(["vus": "1", "userAgent": "\"mine\"", "cloud": "{}"])
        #expect(text.contains("\"vus\":3,\"duration\":\"1m30s\",\"iterations\":null,\"stages\":null"))
        #expect(text.contains("\"userAgent\":\"mine\"") && text.contains("\"rps\":null"))
        #expect(text.contains("\"tags\":{\"a\":\"b\"}") && text.contains("\"noSetup\":null"))
        #expect(
            text.contains(
                "\"thresholds\":{\"checks\":[\"rate>0.9\",{\"threshold\":\"rate>0.5\",\"abortOnFail\":true,"
                    + "\"delayAbortEval\":\"5s\"}]}"))
        _ = try JSONParser.parse(Array(text.utf8), file: "options")
    }

    @Test func linesMayBeAnotherTexts() throws {
        let node = try SettingsNode.parse(Array("{vus: many, thresholds: {checks: ['x']}}".utf8), file: "o")
        let lines = ["vus": 7, "thresholds checks 0": 12]
        let placed = node?.relined { path in lines[path.joined(separator: " ")] ?? 0 }
        func problems(_ node: SettingsNode?) -> [String] {
            do throws(SettingsError) {
                _ = try OptionsReader.read(node, file: "s.js")
                return []
            } catch {
                return error.problems
            }
        }
        let found = problems(placed)
        #expect(found.count == 2 && found[0].hasPrefix("s.js:7: vus: 'many'"))
        #expect(found.last?.hasPrefix("s.js:12: threshold 'x'") == true)
        let nowhere = try SettingsNode.parse(Array("vus: many".utf8), file: "o")?.relined { _ in 0 }
        #expect(problems(nowhere).first?.hasPrefix("options of s.js: vus: 'many'") == true)
    }

    @Test func knowsThePublishedWorkloads() throws {
        #expect(WorkloadPreset.names.count == 51)
        for name in WorkloadPreset.names {
            let workload = try #require(WorkloadPreset.named(name))
            #expect((workload.operations.reduce(0) { $0 + $1.share } - 1).magnitude < 1e-9, "\(name)")
            #expect((workload.expiries.reduce(0) { $0 + $1.share } - 1).magnitude < 1e-9, "\(name)")
        }
        let twelve = try #require(WorkloadPreset.named("twitter-cluster12"))
        #expect(twelve.keySize == .fixed(44) && twelve.valueSize == .fixed(1030))
        #expect(twelve.operations.map(\.share) == [0.8, 0.2] && twelve.expiries.map(\.seconds) == [300, 299])
        #expect((twelve.churn - 0.7945).magnitude < 1e-9)
        #expect(WorkloadPreset.requestRate("twitter-cluster12") == 4.36)
    }
}

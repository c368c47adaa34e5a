// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform
internal import ScriptEngine
internal import Settings

extension ScriptWorker: ScriptHost {
    func call(
        _ user: Int, _ operation: Int, _ arguments: borrowing ScriptArguments
    ) throws(ScriptProblem) -> ScriptValue {
        guard users.indices.contains(user), let operation = ScriptOperation(rawValue: operation) else {
            return .undefined
        }
        switch operation {
        case .resolve:
            return .string(try setup.library.resolve(arguments.text(0), from: arguments.text(1)))
        case .load:
            let path = arguments.text(0)
            return .script(try setup.library.load(path), url: path)
        case .log:
            setup.log.write(RunLog.Level(arguments.text(0)) ?? .info, arguments.text(1), isConsole: true)
        case .open:
            let bytes = try setup.library.open(arguments.text(0))
            return arguments.truth(1) ? .bytes(bytes) : .text(bytes)
        case .check: check(user, arguments)
        case .enterGroup: users[user].groups.append((arguments.text(0), Clock.monotonicNanoseconds()))
        case .leaveGroup: leaveGroup(user)
        case .sleep: try sleep(user, seconds: arguments.number(0))
        case .metric: return .number(Double(try metric(arguments)))
        case .sample: try sample(user, arguments)
        case .sharedLength:
            return setup.library.arrayLength(arguments.text(0)).map { .number(Double($0)) } ?? .undefined
        case .sharedAdd: staging[arguments.text(0), default: []].append(arguments.bytes(1))
        case .sharedDone:
            let name = arguments.text(0)
            return .number(Double(setup.library.makeArray(name, staging.removeValue(forKey: name) ?? [])))
        case .sharedItem:
            return setup.library.element(arguments.text(0), arguments.integer(1)).map { .text($0) } ?? .undefined
        case .client: return .number(Double(try makeClient(arguments)))
        case .request: try request(user, arguments)
        case .endIteration:
            let error = arguments.text(0)
            if users[user].epoch == 0 { report(error) } else { endIteration(user, error: error) }
        case .execution: return execution(user, arguments.text(0))
        case .abort:
            control.fail(RunFailure(code: .aborted, message: "test aborted: \(arguments.text(0))"))
        case .failTest: control.markFailed(arguments.text(0))
        case .timer: try startTimer(user, arguments.number(0), milliseconds: arguments.number(1))
        case .clearTimer:
            let id = arguments.number(0)
            if let index = timers.firstIndex(where: { $0.user == user && $0.id == id }),
                timers.remove(at: index).epoch == users[user].epoch
            {
                users[user].openTimers -= 1
            }
        case .summaryPart: summaryParts.append((arguments.text(0), arguments.bytes(1)))
        case .summary: return try summary(arguments)
        case .seed: break
        case .userMetadata: users[user].metadata = arguments.isMissing(0) ? "" : arguments.text(0)
        case .userTags: users[user].tags = arguments.isMissing(0) ? "" : arguments.text(0)
        }
        return .undefined
    }

    // MARK: Samples

    /// `key 1 value 2 key 1 value`, with the control characters 1 and 2 between, as the prelude writes tags.
    static func tags(_ text: String) -> [String: String] {
        var result: [String: String] = [:]
        for pair in text.split(separator: "\u{2}") {
            guard let sign = pair.firstIndex(of: "\u{1}") else { continue }
            result[String(pair[..<sign])] = String(pair[pair.index(after: sign)...])
        }
        return result
    }

    /// Sets of tags whose requests are kept apart at most, of a thread.
    private static let seriesPlaceLimit = 256

    /// The tags of everything that the user does now.
    private func tags(_ user: Int) -> [String: String] {
        let scenario = users[user].scenario
        var result = scenario >= 0 ? setup.scenarios[scenario].tags : setup.tags
        if setup.systemTags.has("group") {
            result["group"] = scenario >= 0 ? users[user].groupPath : "::\(phase)" + users[user].groupPath
        }
        return result.merging(Self.tags(users[user].tags)) { $1 }
    }

    /// These, and the user's metadata beside them.
    private func loggedTags(_ user: Int) -> [String: String] {
        guard !users[user].metadata.isEmpty else { return tags(user) }
        var all = tags(user)
        for (key, value) in Self.tags(users[user].metadata) { all[SampleText.metadataMark + key] = value }
        return all
    }

    /// Where the samples of what the user does now go, among ``places``.
    func placeNumber(_ user: Int) -> Int {
        if users[user].place >= 0 { return users[user].place }
        let number = findPlace(user)
        users[user].place = number
        return number
    }

    private func findPlace(_ user: Int) -> Int {
        // By what decides where samples go: a tag with ever new values must not fill the memory.
        let all = tags(user)
        let isKept = setup.keepsSeries && places.count < Self.seriesPlaceLimit
        let tags = isKept ? all : registry.relevant(all)
        let key = tags.sorted { $0.key < $1.key }.map { "\($0.key)\u{1}\($0.value)" }.joined(separator: "\u{2}")
        if let known = placeNumbers[key] { return known }
        places.append(
            PlacedTallies(ScenarioPlaces(registry, setup.builtIn, tags: tags, setup.systemTags), tags: tags))
        placeNumbers[key] = places.count - 1
        return places.count - 1
    }

    /// Counts a request that was answered or given up.
    func record(_ request: ScriptRequest, _ outcome: Outcome, now: UInt64) {
        let (intended, sent) = (request.intended, request.sent)
        let number = placeNumber(request.user)
        places[number].add(request.operation, outcome, intended: intended, sent: sent, now: now)
        guard log.isOn else { return }
        let tags = tagNumber(request.user)
        let service = request.sent == 0 ? .nan : Double(now - min(now, request.sent)) / 1e6
        let took = Double(now - min(now, request.intended)) / 1e6
        log.addRequest(request.operation, outcome, tags: tags, took: took, service: service, at: now)
    }

    private func tagNumber(_ user: Int) -> Int32 {
        if users[user].tagBatch != log.generation {
            users[user].tagNumber = log.number(loggedTags(user))
            users[user].tagBatch = log.generation
        }
        return users[user].tagNumber
    }

    /// Takes a sample for outputs that have each of them.
    func note(_ user: Int, _ metric: Int, _ value: Double, _ now: UInt64) {
        guard log.isOn, users.indices.contains(user) else { return }
        let tags = tagNumber(user)
        log.add(metric, value, tags: tags, at: now)
    }

    /// As k6, an iteration's bytes are told with it.
    func logIteration(_ user: Int, took: UInt64, _ now: UInt64) {
        guard log.isOn else { return }
        note(user, setup.builtIn.dataSent, Double(users[user].bytesSent), now)
        note(user, setup.builtIn.dataReceived, Double(users[user].bytesReceived), now)
        (users[user].bytesSent, users[user].bytesReceived) = (0, 0)
        note(user, setup.builtIn.iterationDuration, Double(took) / 1e6, now)
        note(user, setup.builtIn.iterations, 1, now)
    }

    private func add(_ user: Int, _ metric: Int, _ value: Double, _ extra: String, _ more: [String: String] = [:]) {
        let name = more.isEmpty ? "" : more.map { "\($0.key)\u{1}\($0.value)" }.joined()
        let key = "\(metric)|\(users[user].scenario)|\(users[user].groupPath)|\(users[user].tags)|\(extra)|\(name)"
        let found: [Int]
        if let known = sampleCache[key] {
            found = known
        } else {
            let all = tags(user).merging(Self.tags(extra)) { $1 }.merging(more) { $1 }
            found = registry.places(metric, tags: all)
            // A tag with ever new values must not fill the memory.
            if sampleCache.count < 10_000 { sampleCache[key] = found }
        }
        for place in found { sinks[place].add(value) }
        if setup.keepsSeries {
            let all = tags(user).merging(Self.tags(extra)) { $1 }.merging(more) { $1 }
            ownSeries.add(SeriesKey(metric, all), registry.definition(metric).kind, value)
        }
        guard log.isOn else { return }
        let number = log.number(loggedTags(user).merging(Self.tags(extra)) { $1 }.merging(more) { $1 })
        log.add(metric, value, tags: number, at: Clock.monotonicNanoseconds())
    }

    private func check(_ user: Int, _ arguments: borrowing ScriptArguments) {
        let (name, passed) = (arguments.text(0), arguments.truth(1))
        let groups = users[user].groups.map(\.name)
        checks.count(name, in: groups[...], passes: passed ? 1 : 0, fails: passed ? 0 : 1)
        add(
            user, setup.builtIn.checks, passed ? 1 : 0, arguments.isMissing(2) ? "" : arguments.text(2),
            setup.systemTags.has("check") ? ["check": name] : [:])
    }

    private func leaveGroup(_ user: Int) {
        guard let group = users[user].groups.last else { return }
        checks.note(users[user].groups.map(\.name)[...])
        let took = Clock.monotonicNanoseconds() - group.began
        add(user, setup.builtIn.groupDuration, Double(took) / 1e6, "")
        users[user].groups.removeLast()
    }

    private func metric(_ arguments: borrowing ScriptArguments) throws(ScriptProblem) -> Int {
        let name = arguments.text(1)
        guard let kind = MetricKind(rawValue: arguments.text(0)), MetricDefinition.isName(name) else {
            throw ScriptProblem(
                "'\(name)' is no name for a metric: letters, digits and underscores, and no digit first")
        }
        let definition = MetricDefinition(name, kind, arguments.truth(2) ? .time : .plain)
        if registers {
            guard let place = registry.register(definition) else {
                throw ScriptProblem("there is a metric '\(name)' of another kind already")
            }
            while sinks.count < registry.places.count {
                sinks.append(MetricSink(registry.definition(sinks.count).kind))
            }
            return place
        }
        guard let place = registry.place(name), registry.definition(place) == definition else {
            throw ScriptProblem("the metric '\(name)' was not made when the script was first read")
        }
        return place
    }

    private func sample(_ user: Int, _ arguments: borrowing ScriptArguments) throws(ScriptProblem) {
        let (metric, value) = (arguments.integer(0), arguments.number(1))
        guard registry.places.indices.contains(metric) else { return }
        guard value.isFinite else {
            if setup.throwsErrors { throw ScriptProblem("\(registry.name(metric)).add: the value is no number") }
            warnings.count("\(registry.name(metric)).add: the value is no number")
            return
        }
        add(user, metric, value, arguments.isMissing(2) ? "" : arguments.text(2))
    }

    // MARK: Time

    private func sleep(_ user: Int, seconds: Double) throws(ScriptProblem) {
        guard seconds.isFinite, seconds > 0 else { return }
        let end = Clock.monotonicNanoseconds() + UInt64(min(seconds, 1e9) * 1e9)
        isAsleep = true
        defer { isAsleep = false }
        // Requests that were not awaited go on meanwhile.
        flushDirty()
        while true {
            let now = Clock.monotonicNanoseconds()
            if now >= end { return }
            if isCut(user, now) {
                users[user].isInterrupted = true
                throw ScriptProblem("interrupted while it slept")
            }
            let next = releasePaced()
            flushDirty()
            takeEvents(poller.wait(nanoseconds: min(20_000_000, end - now, next - min(next, now))))
            // What waited for room goes out meanwhile.
            flushDirty()
            timeOut(Clock.monotonicNanoseconds())
        }
    }

    private func startTimer(_ user: Int, _ id: Double, milliseconds: Double) throws(ScriptProblem) {
        guard users[user].openTimers < Self.openLimit else {
            throw ScriptProblem("a virtual user has at most \(Self.openLimit) timers at once")
        }
        // A timer that is never due is due in a century.
        let delay = milliseconds > 0 ? UInt64(min(milliseconds * 1e6, Double(longestDuration))) : 0
        let epoch = users[user].epoch
        timers.append(ScriptTimer(due: Clock.monotonicNanoseconds() + delay, user: user, epoch: epoch, id: id))
        users[user].openTimers += 1
    }

    // MARK: k6/execution

    private func execution(_ user: Int, _ what: String) -> ScriptValue {
        let state = users[user]
        let now = Clock.monotonicNanoseconds()
        func sum(_ figure: (ScenarioProgress) -> Double) -> ScriptValue {
            .number(setup.progress.reduce(0) { $0 + figure($1) })
        }
        switch what {
        case "test.options": return .string(setup.options)
        case "instance.iterationsInterrupted": return sum { Double($0.interrupted) }
        case "instance.iterationsCompleted": return sum { Double($0.complete) }
        case "instance.vusActive": return sum { Double(max(1, $0.activeUsers)) }
        case "instance.vusInitialized": return sum { Double($0.users) }
        case "instance.currentTestRunDuration": return .number(start == 0 ? 0 : Double(now - min(now, start)) / 1e6)
        case "vu.idInTest": return .number(Double(state.vu))
        case "vu.idInInstance": return .number(Double(idInInstance(state)))
        case "vu.iterationInInstance", "vu.iterationInScenario":
            return .number(Double(max(1, state.iterations) - 1))
        default: break
        }
        guard state.scenario >= 0 else { return .undefined }
        let scenario = setup.scenarios[state.scenario]
        switch what {
        case "scenario.name": return .string(scenario.name)
        case "scenario.executor": return .string(scenario.plan.name)
        case "scenario.startTime":
            let ago = now - min(now, start + scenario.startTime)
            return .number(Double(Clock.realtimeNanoseconds() - ago) / 1e6)
        case "scenario.progress":
            let length = Double(max(1, scenario.plan.regularDuration))
            return .number(min(1, Double(now - min(now, start + scenario.startTime)) / length))
        case "scenario.iterationInInstance", "scenario.iterationInTest": return .number(Double(state.iterationNumber))
        default: return .undefined
        }
    }

    /// A virtual user's number among those of this part of the test, from 1.
    private func idInInstance(_ state: ScriptUser) -> Int {
        guard state.scenario >= 0 else { return state.vu }
        let segment = setup.progress[state.scenario].segment
        let before = setup.scenarios[..<state.scenario].reduce(0) { $0 + segment.share(of: $1.plan.maximumUsers) }
        return before + segment.own(state.number) + 1
    }

    /// `(data as JSON, indent, colours)`: the summary of that data, which a script may have changed.
    private func summary(_ arguments: borrowing ScriptArguments) throws(ScriptProblem) -> ScriptValue {
        guard let summaryText else { return .undefined }
        let indent = arguments.text(1)
        let data: JSONNode
        do throws(PlacedProblem) { data = try JSONParser.parse(arguments.bytes(0), file: "textSummary") } catch {
            throw ScriptProblem("textSummary: expected the data that handleSummary is given: \(error.text)")
        }
        let text: String
        do throws(OptionProblem) { text = try summaryText(data, arguments.truth(2)) } catch {
            throw ScriptProblem(error.description)
        }
        guard !indent.isEmpty else { return .string(text) }
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        return .string(lines.map { $0.isEmpty ? "" : indent + $0 }.joined(separator: "\n"))
    }
}

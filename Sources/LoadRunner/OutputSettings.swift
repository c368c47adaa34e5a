// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel

/// Where metrics go while a test runs: what `-o` and `K6_OUT` name.
struct OutputSettings: Sendable {
    /// Outputs at most.
    static let limit = 16

    /// Prometheus, which gets all metrics now and then.
    private(set) var remote: RemoteWriteSettings?
    /// What has each sample.
    private(set) var samples: [SampleOutputSettings] = []
    /// What has each sample and is there already: it goes on behind the test.
    private(set) var running: [SampleOutput] = []

    /// None.
    init() {}

    /// Why agents have no output of each sample.
    static let agentsReason = "--out json and csv: each sample stays on its agent; prometheus-rw has all metrics"

    /// The outputs that the command line names, or the environment when it names none. Throws what is wrong with them.
    init(_ line: LoadCommandLine, _ environment: [String: String], tags: [String: String]) throws(OptionProblem) {
        let variable = environment["MARTLET_LOAD_OUT"] ?? environment["K6_OUT"] ?? ""
        let all = line.values["out"] ?? variable.split(separator: ",").map(String.init)
        guard all.count <= Self.limit else { throw OptionProblem("--out: at most \(Self.limit) outputs") }
        for text in all {
            let name = String(text.prefix { $0 != "=" })
            let argument = String(text.dropFirst(name.count + 1))
            if RemoteWriteSettings.names.contains(name) {
                remote = try RemoteWriteSettings(argument, environment, tags: tags)
            } else if SampleOutputSettings.names.contains(name) {
                samples.append(try SampleOutputSettings(name, argument, environment))
            } else {
                let known = SampleOutputSettings.names + RemoteWriteSettings.names
                throw OptionProblem("--out \(text): allowed are \(known.joined(separator: ", "))")
            }
        }
    }

    /// The same, with the samples going to `running` instead of files of their own.
    func continuing(_ running: [SampleOutput]) -> OutputSettings {
        var result = self
        (result.samples, result.running) = ([], running)
        return result
    }
}

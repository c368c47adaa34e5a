// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Hosting
internal import Settings
internal import Telemetry
internal import Tracing

/// The command line of a cache node: memcached's options, our long flags, the configuration file and the environment,
/// made into one configuration.
///
/// Pure: what it reads it is given. memcached's options win over everything, our flags over the environment, that over
/// the file.
package struct NodeCommandLine {
    /// The name that messages begin with.
    package var program: String
    /// The arguments after it.
    package var arguments: [String]
    /// The environment.
    package var environment: [String: String]
    /// Reads a whole file, or tells why not.
    package var readFile: (String) -> Result<[UInt8], FileProblem>

    /// Why a file could not be read.
    package struct FileProblem: Error {
        /// In words, without the path.
        package let reason: String

        /// A problem in the words of whoever met it.
        package init(_ reason: String) { self.reason = reason }
    }

    /// A command line and its surroundings; nothing is read yet.
    package init(
        program: String, arguments: [String], environment: [String: String],
        readFile: @escaping (String) -> Result<[UInt8], FileProblem>
    ) {
        self.program = program
        self.arguments = arguments
        self.environment = environment
        self.readFile = readFile
    }

    /// What the scan of the arguments found.
    private struct Findings {
        var options = MemcachedOptions()
        var flags: [SettingsSchema.Flag] = []
        var configurationPath: String?
        var checksOnly = false
        /// What is no option, where that is passed over.
        var ignored: [String] = []
    }

    /// The configuration to run with. Everything that ends the start instead, `-h` and `--check-config` among it, is
    /// thrown.
    package func configuration() throws(StartRefusal) -> NodeConfiguration {
        let findings = try scan()
        let (values, notes) = try settings(findings)
        var problems: [String] = []
        var draft = NodeConfigurationDraft(values, problems: &problems)
        var tracing = TracingConfiguration(
            values, environment: environment, program: "martlet-server", problems: &problems, notes: &draft.warnings)
        if !problems.isEmpty { throw refusal(problems) }
        tracing.version = ProductVersion.martlet
        tracing.storageSystem = draft.configuration.storage.backend.systemName
        draft.configuration.tracing = tracing
        draft.warnings += notes
        draft.warnings += findings.ignored.map { "\"\($0)\" is ignored, as memcached does: it is no option" }
        findings.options.apply(to: &draft)
        var configuration = try draft.finished()
        configuration.portFilePath = environment["MEMCACHED_PORT_FILENAME"]
        configuration.summary = ConfigurationSummary(
            NodeConfiguration.schema, values, options: findings.options.shared)
        if configuration.verbosity >= 2, !values.isSet("log.level") { configuration.logLevel = .debug }
        if findings.checksOnly {
            let lines = NodeConfiguration.schema.describe(values) + configuration.notes.map { "# note: \($0)" }
            throw StartRefusal(code: 0, output: (["the configuration is valid"] + lines).joined(separator: "\n") + "\n")
        }
        return configuration
    }

    /// The settings of the file, the environment and our flags.
    private func settings(
        _ findings: Findings
    ) throws(StartRefusal) -> (values: SettingsValues, notes: [String]) {
        var file: (path: String, bytes: [UInt8])?
        if let path = findings.configurationPath ?? environment["MARTLET_CONFIG"] {
            switch readFile(path) {
            case .success(let bytes): file = (path, bytes)
            case .failure(let problem): throw refusal(["\(path): cannot be read: \(problem.reason)"])
            }
        }
        do throws(SettingsError) {
            return try NodeConfiguration.schema.resolve(file: file, environment: environment, flags: findings.flags)
        } catch {
            throw refusal(error.problems)
        }
    }

    private func refusal(_ problems: [String]) -> StartRefusal {
        let lines = problems.map { "\(program): \($0)\n" }
        return StartRefusal(code: StartRefusal.Code.configuration, errors: lines.joined())
    }

    private static let longs: [OptionScanner.Long] = {
        let shorts = MemcachedOptions.shorts
        let valued = Set(zip(shorts, shorts.dropFirst()).filter { $0.1 == ":" }.map(\.0))
        var longs = MemcachedOptions.longs.map { option in
            let argument = valued.contains(option.short) ? OptionScanner.Argument.required : .none
            return OptionScanner.Long(option.name, option.short == "v" ? .optional : argument)
        }
        longs.append(.init("config", .required, abbreviable: false))
        longs.append(.init("check-config", .none, abbreviable: false))
        let taken = Set(longs.map(\.name))
        for setting in NodeConfiguration.schema.settings where setting.isScalar && !taken.contains(setting.flagName) {
            var argument = OptionScanner.Argument.required
            if case .boolean = setting.type { argument = .boolean }
            longs.append(.init(setting.flagName, argument, abbreviable: false))
        }
        return longs
    }()

    private func scan() throws(StartRefusal) -> Findings {
        var findings = Findings()
        var scanner = OptionScanner(
            program: program, shorts: MemcachedOptions.shorts, longs: Self.longs, arguments: arguments)
        while let step = scanner.next() {
            switch step {
            case .problem(let message, let flag): throw unknown(message, flag)
            case .short(let option, let value): try take(option, value, &findings)
            case .long("config", let value): findings.configurationPath = value
            case .long("check-config", _): findings.checksOnly = true
            case .long(let name, let value):
                if let option = MemcachedOptions.longs.first(where: { $0.name == name }) {
                    try take(option.short, value, &findings)
                } else {
                    findings.flags.append((name, value ?? "true"))
                }
            }
        }
        try take(scanner.operands, &findings)
        return findings
    }

    /// memcached ignores words that are no options, and so do we where nothing is said but in its options. Beside ours
    /// such a word is most likely a value that was meant for a switch, and that must not be lost.
    private func take(_ operands: [String], _ findings: inout Findings) throws(StartRefusal) {
        let isOfMemcached = findings.flags.isEmpty && findings.configurationPath == nil && !findings.checksOnly
        guard let first = operands.first, !isOfMemcached else {
            findings.ignored = operands
            return
        }
        throw StartRefusal(
            code: StartRefusal.Code.usage,
            errors: "\(program): \"\(first)\" is no option, and no option's value; "
                + "what a switch takes is true, false, yes, no, on or off\n")
    }

    private func take(_ option: Character, _ value: String?, _ findings: inout Findings) throws(StartRefusal) {
        switch option {
        case "h": throw StartRefusal(code: 0, output: Self.help)
        case "i": throw StartRefusal(code: 0, output: Self.license)
        case "V": throw StartRefusal(code: 0, output: "memcached \(ProductVersion.memcached)\n")
        default: try findings.options.take(option, value)
        }
    }

    /// What getopt cannot read, in getopt's words and memcached's, and what might have been meant.
    private func unknown(_ message: String, _ flag: String?) -> StartRefusal {
        var errors = "\(message)\nIllegal argument \"?\"\n"
        if let flag, let near = suggestion(for: flag, among: Self.longs.map(\.name)) {
            errors += "Did you mean --\(near)?\n"
        }
        return StartRefusal(code: StartRefusal.Code.failure, errors: errors)
    }
}

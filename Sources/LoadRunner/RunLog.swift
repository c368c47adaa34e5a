// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import Platform
internal import Synchronization

/// Where what a run says besides its progress and summary goes, and in which form: k6's `--log-output`, `--log-format`
/// and `--console-output`.
final class RunLog: Sendable {
    /// How grave a line is, from the least on.
    enum Level: Int, Sendable {
        case debug, info, warning, error

        /// As k6 begins a line of text with it.
        var word: String {
            switch self {
            case .debug: "DEBU"
            case .info: "INFO"
            case .warning: "WARN"
            case .error: "ERRO"
            }
        }

        /// The level that k6 calls so, in an option or before a line of text; nil when there is none.
        init?(_ name: String) {
            switch name {
            case "debug", "trace", "DEBU": self = .debug
            case "info", "INFO": self = .info
            case "warning", "warn", "WARN": self = .warning
            case "error", "fatal", "panic", "ERRO": self = .error
            default: return nil
            }
        }
    }

    private enum Form: String, CaseIterable {
        case text, raw, json
    }

    /// To standard error, as text.
    static let standard = RunLog()

    private let form: Form
    /// Descriptors that stay open until the process ends; nil for nowhere.
    private let target: Int32?
    private let console: Int32?
    private let least: Level
    /// The progress lines at the end of the terminal, above which goes what is said meanwhile. Whoever has them writes
    /// to the terminal; nobody does so on the way of a request.
    private let progress = Mutex<[String]>([])

    private init() { (form, target, console, least) = (.text, 2, 2, .info) }

    /// As the command line or the environment say.
    init(_ line: LoadCommandLine, _ environment: [String: String]) throws(OptionProblem) {
        let format = line.setting("log-format", environment) ?? "text"
        guard let form = Form(rawValue: format) else {
            throw OptionProblem("--log-format \(format): expected text, raw or json")
        }
        var least = line.isOn("verbose", environment) ? Level.debug : .info
        let output = line.setting("log-output", environment) ?? "stderr"
        let parts = output.split(separator: ",").map(String.init)
        for part in parts.dropFirst() {
            guard part.hasPrefix("level="), let level = Level(String(part.dropFirst(6))) else {
                throw OptionProblem("--log-output \(output): behind the comma, expected level=LEVEL")
            }
            least = level
        }
        let place = parts.first ?? ""
        switch place {
        case "stderr": target = 2
        case "stdout": target = 1
        case "none": target = nil
        default:
            guard place.hasPrefix("file="), place.count > 5 else {
                let loki = place.hasPrefix("loki") ? "; what reads standard error can send it to Loki" : ""
                throw OptionProblem("--log-output \(output): expected stderr, stdout, none or file=PATH\(loki)")
            }
            target = try Self.open(String(place.dropFirst(5)), "--log-output")
        }
        if let path = line.setting("console-output", environment) {
            console = try Self.open(path, "--console-output")
        } else {
            console = target
        }
        (self.form, self.least) = (form, least)
    }

    private static func open(_ path: String, _ option: String) throws(OptionProblem) -> Int32 {
        do throws(SystemError) {
            let file = try createFile(path)
            return file.release()
        } catch {
            throw OptionProblem("\(option): \(path): \(error.reason)")
        }
    }

    /// Writes a line, which may hold line ends.
    func write(_ level: Level, _ text: String, isConsole: Bool = false) {
        guard level.rawValue >= least.rawValue, let fd = isConsole ? console : target else { return }
        let line: String
        switch form {
        case .text: line = "\(level.word) \(text)\n"
        case .raw: line = "\(text)\n"
        case .json:
            let source = isConsole ? ",\"source\":\"console\"" : ""
            let time = SampleText.date(Clock.realtimeNanoseconds(), decimals: false)
            line =
                "{\"level\":\"\(level)\",\"msg\":\(JSONString.quoted(text))\(source),\"time\":\"\(time)\"}\n"
        }
        let isOnTerminal = fd < 3 && ProcessControl.isTerminal(fd)
        progress.withLock { shown in
            let isAmid = isOnTerminal && !shown.isEmpty
            writeWhole(Array((isAmid ? Self.back(shown) + line + Self.text(shown) : line).utf8), to: fd)
        }
    }

    // MARK: Progress

    /// Shows lines at the end of the terminal that standard output is, in the place of those before.
    func showProgress(_ lines: [String]) {
        progress.withLock { shown in
            writeWhole(Array((Self.back(shown) + Self.text(lines)).utf8), to: 1)
            shown = lines
        }
    }

    /// Lets the lines stand where they are.
    func endProgress() { progress.withLock { $0 = [] } }

    private static func text(_ lines: [String]) -> String { lines.reduce(into: "") { $0 += $1 + "\n" } }

    /// To the first of the lines, without them.
    private static func back(_ lines: [String]) -> String { lines.isEmpty ? "" : "\u{1b}[\(lines.count)A\u{1b}[J" }
}

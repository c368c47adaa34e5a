// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What the help tells of one command.
struct CommandGuide {
    /// One thing to type, and what it does.
    struct Example {
        let line: String
        let meaning: String

        init(_ line: String, _ meaning: String) {
            self.line = line
            self.meaning = meaning
        }
    }

    /// Its words, such as `storage init`.
    let name: String
    /// What stands behind the words, once for each way of calling it.
    let forms: [String]
    /// One line for the list of commands.
    let summary: String
    /// What it does, in paragraphs.
    let text: [String]
    /// The options that it knows, beside those of every command.
    let options: [String]
    /// From the plain case to the rarer ones.
    let examples: [Example]
    /// What `--json` answers.
    let json: String

    /// Options that every command knows.
    static var common: [String] { ["json", "help"] }

    /// The command that words begin with; nil when there is none.
    static func find(_ words: [String]) -> CommandGuide? {
        all.filter { words.starts(with: $0.name.split(separator: " ").map(String.init)) }
            .max { $0.name.count < $1.name.count }
            ?? all.first { guide in words.first.map { guide.name.hasPrefix($0 + " ") } ?? false }
    }

    /// The command's own page.
    func page(program: String) -> String {
        var lines = ControlText.wrap("\(program) \(name): \(summary)") + [""]
        for form in forms { lines.append("  \(program) \(name)\(form.isEmpty ? "" : " ")\(form)") }
        for paragraph in text { lines += [""] + ControlText.wrap(paragraph) }
        lines += ["", "Examples"]
        for example in examples {
            lines += ControlText.wrap(example.meaning + ":", indent: 2)
            lines += ["      \(program) \(example.line)"]
        }
        lines += ["", "Options", Self.list(options + Self.common)]
        lines += ["", "With --json"] + ControlText.wrap(json, indent: 2)
        return lines.joined(separator: "\n") + "\n"
    }

    /// Every command in a line each, and every option.
    static func overview(program: String) -> String {
        let column = 2 + program.count + 17
        let commands = all.map { ControlText.entry("\(program) \($0.name)", $0.summary, column: column) }
        return """
            Operations on Martlet's nodes and routers.

            \(commands.joined(separator: "\n"))

            \(program) COMMAND --help explains a command, with examples. Options:

            \(list(ControlOptions.table.map(\.name)))

            Exit codes: 0 done, 64 the command is wrong, 65 a file is not what it should be,
            69 a server does not answer or says no, 71 the system refused, 74 rows of a
            store are damaged and all else is done. The reason is on standard error, with
            --json as {"error":"...","code":69}.

            """
    }

    private static func list(_ names: [String]) -> String {
        ControlOptions.table.filter { names.contains($0.name) }.map { option in
            ControlText.entry(
                "--\(option.name)" + (option.placeholder.map { "=\($0)" } ?? ""), option.help, column: 24)
        }.joined(separator: "\n")
    }
}

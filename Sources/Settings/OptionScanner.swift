// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Takes a command line apart as GNU getopt_long does, so that scripts written for other servers work: `-p 1`, `-p1`,
/// clusters (`-vd`), `--port=1`, `--port 1`, unambiguous beginnings (`--por 1`), options after other arguments, and
/// `--` as the end. Its error messages are getopt's.
package struct OptionScanner {
    /// Whether an option has a value.
    package enum Argument: Sendable {
        case none
        case required
        /// Only as `--name=value`.
        case optional
        /// A switch: on as `--name`, and either as `--name=value` or where the next word is a boolean's value.
        case boolean
    }

    /// A long option.
    package struct Long: Sendable {
        /// Its name, without the dashes.
        package let name: String
        /// Whether a value belongs to it.
        package let argument: Argument
        /// Whether a unique beginning of the name will do.
        package let isAbbreviable: Bool

        /// An option of this name.
        package init(_ name: String, _ argument: Argument, abbreviable: Bool = true) {
            self.name = name
            self.argument = argument
            isAbbreviable = abbreviable
        }
    }

    /// One step of the scan.
    package enum Step: Equatable {
        case short(Character, String?)
        case long(String, String?)
        /// Something unknown or incomplete, with the message for standard error; and the long option's name, when
        /// there is none like it.
        case problem(String, unknown: String?)
    }

    private let program: String
    private let shorts: [Character: Argument]
    private let longs: [Long]
    private var arguments: ArraySlice<String>
    /// What is left of a cluster of short options.
    private var cluster: Substring = ""
    /// The arguments that are neither options nor options' values.
    package private(set) var operands: [String] = []

    /// - Parameters:
    ///   - program: the name that messages begin with.
    ///   - shorts: the short options as getopt spells them: `p:` has a value, `v` has none.
    ///   - longs: the long options.
    ///   - arguments: the command line without the program's name.
    package init(program: String, shorts: String, longs: [Long], arguments: [String]) {
        self.program = program
        self.longs = longs
        self.arguments = arguments[...]
        var table: [Character: Argument] = [:]
        var last: Character?
        for character in shorts {
            if character == ":" {
                if let last { table[last] = .required }
            } else {
                table[character] = Argument.none
                last = character
            }
        }
        self.shorts = table
    }

    /// The next option; nil at the end.
    package mutating func next() -> Step? {
        if !cluster.isEmpty { return nextShort() }
        while let argument = arguments.popFirst() {
            if argument == "--" {
                operands += arguments
                arguments = []
            } else if argument.hasPrefix("--") {
                return nextLong(argument.dropFirst(2))
            } else if argument.hasPrefix("-"), argument.count > 1 {
                cluster = argument.dropFirst()
                return nextShort()
            } else {
                operands.append(argument)
            }
        }
        return nil
    }

    private mutating func nextShort() -> Step {
        let option = cluster.removeFirst()
        switch shorts[option] {
        case nil: return .problem("\(program): invalid option -- '\(option)'", unknown: nil)
        case .required:
            let attached = String(cluster)
            cluster = ""
            if !attached.isEmpty { return .short(option, attached) }
            guard let value = arguments.popFirst() else {
                return .problem("\(program): option requires an argument -- '\(option)'", unknown: nil)
            }
            return .short(option, value)
        default: return .short(option, nil)
        }
    }

    private mutating func nextLong(_ text: Substring) -> Step {
        let name = text.prefix { $0 != "=" }
        let attached = name.count < text.count ? String(text.dropFirst(name.count + 1)) : nil
        var matches = longs.filter { $0.name == name }
        if matches.isEmpty { matches = longs.filter { $0.isAbbreviable && $0.name.hasPrefix(name) } }
        guard let option = matches.first else {
            return .problem("\(program): unrecognized option '--\(name)'", unknown: String(name))
        }
        if matches.count > 1 {
            let names = matches.map { "'--\($0.name)'" }.joined(separator: " ")
            return .problem("\(program): option '--\(name)' is ambiguous; possibilities: \(names)", unknown: nil)
        }
        switch option.argument {
        case .none where attached != nil:
            return .problem("\(program): option '--\(option.name)' doesn't allow an argument", unknown: nil)
        case .required where attached == nil:
            guard let value = arguments.popFirst() else {
                return .problem("\(program): option '--\(option.name)' requires an argument", unknown: nil)
            }
            return .long(option.name, value)
        case .boolean where attached == nil:
            guard let next = arguments.first, SettingType.truth(next) != nil else { return .long(option.name, nil) }
            return .long(option.name, arguments.removeFirst())
        default: return .long(option.name, attached)
        }
    }
}

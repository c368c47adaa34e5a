// Martlet
// SPDX-License-Identifier: Apache-2.0

extension SettingsSchema {
    /// A flag as it was given: its setting's flag name and the value.
    package typealias Flag = (name: String, value: String)

    /// Puts the settings together: a flag wins over the environment, which wins over the file, which wins over the
    /// default. A list given by several flags is all of them.
    ///
    /// - Parameters:
    ///   - file: the configuration file's path and its bytes, if there is one.
    ///   - environment: all of the process's variables; those that do not begin with `MARTLET_` are ignored.
    ///   - flags: what the command line held, in order; the names must be flags of this schema.
    ///   - otherKeys: keys of the file that are somebody else's, and skipped.
    /// - Returns: the values, and notes about what was ignored.
    /// - Throws: every problem of all three.
    package func resolve(
        file: (path: String, bytes: [UInt8])?, environment: [String: String], flags: [Flag],
        otherKeys: Set<String> = []
    ) throws(SettingsError) -> (values: SettingsValues, notes: [String]) {
        var values = defaults()
        var problems: [String] = []
        if let file {
            do throws(SettingsError) {
                if let root = try YAMLParser.parse(file.bytes, file: file.path), !root.isNull {
                    read(root.without(otherKeys), group: "", file: file.path, into: &values, problems: &problems)
                }
            } catch {
                problems += error.problems
            }
        }
        let notes = read(environment, into: &values, problems: &problems)
        read(flags, into: &values, problems: &problems)
        guard problems.isEmpty else { throw SettingsError(problems) }
        return (values, notes)
    }

    // MARK: The file

    /// Reads a mapping whose keys all begin with `group` ("" or "storage.").
    private func read(
        _ node: SettingsNode, group: String, file: String, into values: inout SettingsValues,
        problems: inout [String]
    ) {
        guard case .mapping(let entries) = node.content else {
            let what = group.isEmpty ? "the configuration" : String(group.dropLast())
            problems.append("\(file):\(node.line): \(what): expected a mapping of settings (key: value)")
            return
        }
        for entry in entries {
            let name = group + entry.key
            if let setting = setting(named: name) {
                let read = Self.value(of: entry.value, for: setting, file: file, path: name, problems: &problems)
                guard let value = read else { continue }
                values.entries[name] = .init(value: value, source: .file(file, line: entry.line))
            } else if settings.contains(where: { $0.name.hasPrefix(name + ".") }) {
                // A group with nothing in it (all its lines are comments) sets nothing.
                if entry.value.isNull { continue }
                self.read(entry.value, group: name + ".", file: file, into: &values, problems: &problems)
            } else {
                let known = keys(of: group)
                problems.append(Self.unknown(entry, name, among: known, near: nearest(name, known, group), file))
            }
        }
    }

    /// The keys that may stand in a group, in order.
    private func keys(of group: String) -> [String] {
        var keys: [String] = []
        for setting in settings where setting.name.hasPrefix(group) {
            let key = String(setting.name.dropFirst(group.count).prefix { $0 != "." })
            if !keys.contains(key) { keys.append(key) }
        }
        return keys
    }

    /// What was meant by an unknown key: one of its own group, or a setting of the same last name elsewhere.
    private func nearest(_ name: String, _ known: [String], _ group: String) -> String? {
        let key = String(name.dropFirst(group.count))
        if let near = suggestion(for: key, among: known) { return group + near }
        return settings.first { $0.name.hasSuffix("." + key) || $0.flagName == key }?.name
    }

    private static func unknown(
        _ entry: SettingsNode.Entry, _ name: String, among known: [String], near: String?, _ file: String
    ) -> String {
        let meant = near.map { " (did you mean \($0)?)" } ?? ""
        let allowed = known.joined(separator: ", ")
        return "\(file):\(entry.line): \(name): unknown setting\(meant); allowed here: \(allowed)"
    }

    /// A node's value by a setting's type; nil after adding a problem.
    private static func value(
        of node: SettingsNode, for setting: Setting, file: String, path: String, problems: inout [String]
    ) -> SettingValue? {
        switch (setting.type, node.content) {
        case (.list, .sequence(let elements)):
            var list: [String] = []
            for element in elements {
                guard case .scalar(let text, _) = element.content, !element.isNull else {
                    problems.append("\(file):\(element.line): \(path): expected \(setting.type.allowed)")
                    return nil
                }
                list.append(text)
            }
            return .list(list)
        case (.mappings(let fields), .sequence(let elements)):
            let mappings = elements.enumerated().map { index, element in
                mapping(element, fields, file: file, path: "\(path)[\(index)]", problems: &problems)
            }
            return .mappings(mappings)
        case (_, .scalar(let text, _)):
            if node.isNull, setting.isScalar {
                problems.append("\(file):\(node.line): \(path): no value; expected \(setting.type.allowed)")
                return nil
            }
            return parse(text, setting, place: "\(file):\(node.line): \(path)", problems: &problems)
        default:
            problems.append("\(file):\(node.line): \(path): expected \(setting.type.allowed)")
            return nil
        }
    }

    /// One mapping of a list, read by the table of its fields.
    private static func mapping(
        _ node: SettingsNode, _ fields: [Setting], file: String, path: String, problems: inout [String]
    ) -> SettingsValues {
        var values = defaults(of: fields, place: .file(file, line: node.line))
        guard case .mapping(let entries) = node.content else {
            problems.append("\(file):\(node.line): \(path): expected a mapping (key: value)")
            return values
        }
        for entry in entries {
            guard let field = fields.first(where: { $0.name == entry.key }) else {
                let known = fields.map(\.name)
                let near = suggestion(for: entry.key, among: known)
                problems.append(unknown(entry, "\(path).\(entry.key)", among: known, near: near, file))
                continue
            }
            let inner = "\(path).\(field.name)"
            if let value = value(of: entry.value, for: field, file: file, path: inner, problems: &problems) {
                values.entries[field.name] = .init(value: value, source: .file(file, line: entry.line))
            }
        }
        for field in fields where field.isRequired && !entries.contains(where: { $0.key == field.name }) {
            let expected = field.type.allowed
            problems.append("\(file):\(node.line): \(path).\(field.name): missing; expected \(expected)")
        }
        return values
    }

    // MARK: The environment and the flags

    /// Reads the variables of this schema; returns notes about those that look like it.
    private func read(
        _ environment: [String: String], into values: inout SettingsValues, problems: inout [String]
    ) -> [String] {
        var known: Set<String> = []
        var notes: [String] = []
        for setting in settings where setting.isScalar {
            let name = setting.environmentName
            known.insert(name)
            guard let text = environment[name] else { continue }
            if name.hasSuffix("_PORT"), ["tcp://", "udp://", "sctp://"].contains(where: text.hasPrefix) {
                // Kubernetes and Docker set MARTLET_PORT=tcp://… for a service called martlet.
                notes.append("\(name): ignored, because it is the address of a service")
                continue
            }
            if let value = Self.parse(text, setting, place: name, problems: &problems) {
                values.entries[setting.name] = .init(value: value, source: .environment(name))
            }
        }
        let prefix = "MARTLET_"
        let endings = known.map { String($0.dropFirst(prefix.count)) }.sorted()
        for name in environment.keys.sorted() where name.hasPrefix(prefix) && !known.contains(name) {
            // Not an error: services and tests set variables that begin so, too.
            if let near = suggestion(for: String(name.dropFirst(prefix.count)), among: endings) {
                notes.append("\(name): ignored, because it is no setting; did you mean \(prefix)\(near)?")
            }
        }
        return notes
    }

    private func read(_ flags: [Flag], into values: inout SettingsValues, problems: inout [String]) {
        for flag in flags {
            guard let setting = setting(flag: flag.name) else {
                preconditionFailure("no flag is called --\(flag.name)")
            }
            let place = SettingSource.flag(flag.name)
            let parsed = Self.parse(flag.value, setting, place: place.description, problems: &problems)
            guard var value = parsed else { continue }
            if case .list(let more) = value, case .list(let before) = values.value(setting.name),
                case .flag = values.source(setting.name)
            {
                value = .list(before + more)
            }
            values.entries[setting.name] = .init(value: value, source: place)
        }
    }

    private static func parse(
        _ text: String, _ setting: Setting, place: String, problems: inout [String]
    ) -> SettingValue? {
        do throws(BadValue) {
            return try setting.type.parse(text)
        } catch {
            let shown = setting.isSecret ? "the value" : "\"\(text)\""
            problems.append("\(place): \(shown) is not valid; \(error.reason)")
            return nil
        }
    }
}

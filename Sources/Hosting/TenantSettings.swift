// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Settings

/// Who a tenant is and what it may do, as configured.
package struct TenantSettings: Sendable, Equatable {
    /// Tenants at most: what is counted by tenant has bounds.
    package static let limit = 200
    /// Users, certificates and prefixes of a tenant at most, each.
    package static let namesLimit = 64
    /// What whoever is no tenant is counted as.
    package static let unknown = "unknown"

    /// What metrics, statistics and log lines call it.
    package var name: String
    /// Names of `-Y` that are this tenant.
    package var users: [String] = []
    /// Common names and DNS names of client certificates that are.
    package var certificates: [String] = []
    /// Whether all are that are no other tenant.
    package var includesOthers = false
    /// What it may do.
    package var permissions: TenantPermissions
    /// How much it may have.
    package var quotas = TenantQuotas()

    /// A tenant without members.
    package init(name: String, permissions: TenantPermissions) {
        self.name = name
        self.permissions = permissions
    }

    /// The setting, for the table of a program.
    package static let setting = Setting(
        "tenants", .mappings(fields), reloadable: true,
        "Who may use which keys and commands, and how much; without any, everybody all.")

    private static let fields = memberFields + TenantQuotas.fields

    private static let memberFields: [Setting] = [
        Setting("name", .text, required: true, "What metrics and log lines call it."),
        Setting("users", .list, "Users of auth.file that are this tenant."),
        Setting("certificates", .list, "Common names and DNS names of client certificates that are."),
        Setting("others", .boolean, default: "false", "Whether all are that are no other tenant."),
        Setting("prefixes", .list, "What keys that it may use begin with; all keys without any."),
        Setting("readPrefixes", .list, "What keys that it may only read begin with."),
        Setting(
            "commands", .list,
            "What it may do: read, write, delete, flush, admin. All, or the first three where there are prefixes."),
    ]

    /// Reads the tenants; adds what is wrong with them.
    package static func read(_ values: SettingsValues, problems: inout [String]) -> [TenantSettings] {
        var tenants: [TenantSettings] = []
        let mappings = values.mappings("tenants")
        if mappings.count > limit { problems.append("tenants: \(mappings.count) are too many; at most \(limit)") }
        for mapping in mappings {
            let tenant = TenantSettings(mapping, problems: &problems)
            if let problem = tenant.conflict(with: tenants) { problems.append("\(mapping.place): \(problem)") }
            tenants.append(tenant)
        }
        return tenants
    }

    private init(_ values: SettingsValues, problems: inout [String]) {
        var found: [String] = []
        name = values.text("name") ?? ""
        users = values.list("users")
        certificates = values.list("certificates")
        includesOthers = values.boolean("others")
        let prefixes = values.list("prefixes").map { Array($0.utf8) }
        let readPrefixes = values.list("readPrefixes").map { Array($0.utf8) }
        var commands: CommandClasses = prefixes.isEmpty && readPrefixes.isEmpty ? .all : .data
        if values.isSet("commands") {
            commands = []
            for word in values.list("commands") {
                if let known = CommandClasses.named.first(where: { $0.name == word }) {
                    commands.formUnion(known.value)
                } else {
                    let names = CommandClasses.named.map(\.name).joined(separator: ", ")
                    found.append("commands: \"\(word)\" is not valid; expected \(names)")
                }
            }
        }
        permissions = TenantPermissions(commands: commands, prefixes: prefixes, readPrefixes: readPrefixes)
        quotas = TenantQuotas(values, problems: &found)
        if !Self.isName(name) {
            found.append("name: \"\(name)\" is not valid; expected 1 to 64 letters, digits, dots, dashes, underscores")
        }
        if name == Self.unknown { found.append("name: \"\(name)\" is what those are counted as who are no tenant") }
        found += Self.problems(prefixes: prefixes + readPrefixes)
        for (field, list) in [("users", users), ("certificates", certificates)] {
            if list.contains("") { found.append("\(field): an empty name") }
            if list.count > Self.namesLimit {
                found.append("\(field): \(list.count) are too many; at most \(Self.namesLimit)")
            }
        }
        problems += found.map { "\(values.place): \($0)" }
    }

    private static func problems(prefixes: [[UInt8]]) -> [String] {
        var problems: [String] = []
        for prefix in prefixes where prefix.isEmpty || prefix.count > 250 || prefix.contains(where: isNoKeyByte) {
            problems.append(
                "prefixes: \"\(String(decoding: prefix, as: UTF8.self))\" is not valid; expected 1 to 250 bytes of a "
                    + "key, no spaces")
        }
        if Set(prefixes).count < prefixes.count { problems.append("prefixes: one is there twice") }
        if prefixes.count > namesLimit {
            problems.append("prefixes: \(prefixes.count) are too many; at most \(namesLimit)")
        }
        return problems
    }

    private static func isNoKeyByte(_ byte: UInt8) -> Bool { byte <= 32 || byte == 127 }

    private static func isName(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
                    true
                default: false
                }
            }
    }

    /// What cannot be said twice, and is; nil when nothing is.
    private func conflict(with others: [TenantSettings]) -> String? {
        for other in others {
            if other.name == name { return "name: \"\(name)\" is there twice" }
            if other.includesOthers, includesOthers { return "others: \(other.name) has them already" }
            if let user = users.first(where: other.users.contains) { return "users: \"\(user)\" is \(other.name)'s" }
            if let certificate = certificates.first(where: other.certificates.contains) {
                return "certificates: \"\(certificate)\" is \(other.name)'s"
            }
        }
        return nil
    }
}

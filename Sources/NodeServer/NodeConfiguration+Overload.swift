// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Overload
internal import Settings

extension NodeConfiguration {
    static let overloadSettings: [Setting] = [
        Setting(
            "overload.target", .duration(0...1_000_000_000), default: "1ms",
            "Queueing delay to hold by refusing requests; 0 never refuses."),
        Setting(
            "overload.reply", .enumeration(OverloadSettings.Reply.allCases.map(\.rawValue)), default: "busy",
            "How a refusal reads: SERVER_ERROR 307 busy, SERVER_ERROR out of memory, or a miss."),
        Setting(
            "overload.tenant", .enumeration(OverloadSettings.Tenant.allCases.map(\.rawValue)), default: "address",
            "Who shares fairly with whom."),
        Setting("overload.dryRun", .boolean, default: "false", "Whether only is counted what would be refused."),
        Setting(
            "overload.testServiceTime", .duration(0...1_000_000_000), default: "0",
            "What each request takes at least, busily: for load tests only."),
        Setting(
            "overload.testServiceSleeps", .boolean, default: "false",
            "Whether that time is slept through, for load tests of several nodes on a machine."),
        Setting(
            "overload.testRefusal", .boolean, default: "false",
            "Whether all is refused that may be, overload or none: for load tests only."),
        Setting(
            "overload.listeners",
            .mappings([
                Setting("tag", .text, required: true, "The tag of a listener, as in -l tag[low]:127.0.0.1:11213."),
                Setting("class", .enumeration(classNames), "The class of what comes in there."),
                Setting(
                    "reply", .enumeration(OverloadSettings.Reply.allCases.map(\.rawValue)),
                    "How refusals read there."),
            ]), "Listeners with rules of their own."),
    ]

    /// The classes that can be given.
    static let classNames = RequestClass.allCases.filter { $0 != .invalidation }.map(\.label)
}

extension NodeConfigurationDraft {
    mutating func readOverload(_ values: SettingsValues, _ problems: inout [String]) {
        var overload = OverloadSettings()
        overload.controller.targetNanoseconds = values.duration("overload.target")
        overload.controller.isDryRun = values.boolean("overload.dryRun")
        overload.reply = values.text("overload.reply").flatMap(OverloadSettings.Reply.init) ?? .busy
        overload.tenant = values.text("overload.tenant").flatMap(OverloadSettings.Tenant.init) ?? .address
        overload.controller.refusesAll = values.boolean("overload.testRefusal")
        overload.serviceNanoseconds = values.duration("overload.testServiceTime")
        overload.serviceSleeps = values.boolean("overload.testServiceSleeps")
        for mapping in values.mappings("overload.listeners") {
            let tag = mapping.text("tag") ?? ""
            if !(1...8).contains(tag.utf8.count) {
                problems.append("\(mapping.place): tag: \"\(tag)\" is not valid; expected 1 to 8 characters")
            }
            if overload.listeners.contains(where: { $0.tag == tag }) {
                problems.append("\(mapping.place): tag: \"\(tag)\" is there twice")
            }
            overload.listeners.append(
                OverloadSettings.Listener(
                    tag: tag, requestClass: mapping.text("class").flatMap(RequestClass.init(label:)),
                    reply: mapping.text("reply").flatMap(OverloadSettings.Reply.init)))
        }
        if overload.listeners.count > 255 {
            problems.append("overload.listeners: \(overload.listeners.count) are too many; at most 255")
        }
        configuration.overload = overload
    }
}

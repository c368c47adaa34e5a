// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Rules about the documents beside the code.
enum DocumentRules {
    /// Every `make target` that a document shows is a target of the Makefile.
    static func makeTargets(_ path: String, _ text: String, makefile: String) -> [Finding] {
        let targets = Set(
            makefile.split(separator: "\n").compactMap { line -> String? in
                guard let colon = line.firstIndex(of: ":"), line.first?.isLetter == true else { return nil }
                return String(line[..<colon])
            })
        var findings: [Finding] = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            for target in shownTargets(line) where !targets.contains(target) {
                findings.append(Finding(path: path, line: index + 1, what: "the Makefile has no target '\(target)'"))
            }
        }
        return findings
    }

    /// What follows `make` at the start of a line or in backquotes.
    private static func shownTargets(_ line: Substring) -> [String] {
        var targets: [String] = []
        // A line of a shell block, or what stands in backquotes: every second piece.
        let pieces = line.split(separator: "`", omittingEmptySubsequences: false)
        for (index, piece) in pieces.enumerated() where pieces.count == 1 || index % 2 == 1 {
            let words = piece.split(separator: " ")
            guard words.first == "make", words.count > 1 else { continue }
            if words[1].allSatisfy({ $0.isLowercase || $0 == "-" }), words[1].first != "-" {
                targets.append(String(words[1]))
            }
        }
        return targets
    }

    /// A changelog has a section for what is not released, or for a version.
    static func changelog(_ text: String) -> [Finding] {
        let hasSection = text.split(separator: "\n").contains { line in
            guard line.hasPrefix("## ") else { return false }
            let title = line.dropFirst(3).drop { $0 == "[" }
            return title.hasPrefix("Unreleased") || title.first?.isNumber == true
        }
        return hasSection ? [] : [Finding(path: "CHANGELOG.md", line: 1, what: "no section Unreleased or of a version")]
    }

    /// Decisions are `NNNN-title.md`, each number once.
    static func decisions(_ names: [String]) -> [Finding] {
        var numbers: Set<Substring> = []
        return names.compactMap { name in
            let path = "docs/decisions/" + name
            let number = name.prefix(4)
            let rest = name.dropFirst(4)
            let isNamed =
                number.count == 4 && number.allSatisfy(\.isNumber) && rest.hasPrefix("-") && rest.hasSuffix(".md")
                && rest.dropLast(3).dropFirst().allSatisfy { $0.isLowercase || $0.isNumber || $0 == "-" }
                && rest.count > 4
            guard isNamed else { return Finding(path: path, line: 1, what: "not NNNN-title.md in small letters") }
            return numbers.insert(number).inserted ? nil : Finding(path: path, line: 1, what: "the number is taken")
        }
    }
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

/// The style that a machine can check, on the repository itself. What each rule sees is shown in RuleTests.
struct RepositoryTests {
    private let sources = Repository.swiftFiles.filter { !$0.isTest }
    private let all = Repository.swiftFiles

    /// Fails once for each finding, with its place.
    private func expectNone(_ findings: [Finding], at location: SourceLocation = #_sourceLocation) {
        for finding in findings { Issue.record("\(finding)", sourceLocation: location) }
    }

    @Test func theRepositoryIsFound() {
        #expect(sources.count > 50)
        #expect(all.contains { $0.path == "Tests/RepositoryTests/RepositoryTests.swift" })
        #expect(sources.contains { $0.path == "Sources/Memory/Arena.swift" })
    }

    @Test func filesAreShort() { expectNone(all.flatMap(TextRules.length)) }

    @Test func linesFitInto120Columns() { expectNone(all.flatMap(TextRules.lineWidth)) }

    @Test func filesStartWithTheHeader() { expectNone(all.flatMap(TextRules.header)) }

    @Test func fileNamesSayWhatIsInThem() { expectNone(all.flatMap(TextRules.name)) }

    @Test func nothingIsLeftUnfinished() { expectNone(all.flatMap(TextRules.unfinished)) }

    @Test func functionsAreShort() { expectNone(all.flatMap(TextRules.functionLength)) }

    @Test func sourcesDoWithoutFoundation() { expectNone(sources.flatMap(CodeRules.noFoundation)) }

    @Test func unsafeCodeStaysInItsModules() { expectNone(sources.flatMap(CodeRules.unsafePlaces)) }

    @Test func adaptersOnTheListAreThereAndUnsafe() {
        for path in CodeRules.unsafeAdapters.keys {
            let file = sources.first { $0.path == path }
            #expect(file.map { !CodeRules.unsafeLines($0).isEmpty } == true, "\(path) needs no exception")
        }
    }

    @Test func unsafeCodeSaysWhyItIsSafe() { expectNone(sources.flatMap(CodeRules.safetyComments)) }

    @Test func nothingIsForced() { expectNone(all.flatMap(CodeRules.force)) }

    @Test func packageDeclarationsAreDocumented() { expectNone(sources.flatMap(CodeRules.documentation)) }

    @Test func modulesImportLowerLevelsOnly() { expectNone(sources.flatMap(ModuleRules.levels)) }

    @Test func executablesAreSmall() {
        for file in sources where file.path.hasSuffix("/main.swift") {
            let whole = sources.filter { $0.module == file.module }.reduce(0) { $0 + $1.lines.count }
            #expect(whole <= TextRules.executableLimit, "\(file.module) has \(whole) lines")
        }
    }

    @Test func noFileHasAPathOfOneMachine() {
        for path in Repository.paths(below: "") {
            if let text = Repository.text(path) { expectNone(TextRules.machinePaths(path, text)) }
        }
    }

    @Test func documentsShowTargetsThatTheMakefileHas() throws {
        let makefile = try #require(Repository.text("Makefile"))
        let documents = Repository.paths(below: "docs", suffix: ".md") + ["README.md", "CONTRIBUTING.md"]
        for path in documents {
            expectNone(DocumentRules.makeTargets(path, try #require(Repository.text(path)), makefile: makefile))
        }
    }

    @Test func theChangelogHasASection() throws {
        expectNone(DocumentRules.changelog(try #require(Repository.text("CHANGELOG.md"))))
    }

    @Test func decisionsAreNumberedAndNamed() {
        expectNone(DocumentRules.decisions(Repository.names(in: "docs/decisions")))
    }
}

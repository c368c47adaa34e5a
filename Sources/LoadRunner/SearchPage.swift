// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel

/// A search's trials as one page that needs nothing else.
struct SearchPage {
    let title: String
    let objective: SearchObjective
    let metric: String
    /// The highest rate that keeps the objective; nil when none does.
    let best: Double?
    let trials: [RateSearchRun.Trial]
    /// Facts of the search, by their names.
    let facts: [(String, String)]

    /// The page.
    var text: String {
        let name = Chart.escaped(title)
        return """
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
            <title>\(name)</title><style>\(ReportPage.style)</style></head><body><main>
            <h1>\(name)</h1><p class="verdict \(best == nil ? "bad" : "good")">\(Chart.escaped(verdict))</p>
            <section><h2>Latency by rate</h2>
            <p>\(Chart.escaped(metric)), milliseconds, by arrivals a second; a logarithmic scale. Green: kept.</p>
            \(drawing)</section>
            <section><h2>Trials</h2><table><tr><th>rate</th><th>\(Chart.escaped(objective.figure))</th><th>failed</th>\
            <th>dropped</th><th></th></tr>\(trials.map(row).joined())</table></section>
            <section><h2>The search</h2><table>\(facts.map(fact).joined())</table></section>
            </main></body></html>

            """
    }

    private var verdict: String {
        guard let best else { return "no rate keeps \(objective.source)" }
        return "the highest rate that keeps \(objective.source): \(NumberText.short(best, 1))/s"
    }

    private var drawing: String {
        let sorted = trials.sorted { $0.rate < $1.rate }
        guard let first = sorted.first?.rate, let last = sorted.last?.rate, first < last else {
            return "<p>One rate is nothing to draw.</p>"
        }
        let lines = [
            Chart.Line(objective.figure, "a", sorted.map(\.value)),
            Chart.Line("objective", "d", sorted.map { _ in objective.limitMilliseconds }),
        ]
        let dots = sorted.map { $0.isKept ? "kept" : "lost" }
        return Chart(sorted.map(\.rate), lines, isLogarithmic: true, unit: "/s", dots: dots).svg
    }

    private func row(_ trial: RateSearchRun.Trial) -> String {
        let cells = [
            NumberText.short(trial.rate, 1) + "/s", NumberText.duration(milliseconds: trial.value),
            NumberText.fixed(trial.failed * 100, 2) + "%", NumberText.fixed(trial.dropped * 100, 2) + "%",
        ]
        let mark = trial.isKept ? "<td class=\"good\">kept</td>" : "<td class=\"bad\">not kept</td>"
        return "<tr>\(cells.map { "<td>\(Chart.escaped($0))</td>" }.joined())\(mark)</tr>"
    }

    private func fact(_ fact: (String, String)) -> String {
        "<tr><td>\(Chart.escaped(fact.0))</td><td>\(Chart.escaped(fact.1))</td></tr>"
    }
}

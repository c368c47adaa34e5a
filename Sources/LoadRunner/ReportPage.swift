// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel

/// A test's result as one page that needs nothing else: text, tables, and drawings in the page itself.
struct ReportPage {
    let result: TestResult
    let series: RunSeries
    let title: String
    /// Facts of the run, by their names.
    let facts: [(String, String)]
    let trendStats: [String]

    /// The page.
    var text: String {
        let points = series.points
        let latencies: [Chart.Line] = [
            Chart.Line("median", "a", points.map(\.median)), Chart.Line("p90", "b", points.map(\.p90)),
            Chart.Line("p99", "c", points.map(\.p99)), Chart.Line("p99.9", "d", points.map(\.p999)),
        ]
        let rates = [Chart.Line("requests/s", "a", points.map { $0.requests / max($0.length, 1e-9) })]
        let losses = [
            Chart.Line("failed/s", "d", points.map { $0.failed / max($0.length, 1e-9) }),
            Chart.Line("shed/s", "c", points.map { $0.sheds / max($0.length, 1e-9) }),
            Chart.Line("dropped/s", "b", points.map { $0.dropped / max($0.length, 1e-9) }),
        ]
        let times = points.map(\.time)
        return """
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
            <title>\(escaped(title))</title><style>\(Self.style)</style></head><body><main>
            <h1>\(escaped(title))</h1><p class="verdict \(result.hasFailed ? "bad" : "good")">\(verdict)</p>
            \(figures)
            <section><h2>Throughput</h2><p>Requests that were answered or given up, a second.</p>
            \(Chart(times, rates, isFilled: true).svg)</section>
            <section><h2>Latency over time</h2><p>Milliseconds, from the intended start; a logarithmic scale.</p>
            \(Chart(times, latencies, isLogarithmic: true).svg)</section>
            <section><h2>Latency by percentile</h2><p>Milliseconds; to the right, ever fewer requests.</p>
            \(spectrum)</section>
            <section><h2>Failures</h2>
            <p>A second: requests that failed, those that the server refused, and arrivals that nobody served.</p>
            \(Chart(times, losses).svg)</section>
            \(thresholds)<section><h2>Metrics</h2>\(metrics)</section>
            <section><h2>The run</h2><table>\(facts.map { row([$0.0, $0.1]) }.joined())</table></section>
            </main></body></html>

            """
    }

    private var verdict: String {
        if result.verdicts.isEmpty { return "no thresholds" }
        let passed = result.verdicts.count { $0.isPassed }
        return "\(passed) of \(result.verdicts.count) thresholds passed"
    }

    private var figures: String {
        let built = result.builtIn
        let duration = result.sinks[built.requestDuration].trend
        let requests = result.sinks[built.requests].value
        var all = [
            ("requests", Chart.grouped(requests)),
            ("per second", Chart.grouped(result.seconds > 0 ? requests / result.seconds : 0)),
            ("failed", NumberText.fixed(result.sinks[built.requestFailed].rate * 100, 2) + "%"),
        ]
        for (name, fraction) in [("median", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            all.append((name, NumberText.duration(milliseconds: duration.quantile(fraction))))
        }
        if result.sinks[built.hits].samples > 0 {
            all.append(("hits", NumberText.fixed(result.sinks[built.hits].rate * 100, 2) + "%"))
        }
        let boxes = all.map { "<div><b>\(escaped($0.1))</b><span>\(escaped($0.0))</span></div>" }
        return "<div class=\"figures\">\(boxes.joined())</div>"
    }

    /// Latency from the intended start and service time by percentile, on the scale of HDR histograms: each mark to the
    /// right has ten times fewer requests beyond it.
    private var spectrum: String {
        let fractions = (0...60).map { 1 - 1 / power(10, Double($0) / 12) }
        func line(_ name: String, _ color: String, _ place: Int) -> Chart.Line {
            Chart.Line(name, color, fractions.map { result.sinks[place].trend.quantile($0) })
        }
        let lines = [
            line("latency", "c", result.builtIn.requestDuration),
            line("service time", "a", result.builtIn.requestService),
        ]
        let marks = ["0%", "90%", "99%", "99.9%", "99.99%", "99.999%"]
        return Chart((0...60).map(Double.init), lines, isLogarithmic: true, marks: marks).svg
    }

    private func power(_ base: Double, _ exponent: Double) -> Double {
        // Twelfths of a power of ten: enough here.
        (0..<Int((exponent * 12).rounded())).reduce(1.0) { value, _ in value * 1.211527658628589 }
    }

    private var thresholds: String {
        guard !result.verdicts.isEmpty else { return "" }
        let rows = result.verdicts.map { verdict in
            let figure = verdict.figure.map { NumberText.short($0, 6) } ?? "no samples"
            let mark = verdict.isPassed ? "<td class=\"good\">passed</td>" : "<td class=\"bad\">failed</td>"
            let cells = [result.registry.name(verdict.place), verdict.threshold.source, figure]
            return "<tr>\(cells.map { "<td>\(escaped($0))</td>" }.joined())\(mark)</tr>"
        }
        return "<section><h2>Thresholds</h2><table><tr><th>metric</th><th>threshold</th><th>figure</th><th></th></tr>"
            + rows.joined() + "</table></section>"
    }

    private var metrics: String {
        let text = SummaryText(result, trendStats: trendStats).text
        return "<pre>\(escaped(text))</pre>"
    }

    private func row(_ cells: [String]) -> String {
        "<tr>" + cells.map { "<td>\(escaped($0))</td>" }.joined() + "</tr>"
    }

    private func escaped(_ text: String) -> String { Chart.escaped(text) }

    /// The page's look, in light and in dark.
    static let style = """
        :root{color-scheme:light dark;--ink:#1d2330;--paper:#fff;--soft:#667;--line:#d8dbe2;--a:#2563eb;--b:#0d9488;\
        --c:#c2410c;--d:#b91c1c;--good:#15803d;--bad:#b91c1c;--box:#f4f5f8}
        @media(prefers-color-scheme:dark){:root{--ink:#e6e8ee;--paper:#12151c;--soft:#9aa3b5;--line:#2c3240;\
        --a:#7aa2ff;--b:#4fd1c5;--c:#ffa566;--d:#ff8080;--good:#5ad08a;--bad:#ff8080;--box:#1b202b}}
        body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
        main{max-width:960px;margin:0 auto;padding:24px 16px}
        h1{font-size:22px;margin:0}h2{font-size:16px;margin:28px 0 4px}
        p{margin:0 0 6px;color:var(--soft)}.verdict{font-weight:600}.good{color:var(--good)}.bad{color:var(--bad)}
        .figures{display:flex;flex-wrap:wrap;gap:8px;margin:16px 0}
        .figures div{background:var(--box);border-radius:8px;padding:8px 14px;flex:1 1 100px}
        .figures b{display:block;font-size:18px}.figures span{color:var(--soft)}
        table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:3px 8px 3px 0;\
        border-bottom:1px solid var(--line)}pre{overflow-x:auto;font-size:12px;line-height:1.4}
        svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}
        .grid{stroke:var(--line)}.a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c)}.d{stroke:var(--d)}
        path{fill:none;stroke-width:1.8;stroke-linejoin:round}.area{stroke:none;fill:var(--a);opacity:.12}
        circle{stroke:var(--paper);stroke-width:1.5}circle.kept{fill:var(--good)}circle.lost{fill:var(--bad)}
        """
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// The console: one page for people, which shows `/stats.json` as it changes.
///
/// It needs nothing but itself, that one page of the same server, and `/drain` for those who have the admin token; its
/// content security policy lets a browser do nothing else.
extension AdminPages {
    /// `/console`, which is also what browsers get at `/`.
    package static func console() -> AdminRoute {
        AdminRoute("/console", "the same for people: a live page for a browser") { _ in
            // What may run is named by a word that nobody can know before: no other script or style does.
            let nonce = (0..<2).map { _ in Hexadecimal.digits(UInt64.random(in: .min ... .max)) }.joined()
            let page = ConsolePage.text(nonce: nonce)
            var response = AdminResponse(contentType: "text/html; charset=utf-8", body: Array(page.utf8))
            response.securityPolicy =
                "default-src 'none'; script-src 'nonce-\(nonce)'; style-src 'nonce-\(nonce)'; connect-src 'self'; "
                + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            return response
        }
    }
}

/// The console's text.
enum ConsolePage {
    static func text(nonce: String) -> String {
        """
        <!DOCTYPE html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>Martlet</title>
        <style nonce="\(nonce)">
        \(style)
        </style>
        </head>
        <body>
        \(content)
        <script nonce="\(nonce)">
        \(script)
        </script>
        </body>
        </html>

        """
    }

    private static let content = """
        <header>
        <h1>Martlet <span id="role">console</span></h1>
        <span id="phase" class="badge">connecting</span>
        <span id="facts"></span>
        <button id="drain" type="button">Drain…</button>
        </header>
        <dialog id="leave" aria-labelledby="leave-title">
        <h2 id="leave-title">Take this server out of service?</h2>
        <p>It is no longer ready and leaves the members, serves everybody who still comes, and does not go back.</p>
        <p><label>Token of the admin port <input id="token" type="password" autocomplete="off"></label></p>
        <p id="outcome" role="status"></p>
        <p><button id="confirm" type="button">Drain</button> <button id="cancel" type="button">Cancel</button></p>
        </dialog>
        <main>
        <p id="alarm" role="alert" hidden></p>
        <section id="tiles" aria-label="Figures"></section>
        <section id="charts" aria-label="The last two minutes"></section>
        <section id="tables"></section>
        </main>
        <footer>Rates are of the last second, percentiles of the last ten; a percentile is its bucket's upper bound.
        Read from <a href="/stats.json">/stats.json</a>; <a href="/metrics">/metrics</a> is for Prometheus.</footer>
        <noscript>This page needs JavaScript; /stats.json and /metrics do not.</noscript>
        """

    private static let style = """
        :root {
          color-scheme: light dark;
          --ground: #f6f7f9; --card: #ffffff; --ink: #16202c; --quiet: #5a6675; --line: #dde2e8;
          --a: #1f6fd1; --b: #b3541e; --c: #27824b; --d: #a02c5a; --good: #1e7a43; --warn: #9a6700; --bad: #b3261e;
        }
        @media (prefers-color-scheme: dark) {
          :root {
            --ground: #10151b; --card: #182029; --ink: #e6ebf1; --quiet: #9aa7b5; --line: #2b3642;
            --a: #6ea8fe; --b: #f0a46c; --c: #6fce95; --d: #f08bb4; --good: #63cf8f; --warn: #e5b454; --bad: #ff8a80;
          }
        }
        * { box-sizing: border-box; }
        body {
          margin: 0; background: var(--ground); color: var(--ink);
          font: 14px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
        }
        header, main, footer { max-width: 1280px; margin: 0 auto; padding: 12px 16px; }
        header { display: flex; flex-wrap: wrap; gap: 8px 12px; align-items: baseline; }
        h1 { font-size: 18px; margin: 0; }
        h1 span { color: var(--quiet); font-weight: 400; }
        h2 { font-size: 13px; margin: 0 0 6px; color: var(--quiet); font-weight: 600; }
        #facts, footer { color: var(--quiet); }
        footer { font-size: 12px; }
        a { color: var(--a); }
        .badge { border: 1px solid currentColor; border-radius: 99px; padding: 0 9px; font-weight: 600; }
        .good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
        button, input { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); }
        button, input { border-radius: 6px; padding: 3px 10px; }
        #drain { margin-left: auto; }
        dialog { color: var(--ink); background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
        dialog { max-width: 460px; }
        dialog::backdrop { background: rgb(0 0 0 / 50%); }
        #confirm { color: var(--bad); }
        #alarm {
          margin: 0 0 12px; padding: 8px 12px; background: var(--card); color: var(--bad);
          border: 1px solid currentColor; border-radius: 8px;
        }
        #tiles, #charts { display: grid; gap: 12px; margin-bottom: 12px; }
        #tiles { grid-template-columns: repeat(auto-fit, minmax(136px, 1fr)); }
        #charts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 280px), 1fr)); }
        #tables { columns: 420px; column-gap: 12px; }
        #tables .card { break-inside: avoid; margin-bottom: 12px; }
        .card {
          background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; min-width: 0;
        }
        .tile b { display: block; font-size: 21px; line-height: 1.25; font-variant-numeric: tabular-nums; }
        .tile small { color: var(--quiet); }
        meter { width: 100%; height: 10px; }
        svg { display: block; width: 100%; height: 120px; overflow: visible; }
        svg text { fill: var(--quiet); font-size: 11px; }
        .grid { stroke: var(--line); }
        .curve { fill: none; stroke-width: 1.6; vector-effect: non-scaling-stroke; }
        .s0 { stroke: var(--a); } .s1 { stroke: var(--b); } .s2 { stroke: var(--c); } .s3 { stroke: var(--d); }
        .key { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12px; }
        .key { margin: 0; padding: 0; list-style: none; }
        .key li::before { content: ""; display: inline-block; width: 10px; height: 3px; margin: 0 5px 3px 0; }
        .k0::before { background: var(--a); } .k1::before { background: var(--b); }
        .k2::before { background: var(--c); } .k3::before { background: var(--d); }
        .wide { overflow-x: auto; }
        .full { column-span: all; }
        .card:not(.full) + .full { margin-top: 12px; }
        table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
        th, td { text-align: right; padding: 3px 8px; border-top: 1px solid var(--line); white-space: nowrap; }
        th { border-top: 0; color: var(--quiet); font-weight: 600; }
        th:first-child, td:first-child { text-align: left; padding-left: 0; }
        td:first-child { max-width: 340px; overflow: hidden; text-overflow: ellipsis; }
        td.note, td.wrap { white-space: normal; }
        td.wrap { width: 80%; overflow-wrap: anywhere; }
        .texts th, .texts td { text-align: left; }
        td small { color: var(--quiet); }
        @media (max-width: 480px) {
          header, main, footer { padding: 10px; }
          table { font-size: 13px; }
          th, td { padding: 3px; }
        }
        """
}

// Martlet
// SPDX-License-Identifier: Apache-2.0

extension ConsolePage {
    /// What the console's browser runs. Everything from the server is put in as text, never as markup.
    static let script = #"""
        "use strict";
        const samples = [];            // oldest first
        const seconds = 120;           // how far back charts go
        const NS = "http://www.w3.org/2000/svg";
        const byId = id => document.getElementById(id);

        function make(tag, attributes, ...children) {
          const node = document.createElement(tag);
          for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
          node.append(...children);
          return node;
        }

        // Numbers for people.
        function short(value) {
          if (value === null || !isFinite(value)) return "–";
          const size = Math.abs(value);
          if (size >= 1e9) return (value / 1e9).toFixed(2) + " G";
          if (size >= 1e6) return (value / 1e6).toFixed(2) + " M";
          if (size >= 1e4) return (value / 1e3).toFixed(1) + " k";
          return size >= 100 || Number.isInteger(value) ? Math.round(value).toString() : value.toFixed(1);
        }
        function bytes(value) {
          if (value === null || !isFinite(value)) return "–";
          for (const [unit, size] of [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]])
            if (value >= size) return (value / size).toFixed(1) + " " + unit;
          return Math.round(value) + " B";
        }
        function percent(value) { return value === null ? "–" : (100 * value).toFixed(value > 0.999 ? 2 : 1) + "%"; }
        function time(microseconds) {
          if (microseconds === null) return "–";
          if (microseconds === Infinity) return "> 1.6 s";
          return microseconds < 1000 ? microseconds + " µs"
            : microseconds < 1e6 ? (microseconds / 1000).toFixed(1) + " ms" : (microseconds / 1e6).toFixed(2) + " s";
        }
        function span(total) {
          const days = Math.floor(total / 86400), hours = Math.floor(total / 3600) % 24;
          const minutes = Math.floor(total / 60) % 60;
          if (days) return `${days} d ${hours} h`;
          return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${total % 60} s` : `${total} s`;
        }

        // A key as it was stored, where it is spelled with percent signs and has nothing odd in it.
        function plain(key) {
          try {
            const text = decodeURIComponent(key);
            return /[\p{C}\p{Z}]/u.test(text) ? key : text;
          } catch { return key; }
        }

        // A figure of a sample; text that is a number counts as one.
        function figure(sample, list, name) {
          const value = sample && sample[list] ? sample[list][name] : undefined;
          return value === undefined ? 0 : Number(value);
        }
        // How fast a counter grew, a second, between two samples; a server that began anew has no rate.
        function rateOf(now, before, read) {
          if (!now || !before) return null;
          const elapsed = (now.monotonicMicroseconds - before.monotonicMicroseconds) / 1e6;
          const grown = read(now) - read(before);
          return elapsed > 0 && grown >= 0 ? grown / elapsed : null;
        }
        // The quantile of latencies that were noted between two samples, of the histograms that `wanted` accepts.
        function quantile(now, before, fraction, wanted) {
          const counts = now.latencyBoundsMicroseconds.map(() => 0).concat(0);
          for (const [name, row] of Object.entries(now.latencies)) {
            if (wanted && !wanted(name)) continue;
            const old = before && before.latencies[name];
            row.forEach((count, index) => { counts[index] += count - (old ? old[index] : 0); });
          }
          const total = counts.reduce((sum, count) => sum + count, 0);
          if (total <= 0) return null;
          let seen = 0;
          for (let index = 0; index < counts.length; index++) {
            seen += counts[index];
            if (seen >= fraction * total) return now.latencyBoundsMicroseconds[index] ?? Infinity;
          }
          return null;
        }

        const isNode = sample => sample.role === "node";
        function sumOf(sample, list, prefix) {
          return Object.entries(sample[list] || {}).reduce(
            (sum, [name, value]) => name.startsWith(prefix) ? sum + Number(value) : sum, 0);
        }
        const commands = {
          gets: s => figure(s, "stats", "cmd_get"),
          sets: s => figure(s, "stats", "cmd_set"),
          others: s => isNode(s)
            ? figure(s, "stats", "cmd_touch") + figure(s, "stats", "delete_hits") + figure(s, "stats", "delete_misses")
              + figure(s, "stats", "incr_hits") + figure(s, "stats", "incr_misses")
              + figure(s, "stats", "decr_hits") + figure(s, "stats", "decr_misses")
            : figure(s, "stats", "cmd_delete") + figure(s, "stats", "cmd_arithmetic") + figure(s, "stats", "cmd_touch")
              + figure(s, "stats", "cmd_other"),
        };
        const processor = s => figure(s, "stats", "rusage_user") + figure(s, "stats", "rusage_system");
        const hits = s => figure(s, "stats", "get_hits");
        const misses = s => figure(s, "stats", "get_misses");
        // Tenants count once more what their requests' classes count.
        const classes = ["invalidation", "critical", "default", "sheddable", "background"];
        const shed = s => isNode(s) ? classes.reduce((sum, name) => sum + sumOf(s, "overload", `shed_${name}_`), 0)
          : figure(s, "stats", "refused");
        function hitRatio(now, before) {
          const found = rateOf(now, before, hits), lost = rateOf(now, before, misses);
          return found === null || lost === null || found + lost === 0 ? null : found / (found + lost);
        }

        // What a sample shows beside the one before and the one ten seconds ago.
        function measure(now, before, earlier) {
          return {
            gets: rateOf(now, before, commands.gets), sets: rateOf(now, before, commands.sets),
            others: rateOf(now, before, commands.others),
            ratio: hitRatio(now, before), shed: rateOf(now, before, shed),
            p50: quantile(now, earlier, 0.5), p99: quantile(now, earlier, 0.99), p999: quantile(now, earlier, 0.999),
          };
        }

        function tile(name, value, note, raw) {
          const card = make("div", {class: "card tile"}, make("small", {}, name), make("b", {}, value));
          if (raw !== undefined) card.querySelector("b").title = String(raw);
          if (note instanceof Node) card.append(note); else if (note) card.append(make("small", {}, note));
          return card;
        }

        function tiles(now, before, shown) {
          const list = [];
          const all = shown.gets === null ? null : shown.gets + shown.sets + shown.others;
          list.push(tile("commands/s", short(all), `${short(shown.gets)} reads, ${short(shown.sets)} writes`));
          if (isNode(now)) list.push(tile("hit ratio", percent(shown.ratio),
            `${percent(hits(now) + misses(now) ? hits(now) / (hits(now) + misses(now)) : null)} since the start`));
          list.push(tile("latency p99", time(shown.p99), `p50 ${time(shown.p50)}, p99.9 ${time(shown.p999)}`));
          if (isNode(now)) {
            const used = figure(now, "martlet", "engine_used_bytes"), limit = figure(now, "stats", "limit_maxbytes");
            const card = tile("memory", bytes(used), `of ${bytes(limit)}`, used);
            card.append(make("meter", {min: 0, max: limit, value: used, "aria-label": "memory in use"}));
            list.push(card);
            const items = figure(now, "stats", "curr_items");
            const evicted = rateOf(now, before, s => figure(s, "stats", "evictions"));
            list.push(tile("items", short(items), `${short(evicted)} evictions a second`, items));
          } else {
            const up = now.backends.filter(b => b.state === "up").length;
            list.push(tile("servers up", `${up} of ${now.backends.length}`,
              `${short(figure(now, "stats", "server_outstanding"))} commands under way`));
            list.push(tile("epoch of the plan", short(figure(now, "stats", "plan_epoch")),
              `configuration ${now.configuration.generation}, ${now.configuration.digest.slice(0, 8)}`));
          }
          const connections = figure(now, "stats", "curr_connections");
          const limit = figure(now, "settings", "maxconns");
          list.push(tile("connections", short(connections), limit ? `of ${short(limit)}` : "", connections));
          list.push(tile(isNode(now) ? "shed/s" : "refused/s", short(shown.shed),
            isNode(now) ? `ratio ${percent(figure(now, "overload", "shed_ratio"))}, queueing `
              + time(figure(now, "overload", "queue_delay_us")) : `${short(shed(now))} since the start`));
          const used = rateOf(now, before, processor);
          list.push(tile("processor", used === null ? "–" : (100 * used).toFixed(0) + "%",
            `${figure(now, "stats", "threads")} threads`));
          byId("tiles").replaceChildren(...list);
        }

        // One chart: curves over the last two minutes; `read` gives each curve's value of a measured sample.
        function chart(title, curves, format, top) {
          const end = samples[samples.length - 1].now.monotonicMicroseconds;
          const points = curves.map(([, read]) => samples.map(entry => [
            (entry.now.monotonicMicroseconds - end) / 1e6, read(entry.shown)]));
          const values = points.flat().map(point => point[1]).filter(value => value !== null && isFinite(value));
          const most = top ?? Math.max(1, ...values) * 1.05;
          const svg = document.createElementNS(NS, "svg");
          svg.setAttribute("viewBox", "0 0 400 120");
          svg.setAttribute("preserveAspectRatio", "none");
          svg.setAttribute("role", "img");
          svg.setAttribute("aria-label", title);
          const draw = (name, attributes) => {
            const node = document.createElementNS(NS, name);
            for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
            svg.append(node);
            return node;
          };
          for (const part of [0, 0.5, 1])
            draw("line", {x1: 0, x2: 400, y1: 2 + 116 * part, y2: 2 + 116 * part, class: "grid"});
          points.forEach((curve, index) => {
            let path = "", isDown = false;
            for (const [at, value] of curve) {
              if (value === null || at < -seconds) { isDown = false; continue; }
              const y = 118 - 116 * Math.min(1, (isFinite(value) ? value : most) / most);
              path += `${isDown ? "L" : "M"}${(400 + 400 * at / seconds).toFixed(1)} ${y.toFixed(1)}`;
              isDown = true;
            }
            draw("path", {d: path || "M0 0", class: `curve s${index}`});
          });
          const key = make("ul", {class: "key"}, ...curves.map(([name], index) => {
            const last = points[index][points[index].length - 1][1];
            return make("li", {class: `k${index}`}, `${name} ${format(last)}`);
          }));
          const scale = values.some(value => value > 0) ? `, up to ${format(most)}` : "";
          return make("div", {class: "card"}, make("h2", {}, title + scale), svg, key);
        }

        function charts(now) {
          const list = [
            chart("Commands a second",
              [["reads", s => s.gets], ["writes", s => s.sets], ["others", s => s.others]], short),
            chart("Latency", [["p50", s => s.p50], ["p99", s => s.p99], ["p99.9", s => s.p999]],
              value => value === null ? "–" : time(Math.round(value))),
          ];
          if (isNode(now)) list.push(chart("Hit ratio", [["hits", s => s.ratio]], percent, 1));
          list.push(chart(isNode(now) ? "Shed a second" : "Refused a second", [["requests", s => s.shed]], short));
          byId("charts").replaceChildren(...list);
        }

        function table(title, head, rows, more) {
          const body = make("tbody", {}, ...rows.map(row => make("tr", {}, ...row.map((cell, column) => {
            if (cell instanceof Node) return cell;
            return make("td", column ? {} : {title: String(cell)}, String(cell));
          }))));
          const frame = make("div", {class: "wide"}, make("table", {},
            make("thead", {}, make("tr", {}, ...head.map(name => make("th", {}, name)))), body));
          return make("div", {class: `card ${more || ""}`}, make("h2", {}, title), frame);
        }
        const marked = (text, kind) => make("td", {class: kind}, text);

        function serverTable(now, before, earlier) {
          const rows = now.backends.map((server, index) => {
            const read = name => rateOf(now, before, s => {
              const same = s.backends.find(one => one.name === server.name);
              return same ? same[name] : 0;
            });
            const state = server.state === "up" ? "good" : server.state === "down" ? "bad" : "warn";
            const of = fraction => quantile(now, earlier, fraction, name => name === server.name);
            return [server.name, marked(server.takenOut ? "taken out" : server.state, server.takenOut ? "bad" : state),
              percent(server.share), short(read("requests")), time(of(0.5)), time(of(0.99)), short(read("timeouts")),
              short(read("errors")), short(read("busy")), server.outstanding,
              server.limit ? short(server.limit) : "–", server.waiting];
          });
          return table("Servers, and their part of the keys", ["server", "state", "keys", "requests/s", "p50", "p99",
            "timeouts/s", "errors/s", "busy/s", "under way", "limit", "waiting"], rows, "full");
        }

        // What happened lately, the newest first.
        function eventTable(now) {
          const known = ["ts", "level", "msg", "event"];
          const rows = now.events.slice(-12).reverse().map(event => {
            const fields = Object.entries(event).filter(([name]) => !known.includes(name));
            const kind = {error: "bad", warning: "warn"}[event.level] || "";
            const text = make("td", {class: `${kind} wrap`}, event.msg);
            const told = fields.map(([name, value]) => `${name}: ${value}`).join(", ");
            if (told) text.append(make("small", {}, " " + told));
            return [event.ts.slice(11, 19), event.event, text];
          });
          if (!rows.length) rows.push(["none yet", "", ""]);
          return table("What happened, by UTC", ["time", "about", "event"], rows, "full texts");
        }

        // The figures of a list that are not 0, those that are named in any case, and how many are 0.
        function figures(now, before, list, always) {
          const rows = [];
          let zeros = 0;
          for (const [name, text] of Object.entries(now[list])) {
            if (name.startsWith("storage_") || name.startsWith("consistency:")) continue;
            const title = name.replaceAll("_", " "), value = Number(text);
            if (text === "" || isNaN(value)) {
              const kind = text === "yes" ? "good" : name === "trusted" ? "bad" : "";
              rows.push([title, marked(String(text), `${kind} note`), ""]);
            } else if (value || always.includes(name)) {
              const rate = rateOf(now, before, s => figure(s, list, name));
              const spell = name.endsWith("_bytes") ? bytes : short;
              rows.push([title, spell(value), rate ? spell(rate) : ""]);
            } else zeros += 1;
          }
          if (zeros) rows.push([`${zeros} more`, "0", ""]);
          return rows;
        }

        function nodeTables(now, before, earlier) {
          const kinds = Object.keys(now.latencies).map(kind => {
            const rate = rateOf(now, before, s => (s.latencies[kind] || []).reduce((sum, count) => sum + count, 0));
            const of = fraction => time(quantile(now, earlier, fraction, name => name === kind));
            return [kind, short(rate), of(0.5), of(0.99), of(0.999)];
          });
          const list = [table("Commands", ["command", "a second", "p50", "p99", "p99.9"], kinds)];
          const hot = now.hotKeys.slice(0, 12).map(key => [plain(key.key), short(key.count), short(key.error)]);
          list.push(table("Hot keys, by a sample", ["key or its hash", "reads", "too many by"],
            hot.length ? hot : [["none yet", "", ""]]));
          const storage = now.storage.storage_backend;
          if (storage && storage !== "none") {
            const rows = figures(now, before, "storage", ["reads", "writes"]);
            const health = now.storage.storage_health;
            rows.unshift(["health", marked(health, `${health === "ready" ? "good" : "bad"} note`), ""]);
            list.push(table(`Storage: ${storage}`, ["figure", "now", "a second"], rows));
          }
          if (now.stream && Object.keys(now.stream).length) list.push(table("Stream between regions",
            ["figure", "now", "a second"], figures(now, before, "stream", ["lag_seconds"])));
          const windows = Object.keys(now.stream || {}).filter(name => /^consistency:.*:samples$/.test(name))
            .map(name => name.split(":")[1]);
          if (windows.length) list.push(table("Consistency, by the time since a change",
            ["after", "nines", "looks", "stale"], windows.map(after => [after, ...["nines", "samples", "stale"]
              .map(name => short(figure(now, "stream", `consistency:${after}:${name}`)))])));
          const refused = classes.map(name => {
            const total = s => sumOf(s, "overload", `shed_${name}_`);
            return [name, short(rateOf(now, before, total)), short(total(now))];
          });
          list.push(table(`Shedding, target ${time(figure(now, "overload", "overload_target_us"))}`,
            ["class", "a second", "since the start"], refused));
          const queues = ["new", "main"].map(name => [name,
            short(figure(now, "martlet", `queue_${name}_items`)),
            bytes(figure(now, "martlet", `queue_${name}_bytes`)),
            span(figure(now, "martlet", `queue_${name}_oldest_seconds`)),
            short(rateOf(now, before, s => figure(s, "martlet", `evictions_${name}`)))]);
          list.push(table("Queues of the cache", ["queue", "items", "bytes", "oldest", "evictions/s"], queues));
          if (now.prefixes.length) list.push(table("Keys by prefix", ["prefix", "reads", "hits", "writes", "deletes"],
            now.prefixes.slice(0, 12).map(row => [row.prefix, short(row.gets),
              row.gets ? percent(row.hits / row.gets) : "–", short(row.sets), short(row.deletes)])));
          return list;
        }

        function header(now) {
          const checks = now.checks.filter(check => check.failure !== null);
          const kind = now.phase !== "serving" || checks.some(check => !check.advisory) ? "bad"
            : checks.length ? "warn" : "good";
          byId("role").textContent = now.role;
          byId("phase").textContent = kind === "warn" ? "degraded" : now.phase;
          byId("phase").className = `badge ${kind}`;
          const uptime = figure(now, "stats", "uptime");
          const told = now.configuration;
          byId("facts").textContent = [now.cluster, location.host, `version ${now.version}`, `up ${span(uptime)}`,
            `configuration ${told.digest.slice(0, 8)}${told.pending ? " (another one is not in use)" : ""}`]
            .filter(Boolean).join(" · ");
          document.title = `${now.role} ${location.host} – Martlet`;
          byId("alarm").hidden = checks.length === 0;
          byId("alarm").textContent = checks.map(check => `${check.name}: ${check.failure}`).join("; ");
        }

        function show(now) {
          const last = samples[samples.length - 1];
          // A server that began anew is another one.
          if (last && last.now.monotonicMicroseconds >= now.monotonicMicroseconds
            || last && last.now.stats.pid !== now.stats.pid) samples.length = 0;
          const before = samples.length ? samples[samples.length - 1].now : null;
          const earlier = samples.length ? samples[Math.max(0, samples.length - 10)].now : null;
          const shown = measure(now, before, earlier);
          samples.push({now, shown});
          while (samples.length > seconds + 1) samples.shift();
          header(now);
          tiles(now, before, shown);
          charts(now);
          byId("tables").replaceChildren(...(isNode(now) ? nodeTables(now, before, earlier)
            : [serverTable(now, before, earlier)]), eventTable(now));
          document.body.dataset.samples = samples.length;
        }

        // The one thing that the page does: with the token, which is kept nowhere.
        async function drain() {
          const outcome = byId("outcome"), token = byId("token");
          try {
            const answer = await fetch("/drain", {method: "POST", cache: "no-store",
              headers: {Authorization: `Bearer ${token.value}`}, signal: AbortSignal.timeout(5000)});
            const said = await answer.json();
            outcome.textContent = answer.ok ? `It is ${said.phase}.` : `Not done: ${answer.status}, ${said.error}`;
          } catch (error) {
            outcome.textContent = `No answer: ${error.message}`;
          }
          token.value = "";
        }
        byId("drain").addEventListener("click", () => {
          byId("outcome").textContent = "";
          byId("leave").showModal();
        });
        byId("confirm").addEventListener("click", drain);
        byId("cancel").addEventListener("click", () => byId("leave").close());

        async function look() {
          try {
            const answer = await fetch("/stats.json", {cache: "no-store", signal: AbortSignal.timeout(5000)});
            if (!answer.ok) throw new Error(`status ${answer.status}`);
            show(await answer.json());
          } catch (error) {
            byId("phase").textContent = "no answer";
            byId("phase").className = "badge bad";
            byId("alarm").hidden = false;
            byId("alarm").textContent = `The server does not answer: ${error.message}`;
          }
          setTimeout(look, document.hidden ? 5000 : 1000);
        }
        look();
        """#
}

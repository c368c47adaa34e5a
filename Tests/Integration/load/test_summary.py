# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What is said at the end of a test, as text and as JSON, beside what is kept in golden/.

The JSON is k6's: `--summary-export` as k6 writes it, and what its handleSummary is given. MARTLET_WRITE_GOLDEN=1 writes the
golden files anew.
"""

import json
import os
import re
from pathlib import Path

import pytest

from bed import Server

from .runner import Run

pytestmark = pytest.mark.ours
HERE = Path(__file__).parent
# What a run decides by itself: numbers of these metrics, and rates per second everywhere.
TIMED = re.compile(r"^(memcached_|group_duration|iteration_duration|vus$|data_)")


@pytest.fixture(scope="module")
def finished():
    with Server("-m 64 -t 1") as server:
        script = (HERE / "scripts/golden.js").read_text()
        script += "export function handleSummary(data) { return { stdout: 'DATA' + JSON.stringify(data) }; }\n"
        own = Run("--server", f"127.0.0.1:{server.port}", "--quiet", name="golden.js", file=script)
        plain = Run("run", HERE / "scripts/golden.js", "--server", f"127.0.0.1:{server.port}", "--quiet")
    assert own.code == plain.code == 99, (own, plain)
    return own, plain


def compare(name, text):
    path = HERE / "golden" / name
    if os.environ.get("MARTLET_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def shape(metric, value):
    """`value` without what another run would say otherwise."""
    if isinstance(value, dict):
        return {key: "…" if key == "rate" and "count" in value else shape(metric, one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(metric, one) for one in value]
    return "…" if isinstance(value, (int, float)) and not isinstance(value, bool) and TIMED.match(metric) else value


def written(document):
    document["metrics"] = {name: shape(name, value) for name, value in sorted(document["metrics"].items())}
    return json.dumps(document, indent=4, ensure_ascii=False) + "\n"


def test_the_summary_as_text(finished):
    lines = []
    for line in finished[1].out.splitlines():
        name = line.strip().split(".", 1)[0].split(":", 1)[0]
        line = re.sub(r"[\d.]+/s$|[\d.]+ \w?B/s$", "…/s", line)
        if TIMED.match(name):
            head, _, rest = line.partition(":")
            line = head + ":" + re.sub(r" +", " ", re.sub(r"\d[\d.]*(µs|ms|s|%| \w?B)?", "…", re.sub(r"p\([\d.]+\)", "p", rest)))
        lines.append(re.sub(r" +(?=…/s|\w+=|p\()", " ", line).rstrip())
    compare("summary.txt", "\n".join(lines) + "\n")


def test_the_exported_summary(finished):
    compare("export.json", written(finished[0].summary))


def test_what_handle_summary_is_given(finished):
    data = json.loads(finished[0].out[finished[0].out.index("DATA") + 4 :])
    data["state"]["testRunDurationMs"] = "…"
    compare("data.json", written(data))

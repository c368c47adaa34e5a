# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The console and `martletctl top`: what people look at, and that it is what /stats.json says."""

import html.parser
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.request

import pytest

from bed import Server, free_port
from router.bed import Router

from .test_drain import control, page, until

pytestmark = pytest.mark.ours


@pytest.fixture(scope="module")
def fleet():
    """A node with a store that some clients use, and a router in front of it; (node, router)."""
    admins = free_port(), free_port()
    with Server(["-m", "64", f"--admin=127.0.0.1:{admins[0]}", "--storage-backend=memory", "--hot-keys-show-keys=true"]) as node, \
            Router([node], [f"--admin=127.0.0.1:{admins[1]}"]) as router:  # fmt: skip
        node.admin, router.admin = admins
        over = threading.Event()

        def work():
            with router.client() as client:
                number = 0
                while not over.is_set():
                    client.set(f"user:{number % 50}", b"v" * 100)
                    for _ in range(10):
                        client.get(f"user:{number % 50}")
                    number += 1
                    time.sleep(0.002)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        yield node, router
        over.set()
        for thread in threads:
            thread.join(10)


def fetch(server, path, accept="text/html,application/xhtml+xml"):
    request = urllib.request.Request(f"http://127.0.0.1:{server.admin}{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers, answer.read().decode()


@pytest.fixture(params=["node", "router"])
def server(request, fleet):
    return fleet[request.param == "router"]


def test_browsers_get_the_page_and_others_the_list(server):
    headers, text = fetch(server, "/")
    assert headers["Content-Type"].startswith("text/html") and text.startswith("<!DOCTYPE html>")
    assert fetch(server, "/console")[1].startswith("<!DOCTYPE html>")
    headers, text = fetch(server, "/", accept="*/*")
    assert headers["Content-Type"].startswith("text/plain") and "/console" in text and "/drain" in text


def test_the_page_is_all_there_is(server):
    headers, text = fetch(server, "/")
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    [nonce] = set(re.findall(r'nonce="([0-9a-f]{32})"', text))
    assert policy["script-src"] == policy["style-src"] == f"'nonce-{nonce}'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert nonce not in fetch(server, "/")[1], "another word each time"
    assert headers["Referrer-Policy"] == "no-referrer" and headers["X-Content-Type-Options"] == "nosniff"
    # No address but the name of SVG, nothing in the markup that runs or is styled past the policy.
    assert set(re.findall(r"https?://[^\s\"'`]+", text)) == {"http://www.w3.org/2000/svg"}
    markup = re.sub(r"(?s)<(script|style).*?</\1>", "", text)
    assert not re.search(r"\s(on\w+|style|src)=", markup)
    assert "innerHTML" not in text and "insertAdjacentHTML" not in text


class Tiles(html.parser.HTMLParser):
    """The figures of the console's page: {name: (text, raw value)}, and all text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text, self.stack, self.name, self.raw = {}, [], [], None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.stack.append((tag, dict(attributes)))
        if "tile" in dict(attributes).get("class", ""):
            self.name = None
        if tag == "b":
            self.raw = dict(attributes).get("title")

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop()[0] != tag:
            pass

    def handle_data(self, data):
        self.text.append(data)
        inside = [one[0] for one in self.stack]
        card = any("tile" in one[1].get("class", "") for one in self.stack)
        if card and inside and inside[-1] == "small" and self.name is None:
            self.name = data
        elif card and inside and inside[-1] == "b" and self.name:
            self.found[self.name] = (data, self.raw)


def browse(server, *flags, seconds=4):
    """The page's content as a real browser has it after some seconds, and what it complained of."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
         "--no-first-run", "--disable-background-networking", f"--virtual-time-budget={seconds * 1000}", *flags,
         f"http://127.0.0.1:{server.admin}/"],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_shows_what_the_server_says(server, fleet):
    if server is fleet[0]:
        until(lambda: json.loads(fetch(server, "/stats.json")[1])["hotKeys"], 20)
        until(lambda: json.loads(fetch(server, "/stats.json")[1])["stats"]["curr_items"] == 50)
    content, complaints = browse(server, "--dump-dom")
    assert not complaints, complaints
    tiles = Tiles(content)
    said = json.loads(fetch(server, "/stats.json")[1])
    assert "serving" in tiles.text and f"version {said['version']}" in "".join(tiles.text)
    assert int(re.search(r'data-samples="(\d+)"', content)[1]) >= 2
    assert tiles.found["connections"][1] == str(said["stats"]["curr_connections"])
    if server is fleet[0]:
        assert tiles.found["items"][1] == str(said["stats"]["curr_items"])
        assert tiles.found["memory"][1] == str(said["martlet"]["engine_used_bytes"])
        assert re.fullmatch(r"[\d.]+%", tiles.found["hit ratio"][0])
        assert {key["key"] for key in said["hotKeys"]} & set(tiles.text), "hot keys"
        assert "Storage: memory" in tiles.text
    else:
        assert tiles.found["servers up"][0] == "1 of 1"
        assert f"127.0.0.1:{fleet[0].port}" in tiles.text and "100.00%" in tiles.text
    assert re.fullmatch(r"[\d.]+( k)?", tiles.found["commands a second"][0])


def test_the_document_behind_it(server, fleet):
    said = json.loads(fetch(server, "/stats.json")[1])
    assert said["role"] == ("node" if server is fleet[0] else "router") and said["phase"] == "serving"
    assert [check["failure"] for check in said["checks"]] == [None] * len(said["checks"])
    bounds = said["latencyBoundsMicroseconds"]
    assert bounds == sorted(bounds) and len(bounds) == 16
    assert all(len(counts) == 17 for counts in said["latencies"].values())
    assert sum(sum(counts) for counts in said["latencies"].values()) > 100
    if server is fleet[1]:
        [backend] = said["backends"]
        assert backend["state"] == "up" and backend["share"] == 1


def test_parts_of_the_keys():
    """What the router says of its servers' parts is what its hash does."""
    admin = free_port()
    nodes = [Server("-m 64") for _ in range(3)]
    try:
        with Router(nodes, [f"--admin=127.0.0.1:{admin}"]) as router:
            shares = [one["share"] for one in json.loads(page(admin, "/stats.json")[1])["backends"]]
            assert abs(sum(shares) - 1) < 1e-6 and min(shares) > 0.2
            with router.client() as client:
                client.send("".join(f"set k{number} 0 0 1 noreply\r\nv\r\n" for number in range(3000)))
                assert client.ask("get none") == "END"
            time.sleep(0.3)
            held = []
            for node in nodes:
                with node.client() as client:
                    held.append(int(client.stats()["curr_items"]) / 3000)
            assert sum(held) == pytest.approx(1)
            by_name = {one["name"]: one["share"] for one in json.loads(page(admin, "/stats.json")[1])["backends"]}
            for node, part in zip(nodes, held):
                assert abs(by_name[f"127.0.0.1:{node.port}"] - part) < 0.06
    finally:
        for node in nodes:
            node.stop()


def test_top(fleet):
    node, router = fleet
    gone = f"127.0.0.1:{free_port()}"
    addresses = [f"127.0.0.1:{node.admin}", f"http://127.0.0.1:{router.admin}", gone]
    code, said, errors = control("top", *addresses, "--count=1", "--json")
    assert code == 0, errors
    first, second, third = json.loads(said)["servers"]
    assert (first["role"], first["state"], second["role"], third["state"]) == ("node", "serving", "router", "no answer")
    assert first["items"] >= 50 and 0.5 < first["hitRatio"] <= 1
    assert first["readsPerSecond"] > 50 and 0.7 < first["readsPerSecond"] / second["readsPerSecond"] < 1.4
    assert 3 < first["readsPerSecond"] / first["writesPerSecond"] < 30
    assert second["hitRatio"] is None and second["memory"] is None and 0 < first["memory"] < 1
    assert first["p50Microseconds"] <= first["p99Microseconds"]
    code, said, _ = control("top", *addresses, "--count=1")
    narrow = [line.split() for line in said.splitlines() if line.startswith(("server", "127", "http", "all"))]
    assert code == 0 and {"server", "state", "reads/s", "writes/s", "p99"} <= set(narrow[0])
    assert max(len(line) for line in said.splitlines()) <= 80
    code, said, _ = control("top", *addresses, "--count=2", "--wide")
    lines = said.splitlines()
    assert code == 0 and lines[0].split()[:3] == ["server", "role", "state"]
    assert sum(line.startswith("all nodes") for line in lines) == 2
    assert f"{gone}:" in said
    assert max(len(line) for line in lines if line.startswith(("server", "127", "http", "all"))) < 160
    code, _, errors = control("top", gone, "--count=1")
    assert code == 69 and "is the node running" in errors

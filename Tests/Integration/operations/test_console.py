# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The console and `martletctl top`: what people look at, and that it is what /stats.json says."""

import contextlib
import fcntl
import html.parser
import json
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
import urllib.parse
import urllib.request

import pytest

from bed import Server, free_port, until
from router.bed import Router

from . import browser
from .test_drain import control, page
from .test_martletctl import command

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


@pytest.fixture(scope="module")
def chromium():
    if not browser.is_there():
        pytest.fail("chromium is not installed: run make install")
    with browser.Browser() as one:
        yield one


# Width, height, whether it is dark, whether it is a phone.
VIEWS = {"light": (1280, 900, False, False), "dark": (1280, 900, True, False), "phone": (390, 844, False, True),
         "dark-phone": (390, 844, True, True)}  # fmt: skip


def browse(chromium, server, view="light"):
    """Opens the console, and waits until it has something to show; the page's content."""
    width, height, dark, phone = VIEWS[view]
    chromium.complaints.clear()
    chromium.asked.clear()
    chromium.open(f"http://127.0.0.1:{server.admin}/", width, height, dark, phone)
    chromium.until("Number(document.body && document.body.dataset.samples) >= 3")
    return chromium.value("document.documentElement.outerHTML")


def test_a_browser_shows_what_the_server_says(server, fleet, chromium):
    if server is fleet[0]:
        until(lambda: json.loads(fetch(server, "/stats.json")[1])["hotKeys"], 20)
        until(lambda: json.loads(fetch(server, "/stats.json")[1])["stats"]["curr_items"] == 50)
    content = browse(chromium, server)
    assert not chromium.complaints, chromium.complaints
    # It asked for itself and its figures, and for nothing else.
    base = f"http://127.0.0.1:{server.admin}"
    assert set(chromium.asked) <= {f"{base}/", f"{base}/stats.json", f"{base}/favicon.ico"}, chromium.asked
    tiles = Tiles(content)
    said = json.loads(fetch(server, "/stats.json")[1])
    assert "serving" in tiles.text and f"version {said['version']}" in "".join(tiles.text)
    assert int(re.search(r'data-samples="(\d+)"', content)[1]) >= 2
    assert tiles.found["connections"][1] == str(said["stats"]["curr_connections"])
    if server is fleet[0]:
        assert tiles.found["items"][1] == str(said["stats"]["curr_items"])
        assert tiles.found["memory"][1] == str(said["martlet"]["engine_used_bytes"])
        assert re.fullmatch(r"[\d.]+%", tiles.found["hit ratio"][0])
        assert {urllib.parse.unquote(key["key"]) for key in said["hotKeys"]} & set(tiles.text), "hot keys"
        assert "Storage: memory" in tiles.text
    else:
        assert tiles.found["servers up"][0] == "1 of 1"
        assert tiles.found["epoch of the plan"][0] == str(said["stats"]["plan_epoch"])
        assert f"127.0.0.1:{fleet[0].port}" in tiles.text and "100.00%" in tiles.text
    assert re.fullmatch(r"[\d.]+( k)?", tiles.found["commands/s"][0])
    assert said["configuration"]["digest"][:8] in "".join(tiles.text)
    assert "listening" in tiles.text and "lifecycle" in tiles.text, "events"


@pytest.mark.parametrize("view", VIEWS)
def test_it_is_readable_light_dark_and_on_a_phone(server, chromium, view):
    """Nothing is cut off at the side, and letters stand out. MARTLET_SCREENSHOTS names a directory for pictures to look
    at."""
    browse(chromium, server, view)
    assert chromium.value("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the window"
    assert chromium.value("[...document.querySelectorAll('.tile b')].every(one => one.scrollWidth <= one.clientWidth)")
    ground, *inks = chromium.value("""[getComputedStyle(document.body).backgroundColor,
        ...[...document.querySelectorAll("h1, .tile b, .tile small, td, th, .badge, #facts")].map(
          one => getComputedStyle(one).color)]""")
    is_dark = luminance(ground) < 0.2
    assert is_dark == VIEWS[view][2]
    worst = min(contrast(ground, ink) for ink in inks)
    assert worst >= 4.5, f"a contrast of {worst:.1f}; WCAG asks for 4.5"
    if place := os.environ.get("MARTLET_SCREENSHOTS"):
        os.makedirs(place, exist_ok=True)
        role = json.loads(fetch(server, "/stats.json")[1])["role"]
        chromium.screenshot(os.path.join(place, f"console-{role}-{view}.png"))


def luminance(color):
    """Of rgb(r, g, b), by WCAG 2.1."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_it_follows_what_changes(chromium, tmp_path):
    """A server that goes away, and one that begins anew, without loading the page again."""
    admin, port = free_port(), free_port()
    line = ["-l", "127.0.0.1", "-p", port, "-m", 64, f"--admin=127.0.0.1:{admin}"]
    with Server(line, listen=False, wait=("127.0.0.1", port)) as server:
        server.admin = admin
        browse(chromium, server)
        server.process.kill()
        server.process.wait()
        chromium.until("document.getElementById('phase').textContent === 'no answer'")
    with Server(line, listen=False, wait=("127.0.0.1", port)):
        chromium.until("document.getElementById('phase').textContent === 'serving'", 30)
        assert chromium.value("document.getElementById('alarm').hidden")


def test_what_a_tenant_is_refused_counts_once(chromium, tmp_path):
    """On the page and in `top`: as a request of its class, not as one of its tenant's besides."""
    (tmp_path / "users").write_text("alice:secret\n")
    config, admin, over, sent = tmp_path / "node.yaml", free_port(), threading.Event(), []
    config.write_text(f"auth: {{file: {tmp_path / 'users'}}}\ntenants: [{{name: shop, users: [alice]}}]\n"
                      "overload: {testRefusal: true}\n")  # fmt: skip
    with Server(["-m", 64, "--config", config, f"--admin=127.0.0.1:{admin}"]) as server:
        server.admin = admin

        def ask():
            with server.client() as client:
                assert client.ask("set auth 0 0 12\r\nalice secret") == "STORED"
                while not over.is_set():
                    sent.append(client.ask("mg key s"))
                    time.sleep(0.005)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            browse(chromium, server)
            began, before = time.monotonic(), len(sent)
            code, said, errors = control("top", f"127.0.0.1:{admin}", "--count=1", "--json")
            assert code == 0, errors
            shown = Tiles(chromium.value("document.documentElement.outerHTML"))
            figures = float(re.match(r"[\d.]+", shown.found["shed/s"][0])[0])
            assert float(re.match(r"[\d.]+", shown.text[shown.text.index("default") + 1])[0]) > 0, "the table of classes"
            rate = (len(sent) - before) / (time.monotonic() - began)
            refused = json.loads(said)["servers"][0]["shedPerSecond"]
            assert set(sent) == {"SERVER_ERROR 307 busy"} and rate > 50
            assert 0.6 < refused / rate < 1.5 and 0.6 < figures / rate < 1.5, (refused, figures, rate)
            assert int(server_statistics(admin)["overload"]["shed_tenant_shop"]) > 0
        finally:
            over.set()
            thread.join(10)


def server_statistics(admin):
    return json.loads(page(admin, "/stats.json")[1])


def test_draining_from_the_page_needs_the_token(chromium, tmp_path):
    """Without a token it only reads; with the right one, and a second word, it drains."""
    admin, token = free_port(), tmp_path / "token"
    token.write_text("a-token-of-some-length\n")
    token.chmod(0o600)
    with Server(["-m", 64, f"--admin=127.0.0.1:{admin}"]) as server:
        server.admin = admin
        browse(chromium, server)
        chromium.value("document.getElementById('drain').click()")
        chromium.value("document.getElementById('token').value = 'anything-at-all'")
        chromium.value("document.getElementById('confirm').click()")
        chromium.until("document.getElementById('outcome').textContent.includes('403')")
        assert page(admin, "/readyz")[0] == 200
    with Server(["-m", 64, f"--admin=127.0.0.1:{admin}", f"--admin-token-file={token}"]) as server:
        server.admin = admin
        browse(chromium, server)
        for given, said in (("wrong-token-of-length", "401"), ("a-token-of-some-length", "draining")):
            assert page(admin, "/readyz")[0] == 200
            chromium.value("document.getElementById('drain').click()")
            chromium.value(f"document.getElementById('token').value = '{given}'")
            chromium.value("document.getElementById('confirm').click()")
            chromium.until(f"document.getElementById('outcome').textContent.includes('{said}')")
            chromium.value("document.getElementById('cancel').click()")
        until(lambda: page(admin, "/readyz")[0] == 503)
        chromium.until("document.getElementById('phase').textContent === 'draining'")
        assert chromium.value("document.getElementById('token').value") == "", "it is kept nowhere"


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


def test_events_fit_their_window(fleet):
    """What does not fit beside the other columns goes on below it; in no terminal, an event is a line."""
    addresses = [f"127.0.0.1:{one.admin}" for one in fleet]
    code, said, errors = control("events", *addresses)
    assert code == 0 and max(map(len, said.splitlines())) > 80, errors
    words = said.split()
    for columns in (60, 80):
        screen, terminal = pty.openpty()
        fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen([command(), "events", *addresses], stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal)
        os.close(terminal)
        text = ""
        with contextlib.suppress(OSError):
            while part := os.read(screen, 65536):
                text += part.decode()
        os.close(screen)
        assert process.wait(20) == 0
        assert max(len(line.rstrip()) for line in text.splitlines()) <= columns, text
        assert text.split() == words


def test_top_fits_its_window(fleet):
    """In a terminal, which may become wider or narrower while it runs."""
    screen, terminal = pty.openpty()

    def resize(columns):
        fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    resize(130)
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [command(), "top", *(f"127.0.0.1:{one.admin}" for one in fleet)], stdin=subprocess.DEVNULL, stdout=terminal,
        stderr=terminal, env=environment)  # fmt: skip
    os.close(terminal)
    try:
        text = ""

        def tables():
            """The whole tables so far: each begins where the screen is cleared."""
            nonlocal text
            text += os.read(screen, 65536).decode()
            return text.split("\x1b[H\x1b[2J")[1:-1]

        def longest(table):
            return max(len(line.rstrip("\r")) for line in table.split("\n"))

        until(tables, 20)
        assert 100 < longest(tables()[-1]) <= 130 and "role" in tables()[-1]
        resize(80)
        until(lambda: 60 < longest(tables()[-1]) <= 80, 20)
    finally:
        process.kill()
        process.wait()
        os.close(screen)

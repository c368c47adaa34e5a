# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A real Chromium, driven by its DevTools protocol over a WebSocket, with nothing but Python's own library."""

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from bed import until


def is_there():
    return shutil.which("chromium") is not None


class Socket:
    """The client's side of RFC 6455, for texts."""

    def __init__(self, url):
        place, _, path = url.removeprefix("ws://").partition("/")
        host, _, port = place.partition(":")
        self.socket = socket.create_connection((host, int(port)), 30)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /{path} HTTP/1.1\r\nHost: {place}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())  # fmt: skip
        self.file = self.socket.makefile("rb")
        assert b"101" in self.file.readline()
        while self.file.readline().strip():
            pass

    def send(self, text):
        data, mask = text.encode(), os.urandom(4)
        size = len(data)
        head = struct.pack(">BB", 0x81, 0x80 | size) if size < 126 else struct.pack(">BBH", 0x81, 0xFE, size) \
            if size < 65536 else struct.pack(">BBQ", 0x81, 0xFF, size)  # fmt: skip
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
        self.socket.sendall(head + mask + masked)

    def receive(self):
        """The next text, put together of its parts."""
        content = b""
        while True:
            first, size = self.file.read(2)
            if size == 126:
                (size,) = struct.unpack(">H", self.file.read(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self.file.read(8))
            part = self.file.read(size)
            if first & 0x0F in (0, 1):
                content += part
                if first & 0x80:
                    return content.decode()

    def close(self):
        self.file.close()
        self.socket.close()


class Browser:
    """One tab. `complaints` is what the page or its policy complained of; `asked` every address that it asked for."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="martlet-chromium-")
        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
             f"--user-data-dir={self.directory}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        self.complaints, self.asked, self.number = [], [], 0
        try:
            self.tab = Socket(self.address())
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def address(self):
        """Where the first tab is spoken to."""
        file, deadline = Path(self.directory) / "DevToolsActivePort", time.monotonic() + 60
        while True:
            try:
                port = file.read_text().splitlines()[0]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                    pages = [one for one in json.load(answer) if one["type"] == "page"]
                if pages:
                    return pages[0]["webSocketDebuggerUrl"]
            except (OSError, IndexError):
                pass
            assert time.monotonic() < deadline and self.process.poll() is None, "chromium does not start"
            time.sleep(0.1)

    def take(self, message):
        """Notes what an event says."""
        method, details = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(details["exceptionDetails"].get("text", "exception"))
        elif method == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{details['entry']['source']}: {details['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.asked.append(details["request"]["url"])

    def call(self, method, **arguments):
        self.number += 1
        number = self.number
        self.tab.send(json.dumps({"id": number, "method": method, "params": arguments}))
        while True:
            message = json.loads(self.tab.receive())
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self.take(message)

    def open(self, url, width=1280, height=900, dark=False, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])  # fmt: skip
        self.call("Page.navigate", url=url)

    def value(self, expression):
        """What an expression of the page's is."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression, seconds=20):
        """Waits until an expression is true."""
        return until(lambda: self.value(expression), seconds, expression, pause=0.1)

    def screenshot(self, path):
        """The whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        # Beyond the viewport there is no scroll bar.
        clip = {"x": 0, "y": 0, "width": self.value("innerWidth"), "height": min(size["height"], 6000), "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        if hasattr(self, "tab"):
            self.tab.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

# Martlet
# SPDX-License-Identifier: Apache-2.0
"""An API server that knows EndpointSlices only: it lists, and it watches, with bookmarks, ends and expired versions."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse


def endpoint(address, name=None, ready=True, terminating=False):
    result = {"addresses": [address], "conditions": {"ready": ready, "terminating": terminating}}
    return {**result, "hostname": name} if name else result


class Server:
    def __init__(self, token="a-token"):
        self.slices, self.version, self.log = {}, 100, []
        self.token, self.oldest = token, 0
        self.changed = threading.Condition()
        self.requests, self.ends = [], 0
        handler = type("Handler", (Handler,), {"state": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.base = "127.0.0.1:%d" % self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end_watches()
        self.http.shutdown()
        self.http.server_close()

    def put(self, name, *endpoints):
        with self.changed:
            self.version += 1
            kind = "MODIFIED" if name in self.slices else "ADDED"
            self.slices[name] = {
                "metadata": {"name": name, "resourceVersion": str(self.version)}, "addressType": "IPv4",
                "ports": [{"name": "memcached", "port": 11211}], "endpoints": list(endpoints)}
            self.log.append((self.version, kind, self.slices[name]))
            self.changed.notify_all()

    def delete(self, name):
        with self.changed:
            self.version += 1
            slice = self.slices.pop(name)
            slice["metadata"]["resourceVersion"] = str(self.version)
            self.log.append((self.version, "DELETED", slice))
            self.changed.notify_all()

    def bookmark(self):
        with self.changed:
            self.version += 1
            self.log.append((self.version, "BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}}))
            self.changed.notify_all()

    def forget(self):
        """What was is compacted: older versions are gone."""
        with self.changed:
            self.oldest, self.log = self.version, []
            self.changed.notify_all()

    def end_watches(self):
        with self.changed:
            self.ends += 1
            self.changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state = None

    def log_message(self, *_):
        pass

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        state, url = self.state, urlparse(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        state.requests.append((url.path, query))
        # Without a token it is as behind `kubectl proxy`, which has one of its own.
        if state.token is not None and self.headers.get("Authorization") != f"Bearer {state.token}":
            return self.reply(401, {"kind": "Status", "code": 401})
        if "watch" in query:
            return self.watch(int(query["resourceVersion"]))
        with state.changed:
            body = {"metadata": {"resourceVersion": str(state.version)}, "items": list(state.slices.values())}
        return self.reply(200, body)

    def chunk(self, kind, item):
        data = json.dumps({"type": kind, "object": item}).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def watch(self, version):
        state = self.state
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        ends = state.ends
        try:
            while True:
                with state.changed:
                    if version < state.oldest:
                        gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
                        self.chunk("ERROR", gone)
                        break
                    for number, kind, item in state.log:
                        if number > version:
                            self.chunk(kind, item)
                            version = number
                    if state.ends != ends:
                        break
                    state.changed.wait(1)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass
        self.close_connection = True

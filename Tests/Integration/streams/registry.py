# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A schema registry of a few lines, over HTTP: it takes schemas under subjects and gives them numbers, and the other way round."""

import base64
import http.server
import json
import threading
import urllib.parse


class Registry:
    """Gives numbers from 4711 on; `login` is asked for where it is there, and `refusal` is a status to answer with. `kinds` has
    what is not in Avro, by the schema's text."""

    def __init__(self, port=0, login=None):
        self.schemas, self.subjects, self.requests, self.kinds = [], {}, 0, {}
        self.login, self.refusal = login, None
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.do_GET(self.rfile.read(int(self.headers["Content-Length"])))

            def do_GET(self, body=None):
                status, answer = registry.answer(self.path, self.headers, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path, headers, body):
        self.requests += 1
        if self.login:
            given = base64.b64decode(headers.get("Authorization", "Basic ")[6:]).decode()
            if given != ":".join(self.login):
                return 401, {"error_code": 401, "message": "Unauthorized"}
        if self.refusal:
            return self.refusal, {"error_code": self.refusal, "message": "no"}
        parts = path.split("/")
        if body is None:
            number = int(parts[3]) - 4711 if parts[1:3] == ["schemas", "ids"] and len(parts) == 4 else -1
            if not 0 <= number < len(self.schemas):
                return 404, {"error_code": 40403, "message": "Schema not found"}
            schema = self.schemas[number]
            return 200, {"schema": schema, **({"schemaType": self.kinds[schema]} if schema in self.kinds else {})}
        if len(parts) != 4 or parts[1] != "subjects" or parts[3] != "versions":
            return 404, {"error_code": 404}
        if headers["Content-Type"] != "application/vnd.schemaregistry.v1+json":
            return 415, {"error_code": 415}
        schema = json.loads(body)["schema"]
        if schema not in self.schemas:
            self.schemas.append(schema)
        self.subjects[urllib.parse.unquote(parts[2])] = schema
        return 200, {"id": 4711 + self.schemas.index(schema)}

    def add(self, schema, kind=None):
        """Has a schema, without a subject; gives its number."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        if kind:
            self.kinds[text] = kind
        if text not in self.schemas:
            self.schemas.append(text)
        return 4711 + self.schemas.index(text)

    def close(self):
        self.server.shutdown()
        self.server.server_close()

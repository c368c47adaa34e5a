# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Runs a rendered pod's containers on this machine: the same program, arguments, settings and user.

What a kubelet would give is given here: ConfigMaps and Secrets as files, variables, a volume. Of the settings only the
places are changed: files lie in a directory of the test, and what listens on every address does so on loopback and a
free port.
"""

import base64
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from bed import Server, default_command, free_port

from .chart import of_kind, pods

USER = 11211


class Pod:
    """The pod of the rendered objects whose name is `name`; secrets are {name: {key: bytes}}, names those of Kubernetes'
    DNS with their ports, and where they are here; `called` is the pod's own name."""

    def __init__(self, found, name, directory, secrets=None, names=None, called="cache-0"):
        [(_, _, self.spec)] = [pod for pod in pods(found) if pod[0] == name]
        self.root, self.secrets, self.names = Path(directory), secrets or {}, names or {}
        self.called = called
        self.maps = {one["metadata"]["name"]: one for one in of_kind(found, "ConfigMap")}
        self.ports = {"11211": free_port(), "9150": free_port(), "9151": free_port(), "11212": free_port()}
        self.server = None
        # Others may pass, and nothing more: the user of the pod is not ours.
        os.chmod(self.root, 0o711)

    @property
    def main(self):
        """The container of the server."""
        return next(one for one in self.spec["containers"] if one["name"] in ("node", "router"))

    def container(self, name):
        return next(one for one in [*self.spec.get("initContainers", []), *self.spec["containers"]]
                    if one["name"] == name)  # fmt: skip

    def place(self, text):
        """A text of settings or arguments with this machine's places."""
        for name, here in self.names.items():
            text = text.replace(name, here)
        for address in ("0.0.0.0", "[::]"):
            for port, number in self.ports.items():
                text = text.replace(f"{address}:{port}", f"127.0.0.1:{number}")
        return text.replace("/etc/martlet/", f"{self.root}/etc/martlet/").replace("/data/", f"{self.root}/data/")

    def content(self, volume):
        """{file: bytes} of a volume; None for an empty directory."""
        if "configMap" in volume:
            one = self.maps[volume["configMap"]["name"]]
            texts = {name: self.place(text).encode() for name, text in one.get("data", {}).items()}
            binaries = {name: base64.b64decode(text) for name, text in one.get("binaryData", {}).items()}
            return {**texts, **binaries}
        if "secret" in volume:
            secret = self.secrets[volume["secret"]["secretName"]]
            items = volume["secret"].get("items") or [{"key": key, "path": key} for key in secret]
            return {item["path"]: secret[item["key"]] for item in items}
        return None

    def mount(self, container):
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            directory = self.root / mount["mountPath"].lstrip("/")
            directory.mkdir(parents=True, exist_ok=True)
            content = self.content(volumes.get(mount["name"], {"claim": {}}))
            if content is None:
                self.own(directory, 0o770)
                continue
            for name, data in content.items():
                path = directory / name
                path.write_bytes(data)
                self.own(path, 0o440)

    @staticmethod
    def own(path, mode):
        if os.geteuid() == 0:
            shutil.chown(path, USER, USER)
        path.chmod(mode)

    def variables(self, container):
        fields = {"metadata.name": self.called, "metadata.namespace": "prod"}
        found = {}
        for one in container.get("env", []):
            if "value" in one:
                value = one["value"]
                for name, text in found.items():
                    value = value.replace(f"$({name})", text)
            elif "fieldRef" in one["valueFrom"]:
                value = fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
            else:
                reference = one["valueFrom"]["secretKeyRef"]
                value = self.secrets[reference["name"]][reference["key"]].decode()
            for name, here in self.names.items():
                value = value.replace(name, here)
            found[one["name"]] = value
        return found

    def line(self, container):
        """The command line, as the user of the pod where this is root."""
        program = Path(container["command"][0]).name
        built = default_command().split()[0]
        command = [built if program == "martlet-server" else str(Path(built).with_name(program))]
        command += [self.place(argument) for argument in container.get("args", [])]
        if os.geteuid() == 0:
            command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *command]
        return command

    def run(self, name, replace=()):
        """Runs a container that ends; its exit code and what it said."""
        container = self.container(name)
        self.mount(container)
        line = self.line(container)
        for old, new in replace:
            line = [argument.replace(old, new) for argument in line]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
                              env={"PATH": os.environ["PATH"], **self.variables(container)})  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def pre_stop(self):
        """Runs what the kubelet runs before the signal, as long as it takes; what it said."""
        hook = self.main["lifecycle"]["preStop"]["exec"]["command"]
        line = self.line({"command": hook[:1], "args": [self.local(argument) for argument in hook[1:]]})
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def local(self, argument):
        """An argument of the hook with this machine's port."""
        for port, number in self.ports.items():
            argument = argument.replace(f"127.0.0.1:{port}", f"127.0.0.1:{number}")
        return argument

    def start(self):
        """Starts the node and waits for what the kubelet waits for: the startup probe, then readiness."""
        container = self.main
        self.mount(container)
        self.server = Server(
            [], command=" ".join(self.line(container)), listen=False, user=False,
            wait=("127.0.0.1", self.ports["11211"]),
            environment={"MARTLET_ADMIN": None, **self.variables(container)})  # fmt: skip
        deadline = time.monotonic() + 30
        while self.probe("startupProbe") != 200 or self.probe("readinessProbe") != 200:
            assert time.monotonic() < deadline and self.server.alive(), self.server.output()
            time.sleep(0.05)
        return self

    @property
    def admin(self):
        """Where the container's port http-metrics is here."""
        [port] = [port["containerPort"] for port in self.main["ports"] if port["name"] == "http-metrics"]
        return self.ports[str(port)]

    def probe(self, name):
        """The status that a probe of the manifest gets; 0 when nobody answers."""
        return self.get(self.main[name]["httpGet"]["path"])[0]

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def client(self):
        return self.server.client()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.server:
            self.server.stop()

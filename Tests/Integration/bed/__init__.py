# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The test bed: starts servers under test and talks to them over plain sockets."""

from .server import Server, default_command, free_port, free_ports, memcached_command
from .client import Client, Closed
from .crew import Crew
from .listener import Listener
from .patience import Patience, until

__all__ = [
    "Client", "Closed", "Crew", "Listener", "Patience", "Server", "default_command", "free_port", "free_ports",
    "memcached_command", "until"]  # fmt: skip

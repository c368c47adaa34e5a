# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The test bed: starts servers under test and talks to them over plain sockets."""

from .server import Server, default_command, free_port, free_ports, memcached_command
from .client import Client, Closed

__all__ = ["Client", "Closed", "Server", "default_command", "free_port", "free_ports", "memcached_command"]

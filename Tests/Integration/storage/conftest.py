# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What tests in front of a PostgreSQL share."""

import pytest

from storage import database


@pytest.fixture(scope="module")
def server():
    """The PostgreSQL, not a node: of nodes each test has its own."""
    return database.shared()


@pytest.fixture
def tidied(server):
    """Drops the databases of a test behind it."""
    yield
    server.clear()

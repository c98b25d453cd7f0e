"""One host for all clients of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from serverfull.testing.process import HostProcess


@pytest.fixture(scope="session")
def host():
    with HostProcess.start(f"{Path(__file__).parent}/functions.py:functions") as host:
        yield host


@pytest.fixture
def client(host, boto):
    return boto(host)

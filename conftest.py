"""What every test of the project has at hand: real hosts, AWS clients for them, and a clean environment."""

from __future__ import annotations

import gc
import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.testing.clients import lambda_client
from serverfull.testing.process import CLEARED_NAMES, CLEARED_PREFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ["serverfull.testing.fixtures"]

REQUIRE_ALL = os.environ.get("SERVERFULL_REQUIRE_ALL") == "1"
"""Read before the variables are cleaned: CI sets it, so that no test is skipped there unnoticed."""


def pytest_collection_finish() -> None:
    """Leave thousands of tests out of the search for garbage, which took a fifth of the time to go through them."""
    gc.collect()
    gc.freeze()


_ACCOUNTS = itertools.count(100_000_000_001)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out everything that would configure a host or an AWS client."""
    for name in os.environ:
        if name in CLEARED_NAMES or name.startswith(CLEARED_PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def require() -> Callable[[str, object, str], None]:
    """Skip a test whose outside thing is absent; fail it where SERVERFULL_REQUIRE_ALL=1 asks for every test."""

    def check(name: str, present: object, how: str) -> None:
        if present:
            return
        reason = f"{name} is not here: {how}"
        if REQUIRE_ALL:
            pytest.fail(f"{reason} (SERVERFULL_REQUIRE_ALL=1)", pytrace=False)
        pytest.skip(reason)

    return check


@pytest.fixture
def boto() -> Iterator[Callable[..., Any]]:
    """Make boto3 Lambda clients for a host (or a URL): dummy credentials, no retries, closed after the test."""
    clients = []

    def client(host: Any, **config: Any) -> Any:
        clients.append(lambda_client(getattr(host, "url", host), **config))
        return clients[-1]

    yield client
    for made in clients:
        made.close()


@pytest.fixture
def account() -> str:
    """An account that no other test has: on a host of many, nothing is there but what the test itself deploys."""
    return str(next(_ACCOUNTS))

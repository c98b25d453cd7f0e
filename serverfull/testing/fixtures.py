"""pytest fixtures around `serverfull.testing.process`. Switch them on in the conftest.py at the root of your tests::

    pytest_plugins = ["serverfull.testing.fixtures"]


    def test_the_greeting(serve):
        host = serve("app.py:functions")
        assert host.invoke("hello").json() == "Hello!"

This module needs pytest, which is no dependency of serverfull.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from serverfull.testing.process import HostProcess


class Serve(Protocol):
    """What the fixture ``serve`` gives."""

    def __call__(
        self,
        target: str | Path,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 20.0,
    ) -> HostProcess:
        """Start a host; see `HostProcess.start`.

        :param target: a TARGET as on the command line; or a path, whose attribute ``functions`` is served; or
            source code with at least one line break, which is written to a file and served in the same way.
        """


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start hosts in processes of their own; they are stopped after the test, which fails if they leave processes."""
    hosts: list[HostProcess] = []
    numbers = itertools.count(1)

    def start(
        target: str | Path,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 20.0,
    ) -> HostProcess:
        if isinstance(target, str) and "\n" in target:
            path = tmp_path / f"served_{next(numbers)}.py"
            path.write_text(target, encoding="utf-8")
            target = path
        if isinstance(target, Path):
            target = f"{target}:functions"
        host = HostProcess.start(target, *args, env=env, cwd=cwd or tmp_path, timeout=timeout)
        hosts.append(host)
        return host

    yield start
    _stop_all(hosts)


def _stop_all(hosts: list[HostProcess]) -> None:
    problems = []
    for host in hosts:
        try:
            host.stop()
        except Exception as problem:  # every host is stopped, whatever became of the others
            problems.append(problem)
    if problems:
        raise problems[0] if len(problems) == 1 else ExceptionGroup("hosts did not stop cleanly", problems)

"""The folders that functions run from, as whoever fetches functions asks for them."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from serverfull.config import DependencySettings, LoggingSettings
from serverfull.dependencies.roots import Dependencies
from serverfull.domain.deployed import FunctionVersion
from serverfull.errors import DependenciesNotInstalled, ShuttingDown
from serverfull.observability.logger import HostLogger
from serverfull.runtimes.process.interpreters import Interpreter


async def own_python(runtime: str, _tags: Mapping[str, str]) -> Interpreter:
    version = ".".join(map(str, sys.version_info[:3]))
    return Interpreter(runtime=runtime, kind="python", path=Path(sys.executable), version=version)


def version(function: str) -> FunctionVersion:
    fields = {"role": "", "last_modified": "", "revision_id": ""}
    return FunctionVersion(function=function, code_sha256="0" * 64, runtime="python3.x", **fields)


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """A file that gets a line from each call of an installer that always fails."""
    program = tmp_path / "bin/uv"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho call >> {tmp_path / 'calls'}\necho no such package\nexit 1\n")
    program.chmod(0o755)
    return tmp_path / "calls"


def count(calls: Path) -> int:
    return len(calls.read_text().splitlines()) if calls.exists() else 0


@pytest.fixture
async def dependencies(tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dependencies]:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    logger = HostLogger(LoggingSettings(output="NULL"))
    made = Dependencies(tmp_path / "dependencies", DependencySettings(install="on"), own_python, {}, logger)
    yield made
    await made.aclose()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "requirements.txt").write_text("missing\n")
    return folder


async def test_calls_do_not_try_again_at_once_what_has_failed_and_deployments_do(
    dependencies: Dependencies, code: Path, calls: Path
) -> None:
    with pytest.raises(DependenciesNotInstalled, match=r"(?s)Function f: .*no such package"):
        await dependencies.root(code, version("f"), {}, True)
    for _ in range(3):
        with pytest.raises(DependenciesNotInstalled, match=r"(?s)Function g: .*no such package"):
            await dependencies.root(code, version("g"), {}, False)
    assert count(calls) == 1
    with pytest.raises(DependenciesNotInstalled):
        await dependencies.root(code, version("f"), {}, True)
    assert count(calls) == 2


async def test_nothing_is_begun_once_a_host_ends(dependencies: Dependencies, code: Path, calls: Path) -> None:
    await dependencies.aclose()
    await dependencies.aclose()
    with pytest.raises(ShuttingDown):
        await dependencies.root(code, version("f"), {}, True)
    assert count(calls) == 0

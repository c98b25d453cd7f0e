"""Functions whose interpreter is not there when it is wanted: what their owners are told, and when they run."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from serverfull.config import ExecutionSettings, LoggingSettings, Settings
from serverfull.domain.runtimes import RUNTIMES
from serverfull.management import preparation
from serverfull.runtimes.process import interpreters
from serverfull.runtimes.process.interpreters import Interpreters, Missing
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import create, invoke, wait_until_settled
from serverfull.testing.hosts import ThreadHost
from serverfull.testing.process import HostProcess

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = {"app.py": "def handler(event, context):\n    return 'it runs'\n"}


@pytest.fixture
def runtime() -> str:
    """Name a version of Python that this machine does not have."""
    looking = Interpreters("error")
    for name in reversed(RUNTIMES):
        if name.startswith("python") and isinstance(looking.find(name), Missing):
            return name
    pytest.skip("every version of Python is here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder that is on the PATH of hosts, and empty."""
    made = tmp_path / "programs"
    made.mkdir()
    return made


@pytest.fixture
def path(folder: Path) -> str:
    return os.pathsep.join([str(folder), os.environ["PATH"]])


@pytest.fixture
def install(folder: Path, runtime: str) -> Callable[[], None]:
    """Put that version there: in truth it is the one that runs the tests."""
    program = folder / runtime
    told = json.dumps(["cpython", f"{runtime.removeprefix('python')}.0", str(program)])

    def put() -> None:
        lines = [
            "#!/bin/sh",
            f"case \"$*\" in *sys.implementation*) echo '{told}';;",
            f'*) exec {sys.executable} "$@";; esac',
        ]
        program.write_text("\n".join([*lines, ""]))
        program.chmod(0o755)

    return put


def made(client: Any, runtime: str, name: str = "f") -> dict[str, Any]:
    """Create a function, and give its configuration when it is Active or Failed."""
    create(client, name, FILES, Runtime=runtime)
    return wait_until_settled(client, name)


def test_an_update_and_the_next_start_of_the_host_find_what_has_been_installed(
    tmp_path: Path, runtime: str, path: str, install: Callable[[], None]
) -> None:
    settings = {"PATH": path, "SERVERFULL_EXECUTION__OTHER_PYTHON": "error"}
    with HostProcess.start(None, "--state", str(tmp_path / "state"), env=settings, cwd=tmp_path) as host:
        client = lambda_client(host.url, region="eu-west-1")
        failed = made(client, runtime)
        assert (failed["State"], failed["StateReasonCode"]) == ("Failed", "InvalidRuntime")
        assert f"install it with pyenv or uv, and have {runtime} on the host's PATH" in failed["StateReason"]
        made(client, runtime, "left")
        with pytest.raises(ClientError, match="install it with pyenv"):
            invoke(client, "f")
        install()
        client.update_function_configuration(FunctionName="f", Timeout=30)
        assert wait_until_settled(client, "f")["State"] == "Active"
        assert invoke(client, "f") == "it runs"
        assert client.get_function_configuration(FunctionName="left")["State"] == "Failed"
    with HostProcess.start(None, "--state", str(tmp_path / "state"), env=settings, cwd=tmp_path) as host:
        client = lambda_client(host.url, region="eu-west-1")
        until = time.monotonic() + 30
        while client.get_function_configuration(FunctionName="left")["State"] == "Failed":  # nobody calls it
            assert time.monotonic() < until
            time.sleep(0.05)
        assert invoke(client, "left") == "it runs"


def test_a_call_has_a_failed_function_made_again_and_waits_for_that(
    runtime: str, path: str, install: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(preparation, "AGAIN_AFTER", 0.0)
    settings = Settings(execution=ExecutionSettings(other_python="error"), logging=LoggingSettings(functions="NULL"))
    with ThreadHost({}, settings=settings) as host:
        client = host.client(region="eu-west-1")
        assert made(client, runtime)["State"] == "Failed"
        with pytest.raises(ClientError, match="install it with pyenv"):
            invoke(client, "f")
        install()
        assert invoke(client, "f") == "it runs"
        assert client.get_function_configuration(FunctionName="f")["State"] == "Active"


def test_an_interpreter_that_is_removed_and_installed_again_is_missed_in_between(
    runtime: str, folder: Path, path: str, install: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(interpreters, "AGAIN_AFTER", 0.0)
    execution = ExecutionSettings(other_python="error", ephemeral=True)
    with ThreadHost({}, settings=Settings(execution=execution, logging=LoggingSettings(functions="NULL"))) as host:
        client = host.client(region="eu-west-1")
        install()
        made(client, runtime)
        assert [invoke(client, "f"), invoke(client, "f")] == ["it runs"] * 2
        (folder / runtime).unlink()
        with pytest.raises(ClientError, match="install it with pyenv"):
            invoke(client, "f")
        install()
        assert invoke(client, "f") == "it runs"

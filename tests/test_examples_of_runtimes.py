"""The examples that are deployed: for Node.js, and a bootstrap of one's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serverfull.testing.process import HostProcess, plain_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with HostProcess.start(None, "--state", "memory", cwd=tmp_path_factory.mktemp("host")) as process:
        yield process


def deploy(host: HostProcess, folder: str, *options: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serverfull", "deploy", EXAMPLES / folder, *options],
        env=plain_environment() | {"SERVERFULL_ENDPOINT": host.url},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_bootstrap_in_sh_answers_one_event_after_the_other(host: HostProcess) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    deploy(host, "bootstrap", "--runtime", "provided.al2023", "--handler", "any.name")
    for event in ({"number": 1}, [2]):
        answer = host.invoke("bootstrap", json.dumps(event).encode())
        assert "x-amz-function-error" not in answer.headers
        assert answer.json() == {"received": event, "handler": "any.name"}


def test_a_handler_for_node_js_gives_results_and_errors(host: HostProcess) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    deploy(host, "node", "--runtime", f"nodejs{version[1:].split('.')[0]}.x", "--handler", "index.handler")
    assert host.invoke("node", b'{"name": "Ada"}').json() == {"greeting": "Hello Ada!", "from": "node"}
    failed = host.invoke("node", b"{}")
    assert failed.headers["x-amz-function-error"] == "Unhandled"
    assert (failed.json()["errorType"], failed.json()["errorMessage"]) == ("TypeError", "who is to be greeted?")

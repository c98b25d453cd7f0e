"""Hosts with ``execution.sandbox = "strict"``: every client reaches them; where it cannot be had they do not start."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serverfull.runtimes.child import confine, seccomp
from serverfull.runtimes.process.confinement import probe_strict
from serverfull.runtimes.process.interpreters import RUNTIMES, Interpreter, Interpreters
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import create, wait_until_settled, zipped
from serverfull.testing.process import HostProcess, plain_environment

STRICT = {"SERVERFULL_EXECUTION__SANDBOX": "strict"}
WALLS = probe_strict().why

needs_walls = pytest.mark.skipif(bool(WALLS), reason=f"this machine allows no strict sandbox: {WALLS}")

PYTHON_CODE = """
import os
def handler(event, context):
    processes = sorted(name for name in os.listdir("/proc") if name.isdigit())
    return [event, os.getpid(), processes, os.listdir("/sys") if os.path.exists("/sys") else []]
"""
NODE_CODE = """
const fs = require('fs');
exports.handler = async (event) => [event, process.pid, fs.readdirSync('/proc').filter(n => /^[0-9]+$/.test(n)), []];
"""
BOOTSTRAP = """#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while curl -s -D /tmp/head -o /tmp/event "$api/next"; do
    id=$(sed -n 's/^Lambda-Runtime-Aws-Request-Id: *//Ip' /tmp/head | tr -d '\\r')
    echo "[$(cat /tmp/event), $$, [\\"1\\", \\"$$\\"], []]" | curl -s -o /dev/null --data-binary @- "$api/$id/response"
done
"""


INTERNAL = """
import os, threading, urllib.request
base = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2020-01-01/extension"
asked = urllib.request.Request(base + "/register", b'{"events": ["INVOKE"]}', {"Lambda-Extension-Name": "inner"})
answer = urllib.request.urlopen(asked)
status = answer.status

def follow():
    while True:
        headers = {"Lambda-Extension-Identifier": answer.headers["Lambda-Extension-Identifier"]}
        urllib.request.urlopen(urllib.request.Request(base + "/event/next", None, headers)).read()

threading.Thread(target=follow, daemon=True).start()
"""


def _call(client: Any, name: str, event: object) -> Any:
    answer = client.invoke(FunctionName=name, Payload=json.dumps(event))
    payload = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, payload
    return payload


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("host")
    with HostProcess.start(None, "--state", "memory", cwd=folder, env=STRICT) as host:
        yield lambda_client(host.url)


@needs_walls
@pytest.mark.parametrize("tags", [{}, {"serverfull:client": "awslambdaric"}], ids=["own", "awslambdaric"])
def test_python_functions_are_called_behind_walls(
    client: Any, require: Callable[[str, object, str], None], tags: dict[str, str]
) -> None:
    if tags:
        require("awslambdaric", importlib.util.find_spec("awslambdaric"), "pip install awslambdaric")
    name = f"python-{len(tags)}"
    create(client, name, {"app.py": PYTHON_CODE}, Tags=tags, Timeout=30)
    assert wait_until_settled(client, name)["State"] == "Active"
    for number in range(2):
        assert _call(client, name, number) == [number, 2, ["1", "2"], []]


@needs_walls
@pytest.mark.real_client
def test_functions_for_node_are_called_behind_walls(client: Any, require: Callable[[str, object, str], None]) -> None:
    looking = Interpreters()
    runtime = next((r for r in RUNTIMES if r.startswith("node") and isinstance(looking.find(r), Interpreter)), "")
    require("Node.js", runtime, "apt-get install nodejs")
    create(client, "node", {"index.js": NODE_CODE}, Runtime=runtime, Handler="index.handler", Timeout=30)
    wait_until_settled(client, "node")
    event, pid, processes, _ = _call(client, "node", {"a": 1})
    assert (event, pid) == ({"a": 1}, 2)
    assert processes == ["1", "2"]


@needs_walls
def test_bootstraps_are_called_behind_walls(client: Any) -> None:
    create(client, "shell", {"bootstrap": BOOTSTRAP}, executable=["bootstrap"], Runtime="provided.al2023", Timeout=30)
    wait_until_settled(client, "shell")
    for number in range(2):
        assert _call(client, "shell", number)[0] == number


@needs_walls
def test_no_function_leaves_the_walls_by_its_own_tag(client: Any) -> None:
    create(client, "out", {"app.py": PYTHON_CODE}, Tags={"serverfull:execution": "inprocess"})
    made = wait_until_settled(client, "out")
    assert made["State"] == "Failed"
    assert "says 'inprocess': this host has " in made["StateReason"]


def _layer(client: Any, name: str, files: dict[str, str | bytes], executable: list[str]) -> str:
    made = client.publish_layer_version(LayerName=name, Content={"ZipFile": zipped(files, executable)})
    arn: str = made["LayerVersionArn"]
    return arn


@needs_walls
def test_external_extensions_have_no_network_and_so_their_functions_fail_with_a_reason(client: Any) -> None:
    arn = _layer(client, "agent", {"extensions/agent": "#!/bin/sh\n"}, ["extensions/agent"])
    create(client, "watched", {"app.py": PYTHON_CODE}, Layers=[arn])
    made = wait_until_settled(client, "watched")
    assert made["State"] == "Failed"
    assert "execution.sandbox is 'strict'" in made["StateReason"]


@needs_walls
def test_internal_extensions_find_their_api_behind_walls(client: Any) -> None:
    arn = _layer(client, "library", {"python/inner.py": INTERNAL}, [])
    create(client, "inner", {"app.py": "import inner\n" + PYTHON_CODE}, Layers=[arn], Timeout=30)
    assert wait_until_settled(client, "inner")["State"] == "Active"
    assert _call(client, "inner", "seen")[0] == "seen"
    create(client, "asked", {"app.py": "import inner\ndef handler(e, c): return inner.status"}, Layers=[arn])
    wait_until_settled(client, "asked")
    assert _call(client, "asked", None) == 200


def refuse_namespaces() -> None:
    """Take from this process, for ever, what the level needs of the kernel."""
    confine.check(confine.libc.prctl(38, 1, 0, 0, 0), "no new privileges")
    seccomp.install(seccomp.HERE)


def test_a_machine_that_cannot_do_it_runs_no_host(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serverfull", "serve", "--port", "0", "--state", "memory"]
    environment = {**plain_environment(), **STRICT}
    done = subprocess.run(
        command,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=refuse_namespaces,
        check=False,
    )
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("Error:"))
    assert "execution.sandbox is 'strict', which this machine does not allow: namespaces of its own: " in line
    assert "Traceback" not in done.stderr
    assert done.returncode == 3


def test_a_doctor_says_why_a_machine_cannot_do_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serverfull", "doctor", "--port", "0", "--output", "json"],
        env=plain_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=refuse_namespaces,
        check=True,
    )
    found = json.loads(done.stdout)["machine"]["strict"]
    assert found == {"state": "impossible", "detail": "namespaces of its own: Operation not permitted"}


def test_functions_in_the_hosts_process_and_walls_exclude_each_other(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serverfull", "serve", "--port", "0", "--execution", "inprocess"],
        env={**plain_environment(), **STRICT},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "execution.mode is 'inprocess' and execution.sandbox is 'strict'" in done.stderr


@needs_walls
def test_a_host_that_others_reach_takes_no_deployments_behind_walls_either(tmp_path: Path) -> None:
    flags = ("--host", "0.0.0.0", "--insecure-no-auth", "--state", "memory")
    done = subprocess.run(
        [sys.executable, "-m", "serverfull", "serve", "--port", "0", *flags],
        env={**plain_environment(), **STRICT},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Walls hold deployed code and not those who may change or delete it." in done.stderr

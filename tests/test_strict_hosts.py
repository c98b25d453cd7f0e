"""Hosts with ``execution.sandbox = "strict"``: every client reaches them; where it cannot be had they do not start."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serverfull.domain.runtimes import RUNTIMES
from serverfull.runtimes.child import confine, seccomp
from serverfull.runtimes.process.interpreters import Interpreter, Interpreters
from serverfull.runtimes.process.means import probe_strict
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
headers = {"Lambda-Extension-Identifier": answer.headers["Lambda-Extension-Identifier"]}
wanted = b'{"schemaVersion": "2022-07-01", "types": ["platform"], "destination": {"protocol": "TCP", "port": 1}}'
telemetry = base.replace("2020-01-01/extension", "2022-07-01/telemetry")
subscribed = urllib.request.urlopen(urllib.request.Request(telemetry, wanted, headers, method="PUT"))
said = [answer.status, subscribed.status]

def follow():
    while True:
        urllib.request.urlopen(urllib.request.Request(base + "/event/next", None, headers)).read()

threading.Thread(target=follow, daemon=True).start()
"""


def _call(client: Any, name: str, event: object) -> Any:
    answer = client.invoke(FunctionName=name, Payload=json.dumps(event))
    payload = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, payload
    return payload


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("host")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Any]:
    allowed = {"SERVERFULL_HOT_RELOAD__ALLOWED_PATHS": str(folder)}
    with HostProcess.start(None, "--state", "memory", cwd=folder, env=STRICT | allowed) as host:
        yield lambda_client(host.url)


HOT_CODE = """
import os
def handler(event, context):
    try:
        open("written", "w").close()
    except OSError:
        return [VALUE, sorted(os.listdir(".."))]
"""


@needs_walls
def test_a_folder_in_place_is_all_that_its_function_sees_of_those_around_it(client: Any, folder: Path) -> None:
    hot = folder / "hot"
    (folder / "beside").mkdir()
    hot.mkdir()
    (hot / "app.py").write_text("VALUE = 1" + HOT_CODE)
    create(client, "hot", {}, Code={"S3Bucket": "hot-reload", "S3Key": str(hot)}, Timeout=30)
    assert _call(client, "hot", None) == [1, ["hot"]]
    (hot / "app.py").write_text("VALUE = 2" + HOT_CODE)
    until = time.monotonic() + 20.0
    while _call(client, "hot", None) != [2, ["hot"]]:
        assert time.monotonic() < until
        time.sleep(0.02)


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


def _wait_for_lines(client: Any, name: str, wanted: set[str]) -> None:
    """Wait until all these lines are in a function's log."""
    until, found = time.monotonic() + 20.0, set[str]()
    while not wanted <= found:
        assert time.monotonic() < until, found
        with urllib.request.urlopen(f"{client.meta.endpoint_url}/_serverfull/logs/{name}") as answer:
            messages = [json.loads(line)["message"] for line in answer.read().decode().splitlines()]
        found = {line for message in messages for line in message.splitlines()}
        time.sleep(0.02)


def _layer(client: Any, name: str, files: dict[str, str | bytes], executable: list[str]) -> str:
    made = client.publish_layer_version(LayerName=name, Content={"ZipFile": zipped(files, executable)})
    arn: str = made["LayerVersionArn"]
    return arn


EXTENSION = (
    f"#!{sys.executable}\n"
    """
import http.server, json, os, socket, sys, threading, time, urllib.request
sys.path.insert(0, "/opt/python")
import walls
name = os.path.basename(__file__)
port = 9100 + len(name)
told = []

class Listener(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        told.extend(event["type"] for event in json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

def ask(path, body=None, method=None, **headers):
    url = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}{path}"
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method))

listener = http.server.HTTPServer(("sandbox.localdomain", port), Listener)
threading.Thread(target=listener.serve_forever, daemon=True).start()
names = {"Lambda-Extension-Name": name}
came = ask("/2020-01-01/extension/register", {"events": ["INVOKE", "SHUTDOWN"]}, **names).headers
itself = {"Lambda-Extension-Identifier": came["Lambda-Extension-Identifier"]}
destination = {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{port}"}
wanted = {"schemaVersion": "2022-12-13", "types": ["platform", "function"], "destination": destination}
ask("/2022-07-01/telemetry", {**wanted, "buffering": {"timeoutMs": 25}}, "PUT", **itself)
with open(f"/tmp/of-{name}", "w") as file:
    json.dump(walls.seen(), file)
while json.load(ask("/2020-01-01/extension/event/next", **itself))["eventType"] != "SHUTDOWN":
    pass
if name == "longer":
    time.sleep(0.2)  # so that the other one has ended
print(name, "ends", "platform.report" in told, "function" in told, flush=True)
"""
)

OF_WALLS = """
import os, socket
def seen():
    status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
    spaces = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("mnt", "net", "pid", "ipc", "uts", "user")}
    with socket.socket() as out:
        out.settimeout(1)
        reached = out.connect_ex(("127.0.0.1", HOST)) == 0
    kept = {name: status[name] for name in ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
    return [spaces, kept, reached, sorted(os.listdir("/")), os.listdir("/proc/self/fd")]
"""

SEES_ALL = """
import json, os, sys
sys.path.insert(0, "/opt/python")
import walls
def held_off(path):
    try:
        open(path, "rb").close()
    except PermissionError:
        return True
def handler(event, context):
    print("called")
    assert held_off("/proc/2/mem") and held_off("/proc/2/environ")
    return [walls.seen(), *(json.load(open(f"/tmp/of-{name}")) for name in ("agent", "longer"))]
"""


@needs_walls
@pytest.mark.parametrize("tags", [{}, {"serverfull:client": "awslambdaric"}], ids=["own", "awslambdaric"])
def test_external_extensions_run_within_the_walls_of_their_function(
    client: Any, require: Callable[[str, object, str], None], tags: dict[str, str]
) -> None:
    if tags:
        require("awslambdaric", importlib.util.find_spec("awslambdaric"), "pip install awslambdaric")
    name, programs = f"watched-{len(tags)}", ["extensions/agent", "extensions/longer"]
    port = urllib.parse.urlsplit(client.meta.endpoint_url).port
    files = {"python/walls.py": f"HOST = {port}\n{OF_WALLS}", **dict.fromkeys(programs, EXTENSION)}
    create(client, name, {"app.py": SEES_ALL}, Layers=[_layer(client, name, files, programs)], Tags=tags, Timeout=30)
    assert wait_until_settled(client, name)["State"] == "Active"
    runtimes, *extensions = _call(client, name, None)
    spaces, kept, reached, files_seen, _ = runtimes
    assert (kept["CapEff"], kept["CapBnd"], kept["NoNewPrivs"], kept["Seccomp"]) == ("0" * 16, "0" * 16, "1", "2")
    assert not reached
    assert not {os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("mnt", "net", "pid")} & set(spaces.values())
    for *walls, descriptors in extensions:
        assert walls == [spaces, kept, reached, files_seen]
        assert sorted(descriptors) == ["0", "1", "2", "3", "4", "5"]  # its streams, listener, poll and this list
    client.delete_function(FunctionName=name)
    wanted = {f"{extension} ends True True" for extension in ("agent", "longer")}
    _wait_for_lines(client, name, wanted)


@needs_walls
def test_internal_extensions_find_their_api_behind_walls(client: Any) -> None:
    arn = _layer(client, "library", {"python/inner.py": INTERNAL}, [])
    create(client, "inner", {"app.py": "import inner\n" + PYTHON_CODE}, Layers=[arn], Timeout=30)
    assert wait_until_settled(client, "inner")["State"] == "Active"
    assert _call(client, "inner", "seen")[0] == "seen"
    create(client, "asked", {"app.py": "import inner\ndef handler(e, c): return inner.said"}, Layers=[arn])
    wait_until_settled(client, "asked")
    assert _call(client, "asked", None) == [200, 200]


@needs_walls
def test_versions_with_snapstart_say_that_there_are_no_snapshots_behind_walls_and_why(client: Any) -> None:
    """A process that has loaded code cannot get walls of its own again, and environments do not share them."""
    snap_start = {"SnapStart": {"ApplyOn": "PublishedVersions"}, "Runtime": "python3.12", "Timeout": 30}
    create(client, "snap", {"app.py": PYTHON_CODE}, Publish=True, **snap_start)
    client.get_waiter("published_version_active").wait(
        FunctionName="snap", Qualifier="1", WaiterConfig={"Delay": 0.05, "MaxAttempts": 400}
    )
    found = client.get_function_configuration(FunctionName="snap", Qualifier="1")
    assert found["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}
    answer = client.invoke(FunctionName="snap", Qualifier="1", Payload=b"1")
    assert json.loads(answer["Payload"].read()) == [1, 2, ["1", "2"], []]
    why = "the sandbox level strict, whose walls a process cannot leave to have some of its own"
    _wait_for_lines(client, "snap", {f"No snapshot is made of this version: in the way is {why}."})


def ends(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of ours that is to end by itself, at the level ``strict``."""
    return subprocess.run(
        [sys.executable, "-m", "serverfull", *arguments],
        env={**plain_environment(), **STRICT},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def refuse_namespaces() -> None:
    """Take from this process, for ever, what the level needs of the kernel."""
    confine.control(confine.SET_NO_NEW_PRIVILEGES, 1, "no new privileges")
    seccomp.install(seccomp.HERE)


def test_a_machine_that_cannot_do_it_runs_no_host(tmp_path: Path) -> None:
    done = ends(tmp_path, "serve", "--port", "0", "--state", "memory", preexec_fn=refuse_namespaces)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("Error:"))
    assert "execution.sandbox is 'strict', which this machine does not allow: namespaces of its own: " in line
    assert "Traceback" not in done.stderr
    assert done.returncode == 3


def test_a_doctor_says_why_a_machine_cannot_do_it(tmp_path: Path) -> None:
    done = ends(tmp_path, "doctor", "--port", "0", "--output", "json", preexec_fn=refuse_namespaces)
    found = json.loads(done.stdout)["machine"]["strict"]
    assert found == {"state": "impossible", "detail": "namespaces of its own: Operation not permitted"}


def test_functions_in_the_hosts_process_and_walls_exclude_each_other(tmp_path: Path) -> None:
    done = ends(tmp_path, "serve", "--port", "0", "--execution", "inprocess")
    assert (done.returncode, done.stdout) == (2, "")
    assert "execution.mode is 'inprocess' and execution.sandbox is 'strict'" in done.stderr


@needs_walls
def test_a_host_that_others_reach_takes_no_deployments_behind_walls_either(tmp_path: Path) -> None:
    done = ends(tmp_path, "serve", "--port", "0", "--host", "0.0.0.0", "--insecure-no-auth", "--state", "memory")
    assert done.returncode == 2
    assert "Walls hold deployed code and not those who may change or delete it." in done.stderr

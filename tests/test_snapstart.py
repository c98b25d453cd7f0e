"""SnapStart on a real host: versions are initialised once, and their environments begin where that has ended."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import PYTHON, create, wait_until_ready, zipped
from serverfull.testing.process import HostProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 30.0
"""Seconds until a test gives up waiting."""

SNAP_START = {"Runtime": "python3.12", "SnapStart": {"ApplyOn": "PublishedVersions"}, "Timeout": 10, "MemorySize": 256}

CODE = """
import os, random, time, uuid
from snapshot_restore_py import register_after_restore, register_before_snapshot

print("loading")
MADE_BY, TOKEN, SEEN = os.getpid(), uuid.uuid4().hex, []
with open("/tmp/model", "w") as file:
    file.write("0123456789")
MODEL = open("/tmp/model")

def note(what, *, by=None):
    SEEN.append([what, by or os.getpid()])

register_before_snapshot(note, "registered first")

@register_before_snapshot
def last():
    note("registered last")

register_after_restore(note, "restored")

@register_after_restore
def then():
    print("restored")
    note("and then")

def handler(event, context):
    time.sleep(event.get("sleep", 0))
    return {
        "pid": os.getpid(),
        "made_by": MADE_BY,
        "token": TOKEN,
        "seen": SEEN,
        "random": random.random(),
        "uuid": str(uuid.uuid4()),
        "model": MODEL.read(5),
        "how": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"],
        "stream": context.log_stream_name,
        "group": context.log_group_name,
    }
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    folder = tmp_path_factory.mktemp("host")
    with HostProcess.start(None, "--state", str(folder / "state"), cwd=folder) as process:
        yield process


@pytest.fixture(scope="module")
def client(host: HostProcess) -> Any:
    return lambda_client(host.url, region="eu-west-1")


@pytest.fixture
def folder_that_functions_see() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # in /tmp they see their own
        Path(folder).chmod(0o755)
        yield Path(folder)


def settled(client: Any, name: str, version: str = "1") -> dict[str, Any]:
    """Wait until a version is made, or that has failed."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found: dict[str, Any] = client.get_function_configuration(FunctionName=name, Qualifier=version)
        if found["State"] != "Pending":
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def published(client: Any, name: str, code: str = CODE, **members: Any) -> dict[str, Any]:
    """Make a function with SnapStart, publish it, and give its version 1 when that is settled."""
    create(client, name, {"app.py": code}, **SNAP_START | {"Publish": True} | members)
    return settled(client, name)


def snapshotted(client: Any, name: str, code: str = CODE, **members: Any) -> None:
    found = published(client, name, code, **members)
    assert (found["State"], found.get("StateReason")) == ("Active", None)
    assert found["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"}


def call(client: Any, name: str, event: Any = None) -> tuple[Any, str, str | None]:
    """Call version 1; give its result, its log and the error."""
    answer = client.invoke(FunctionName=name, Qualifier="1", LogType="Tail", Payload=json.dumps(event or {}))
    log = base64.b64decode(answer["LogResult"]).decode()
    return json.loads(answer["Payload"].read()), log, answer.get("FunctionError")


def at_once(client: Any, name: str, calls: int) -> list[Any]:
    with ThreadPoolExecutor(calls) as threads:
        return [found for found, _, _ in threads.map(lambda _: call(client, name, {"sleep": 1}), range(calls))]


def written(host: HostProcess, name: str, pattern: str) -> str:
    """Wait for a line of a function's log: they are written in batches."""
    deadline = time.monotonic() + DEADLINE
    while True:
        for line in host.stdout_lines():
            if f'"function":"{name}"' in line and re.search(pattern, line):
                return line
        assert time.monotonic() < deadline, pattern
        time.sleep(0.02)


def gone(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def refused(call: Callable[..., Any], **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as refusal:
        call(**members)
    return refusal.value.response["Error"]["Code"], refusal.value.response["Error"]["Message"]


def test_a_version_is_pending_until_its_snapshot_is_there(client: Any) -> None:
    create(client, "states", {"app.py": "import time; time.sleep(0.5)\n" + CODE}, **SNAP_START)
    latest = wait_until_ready(client, "states")
    assert latest["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}
    version = client.publish_version(FunctionName="states")
    assert (version["State"], version["StateReasonCode"], version["StateReason"]) == (
        "Pending",
        "Creating",
        "The function is being created.",
    )
    assert version["SnapStart"]["OptimizationStatus"] == "Off"
    assert client.publish_version(FunctionName="states")["Version"] == "1"  # nothing has changed
    found = settled(client, "states")
    assert (found["State"], found["LastUpdateStatus"]) == ("Active", "Successful")
    assert found["SnapStart"]["OptimizationStatus"] == "On"
    on_latest = client.invoke(FunctionName="states", Payload="{}")
    assert json.loads(on_latest["Payload"].read())["how"] == "on-demand"
    assert client.get_function_configuration(FunctionName="states")["SnapStart"]["OptimizationStatus"] == "Off"


def test_environments_have_what_was_made_once_and_nothing_of_each_other(client: Any) -> None:
    snapshotted(client, "once")
    found = at_once(client, "once", 10)
    assert len({each["pid"] for each in found}) == 10
    assert len({each["token"] for each in found}) == len({each["made_by"] for each in found}) == 1
    assert found[0]["made_by"] not in {each["pid"] for each in found}
    assert len({each["random"] for each in found}) == len({each["uuid"] for each in found}) == 10
    assert {each["model"] for each in found} == {"01234"}  # each reads from its own place
    assert {(each["how"], each["stream"], each["group"]) for each in found} == {("snap-start", None, None)}


def test_hooks_run_once_and_in_their_order(client: Any) -> None:
    snapshotted(client, "hooks")
    for each in (*at_once(client, "hooks", 2), call(client, "hooks")[0]):
        assert each["seen"] == [
            ["registered last", each["made_by"]],
            ["registered first", each["made_by"]],
            ["restored", each["pid"]],
            ["and then", each["pid"]],
        ]


def test_the_log_says_how_an_environment_was_restored(client: Any, host: HostProcess) -> None:
    snapshotted(client, "logged")
    _, log, _ = call(client, "logged")
    expected = (
        r"RESTORE_START Runtime Version: python:3\.12\n"
        r"restored\n"
        r"RESTORE_REPORT Restore Duration: ([0-9.]+) ms\n"
        r"START RequestId: \S+ Version: 1\n"
        r"END RequestId: \S+\n"
        r"REPORT RequestId: \S+\tDuration: ([0-9.]+) ms\tBilled Duration: ([0-9]+) ms\tMemory Size: 256 MB\t"
        r"Max Memory Used: [0-9]+ MB\tRestore Duration: ([0-9.]+) ms\tBilled Restore Duration: ([0-9]+) ms\t\n"
    )
    matched = re.fullmatch(expected, log)
    assert matched, log
    restored, duration, billed, reported, of_restore = map(float, matched.groups())
    assert restored == reported > of_restore >= 0
    assert duration <= billed <= duration + of_restore + 2
    _, again, _ = call(client, "logged")
    assert "estore" not in again.partition("REPORT")[2]
    written(host, "logged", "INIT_REPORT")
    lines = [json.loads(line) for line in host.stdout_lines() if '"function":"logged"' in line]
    said = [line["message"] for line in lines if not line["requestId"]]
    assert said[:2] == ["INIT_START Runtime Version: python:3.12", "loading"]
    assert re.fullmatch(r"INIT_REPORT Init Duration: [0-9.]+ ms", said[2])


def test_a_log_in_json_has_the_records_of_a_restore(client: Any) -> None:
    levels = {"LogFormat": "JSON", "SystemLogLevel": "DEBUG"}
    snapshotted(client, "records", LoggingConfig=levels)
    _, log, _ = call(client, "records")
    records = [json.loads(line) for line in log.splitlines() if line.startswith('{"time"')]
    assert [record["type"] for record in records[:4]] == [
        "platform.restoreStart",
        "platform.restoreRuntimeDone",
        "platform.restoreReport",
        "platform.start",
    ]
    assert records[0]["record"] == {"functionName": "records", "functionVersion": "1"}
    assert records[1]["record"] == {"status": "success"}
    report = records[2]["record"]
    assert (report["status"], list(report["metrics"])) == ("success", ["durationMs"])
    metrics = records[-1]["record"]["metrics"]
    assert records[-1]["type"] == "platform.report"
    assert metrics["restoreDurationMs"] == report["metrics"]["durationMs"] >= metrics["billedRestoreDurationMs"] - 1
    assert "initDurationMs" not in metrics


FAILING = {
    "raise LookupError('nothing here')": ("FunctionError.RuntimeInitError", "LookupError: nothing here"),
    "import os; os._exit(3)": ("FunctionError.RuntimeInitError", "Runtime exited with error: exit status 3"),
    "from snapshot_restore_py import *\n@register_before_snapshot\ndef before():\n    raise ValueError('not now')": (
        "FunctionError.RuntimeInitError",
        "ValueError: not now",
    ),
}


@pytest.mark.parametrize("code", FAILING)
def test_a_version_whose_code_cannot_be_loaded_is_failed(client: Any, code: str) -> None:
    name = f"failing-{list(FAILING).index(code)}"
    found = published(client, name, code + "\ndef handler(event, context): pass")
    assert (found["State"], found["StateReasonCode"], found["StateReason"]) == ("Failed", *FAILING[code])
    assert found["SnapStart"]["OptimizationStatus"] == "Off"
    assert refused(client.invoke, FunctionName=name, Qualifier="1")[0] == "ResourceConflictException"


def test_a_hook_that_fails_after_the_restore_refuses_the_call(client: Any, host: HostProcess) -> None:
    code = """
from snapshot_restore_py import register_after_restore
@register_after_restore
def after():
    raise ConnectionError("no database")
def handler(event, context): pass
"""
    snapshotted(client, "unrestored", code)
    code, message = refused(client.invoke, FunctionName="unrestored", Qualifier="1")
    assert (code, message) == ("SnapStartException", "ConnectionError: no database")
    report = r"RESTORE_REPORT Restore Duration: [0-9.]+ ms\\tStatus: error\\tError Type: Runtime.AfterRestoreError"
    written(host, "unrestored", report)


HINDRANCES = {
    "threads": "import threading\nthreading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()",
    "a child": "import subprocess\nKEPT = subprocess.Popen(['sleep', '60'])",
    "event loop": "import asyncio\nLOOP = asyncio.new_event_loop()",
    "a pipe": "import os\nENDS = os.pipe()",
    "a socket that listens": "import socket\nSERVER = socket.create_server(('127.0.0.1', 0))",
    "memory": "import mmap\nSHARED = mmap.mmap(-1, 4096)",
    "a timer": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 600)",
}


@pytest.mark.parametrize("what", HINDRANCES)
def test_code_that_cannot_be_copied_is_loaded_by_each_environment_with_its_hooks(
    client: Any, host: HostProcess, what: str
) -> None:
    name = f"loads-{what.replace(' ', '-')}"
    found = published(client, name, HINDRANCES[what] + CODE)
    assert (found["State"], found["SnapStart"]["OptimizationStatus"]) == ("Active", "Off")
    made, log, _ = call(client, name)
    assert made["made_by"] == made["pid"]
    assert made["how"] == "snap-start"
    assert [each for each, _ in made["seen"]] == ["registered last", "registered first", "restored", "and then"]
    assert "Init Duration" in log
    assert "RESTORE" not in log
    written(host, name, f"No snapshot is made of this version: it has .*{what}")


def test_connections_are_closed_and_datagrams_still_go_out(client: Any) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(DEADLINE)
        code = f"""
import socket
TCP = socket.create_connection(("127.0.0.1", {server.getsockname()[1]}))
UDP = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
UDP.connect(("127.0.0.1", {heard.getsockname()[1]}))
def handler(event, context):
    UDP.send(b"called")
    return [TCP.recv(1).decode(), UDP.fileno() != TCP.fileno()]
"""
        snapshotted(client, "connected", code)
        assert call(client, "connected")[0] == ["", True]
        assert heard.recv(100) == b"called"


def test_a_snapshot_ends_with_its_version_and_with_its_function(client: Any) -> None:
    snapshotted(client, "deleted")
    first = call(client, "deleted")[0]
    client.update_function_code(FunctionName="deleted", ZipFile=zipped({"app.py": CODE + "# other"}))
    wait_until_ready(client, "deleted")
    client.publish_version(FunctionName="deleted")
    settled(client, "deleted", "2")
    answer = client.invoke(FunctionName="deleted", Qualifier="2", Payload="{}")
    second = json.loads(answer["Payload"].read())
    client.delete_function(FunctionName="deleted", Qualifier="1")
    gone(first["made_by"])
    gone(first["pid"])
    os.kill(second["made_by"], 0)
    client.delete_function(FunctionName="deleted")
    gone(second["made_by"])
    gone(second["pid"])


def test_a_snapshot_that_was_lost_is_made_again(client: Any) -> None:
    snapshotted(client, "lost")
    before = call(client, "lost")[0]
    os.kill(before["made_by"], 9)
    gone(before["made_by"])
    after = at_once(client, "lost", 2)
    assert before["token"] in {each["token"] for each in after}  # its environments go on
    assert len({each["token"] for each in after}) == 2


def test_restored_environments_are_held_as_others_are(client: Any) -> None:
    code = """
import os, time
BALLAST = b"x" * 20_000_000
def handler(event, context):
    with open("/tmp/mine", "a") as file:
        file.write("x")
    if event.get("eat"):
        eaten = b"x" * 200_000_000
        time.sleep(2)
    time.sleep(event.get("sleep", 0))
    return [os.getpid(), os.path.getsize("/tmp/mine")]
"""
    snapshotted(client, "held", code, Timeout=3, MemorySize=128)
    with ThreadPoolExecutor(2) as threads:
        found = [each for each, _, _ in threads.map(lambda _: call(client, "held", {"sleep": 0.5}), range(2))]
    assert [size for _, size in found] == [1, 1]
    eaten, _, error = call(client, "held", {"eat": True})
    assert error == "Unhandled"
    assert "signal: killed" in eaten["errorMessage"]
    late, log, error = call(client, "held", {"sleep": 60})
    assert (late["errorType"], error) == ("Sandbox.Timedout", "Unhandled")
    assert "Task timed out after 3.00 seconds" in log
    pid, size = call(client, "held")[0]
    os.kill(pid, 0)
    assert size in (1, 2)


def test_what_does_not_go_with_snapstart_is_refused_by_name(client: Any) -> None:
    found = published(client, "inprocess", Tags={"serverfull:execution": "inprocess"})
    assert (found["State"], found["StateReasonCode"]) == ("Failed", "InvalidConfiguration")
    assert "processes of their own" in found["StateReason"]
    snapshotted(client, "provisioned")
    client.create_alias(FunctionName="provisioned", Name="live", FunctionVersion="1")
    for qualifier in ("1", "live"):
        code, message = refused(
            client.put_provisioned_concurrency_config,
            FunctionName="provisioned",
            Qualifier=qualifier,
            ProvisionedConcurrentExecutions=1,
        )
        assert code == "InvalidParameterValueException"
        assert "SnapStart" in message


@pytest.mark.skipif(sys.version_info < (3, 12), reason="AWS has SnapStart for Python 3.12 and later")
def test_the_official_runtime_client_runs_the_hooks_without_a_snapshot(client: Any, host: HostProcess) -> None:
    found = published(client, "official", Tags={"serverfull:client": "awslambdaric"}, Runtime=PYTHON)
    assert (found["State"], found["SnapStart"]["OptimizationStatus"]) == ("Active", "Off")
    written(host, "official", "No snapshot is made of this version: in the way is the official runtime client")
    made, _, _ = call(client, "official")
    assert made["made_by"] == made["pid"]
    assert [each for each, _ in made["seen"]] == ["registered last", "registered first", "restored", "and then"]


CHANGING = """
import os, threading
if os.path.exists({there!r}):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
def handler(event, context): pass
"""


def test_nothing_is_left_of_a_host_that_was_killed_and_the_next_one_tells_what_it_finds(
    tmp_path: Path, folder_that_functions_see: Path
) -> None:
    there = folder_that_functions_see / "there"
    with HostProcess.start(None, "--state", str(tmp_path / "state"), cwd=tmp_path) as host:
        client = lambda_client(host.url, region="eu-west-1")
        snapshotted(client, "f")
        snapshotted(client, "changing", CHANGING.format(there=str(there)))
        made = call(client, "f")[0]
        host.kill()
    there.touch()
    gone(made["made_by"])
    gone(made["pid"])
    with HostProcess.start(None, "--state", str(tmp_path / "state"), cwd=tmp_path) as host:  # and it is made again
        client = lambda_client(host.url, region="eu-west-1")
        again = call(client, "f")[0]
        assert again["token"] != made["token"]
        assert again["made_by"] != again["pid"]
        call(client, "changing")
        deadline = time.monotonic() + DEADLINE
        while client.get_function(FunctionName="changing", Qualifier="1")["Configuration"]["SnapStart"] != {
            "ApplyOn": "PublishedVersions",
            "OptimizationStatus": "Off",
        }:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert host.stop() == 0
    gone(again["made_by"])

"""Extensions of versions with SnapStart: beside the code while it is loaded, and anew beside each copy of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from serverfull.testing.deployments import wait_until_settled
from tests.extensions.agents import SUBSCRIBING, WATCHING, agent, records

CODE = """
import os
print("loading")
MADE_BY = os.getpid()
with open("/tmp/model", "w") as file:
    file.write("kept")
def handler(event, context):
    print("handling", event)
    return [MADE_BY, os.getpid()]
"""

SNAP_START = {"Runtime": "python3.12", "SnapStart": {"ApplyOn": "PublishedVersions"}, "Publish": True}


def published(deployed: Any, extensions: dict[str, str], **more: Any) -> dict[str, Any]:
    """Deploy a function with extensions, and give its version 1 when that is settled."""
    deployed.deploy(CODE, extensions, **SNAP_START, **more)
    found: dict[str, Any] = wait_until_settled(deployed.client, deployed.name, "1")
    return found


def called(deployed: Any, event: Any = None) -> Any:
    answer = deployed.client.invoke(FunctionName=deployed.name, Qualifier="1", Payload=json.dumps(event))
    assert "FunctionError" not in answer, answer["Payload"].read()
    return json.loads(answer["Payload"].read())


def test_an_agent_sees_the_code_loaded_once_and_restored_for_each_environment(deployed: Any) -> None:
    seeing = 'tell("files", os.listdir("/tmp"))' + SUBSCRIBING
    version = published(deployed, {"agent": agent(deployed, seeing)})
    assert (version["State"], version["SnapStart"]["OptimizationStatus"]) == ("Active", "On"), version
    ((batches),) = deployed.collector.wait_for("agent", "telemetry")
    loading = [event for batch in batches for event in batch["events"]]
    assert [event["type"] for event in loading if event["type"].startswith("platform.")] == [
        f"platform.{kind}"
        for kind in ("initStart", "telemetrySubscription", "extension", "initRuntimeDone", "initReport")
    ]
    (start,) = records(loading, "platform.initStart")
    assert (start["initializationType"], start["phase"]) == ("snap-start", "init")
    assert records(loading, "function") == ["loading"]

    made_by, pid = called(deployed, "once")
    assert made_by != pid
    deployed.delete()
    _, batches = deployed.collector.wait_for("agent", "telemetry", 2)
    events = [event for batch in batches for event in batch["events"]]
    assert [event["type"] for event in events if event["type"].startswith("platform.")] == [
        f"platform.{kind}"
        for kind in (
            "restoreStart",
            "telemetrySubscription",
            "extension",
            "restoreRuntimeDone",
            "restoreReport",
            "start",
            "runtimeDone",
            "report",
        )
    ]
    (begun,) = records(events, "platform.restoreStart")
    assert (begun["functionName"], begun["functionVersion"], begun["instanceMaxMemory"]) == (deployed.name, "1", 128)
    assert begun["instanceId"] != start["instanceId"]
    assert records(events, "platform.restoreRuntimeDone") == [{"status": "success"}]
    (restored,) = records(events, "platform.restoreReport")
    assert (restored["status"], list(restored["metrics"])) == ("success", ["durationMs"])
    (report,) = records(events, "platform.report")
    assert report["metrics"]["restoreDurationMs"] == restored["metrics"]["durationMs"]
    assert "initDurationMs" not in report["metrics"]
    assert records(events, "function") == ["handling once"]
    before, after = deployed.collector.of("agent", "files")
    assert "model" not in before
    assert "model" in after


INTERNAL = """
import http.client, json, os, threading
from snapshot_restore_py import register_after_restore
SEEN = []
@register_after_restore
def begin():
    line = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    def ask(method, path, body=None, **headers):
        line.request(method, "/2020-01-01/extension/" + path, body, headers)
        answer = line.getresponse()
        return json.loads(answer.read()), answer.headers["Lambda-Extension-Identifier"]
    _, me = ask("POST", "register", '{"events": ["INVOKE"]}', **{"Lambda-Extension-Name": "inner"})
    def follow():
        while True:
            SEEN.append(ask("GET", "event/next", **{"Lambda-Extension-Identifier": me})[0]["eventType"])
            told.set()
    threading.Thread(target=follow, daemon=True).start()
told = threading.Event()
def handler(event, context):
    return [os.environ["WRAPPED"], told.wait(5), SEEN]
"""


def test_wrapped_code_and_an_internal_extension_that_begins_in_a_hook_go_with_an_external_one(deployed: Any) -> None:
    wrapper = '#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n'
    variables = {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}
    layers = {"watcher": deployed.python(WATCHING), "/wrap": wrapper}
    deployed.deploy(INTERNAL, layers, variables=variables, **SNAP_START)
    version = wait_until_settled(deployed.client, deployed.name, "1")
    assert version["SnapStart"]["OptimizationStatus"] == "On", version
    assert called(deployed) == ["yes", True, ["INVOKE"]]


REFUSED = {
    "sys.exit(3)": ("FunctionError.ExtensionInitError", "Extension.Crash: exit status 3"),
    'Extension("INVOKE").report("init", "Agent.NoKey"); sys.exit(1)': (
        "FunctionError.ExtensionInitError",
        "Extension.InitError: exit status 1",
    ),
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_version_whose_extensions_fail_is_failed(deployed: Any, code: str) -> None:
    version = published(deployed, {"agent": deployed.python(code)})
    assert (version["State"], version["StateReasonCode"], version["StateReason"]) == ("Failed", *REFUSED[code])


def test_extensions_are_told_that_the_code_cannot_be_loaded(deployed: Any) -> None:
    deployed.deploy("raise LookupError('nothing here')", {"watcher": deployed.python(WATCHING)}, **SNAP_START)
    version = wait_until_settled(deployed.client, deployed.name, "1")
    assert (version["State"], version["StateReason"]) == ("Failed", "LookupError: nothing here")
    (told,) = deployed.collector.wait_for("watcher")
    assert (told["eventType"], told["shutdownReason"]) == ("SHUTDOWN", "failure")


def test_an_extension_that_fails_at_a_restore_refuses_the_call(deployed: Any) -> None:
    code = """
    if os.path.exists("/tmp/model"):
        sys.exit(4)
    extension = Extension("SHUTDOWN")
    extension.next()
    """
    assert published(deployed, {"agent": deployed.python(code)})["State"] == "Active"
    with pytest.raises(ClientError, match=r"Extension\.Crash: exit status 4") as refusal:
        called(deployed)
    assert refusal.value.response["Error"]["Code"] == "SnapStartException"

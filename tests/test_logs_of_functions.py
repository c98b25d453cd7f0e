"""The logs of functions in processes on a real host: the records of AWS, and the levels that leave them out."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.domain.runtimes import RUNTIMES
from serverfull.runtimes.process.interpreters import Interpreter, Interpreters
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import deploy, wait_until_ready
from serverfull.testing.process import HostProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CODE = """
import logging
print("loading")
def handler(event, context):
    logging.getLogger().debug("details")
    logging.getLogger().info("steps")
    logging.getLogger().warning("doubts")
    return event["there"]
"""
NODE_CODE = """
console.info("loading");
exports.handler = async (event) => {
    console.debug("details"); console.log("steps"); console.warn("doubts");
    return event.there.is;
};
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    with HostProcess.start(None, "--state", "memory", cwd=tmp_path) as host:
        yield lambda_client(host.url)


def log_of(client: Any, event: Any) -> list[str]:
    answer = client.invoke(FunctionName="f", LogType="Tail", Payload=json.dumps(event))
    return base64.b64decode(answer["LogResult"]).decode().splitlines()


def seen(lines: list[str]) -> list[str]:
    """Give the type of each record of the host, and the message of each of the function."""
    found = []
    for line in lines:
        record = json.loads(line) if line.startswith("{") else {"message": line}
        found.append(str(record.get("type") or record.get("message") or record.get("errorMessage")))
    return found


def levels(application: str, system: str) -> dict[str, str]:
    return {"LogFormat": "JSON", "ApplicationLogLevel": application, "SystemLogLevel": system}


def test_a_json_log_has_every_record_at_debug_and_only_what_went_wrong_at_warn(client: Any) -> None:
    deploy(client, "f", {"app.py": CODE}, LoggingConfig=levels("DEBUG", "DEBUG"), Timeout=20)
    loaded = ["platform.initStart", "loading", "platform.initRuntimeDone", "platform.initReport"]
    ran = ["platform.start", "details", "steps", "doubts", "platform.runtimeDone", "platform.report"]
    assert seen(log_of(client, {"there": 1})) == [*loaded, *ran]
    client.update_function_configuration(FunctionName="f", LoggingConfig=levels("WARN", "WARN"))
    wait_until_ready(client, "f")
    assert seen(log_of(client, {"there": 1})) == ["doubts"]
    assert seen(log_of(client, {})) == ["doubts", "'there'", "platform.runtimeDone", "platform.report"]


def test_code_that_cannot_be_loaded_is_reported_as_on_aws(client: Any) -> None:
    deploy(client, "f", {"app.py": "import os\nos._exit(7)\n"}, Timeout=20)
    lines = log_of(client, {})
    assert lines[0].startswith("INIT_REPORT Init Duration: ")
    assert lines[0].endswith(" ms\tPhase: init\tStatus: error\tError Type: Runtime.ExitError")
    assert [line.split()[0] for line in lines[1:]] == ["START", "END", "REPORT"]


def test_the_report_of_a_call_that_began_an_environment_and_timed_out_tells_both_times_apart(client: Any) -> None:
    deploy(
        client,
        "f",
        {"app.py": "import time\ntime.sleep(2)\ndef handler(event, context):\n    time.sleep(60)"},
        Timeout=1,
    )
    report = log_of(client, {})[-1]
    duration, init = (
        float(re.findall(rf"\t{name}: ([0-9.]+) ms\t", report)[0]) for name in ("Duration", "Init Duration")
    )
    assert init >= 2000
    assert 1000 <= duration < 2000 <= init
    assert report.endswith("\tStatus: timeout\t")


@pytest.mark.real_client
def test_the_console_of_node_js_has_the_same_levels(client: Any, require: Callable[[str, object, str], None]) -> None:
    looking = Interpreters()
    here = [name for name in RUNTIMES if name.startswith("nodejs") and isinstance(looking.find(name), Interpreter)]
    require("Node.js", here, "apt-get install nodejs")
    deploy(client, "f", {"app.js": NODE_CODE}, Runtime=here[-1], LoggingConfig=levels("INFO", "INFO"), Timeout=20)
    ran = ["platform.start", "steps", "doubts", "platform.report"]
    assert seen(log_of(client, {"there": {}})) == ["loading", *ran]
    assert seen(log_of(client, {"there": {}})) == ran

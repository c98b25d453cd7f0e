"""The JavaScript SDK (version 3), driven through a small Node.js script."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

JS = Path(__file__).parent / "js"

pytestmark = pytest.mark.real_client


@pytest.fixture
def send(host, require):
    require("Node.js", shutil.which("node"), "install nodejs")
    require("the JavaScript SDK", (JS / "node_modules/@aws-sdk/client-lambda").is_dir(), "make clients")

    def call(command: str, **parameters: Any) -> dict[str, Any]:
        done = subprocess.run(
            ["node", "--no-warnings", JS / "call.mjs", host.url, command, json.dumps(parameters)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


def test_a_function_gives_its_result(send) -> None:
    answer = send("InvokeCommand", FunctionName="echo", Payload='{"name": "é"}')
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert json.loads(answer["Payload"]) == {"name": "é"}


def test_a_function_is_found_by_its_arn(send) -> None:
    arn = "arn:aws:lambda:us-east-1:000000000000:function:about"
    answer = send("InvokeCommand", FunctionName=arn, Qualifier="$LATEST")
    assert json.loads(answer["Payload"])["invoked_function_arn"].startswith(arn)


def test_the_tail_of_the_log_comes_with_the_answer(send) -> None:
    answer = send("InvokeCommand", FunctionName="talk", LogType="Tail", Payload="{}")
    assert "line 0 of the log" in base64.b64decode(answer["LogResult"]).decode().splitlines()


def test_an_exception_of_the_handler_is_a_function_error(send) -> None:
    answer = send("InvokeCommand", FunctionName="fail")
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(answer["Payload"])["errorType"] == "NoSuchOrder"


def test_an_event_is_accepted(send) -> None:
    assert send("InvokeCommand", FunctionName="echo", InvocationType="Event", Payload="1")["StatusCode"] == 202


def test_functions_are_listed(send) -> None:
    names = {each["FunctionName"] for each in send("ListFunctionsCommand")["Functions"]}
    assert {"hello", "echo", "about"} <= names


def test_a_function_can_be_read(send) -> None:
    answer = send("GetFunctionCommand", FunctionName="about")
    assert answer["Configuration"]["MemorySize"] == 256


def test_an_unknown_function_is_a_typed_exception(send) -> None:
    caught = send("InvokeCommand", FunctionName="no-such-function")
    assert (caught["caught"], caught["typed"], caught["status"]) == ("ResourceNotFoundException", True, 404)
    assert caught["message"].startswith("Function not found: arn:aws:lambda:")

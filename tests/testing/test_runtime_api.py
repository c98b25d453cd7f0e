"""The Runtime API for tests, driven by a runtime of twenty lines that uses no client library."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.runtime_api import NativeLambda

RUNTIME = """
import http.client, json, os, sys, time
connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

def call(method, path, body=None):
    connection.request(method, "/2018-06-01/runtime/" + path, body)
    answer = connection.getresponse()
    return answer.status, dict(answer.headers), answer.read()

if sys.argv[1:] == ["fail"]:
    print(call("POST", "init/error", b'{"errorType": "Broken"}')[0])
    raise SystemExit(1)
if sys.argv[1:] == ["exit"]:
    raise SystemExit(4)
while True:
    _, headers, body = call("GET", "invocation/next")
    event, id = json.loads(body), headers["Lambda-Runtime-Aws-Request-Id"]
    if event == "slow":
        time.sleep(60)
    if event == "twice":
        print("first", call("POST", f"invocation/{id}/response", b"1")[0], flush=True)
    if event == "large":
        print("large", call("POST", f"invocation/{id}/response", b"1" * 6_291_557)[0], flush=True)
        continue
    if event == "cause":
        connection.request("POST", f"/2018-06-01/runtime/invocation/{id}/error", b'{"errorType": "Caused"}',
                           {"Lambda-Runtime-Function-XRay-Error-Cause": "x" * 1_000_000})
        print("cause", connection.getresponse().read(), flush=True)
        continue
    if event == "error":
        call("POST", f"invocation/{id}/error", b'{"errorType": "Mine"}')
        continue
    print(call("POST", f"invocation/{id}/response", json.dumps([event, headers]).encode())[0], flush=True)
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    path = tmp_path / "runtime.py"
    path.write_text(RUNTIME)
    return [sys.executable, str(path)]


@pytest.fixture
def native(command: list[str]) -> Iterator[NativeLambda]:
    with NativeLambda(command, function_name="shop", timeout=5) as native:
        yield native


def test_an_invocation_has_the_headers_of_aws_and_exactly_its_content_type(native: NativeLambda) -> None:
    answer = native.invoke({"n": 1}, Lambda_Runtime_Trace_Id="Root=1")
    event, headers = answer.json()
    assert event == {"n": 1}
    assert headers["Content-Type"] == "application/json"
    assert headers["Lambda-Runtime-Aws-Request-Id"] == answer.request_id
    assert headers["Lambda-Runtime-Trace-Id"] == "Root=1"
    assert headers["Lambda-Runtime-Invoked-Function-Arn"].endswith(":function:shop")
    assert int(headers["Lambda-Runtime-Deadline-Ms"]) > 1_700_000_000_000


def test_the_process_stays_warm_and_a_second_answer_to_one_invocation_is_refused(native: NativeLambda) -> None:
    assert [native.invoke(1).cold, native.invoke(2).cold] == [True, False]
    assert native.invoke("twice").json() == 1
    assert native.invoke(3).json()[0] == 3
    assert native.output() == ["202", "202", "first 202", "400", "202"][: len(native.output())]


def test_an_error_of_the_runtime_is_a_function_error(native: NativeLambda) -> None:
    answer = native.invoke("error")
    assert (answer.json(), answer.function_error) == ({"errorType": "Mine"}, "Unhandled")


def test_a_result_that_is_too_large_is_refused_and_an_error_of_the_invocation(native: NativeLambda) -> None:
    error = native.invoke("large").json()
    assert error["errorType"] == "Function.ResponseSizeTooLarge"
    assert "exceeded maximum allowed payload size (6291556 bytes)" in error["errorMessage"]
    native.wait_for_output("large 413")


def test_the_cause_of_an_error_may_take_a_megabyte_of_header(native: NativeLambda) -> None:
    assert native.invoke("cause").json() == {"errorType": "Caused"}
    native.wait_for_output('cause b\'{"status":"OK"}\'')
    assert native.invoke("next").cold is False


def test_a_call_beyond_its_time_is_ended_with_its_process(native: NativeLambda) -> None:
    native.invoke(1)
    process = native._process
    assert process is not None
    assert native.invoke("slow", timeout=0.2).json()["errorType"] == "Sandbox.Timedout"
    assert process.poll() is not None
    assert native.invoke(1).cold
    assert len(native.init_seconds) == 2


@pytest.mark.parametrize(("mode", "error_type"), [("fail", "Broken"), ("exit", "Runtime.ExitError")])
def test_a_runtime_that_does_not_get_ready_is_an_error_of_the_invocation(
    command: list[str], mode: str, error_type: str
) -> None:
    with NativeLambda([*command, mode]) as native:
        answer = native.invoke()
    assert (answer.function_error, answer.json()["errorType"]) == ("Unhandled", error_type)


def test_closing_ends_the_process_and_the_endpoint(command: list[str]) -> None:
    with NativeLambda(command) as native:
        native.invoke(1)
        process: Any = native._process
    native.close()
    assert process.poll() is not None
    host, _, port = native.api.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    with pytest.raises(ConnectionRefusedError):
        connection.request("GET", "/")
    connection.close()

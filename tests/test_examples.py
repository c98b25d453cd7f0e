"""The examples, served by a real host and called as their texts say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.process import HostProcess

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def host():
    with HostProcess.start(f"{EXAMPLES}/app.py:functions") as host:
        yield host


@pytest.mark.parametrize(
    ("name", "event", "result"),
    [
        ("hello", {"name": "Ada"}, "Hello Ada!"),
        ("hello", {}, "Hello ƛ!"),
        ("echo", [1, {"two": None}], [1, {"two": None}]),
        ("order", {"item": "tea", "quantity": 3}, {"item": "tea", "total": "7.50"}),
        ("gather", {"waits": [0.01, 0.01]}, {"waited_for": 2}),
        ("mixed", {"block": 0.001}, "done"),
    ],
)
def test_an_example_function_gives_its_result(host: HostProcess, name: str, event: Any, result: Any) -> None:
    answer = host.invoke(name, json.dumps(event).encode())
    assert (answer.status, answer.json()) == (200, result)
    assert "x-amz-function-error" not in answer.headers


def test_an_event_that_does_not_fit_its_type_is_a_function_error_that_names_the_field(host: HostProcess) -> None:
    answer = host.invoke("order", b'{"item": "tea", "quantity": 0}')
    assert (answer.status, answer.headers["x-amz-function-error"]) == (200, "Unhandled")
    assert answer.json()["errorType"] == "ValidationError"
    assert "quantity" in answer.json()["errorMessage"]


def test_an_exception_of_the_handler_reaches_the_caller_under_its_name(host: HostProcess) -> None:
    answer = host.invoke("reserve", b'{"item": "coffee"}')
    assert (answer.status, answer.headers["x-amz-function-error"]) == (200, "Unhandled")
    assert (answer.json()["errorType"], answer.json()["errorMessage"]) == ("OutOfStock", "no coffee left")
    assert host.invoke("reserve", b'{"item": "tea"}').json()["reserved"] == "tea"


@pytest.mark.parametrize("file", ["hello.py", "typed.py", "async_handler.py", "errors.py"])
def test_each_example_can_be_served_alone(serve, file: str) -> None:
    host = serve(EXAMPLES / file)
    listed = host.request("GET", "/2015-03-31/functions/").json()["Functions"]
    assert listed


def test_the_boto3_client_runs_as_its_text_says(host: HostProcess) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "boto3_client.py", host.url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:5] == [
        "result: Hello Ada!",
        "log: greeting Ada",
        "function error: Unhandled OutOfStock",
        "accepted: 202",
        "typed exception: ResourceNotFoundException",
    ]
    assert lines[5] == "functions: echo, gather, hello, mixed, order, reserve"

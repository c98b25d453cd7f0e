"""``serverfull lambda`` and the handler of managed runtimes, as real processes behind a real Runtime API."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.process import plain_environment
from serverfull.testing.runtime_api import NativeLambda

ROOT = Path(__file__).parents[2]
SERVERFULL = [sys.executable, "-m", "serverfull"]
MANAGED = [sys.executable, "-m", "awslambdaric", "serverfull.lambda_mode.handler.handler"]
APP = """
import asyncio, os, threading, time
from dataclasses import dataclass

import serverfull

calls = []
print("loading")

@dataclass
class Order:
    item: str
    quantity: int = 1

def shop(order: Order, context) -> Order:
    calls.append(order)
    if order.item == "nothing":
        raise KeyError("colour")
    if order.item == "exit":
        os._exit(7)
    if order.item == "slow":
        time.sleep(60)
    serverfull.logger().info("sold")
    return Order(context.function_name, len(calls))

async def later():
    await asyncio.sleep(0)
    def work():
        serverfull.logger().info("in a thread")
    thread = threading.Thread(target=work)
    thread.start()
    await asyncio.to_thread(work)
    thread.join()
    return id(asyncio.get_running_loop())

functions = {"shop": shop, "later": later}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture(params=["serverfull lambda", "managed runtime"])
def shop(request: pytest.FixtureRequest, folder: Path) -> Iterator[NativeLambda]:
    env = {"PYTHONPATH": str(ROOT), "SERVERFULL_LAMBDA_TARGET": "app:functions", "SERVERFULL_LAMBDA_FUNCTION": "shop"}
    command = MANAGED if request.param == "managed runtime" else [*SERVERFULL, "lambda", "app.py", "--function", "shop"]
    with NativeLambda(command, cwd=folder, env=env, function_name="my-shop") as native:
        yield native


@pytest.fixture
def environ() -> dict[str, str]:
    return {**plain_environment(), "PYTHONPATH": str(ROOT)}


def test_two_warm_invocations_run_in_the_process_that_the_first_one_started(shop: NativeLambda) -> None:
    answers = [shop.invoke({"item": "tea"}) for _ in range(3)]
    assert [answer.json() for answer in answers] == [{"item": "my-shop", "quantity": n} for n in (1, 2, 3)]
    assert [answer.cold for answer in answers] == [True, False, False]
    assert {answer.content_type for answer in answers} == {"application/json"}
    assert len(shop.init_seconds) == 1
    assert f"\t{answers[2].request_id}\tsold" in shop.wait_for_output(answers[2].request_id)
    assert shop.output().count("loading") == 1


def test_an_exception_is_reported_with_the_users_frames_alone_and_the_process_goes_on(shop: NativeLambda) -> None:
    answer = shop.invoke({"item": "nothing"})
    assert answer.function_error == "Unhandled"
    error = answer.json()
    (frame,) = error.pop("stackTrace")
    assert error == {"errorMessage": "'colour'", "errorType": "KeyError", "requestId": answer.request_id}
    assert 'app.py", line 18, in shop' in frame
    assert shop.invoke({"item": "tea"}).cold is False


def test_an_event_that_does_not_fit_is_a_validation_error_without_a_stack_trace(shop: NativeLambda) -> None:
    error = shop.invoke({"quantity": 1}).json()
    assert (error["errorType"], error["stackTrace"]) == ("ValidationError", [])
    assert "item: Field required" in error["errorMessage"]


def test_a_call_beyond_the_timeout_ends_the_process_and_the_next_one_starts_cold(shop: NativeLambda) -> None:
    assert shop.invoke({"item": "tea"}).cold
    slow = shop.invoke({"item": "slow"}, timeout=0.3)
    assert slow.json()["errorType"] == "Sandbox.Timedout"
    assert "Task timed out after 0.30 seconds" in slow.json()["errorMessage"]
    after = shop.invoke({"item": "tea"})
    assert (after.cold, after.json()["quantity"]) == (True, 1)


def test_a_handler_that_ends_its_process_is_reported_as_the_service_does(shop: NativeLambda) -> None:
    answer = shop.invoke({"item": "exit"})
    assert answer.json()["errorType"] == "Runtime.ExitError"
    assert "exit status 7" in answer.json()["errorMessage"]


def test_threads_of_a_handler_belong_to_its_invocation_and_the_loop_stays(folder: Path) -> None:
    command = [*SERVERFULL, "lambda", "app.py", "--function", "later"]
    with NativeLambda(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}) as native:
        first, second = native.invoke(), native.invoke()
        assert first.json() == second.json()
        native.wait_for_output(native.invoke().request_id)  # a line comes after its answer, and in its turn
        for answer in (first, second):
            lines = [line for line in native.output() if answer.request_id in line]
            assert [line.rpartition("\t")[2] for line in lines] == ["in a thread"] * 2


def test_in_mock_mode_the_answer_is_made_of_the_type_and_the_handler_does_not_run(folder: Path) -> None:
    command = [*SERVERFULL, "lambda", "app.py", "--function", "shop", "--mock"]
    with NativeLambda(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}) as native:
        assert native.invoke({"item": "exit"}).json() == {"item": "", "quantity": 1}
        assert native.invoke({}).json()["errorType"] == "ValidationError"


@pytest.mark.parametrize(
    ("code", "error_type", "message"),
    [
        ("import not_there", "ModuleNotFoundError|Runtime.ImportModuleError", "No module named 'not_there'"),
        ("1 / 0", "ZeroDivisionError", "division by zero"),
        ("functions = {'other': print}", "NotFoundError", "there is no function 'shop': there are other"),
    ],
)
@pytest.mark.parametrize("managed", [False, True])
def test_a_function_that_cannot_be_loaded_is_reported_to_aws_before_the_first_invocation(
    tmp_path: Path, code: str, error_type: str, message: str, managed: bool
) -> None:
    (tmp_path / "app.py").write_text(code)
    env = {"PYTHONPATH": str(ROOT), "SERVERFULL_LAMBDA_TARGET": "app:functions", "SERVERFULL_LAMBDA_FUNCTION": "shop"}
    command = MANAGED if managed else [*SERVERFULL, "lambda", "app.py", "--function", "shop"]
    with NativeLambda(command, cwd=tmp_path, env=env) as native:
        error = native.invoke().json()
    assert error["errorType"] in error_type.split("|")
    assert message in error["errorMessage"]


def refused(environ: dict[str, str], cwd: Path, *arguments: str, **variables: str) -> Any:
    command = [*SERVERFULL, "lambda", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, cwd=cwd, env={**environ, **variables}
    )


def test_outside_of_a_lambda_the_command_says_what_is_missing_and_how_to_try(
    folder: Path, environ: dict[str, str]
) -> None:
    done = refused(environ, folder, "app.py", "--function", "shop")
    assert done.returncode == 3
    assert "AWS_LAMBDA_RUNTIME_API is not set" in done.stderr
    assert "serverfull serve" in done.stderr
    assert "loading" not in done.stdout


def test_an_unknown_function_is_wrong_usage_and_the_choices_are_named(folder: Path, environ: dict[str, str]) -> None:
    for arguments in (("--function", "nope"), ()):
        done = refused(environ, folder, "app.py", *arguments, AWS_LAMBDA_RUNTIME_API="127.0.0.1:1")
        assert done.returncode == 2
        assert "there are later, shop" in done.stderr


def test_without_the_runtime_client_the_extra_is_named(folder: Path, environ: dict[str, str]) -> None:
    code = (
        "import sys; sys.modules['awslambdaric'] = None\n"
        "from serverfull.cli import main; raise SystemExit(main(['lambda', 'app.py', '--function', 'shop']))"
    )
    environ["AWS_LAMBDA_RUNTIME_API"] = "127.0.0.1:1"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=folder, env=environ)
    assert (done.returncode, done.stdout) == (3, "")
    assert "pip install 'serverfull[lambda]'" in done.stderr


def test_the_handler_module_says_what_to_set_where_nothing_names_a_function(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    with NativeLambda(MANAGED, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}) as native:
        error = json.loads(native.invoke().payload)
    assert "SERVERFULL_LAMBDA_TARGET" in error["errorMessage"]


def test_lambda_mode_imports_nothing_of_the_server_and_no_validation_for_plain_handlers(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "plain.py").write_text("def handler(event, context):\n    return event\n")
    environ["SERVERFULL_LAMBDA_TARGET"] = "plain:handler"
    code = "import serverfull.lambda_mode.handler, sys, json; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, cwd=tmp_path, env=environ)
    imported = set(json.loads(done.stdout))
    absent = {"aiohttp", "botocore", "click", "pydantic", "pydantic_settings", "structlog", "prometheus_client"}
    assert not imported & absent
    assert not {name for name in imported if name.startswith(("serverfull.api", "serverfull.host", "serverfull.cli"))}

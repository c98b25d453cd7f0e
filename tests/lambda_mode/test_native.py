"""One function, called as a runtime client calls it: what goes in, what comes out, and what it may use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import serverfull
from serverfull import Function, RandomAnswers, Settings, StaticFetcher
from serverfull.config import LambdaModeSettings
from serverfull.domain.functions import Handler
from serverfull.errors import NotFoundError, TargetInvalid
from serverfull.lambda_mode.native import NativeFunction
from serverfull.lambda_mode.starting import NativeHandler, native_handler, start_lambda, start_lambda_mock


@dataclass
class Context:
    aws_request_id: str = "11111111-2222-3333-4444-555555555555"


@dataclass
class Order:
    item: str
    quantity: int = 1


Load = Callable[..., NativeFunction]


@pytest.fixture
def load() -> Iterator[Load]:
    """Load a handler as a runtime client gets it."""
    with contextlib.ExitStack() as stack:

        def load(handler: Handler | Function, name: str = "function", **settings: Any) -> NativeFunction:
            native = native_handler(StaticFetcher({name: handler}), name, LambdaModeSettings(**settings))
            return stack.enter_context(contextlib.closing(native))

        yield load


@pytest.mark.parametrize(
    ("handler", "result"),
    [
        (lambda: "none", "none"),
        (lambda event: event["n"], 7),
        (lambda event, context: (event["n"], context.aws_request_id[0]), (7, "1")),
    ],
)
def test_a_handler_takes_nothing_the_event_or_the_event_and_the_context(
    load: Load, handler: Handler, result: Any
) -> None:
    assert load(handler)({"n": 7}, Context()) == result


def test_an_event_is_validated_into_its_type_and_a_result_is_given_as_plain_values(load: Load) -> None:
    def double(order: Order) -> Order:
        return Order(order.item, order.quantity * 2)

    assert load(double)({"item": "tea", "quantity": 4}, Context()) == {"item": "tea", "quantity": 8}


def test_an_event_that_does_not_fit_is_an_error_under_the_name_that_the_host_gives_it(load: Load) -> None:
    ran = []

    def take(order: Order) -> None:
        ran.append(order)

    with pytest.raises(Exception, match="quantity: Input should be a valid integer") as raised:
        load(take)({"item": "tea", "quantity": "many"}, Context())
    assert (type(raised.value).__name__, ran) in [("ValidationError", []), ("FaultException", [])]


def test_async_handlers_share_one_event_loop_for_the_life_of_the_environment(load: Load) -> None:
    loops = []

    async def handler(event: Any) -> str:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return "done"

    native = load(handler)
    assert [native({}, Context()) for _ in range(3)] == ["done"] * 3
    assert len(set(loops)) == 1
    assert not loops[0].is_closed()
    native.close()
    assert loops[0].is_closed()


@pytest.mark.parametrize("kind", ["def", "async def", "no parameter"])
def test_the_traceback_of_an_exception_begins_in_the_users_code(load: Load, kind: str) -> None:
    def fail(event: Any) -> None:
        raise KeyError("colour")

    async def later(event: Any) -> None:
        await asyncio.sleep(0)
        raise KeyError("colour")

    def nothing() -> None:
        raise KeyError("colour")

    native = load({"def": fail, "async def": later, "no parameter": nothing}[kind])
    with pytest.raises(KeyError, match="colour") as raised:
        native({}, Context())
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert [Path(frame.filename).name for frame in frames] == ["test_native.py"] * 2  # this test, and the handler


def test_the_logger_writes_lines_with_the_request_id_to_standard_output(
    load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    def handler() -> None:
        serverfull.logger().info("sold", item="tea")

    load(handler)({}, Context("id-1"))
    line = capsys.readouterr().out
    assert line.startswith("[INFO]\t")
    assert line.endswith("\tid-1\tsold item=tea\n")
    serverfull.logger().info("after it")
    outside = capsys.readouterr()
    assert (outside.out, "id-1" in outside.err, "after it" in outside.err) == ("", False, True)


def test_the_logger_writes_json_where_the_lambda_or_the_function_says_so(
    load: Load, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler() -> None:
        serverfull.logger().info("sold")

    load(Function(handler, log_format="JSON"), "shop")({}, Context())
    assert json.loads(capsys.readouterr().out)["function"] == "shop"
    monkeypatch.setenv("AWS_LAMBDA_LOG_FORMAT", "JSON")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "shop-production")
    load(handler, "shop")({}, Context())
    assert json.loads(capsys.readouterr().out)["function"] == "shop-production"


def test_metrics_are_written_at_the_end_of_each_invocation_even_of_a_failed_one(
    load: Load,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def handler(event: Any) -> None:
        serverfull.metrics().count("orders", shop="north")
        serverfull.metrics().count("orders", shop="north")
        if event["fail"]:
            raise RuntimeError

    native = load(handler, "shop", metrics_namespace="Shop")
    for fail in (False, True):
        with contextlib.suppress(RuntimeError):
            native({"fail": fail}, Context("id-2"))
        (line,) = capsys.readouterr().out.splitlines()
        document = json.loads(line)
        (metrics,) = document["_aws"]["CloudWatchMetrics"]
        assert metrics["Namespace"] == "Shop"
        assert (document["FunctionName"], document["requestId"], document["orders"]) == ("shop", "id-2", 2)


def test_the_functions_own_variables_are_in_the_environment_and_leave_the_reserved_ones_alone(
    load: Load,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLOUR", "blue")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "shop")
    function = Function(
        lambda: (os.environ["COLOUR"], os.environ["AWS_LAMBDA_FUNCTION_NAME"]),
        environment={"COLOUR": "red", "AWS_LAMBDA_FUNCTION_NAME": "other"},
    )
    assert load(function)({}, Context()) == ("red", "shop")


def test_a_function_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    fetcher = StaticFetcher({"hello": print, "other": print})
    with pytest.raises(NotFoundError, match="there is no function 'nope': there are hello, other"):
        start_lambda(fetcher, "nope", start=pytest.fail)


def test_a_handler_that_cannot_be_called_is_refused_before_the_first_invocation() -> None:
    def handler(a: Any, b: Any, c: Any) -> None:
        pass

    with pytest.raises(TargetInvalid, match=r"function 'three' cannot be run: .* needs 3 parameters"):
        start_lambda({"three": handler}, "three", start=pytest.fail)


def test_in_mock_mode_the_handler_does_not_run_and_events_are_validated() -> None:
    def handler(order: Order) -> Order:
        raise AssertionError("a mock call ran the handler")

    answers: list[Any] = []

    def client(native: NativeHandler) -> None:
        answers.append(native({"item": "tea"}, Context()))
        with pytest.raises(Exception, match="item: Field required"):
            native({}, Context())

    start_lambda_mock({"order": handler}, "order", start=client)
    start_lambda_mock({"order": handler}, "order", start=client, answers=RandomAnswers(1))
    assert answers[0] == {"item": "", "quantity": 1}
    assert answers[1] != answers[0]


def test_a_client_that_is_handed_in_gets_the_handler_and_its_end_is_the_end() -> None:
    results: list[Any] = []

    async def hello(event: Any) -> str:
        return f"Hello {event['name']}!"

    start_lambda(
        {"hello": hello}, "hello", Settings(), start=lambda native: results.append(native({"name": "Ada"}, Context()))
    )
    assert results == ["Hello Ada!"]

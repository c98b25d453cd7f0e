"""Mock mode over HTTP: real hosts on real sockets, most of it as boto3 sees it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from serverfull import Function, RandomAnswers, StaticFetcher, ZeroAnswers, create_app
from serverfull.application import HOST

Start = Callable[..., Any]
MOCK = {"enabled": True}
PREFIX = "X-Serverfull-Mock-"


@dataclass
class Order:
    item: str
    quantity: int = 1


@dataclass
class Receipt:
    number: int
    day: date


class OrderRejected(Exception):
    """The order cannot be taken."""


touched: list[str] = []


def order(event: Order) -> Receipt:
    touched.append("order")
    raise AssertionError("mock mode ran a handler")


async def later(event):
    touched.append("later")
    raise AssertionError("mock mode ran a handler")


FUNCTIONS = {"order": Function(order, errors=[OrderRejected, KeyError("colour")], timeout=2), "later": later}


@pytest.fixture(autouse=True)
def no_handler_runs() -> Any:
    touched.clear()
    yield
    assert not touched


@dataclass
class Consumer:
    """Calls a host with boto3, in a thread; one call at a time, because of the headers that are added to it."""

    client: Any
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, url: str) -> Consumer:
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
        made = cls(session.client("lambda", endpoint_url=url, config=Config(retries={"total_max_attempts": 1})))
        made.client.meta.events.register("before-sign.lambda", made._add_headers)
        return made

    def _add_headers(self, request: Any, **_: Any) -> None:
        for name, value in self.headers.items():
            request.headers[name] = value

    async def invoke(self, name: str, event: Any = None, headers: dict[str, str] | None = None, **options: Any) -> Any:
        if event is not None:
            options["Payload"] = json.dumps(event)
        self.headers = headers or {}
        return await self.call("invoke", FunctionName=name, **options)

    async def call(self, operation: str, **options: Any) -> Any:
        return await asyncio.to_thread(self._call, operation, options)

    def _call(self, operation: str, options: dict[str, Any]) -> Any:
        answer = getattr(self.client, operation)(**options)
        if "Payload" in answer:
            answer["Payload"] = answer["Payload"].read()
        return answer


@pytest.fixture
async def consumer(start_host: Start) -> AsyncIterator[Consumer]:
    made = Consumer.of((await start_host(FUNCTIONS, mock=MOCK)).url)
    yield made
    made.client.close()


async def test_a_call_is_answered_with_the_zero_value_of_the_result(consumer: Consumer) -> None:
    answer = await consumer.invoke("order", {"item": "tea"}, LogType="Tail")
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert json.loads(answer["Payload"]) == {"number": 0, "day": "1970-01-01"}
    assert "FunctionError" not in answer
    assert "LogResult" in answer
    assert json.loads((await consumer.invoke("later", {"any": "thing"}))["Payload"]) is None


async def test_an_event_of_the_wrong_shape_is_refused_as_the_real_function_would(
    start_host: Start, consumer: Consumer
) -> None:
    def real(event: Order) -> Receipt:
        return Receipt(1, date(2026, 1, 1))

    host = await start_host({"order": real})
    wrong = {"item": 3, "quantity": "many"}
    answers = [await each.invoke("order", wrong) for each in (consumer, Consumer.of(host.url))]
    documents = [json.loads(answer["Payload"]) for answer in answers]
    for document in documents:
        del document["requestId"]
    assert documents[0] == documents[1]
    assert documents[0]["errorType"] == "ValidationError"
    assert "quantity" in documents[0]["errorMessage"]
    assert [answer["FunctionError"] for answer in answers] == ["Unhandled", "Unhandled"]


async def test_an_unknown_function_and_a_payload_that_is_no_json_are_refused(start_host: Start) -> None:
    host = await start_host(FUNCTIONS, mock=MOCK)
    asked = [
        {},
        {"X-Amz-Invocation-Type": "Error", "X-Error-Type": "KeyError"},
        {PREFIX + "Throttle": "CallerRateLimitExceeded"},
    ]
    for headers in asked:
        refused = await host.request("POST", "/2015-03-31/functions/nope/invocations", headers=headers)
        assert (refused.status, refused.error_type) == (404, "ResourceNotFoundException")
        assert refused.json()["Message"] == "Function not found: arn:aws:lambda:us-east-1:000000000000:function:nope"
    refused = await host.invoke("later", b"{")
    assert (refused.status, refused.error_type) == (400, "InvalidRequestContentException")
    refused = await host.request(
        "POST",
        "/2015-03-31/functions/order/invocations",
        b"{",
        {"X-Amz-Invocation-Type": "Error", "X-Error-Type": "KeyError"},
    )
    assert (refused.status, refused.error_type) == (400, "InvalidRequestContentException")


@pytest.mark.parametrize(
    ("asked", "error_type", "message"),
    [
        ("OrderRejected", "OrderRejected", "The order cannot be taken."),
        ("orderREJECTED", "OrderRejected", "The order cannot be taken."),
        ("keyerror", "KeyError", "'colour'"),
    ],
)
async def test_every_declared_error_can_be_triggered_whatever_the_case(
    consumer: Consumer, asked: str, error_type: str, message: str
) -> None:
    answer = await consumer.invoke("order", headers={"X-Error-Type": asked}, InvocationType="Error", LogType="Tail")
    assert answer["StatusCode"] == 200
    assert answer["FunctionError"] == "Unhandled"
    document = json.loads(answer["Payload"])
    assert document == {
        "errorMessage": message,
        "errorType": error_type,
        "requestId": answer["ResponseMetadata"]["RequestId"],
        "stackTrace": [],
    }


async def test_a_triggered_error_is_logged_and_counted_as_a_real_one(start_host: Start) -> None:
    host = await start_host(FUNCTIONS, mock=MOCK)
    answer = await host.request(
        "POST",
        "/2015-03-31/functions/order/invocations",
        headers={"X-Amz-Invocation-Type": "Error", "X-Error-Type": "KeyError", "X-Amz-Log-Type": "Tail"},
    )
    tail = answer.tail()
    assert tail.startswith("START RequestId: ")
    assert "[ERROR] KeyError: 'colour'" in tail
    assert "REPORT RequestId: " in tail
    figures = host.host.metrics_text()[0].decode()
    assert 'serverfull_errors_total{function="order"} 1.0' in figures.splitlines()


async def test_an_undeclared_error_is_not_found_and_the_choices_are_named(consumer: Consumer) -> None:
    with pytest.raises(ClientError) as refused:
        await consumer.invoke("order", headers={"X-Error-Type": "Nope"}, InvocationType="Error")
    response = refused.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert response["Error"]["Code"] == "UnknownRequestMockError"
    assert response["Error"]["Message"] == (
        "ErrorType Nope not found in the documented list. Choices are [OrderRejected, KeyError]"
    )


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({}, "Error"),
        ({"X-Error-Type": ""}, "Error"),
        ({"X-Error-Type": "KeyError"}, "RequestResponse"),
        ({PREFIX + "Latency": "soon"}, "RequestResponse"),
        ({PREFIX + "Latency": "-1"}, "RequestResponse"),
        ({PREFIX + "Latency": "nan"}, "RequestResponse"),
        ({PREFIX + "Throttle": "TooBusy"}, "RequestResponse"),
        ({PREFIX + "Throttle": "TooBusy"}, "Event"),
    ],
)
async def test_what_means_nothing_is_refused_and_not_ignored(
    consumer: Consumer, headers: dict[str, str], kind: str
) -> None:
    with pytest.raises(ClientError) as refused:
        await consumer.invoke("order", {"item": "tea"}, headers=headers, InvocationType=kind)
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValueException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


async def test_outside_mock_mode_the_invocation_type_error_is_refused(start_host: Start) -> None:
    host = await start_host({"hello": lambda: "hello"})
    answer = await host.request(
        "POST",
        "/2015-03-31/functions/hello/invocations",
        headers={"X-Amz-Invocation-Type": "Error", "X-Error-Type": "KeyError"},
    )
    assert (answer.status, answer.error_type) == (400, "ValidationException")


@pytest.mark.parametrize("text", ["80ms", "0.08"])
async def test_latency_comes_before_the_answer_and_counts_as_the_functions_duration(
    consumer: Consumer, text: str
) -> None:
    answer = await consumer.invoke("order", {"item": "tea"}, {PREFIX + "Latency": text}, LogType="Tail")
    assert json.loads(answer["Payload"])["number"] == 0
    tail = base64.b64decode(answer["LogResult"]).decode()
    duration = re.search(r"\tDuration: ([\d.]+) ms", tail)
    assert duration
    assert float(duration[1]) >= 79


async def test_latency_over_the_timeout_is_a_timeout(start_host: Start) -> None:
    host = await start_host({"slow": Function(order, timeout=0.05)}, mock=MOCK)
    answer = await host.request(
        "POST", "/2015-03-31/functions/slow/invocations", b'{"item": "tea"}', {PREFIX + "Latency": "10m"}
    )
    assert answer.status == 200
    assert answer.function_error == "Unhandled"
    document = answer.json()
    assert document["errorType"] == "Sandbox.Timedout"
    assert document["errorMessage"].endswith("Task timed out after 0.05 seconds")
    assert 'serverfull_timeouts_total{function="slow"} 1.0' in host.host.metrics_text()[0].decode().splitlines()


async def test_latency_and_an_error_come_together(consumer: Consumer) -> None:
    headers = {"X-Error-Type": "KeyError", PREFIX + "Latency": "1ms"}
    answer = await consumer.invoke("order", headers=headers, InvocationType="Error")
    assert json.loads(answer["Payload"])["errorType"] == "KeyError"


async def test_a_throttled_call_is_counted_as_a_real_one(start_host: Start) -> None:
    host = await start_host(FUNCTIONS, mock=MOCK)
    headers = {PREFIX + "Throttle": "CallerRateLimitExceeded"}
    for _ in range(2):
        refused = await host.request("POST", "/2015-03-31/functions/order/invocations", b"{}", headers)
        assert refused.status == 429
    figures = host.host.metrics_text()[0].decode().splitlines()
    assert 'serverfull_throttles_total{function="order",reason="CallerRateLimitExceeded"} 2.0' in figures
    assert 'serverfull_invocations_total{function="order"} 0.0' in figures


@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun"])
async def test_a_throttled_call_is_what_boto3_calls_too_many_requests(consumer: Consumer, kind: str) -> None:
    headers = {PREFIX + "Throttle": "ReservedFunctionConcurrentInvocationLimitExceeded"}
    with pytest.raises(ClientError) as refused:
        await consumer.invoke("order", {"item": "tea"}, headers, InvocationType=kind)
    response = refused.value.response
    assert response["Error"]["Code"] == "TooManyRequestsException"
    assert response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert response["retryAfterSeconds"] == "1"


async def test_an_event_is_taken_and_answered_by_nobody(start_host: Start) -> None:
    host = await start_host(FUNCTIONS, mock=MOCK)
    answer = await host.request(
        "POST",
        "/2015-03-31/functions/order/invocations",
        b'{"item": "tea"}',
        {"X-Amz-Invocation-Type": "Event", PREFIX + "Latency": "1ms"},
    )
    assert answer.status == 202
    await host.until(lambda: "REPORT" in host.output.text_of(answer.request_id))
    assert "[ERROR]" not in host.output.text_of(answer.request_id)


async def test_limits_of_concurrency_hold_in_mock_mode(start_host: Start) -> None:
    host = await start_host({"one": Function(later, max_concurrency=1)}, mock=MOCK)
    path = "/2015-03-31/functions/one/invocations"
    first = asyncio.create_task(host.request("POST", path, b"{}", {PREFIX + "Latency": "2s"}))
    await host.until(lambda: host.host.admission.running)
    refused = await host.invoke("one", {})
    assert not first.done(), "the first call ended before the second came"
    assert (refused.status, refused.json()["Reason"]) == (429, "ReservedFunctionConcurrentInvocationLimitExceeded")
    assert (await first).status == 200


async def test_the_management_api_shows_the_functions_as_they_are(start_host: Start, consumer: Consumer) -> None:
    real = Consumer.of((await start_host(FUNCTIONS)).url)
    for operation, options in (
        ("list_functions", {}),
        ("get_function", {"FunctionName": "order"}),
        ("get_function_configuration", {"FunctionName": "order"}),
    ):
        shown = [await each.call(operation, **options) for each in (consumer, real)]
        for each in shown:
            del each["ResponseMetadata"]
        assert shown[0] == shown[1]
    assert shown[0]["Handler"].endswith("test_mock_mode.order")
    assert shown[0]["CodeSize"] > 1000


async def test_the_host_says_in_which_mode_it_is(start_host: Start) -> None:
    mocked, real = await start_host(FUNCTIONS, mock=MOCK), await start_host(FUNCTIONS)
    modes = [(await host.request("GET", "/_serverfull/info")).json()["mode"] for host in (mocked, real)]
    assert modes == ["mock", "serve"]


@pytest.mark.parametrize("mock", [{}, MOCK])
async def test_the_contracts_are_served_in_both_modes(start_host: Start, mock: dict[str, Any]) -> None:
    host = await start_host(FUNCTIONS, mock=mock)
    answer = await host.request("GET", "/_serverfull/contracts")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    documents = answer.json()
    assert list(documents) == ["later", "order"]
    shown = documents["order"]
    assert shown["event"]["required"] == ["item"]
    assert shown["result"]["properties"]["day"]["format"] == "date"
    assert shown["errors"][0] == {"errorType": "OrderRejected", "message": "The order cannot be taken."}
    one = await host.request("GET", "/_serverfull/contracts/order")
    assert one.json() == shown
    unknown = await host.request("GET", "/_serverfull/contracts/nope")
    assert (unknown.status, unknown.error_type) == (404, "ResourceNotFoundException")
    assert unknown.json()["Message"] == (
        "Function not found: arn:aws:lambda:us-east-1:000000000000:function:nope. "
        "Contracts are those of functions that the host has loaded, not of those that run elsewhere."
    )


async def test_a_contract_is_found_as_a_function_is_invoked(start_host: Start) -> None:
    host = await start_host(FUNCTIONS)
    arn = "arn:aws:lambda:us-east-1:000000000000:function:order"
    for path in ("order?Qualifier=$LATEST", "order:$LATEST", arn):
        found = await host.request("GET", f"/_serverfull/contracts/{path}")
        assert (found.status, found.json()["name"]) == (200, "order")
    for path in ("order?Qualifier=7", "order:7", arn.replace("us-east-1", "eu-west-1")):
        unknown = await host.request("GET", f"/_serverfull/contracts/{path}")
        assert (unknown.status, unknown.error_type) == (404, "ResourceNotFoundException")
    invalid = await host.request("GET", "/_serverfull/contracts/a%2Fb")
    assert (invalid.status, invalid.error_type) == (400, "ValidationException")


async def test_the_contracts_are_behind_the_gates(start_host: Start) -> None:
    host = await start_host(FUNCTIONS)
    for path in ("/_serverfull/contracts", "/_serverfull/contracts/order"):
        refused = await host.request("GET", path, headers={"Origin": "https://evil.example"})
        assert (refused.status, refused.error_type) == (403, "AccessDeniedException")


async def test_a_contract_is_written_once_and_gone_with_its_function(start_host: Start) -> None:
    host = await start_host({"order": order})
    first, second = [await host.request("GET", "/_serverfull/contracts/order") for _ in range(2)]
    assert first.body == second.body


async def test_answers_given_to_create_app_switch_mock_mode_on(start_host: Start) -> None:
    hosts = [create_app(StaticFetcher(FUNCTIONS), mock=answers)[HOST] for answers in (ZeroAnswers(), RandomAnswers(1))]
    assert [host.settings.mock.enabled for host in hosts] == [True, True]
    assert create_app(StaticFetcher(FUNCTIONS))[HOST].settings.mock.enabled is False

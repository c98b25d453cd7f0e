"""The Runtime API, asked in bytes over real sockets: states, statuses, headers and documents as AWS has them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket as sockets
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.domain.limits import RESPONSE_PAYLOAD_BYTES
from serverfull.runtimes.runtime_api import connection as connections
from serverfull.runtimes.runtime_api.api import MOST_CONNECTIONS, Answer, RuntimeApiClosed, Work

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE = 20.0
NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: localhost\r\n\r\n"
INIT_ERROR = "/2018-06-01/runtime/init/error"
RESTORE_ERROR = "/2018-06-01/runtime/restore/error"
RESTORE = NEXT.replace(b"invocation", b"restore")


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    """Make a request with a body."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers]
    if not any(line.lower().startswith("transfer-encoding:") for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def response(request_id: str, body: bytes = b"{}", *headers: str) -> bytes:
    """Make the request that gives the result of an invocation."""
    return post(f"/2018-06-01/runtime/invocation/{request_id}/response", body, *headers)


def error(request_id: str, body: bytes = b"{}", *headers: str) -> bytes:
    """Make the request that gives the error of an invocation."""
    return post(f"/2018-06-01/runtime/invocation/{request_id}/error", body, *headers)


class Gone(Exception):
    """The process has ended."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event of its own to wait for."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - there is no event, that is the point
            await asyncio.sleep(0.001)


def kind(heard: Any) -> tuple[int, str]:
    return heard.status, json.loads(heard.body)["errorType"]


# ------------------------------------------------------------------------------------------------------ an invocation


@pytest.mark.parametrize("options", [{}, {"socket": None}, {"socket": None, "host": "::1"}])
async def test_an_invocation_has_the_headers_of_aws_and_exactly_its_content_type(
    open_api: Callable[..., Any], options: dict[str, Any]
) -> None:
    served = await open_api(**options)
    line = await served.polled()
    task = served.run("id-1", b'{"n": 1}')
    got = await line.hear()
    assert (got.status, got.body) == (200, b'{"n": 1}')
    assert got.headers.pop("date").endswith(" GMT")
    assert got.headers == {
        "content-type": "application/json",
        "lambda-runtime-aws-request-id": "id-1",
        "lambda-runtime-deadline-ms": "1542409706888",
        "lambda-runtime-invoked-function-arn": "arn:aws:lambda:us-east-1:000000000000:function:f",
        "lambda-runtime-trace-id": "Root=1-5bef4de7",
        "content-length": "8",
    }
    accepted = await line.ask(response("id-1", b'"done"', "Content-Type: application/json"))
    assert (accepted.status, accepted.body) == (202, b'{"status":"OK"}\n')
    assert accepted.headers["content-type"] == "application/json"
    assert await task == Answer(b'"done"', False, "application/json", "")


async def test_context_identity_and_tenant_are_sent_where_they_are_given(served: Any) -> None:
    line = await served.polled()
    served.run(client_context='{"custom": {"a": "ä"}}', cognito_identity='{"i": 1}', tenant_id="blue")
    headers = (await line.hear()).headers
    assert headers["lambda-runtime-client-context"] == '{"custom": {"a": "ä"}}'
    assert headers["lambda-runtime-cognito-identity"] == '{"i": 1}'
    assert headers["lambda-runtime-aws-tenant-id"] == "blue"


async def test_line_ends_in_what_a_caller_says_make_no_headers(served: Any) -> None:
    line = await served.polled()
    served.run(trace_id="Root=1\r\nX-Evil: 1\r\n\r\n\x00", tenant_id="a\nb")
    headers = (await line.hear()).headers
    assert "x-evil" not in headers
    assert headers["lambda-runtime-trace-id"].startswith("Root=1  X-Evil: 1")
    assert headers["lambda-runtime-aws-tenant-id"] == "a b"


async def test_an_invocation_that_comes_before_the_poll_waits_for_it(served: Any) -> None:
    line, first = await served.running("id-1")
    await line.ask(response("id-1"))
    await first
    second = served.run("id-2")
    await until(lambda: served.api._work is not None)
    assert (await line.ask(NEXT)).headers["lambda-runtime-aws-request-id"] == "id-2"
    await line.ask(response("id-2", b"2"))
    assert (await second).payload == b"2"


async def test_a_result_and_the_next_poll_may_come_in_one_piece_and_both_answers_too(served: Any) -> None:
    line, task = await served.running("id-0")
    for number in range(1, 20):
        line.send(response(f"id-{number - 1}", b"%d" % number) + NEXT)
        assert (await task).payload == b"%d" % number
        task = served.run(f"id-{number}")
        assert (await line.hear()).status == 202
        assert (await line.hear()).headers["lambda-runtime-aws-request-id"] == f"id-{number}"


async def test_each_half_of_a_request_may_be_cut_anywhere(served: Any) -> None:
    line, task = await served.running("id-1")
    data = response("id-1", b"ab\r\n\r\ncd", "X-A: b")
    for index in range(len(data)):
        line.send(data[index : index + 1])
        await asyncio.sleep(0)
    assert (await line.hear()).status == 202
    assert (await task).payload == b"ab\r\n\r\ncd"


async def test_the_largest_event_and_the_largest_result_pass(served: Any) -> None:
    line = await served.polled()
    task = served.run(payload=b"e" * 6_291_456)
    assert (await line.hear()).body == b"e" * 6_291_456
    assert (await line.ask(response("id-1", b"r" * RESPONSE_PAYLOAD_BYTES))).status == 202
    assert (await task).payload == b"r" * RESPONSE_PAYLOAD_BYTES


async def test_one_invocation_at_a_time(served: Any) -> None:
    await served.running()
    with pytest.raises(RuntimeError, match="one invocation at a time"):
        await served.api.run(Work("id-2", b"", 0, "", ""))


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("sent", "reported"),
    [
        ("Function.Broken", "Function.Broken"),
        ("Runtime.ImportModuleError", "Runtime.ImportModuleError"),
        ("Function.lower", "Function.Unknown"),
        ("ValueError", "Runtime.Unknown"),
        ("Sandbox.Failure Runtime.Ab", "Runtime.Unknown"),
        (None, "Runtime.Unknown"),
    ],
)
async def test_an_error_is_given_as_it_was_posted_with_the_type_that_aws_reports(
    served: Any, sent: str | None, reported: str
) -> None:
    line, task = await served.running()
    headers = ["Content-Type: application/json"]
    if sent is not None:
        headers.append(f"Lambda-Runtime-Function-Error-Type: {sent}")
    accepted = await line.ask(error("id-1", b'{"errorType": "E"}', *headers))
    assert (accepted.status, accepted.body) == (202, b'{"status":"OK"}\n')
    assert await task == Answer(b'{"errorType": "E"}', True, "application/json", reported)


@pytest.mark.parametrize(
    ("body", "payload", "content_type"),
    [
        (
            b'{"errorType": "E", "errorMessage": "m", "stackTrace": [], "errorCause": {"x": 1}}',
            {"errorType": "E", "errorMessage": "m", "stackTrace": []},
            "application/json",
        ),
        (b"{", "Invalid error body", "application/octet-stream"),
        (b"5", "Invalid error body", "application/octet-stream"),
        (b"[" * 100_000, "Invalid error body", "application/octet-stream"),
    ],
)
async def test_the_cause_of_an_error_is_not_passed_on(
    served: Any, body: bytes, payload: Any, content_type: str
) -> None:
    line, task = await served.running()
    await line.ask(error("id-1", body, "Content-Type: application/vnd.aws.lambda.error.cause+json"))
    answer = await task
    assert (json.loads(answer.payload), answer.content_type, answer.error) == (payload, content_type, True)


async def test_a_megabyte_of_cause_for_x_ray_is_no_obstacle(served: Any) -> None:
    line, task = await served.running()
    cause = f"Lambda-Runtime-Function-XRay-Error-Cause: {'x' * 1_048_000}"
    assert (await line.ask(error("id-1", b"{}", cause))).status == 202
    assert (await task).error


@pytest.mark.parametrize("make", [response, error])
async def test_a_result_over_the_limit_is_an_error_of_the_function_before_it_is_sent(
    open_api: Callable[..., Any], make: Callable[..., bytes]
) -> None:
    served = await open_api(limit=1_000)
    line, task = await served.running()
    line.send(make("id-1", b"x" * 1_001)[:-1_001])  # not even one byte of it
    refused = await line.hear()
    assert kind(refused) == (413, "RequestEntityTooLarge")
    assert json.loads(refused.body)["errorMessage"] == "Exceeded maximum allowed payload size (1000 bytes)."
    assert refused.headers["connection"] == "close"
    answer = await task
    assert answer.error
    assert answer.error_type == "Function.ResponseSizeTooLarge"
    assert json.loads(answer.payload) == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size exceeded maximum allowed payload size (1000 bytes).",
    }
    following = await served.polled()  # on a new connection the runtime goes on
    served.run("id-2")
    assert (await following.hear()).headers["lambda-runtime-aws-request-id"] == "id-2"


async def test_a_client_that_writes_all_of_a_long_result_before_it_reads_finds_the_answer(
    open_api: Callable[..., Any],
) -> None:
    served = await open_api(limit=1_000)
    line, task = await served.running()
    line.send(response("id-1", b"x" * 20_000_000) + NEXT)
    await asyncio.wait_for(line.writer.drain(), DEADLINE)
    assert kind(await line.hear())[0] == 413
    assert (await task).error_type == "Function.ResponseSizeTooLarge"
    assert await line.ended() == b""


async def test_an_endless_result_is_cut_off_and_takes_no_memory(open_api: Callable[..., Any]) -> None:
    served = await open_api()
    line, task = await served.running()
    line.send(response("id-1", b"", "Transfer-Encoding: chunked"))
    before, sent, chunk = resident_bytes(), 0, b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with contextlib.suppress(ConnectionError):
        while sent < 1 << 30:
            line.send(chunk)
            await asyncio.wait_for(line.writer.drain(), DEADLINE)
            sent += len(chunk)
    assert (await task).error_type == "Function.ResponseSizeTooLarge"
    assert sent < 100 * 1024 * 1024
    assert resident_bytes() - before < 32 * 1024 * 1024


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


# ------------------------------------------------------------------------------------------------------------ streams


STREAM = ("Transfer-Encoding: chunked", "Lambda-Runtime-Function-Response-Mode: streaming")
TRAILER = "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body"


async def test_a_streamed_result_is_collected(served: Any) -> None:
    line, task = await served.running()
    line.send(response("id-1", b"3\r\nabc\r\n", *STREAM, TRAILER, "Content-Type: text/plain"))
    line.send(b"2;name=value\r\nde\r\n00A\r\n0123456789\r\n")
    assert (await line.ask(b"0\r\n\r\n")).status == 202
    assert await task == Answer(b"abcde0123456789", False, "text/plain")


async def test_a_stream_that_fails_on_the_way_is_an_error_with_the_document_of_its_trailer(served: Any) -> None:
    line, task = await served.running()
    document = base64.b64encode(b'{"errorType": "E"}').decode()
    line.send(response("id-1", b"3\r\nabc\r\n0\r\n", *STREAM, TRAILER))
    trailers = f"Lambda-Runtime-Function-Error-Type: Runtime.Late\r\nLambda-Runtime-Function-Error-Body: {document}"
    assert (await line.ask(trailers.encode() + b"\r\n\r\n")).status == 202
    assert await task == Answer(b'{"errorType": "E"}', True, "application/json", "Runtime.Late")


async def test_a_stream_that_fails_without_a_document_gets_one(served: Any) -> None:
    line, task = await served.running()
    body = b"0\r\nLambda-Runtime-Function-Error-Type: Bad\r\nLambda-Runtime-Function-Error-Body: *\r\n\r\n"
    assert (await line.ask(response("id-1", body, *STREAM))).status == 202
    answer = await task
    assert (json.loads(answer.payload)["errorType"], answer.error_type) == ("Bad", "Runtime.Unknown")


async def test_a_mode_that_is_not_known_is_refused_and_ends_the_invocation(served: Any) -> None:
    line, task = await served.running()
    refused = await line.ask(response("id-1", b"{}", "Lambda-Runtime-Function-Response-Mode: sideways"))
    assert kind(refused) == (400, "InvalidFunctionResponseMode")
    assert (await task).error_type == "Runtime.InvalidResponseModeHeader"


async def test_a_stream_has_as_long_as_it_takes_and_other_bodies_have_not(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_TIMEOUT", 0.05)
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.05)
    line, task = await served.running()
    line.send(response("id-1", b"3\r\nabc\r\n", *STREAM))
    stuck = await served.connect()
    stuck.send(response("id-1", b"xyz")[:-1])
    assert kind(await stuck.hear()) == (408, "InvalidRequest")  # and by then the stream has had its time too
    assert await stuck.ended() == b""
    assert (await line.ask(b"0\r\n\r\n")).status == 202
    assert (await task).payload == b"abc"


# ------------------------------------------------------------------------------------------------------------- states


async def test_answers_with_other_ids_are_refused(served: Any) -> None:
    line = await served.connect()
    assert kind(await line.ask(response("id-1"))) == (400, "InvalidRequestID")
    line.send(NEXT)
    task = served.run("id-1")
    await line.hear()
    for wrong in (response("id-2"), error("id-2"), response("id-1%20")):
        assert kind(await line.ask(wrong)) == (400, "InvalidRequestID")
    assert not task.done()
    assert (await line.ask(response("id-1"))).status == 202


async def test_an_invocation_is_answered_once(served: Any) -> None:
    line, task = await served.running()
    assert (await line.ask(response("id-1", b"1"))).status == 202
    again = await line.ask(error("id-1", b"2"))
    assert kind(again) == (403, "InvalidStateTransition")
    assert json.loads(again.body)["errorMessage"] == (
        "State transition from RuntimeResponseSentState to InvocationErrorResponse failed for runtime. "
        "Error: State transition is not allowed"
    )
    assert (await task).payload == b"1"
    line.send(NEXT)
    late = await served.connect()
    assert kind(await late.ask(response("id-1", b"3"))) == (400, "InvalidRequestID")


async def test_an_answer_before_the_invocation_was_given_out_is_refused(served: Any) -> None:
    line, task = await served.running("id-1")
    await line.ask(response("id-1"))
    await task
    task = served.run("id-2")
    await until(lambda: served.api._work is not None)
    assert kind(await line.ask(response("id-2"))) == (403, "InvalidStateTransition")
    assert not task.done()


async def test_a_runtime_that_asks_again_gets_the_same_invocation_again(served: Any) -> None:
    line, task = await served.running("id-1")
    line.writer.transport.abort()
    other = await served.connect()
    assert (await other.ask(NEXT)).headers["lambda-runtime-aws-request-id"] == "id-1"
    await other.ask(response("id-1", b"1"))
    assert (await task).payload == b"1"


CHUNKED = ("Transfer-Encoding: chunked", "Lambda-Runtime-Function-Response-Mode: streaming")


@pytest.mark.parametrize(
    "half", [response("id-1", b"3\r\nhal\r\n", *CHUNKED), response("id-1", b"whole")[:-2]], ids=["chunks", "length"]
)
async def test_an_invocation_whose_answer_was_cut_off_has_failed_and_is_not_run_once_more(
    served: Any, half: bytes
) -> None:
    line, task = await served.running("id-1")
    line.send(half)
    await line.writer.drain()
    line.writer.close()
    await until(lambda: not served.api._connections)
    assert not task.done()  # its process may be ending
    other = await served.connect()
    other.send(NEXT)
    answer = await task
    assert (answer.error, answer.error_type) == (True, "Runtime.TruncatedResponse")
    assert json.loads(answer.payload)["errorType"] == "Runtime.TruncatedResponse"
    task = served.run("id-2")
    assert (await other.hear()).headers["lambda-runtime-aws-request-id"] == "id-2"
    assert (await other.ask(response("id-2", b"2"))).status == 202
    assert (await task).payload == b"2"


async def test_an_answer_that_was_cut_off_may_come_once_more(served: Any) -> None:
    line, task = await served.running("id-1")
    line.send(response("id-1", b"whole")[:-2])
    await line.writer.drain()
    line.writer.close()
    await until(lambda: not served.api._connections)
    other = await served.connect()
    assert (await other.ask(response("id-1", b"whole"))).status == 202
    assert (await task).payload == b"whole"
    other.send(NEXT)
    task = served.run("id-2")
    assert (await other.hear()).headers["lambda-runtime-aws-request-id"] == "id-2"


async def test_the_poll_of_a_connection_that_is_gone_gets_nothing(served: Any) -> None:
    gone, line = await served.polled(), await served.polled()
    gone.writer.close()
    await until(lambda: len(served.api._connections) == 1)
    served.run("id-1")
    assert (await line.hear()).headers["lambda-runtime-aws-request-id"] == "id-1"


async def test_the_oldest_of_several_polls_gets_the_invocation(served: Any) -> None:
    first, second = await served.polled(), await served.polled()
    served.run("id-1")
    assert (await first.hear()).headers["lambda-runtime-aws-request-id"] == "id-1"
    assert await asyncio.wait_for(served.api.initialised(), DEADLINE) is None
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(second.reader.read(1), 0.01)


async def test_a_runtime_that_cannot_start_says_so_once_and_the_result_stays(served: Any) -> None:
    line = await served.connect()
    waiting = asyncio.create_task(served.api.initialised())
    document = b'{"errorType": "Runtime.ImportModuleError"}'
    headers = "Lambda-Runtime-Function-Error-Type: Runtime.ImportModuleError"
    assert (await line.ask(post(INIT_ERROR, document, headers))).status == 202
    expected = Answer(document, True, "application/json", "Runtime.ImportModuleError")
    assert await asyncio.wait_for(waiting, DEADLINE) == expected
    for refused in (NEXT, post(INIT_ERROR), RESTORE):
        assert kind(await line.ask(refused)) == (403, "InvalidStateTransition")
    served.api.end(Gone())
    assert await served.api.initialised() == expected


async def test_an_init_error_that_is_no_json_is_bytes(served: Any) -> None:
    line = await served.connect()
    await line.ask(post(INIT_ERROR, b"<broken>"))
    answer = await served.api.initialised()
    assert answer == Answer(b"<broken>", True, "application/octet-stream", "Runtime.Unknown")
    assert await served.api.run(Work("id-1", b"", 0, "", "")) == answer


async def test_init_is_over_with_the_first_poll(served: Any) -> None:
    await served.polled()
    line = await served.connect()
    assert kind(await line.ask(post(INIT_ERROR))) == (403, "InvalidStateTransition")
    assert kind(await line.ask(RESTORE)) == (403, "InvalidStateTransition")
    assert kind(await line.ask(post(RESTORE_ERROR))) == (403, "InvalidStateTransition")


async def test_a_runtime_that_asks_whether_it_was_restored_is_told_so(served: Any) -> None:
    line = await served.connect()
    restored = await line.ask(RESTORE)
    assert (restored.status, restored.body) == (200, b"")
    assert kind(await line.ask(RESTORE)) == (403, "InvalidStateTransition")
    task = asyncio.create_task(served.api.initialised())
    line.send(NEXT)
    assert await asyncio.wait_for(task, DEADLINE) is None


@pytest.mark.parametrize("path", [RESTORE_ERROR, INIT_ERROR])
async def test_a_runtime_that_cannot_be_restored_cannot_be_used(served: Any, path: str) -> None:
    line = await served.connect()
    assert kind(await line.ask(post(RESTORE_ERROR))) == (403, "InvalidStateTransition")
    await line.ask(RESTORE)
    assert (await line.ask(post(path, b"{}"))).status == 202
    answer = await served.api.initialised()
    assert answer is not None
    assert answer.error
    assert kind(await line.ask(NEXT)) == (403, "InvalidStateTransition")


# ------------------------------------------------------------------------------------------- what the host does with it


async def test_who_waits_when_the_process_ends_is_told_why_and_who_comes_later_too(served: Any) -> None:
    starting = asyncio.create_task(served.api.initialised())
    await asyncio.sleep(0)
    served.api.end(Gone("first"))
    served.api.end(Gone("second"))
    for waiting in (starting, served.api.initialised(), served.api.run(Work("id-1", b"", 0, "", ""))):
        with pytest.raises(Gone, match="first"):
            await asyncio.wait_for(waiting, DEADLINE)


async def test_a_process_that_ends_within_an_invocation_ends_it(served: Any) -> None:
    _, task = await served.running()
    served.api.end(Gone())
    with pytest.raises(Gone):
        await task


async def test_an_answer_that_is_here_counts_although_the_process_has_ended(served: Any) -> None:
    line, task = await served.running()
    line.send(response("id-1", b"1") + NEXT)
    while served.api._state != "Ready":  # noqa: ASYNC110 - the task must not run in between
        await asyncio.sleep(0)
    served.api.end(Gone())
    assert (await task).payload == b"1"


async def test_an_interrupted_invocation_leaves_the_runtime_usable_and_its_answer_unwanted(served: Any) -> None:
    served.api.interrupt(Gone())  # nobody waits
    line, task = await served.running("id-1")
    served.api.interrupt(Gone())
    with pytest.raises(Gone):
        await task
    assert kind(await line.ask(response("id-1"))) == (400, "InvalidRequestID")
    line.send(NEXT)
    task = served.run("id-2")
    assert (await line.hear()).headers["lambda-runtime-aws-request-id"] == "id-2"
    await line.ask(response("id-2", b"2"))
    assert (await task).payload == b"2"


async def test_a_caller_that_gives_up_waiting_for_the_start_does_not_take_it_from_others(served: Any) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(served.api.initialised(), 0.01)
    await served.polled()


async def test_closing_drops_connections_ends_waits_and_takes_the_socket_away(served: Any) -> None:
    path = Path(served.api.address)
    assert stat.S_ISSOCK(path.stat().st_mode)  # noqa: ASYNC240 - at once
    line, task = await served.running()
    await served.api.aclose()
    await served.api.aclose()
    assert await line.ended() == b""
    with pytest.raises(RuntimeApiClosed):
        await task
    assert not path.exists()  # noqa: ASYNC240 - at once


async def test_a_port_is_free_again_after_closing(open_api: Callable[..., Any]) -> None:
    served = await open_api(socket=None)
    host, _, port = served.api.address.rpartition(":")
    await served.api.aclose()
    with sockets.socket() as again:
        again.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        again.bind((host, int(port)))


# ---------------------------------------------------------------------------------------------------------- other paths


@pytest.mark.parametrize(
    ("request_line", "status", "error_type"),
    [
        ("GET /2018-06-01/runtime/invocation/next/", 404, "NotFound"),
        ("GET /2015-03-31/functions", 404, "NotFound"),
        ("GET /../../etc/passwd", 404, "NotFound"),
        ("POST /2018-06-01/runtime/invocation/next", 405, "MethodNotAllowed"),
        ("GET /2018-06-01/runtime/invocation/id-1/response", 405, "MethodNotAllowed"),
        ("GET /2018-06-01/runtime/init/error", 405, "MethodNotAllowed"),
        ("POST /2020-01-01/extension/register", 404, "Extension.NotSupported"),
        ("GET /2020-01-01/extension/event/next", 404, "Extension.NotSupported"),
        ("POST /2020-01-01/extension/init/error", 404, "Extension.NotSupported"),
        ("POST /2020-01-01/extension/exit/error", 404, "Extension.NotSupported"),
        ("PUT /2020-08-15/logs", 202, "Logs.NotSupported"),
        ("PUT /2022-07-01/telemetry", 202, "Telemetry.NotSupported"),
    ],
)
async def test_what_is_not_served_is_said_by_name(served: Any, request_line: str, status: int, error_type: str) -> None:
    line = await served.connect()
    for _ in range(2):  # the connection goes on
        heard = await line.ask(f"{request_line} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert kind(heard) == (status, error_type)
        assert heard.headers["content-type"] == "application/json"


async def test_ping_is_answered(served: Any) -> None:
    line = await served.connect()
    assert (await line.ask(b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n")).body == b"pong"


@pytest.mark.parametrize("header", ["Origin: https://evil.com", "Sec-Fetch-Site: cross-site"])
async def test_web_pages_get_no_invocation(served: Any, header: str) -> None:
    line = await served.connect()
    heard = await line.ask(NEXT.replace(b"\r\n\r\n", f"\r\n{header}\r\n\r\n".encode()))
    assert kind(heard) == (403, "Forbidden")


# --------------------------------------------------------------------------------------------------------- connections


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(served: Any) -> None:
    line, task = await served.running()
    request = response("id-1", b"12345", "Expect: 100-continue")
    line.send(request[:-5])
    assert await asyncio.wait_for(line.reader.readexactly(25), DEADLINE) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await line.ask(b"12345")).status == 202
    assert (await task).payload == b"12345"


@pytest.mark.parametrize(
    ("version", "header", "stays"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: close", False),
        ("1.0", "", False),
        ("1.0", "Connection: Keep-Alive", True),
    ],
)
async def test_a_connection_lives_as_long_as_its_client_says(
    served: Any, version: str, header: str, stays: bool
) -> None:
    line = await served.connect()
    extra = f"{header}\r\n" if header else ""
    heard = await line.ask(f"GET /2018-06-01/ping HTTP/{version}\r\nHost: x\r\n{extra}\r\n".encode())
    assert (heard.headers.get("connection") == "close") is not stays
    if stays:
        assert (await line.ask(b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
    else:
        assert await line.ended() == b""


async def test_half_a_head_has_its_deadline_and_an_idle_connection_has_none(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.05)
    idle, slow = await served.polled(), await served.connect()
    slow.send(NEXT[:40])
    assert kind(await slow.hear()) == (408, "InvalidRequest")
    assert await slow.ended() == b""
    served.run()
    assert (await idle.hear()).status == 200


async def test_there_is_a_limit_of_connections(served: Any) -> None:
    lines = [await served.connect() for _ in range(MOST_CONNECTIONS)]
    assert (await lines[-1].ask(b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
    one_more = await served.connect()
    assert await one_more.ended() == b""
    lines[0].writer.close()
    await until(lambda: len(served.api._connections) < MOST_CONNECTIONS)
    served.run()
    lines[1].send(NEXT)
    assert (await lines[1].hear()).status == 200


async def test_many_requests_in_one_piece_are_served_in_order_a_few_at_a_time(served: Any) -> None:
    seen, most, serve = 0, 0, served.api.serve

    def count(*args: Any) -> None:
        nonlocal seen
        seen += 1
        serve(*args)

    async def watch() -> None:
        nonlocal seen, most
        while True:
            most, seen = max(most, seen), 0
            await asyncio.sleep(0)

    served.api.serve = count
    watching = asyncio.create_task(watch())
    line = await served.connect()
    paths = [f"/number/{number}" for number in range(3_000)]
    line.send(b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
    for path in paths:
        assert path in (await line.hear()).body.decode()
    watching.cancel()
    assert 0 < most <= 2 * connections.AT_ONCE


async def test_a_client_that_does_not_read_is_not_read_either(served: Any) -> None:
    line = await served.connect()
    line.writer.transport.pause_reading()
    request = b"GET /2018-06-01/nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    sending = asyncio.create_task(flood(line, request * 1_000))
    await until(lambda: len(served.api._connections) == 1)
    [connection] = served.api._connections
    await until(lambda: connection._full and connection._paused)
    sending.cancel()
    assert len(connection._unread) < 1 << 20
    line.writer.transport.resume_reading()
    assert (await line.hear()).status == 404


async def flood(line: Any, data: bytes) -> None:
    while True:
        line.send(data)
        await line.writer.drain()


async def test_what_comes_behind_a_waiting_poll_waits_within_limits(served: Any) -> None:
    line = await served.polled()
    ping = b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n"
    line.send(ping * 20_000)
    [connection] = served.api._connections
    await until(lambda: connection._paused)
    assert len(connection._unread) < 1 << 20
    served.run()
    assert (await line.hear()).status == 200
    for _ in range(20_000):
        assert (await line.hear()).body == b"pong"


async def test_a_round_trip_takes_one_write_of_each_side(served: Any) -> None:
    line, task = await served.running("id-0")
    [connection] = served.api._connections
    writes: list[bytes] = []
    transport = connection._transport

    class Counting:
        def write(self, data: bytes) -> None:
            writes.append(data)
            transport.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(transport, name)

    connection._transport = Counting()
    began = time.perf_counter()
    for number in range(1, 100):
        line.send(response(f"id-{number - 1}") + NEXT)
        await task
        task = served.run(f"id-{number}")
        assert [(await line.hear()).status, (await line.hear()).status] == [202, 200]
    assert len(writes) == 99
    assert time.perf_counter() - began < DEADLINE
    connection._transport = transport

"""Invoke and InvokeAsync over real sockets: names, types, limits, contexts, refusals and clients that go away."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from serverfull import Function

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SYNC_LIMIT, ASYNC_LIMIT, RESPONSE_LIMIT = 6_291_456, 1_048_576, 6_291_556
PREFIX = "/2015-03-31/functions"


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def signed(region: str = "us-east-1", key: str = "AKIDEXAMPLE") -> dict[str, str]:
    credential = f"{key}/20261121/{region}/lambda/aws4_request"
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"}


def show(event: Any, context: Any) -> Any:
    return {
        "event": event,
        "arn": context.invoked_function_arn,
        "tenant": context.tenant_id,
        "custom": context.client_context and context.client_context.custom,
        "client": context.client_context and context.client_context.client and context.client_context.client.app_title,
        "identity": context.identity.cognito_identity_id,
        "id": context.aws_request_id,
    }


async def test_500_calls_at_once_never_run_more_than_the_limit_and_the_rest_is_throttled(start_host: Any) -> None:
    running, most, lock, go = 0, 0, threading.Lock(), threading.Event()

    def handler(event: Any) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(20)
        with lock:
            running -= 1

    host = await start_host({"f": Function(handler, timeout=30, max_concurrency=3), "other": lambda: "fine"})
    calls = [asyncio.create_task(host.invoke("f")) for _ in range(500)]
    refused: list[Any] = []

    async def until_refused() -> None:
        while len(refused) < 497:
            await asyncio.wait([call for call in calls if not call.done()], return_when=asyncio.FIRST_COMPLETED)
            refused[:] = [task.result() for task in calls if task.done()]

    async with asyncio.timeout(30):
        await until_refused()
    assert (await host.invoke("other")).json() == "fine"
    go.set()
    answers = await asyncio.gather(*calls)
    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 497
    assert most == 3
    assert {answer.error_type for answer in refused} == {"TooManyRequestsException"}
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].json() == {
        "Type": "User",
        "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
        "message": "Rate Exceeded.",
    }
    assert host.host.admission.running == 0
    assert (await host.invoke("f")).status == 200


async def test_the_hosts_own_limit_has_a_reason_of_its_own(start_host: Any, release: threading.Event) -> None:
    host = await start_host({"f": Function(lambda: release.wait(20), timeout=30)}, limits={"max_concurrency": 1})
    first = asyncio.create_task(host.invoke("f"))
    await host.until(lambda: host.host.admission.running)
    assert (await host.invoke("f")).json()["Reason"] == "ConcurrentInvocationLimitExceeded"
    release.set()
    assert (await first).status == 200


async def test_a_function_with_limit_zero_is_off_and_its_events_do_not_wait_for_ever(start_host: Any) -> None:
    host = await start_host({"off": Function(lambda: 1, max_concurrency=0)})
    assert (await host.invoke("off")).status == 429
    accepted = await host.invoke("off", Invocation_Type="Event")
    assert (accepted.status, accepted.body) == (202, b"")
    assert "x-amz-executed-version" not in accepted.headers  # which version an alias means is found out when it runs
    await host.until(lambda: "error: event dropped" in host.log.events())
    assert await host.host.events.drain(0.01) == 0


async def test_events_over_the_limit_are_accepted_and_run_later(start_host: Any) -> None:
    running, most, seen = 0, 0, []
    go = asyncio.Event()

    async def handler(event: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1
        seen.append(event)

    host = await start_host({"f": Function(handler, timeout=30, max_concurrency=2)})
    answers = [await host.invoke("f", number, Invocation_Type="Event") for number in range(20)]
    assert {(answer.status, answer.body) for answer in answers} == {(202, b"")}
    assert (await host.invoke("f", 99)).status == 429
    go.set()
    await host.until(lambda: len(seen) == 20)
    assert sorted(seen) == list(range(20))
    assert most == 2


async def test_beyond_the_backlog_events_are_refused(start_host: Any, release: threading.Event) -> None:
    host = await start_host(
        {"f": Function(lambda: release.wait(20), timeout=30, max_concurrency=1)}, limits={"event_backlog": 2}
    )
    statuses = [(await host.invoke("f", Invocation_Type="Event")).status for _ in range(6)]
    assert statuses[:3] == [202] * 3
    assert statuses[-1] == 429
    release.set()


async def test_a_dry_run_runs_nothing(start_host: Any) -> None:
    ran: list[int] = []
    host = await start_host({"f": lambda: ran.append(1)})
    answer = await host.invoke("f", Invocation_Type="DryRun")
    assert (answer.status, answer.body) == (204, b"")
    assert "x-amz-executed-version" not in answer.headers
    missing = await host.invoke("g", Invocation_Type="DryRun")
    assert (missing.status, missing.error_type) == (404, "ResourceNotFoundException")
    assert not ran


@pytest.mark.parametrize("slash", ["", "/"])
async def test_invoke_async_takes_an_event(start_host: Any, slash: str) -> None:
    seen: list[Any] = []
    host = await start_host({"f": lambda event: seen.append(event)})
    path = f"/2014-11-13/functions/f/invoke-async{slash}"
    assert (await host.request("POST", path, b'{"x":1}')).status == 202
    await host.until(lambda: seen == [{"x": 1}])
    assert (await host.request("POST", path, b"{")).error_type == "InvalidRequestContentException"
    assert (await host.request("POST", path.replace("/f/", "/g/"), b"{}")).status == 404


ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
NAMES = {
    "f": ARN,
    "f:$LATEST": ARN + ":$LATEST",
    "function:f": ARN,
    "000000000000:function:f": ARN,
    "000000000000:f": ARN,
    ARN: ARN,
    ARN + ":$LATEST": ARN + ":$LATEST",
    "arn:aws:lambda:us-east-1:123456789012:function:f": "arn:aws:lambda:us-east-1:123456789012:function:f",
}


@pytest.mark.parametrize("middleware", [False, True], ids=["direct", "routed"])
async def test_every_form_of_a_name_reaches_the_function(start_host: Any, middleware: bool) -> None:
    host = await start_host({"f": show}, extend=add_middleware if middleware else None)
    for name, arn in NAMES.items():
        for spelling in (name, quote(name, safe=""), quote(name, safe=":")):
            answer = await host.invoke(spelling)
            assert answer.status == 200, (spelling, answer.body)
            assert answer.json()["arn"] == arn
            assert answer.headers["x-amz-executed-version"] == "$LATEST"
    for query in ("?Qualifier=$LATEST", "?Qualifier=%24LATEST", "?other=1&Qualifier=%24LATEST"):
        assert (await host.invoke("f", query=query)).json()["arn"] == ARN + ":$LATEST"


REFUSED = [
    ("g", "", 404, "ResourceNotFoundException", "Function not found: arn:aws:lambda:us-east-1:000000000000:function:g"),
    ("f:1", "", 404, "ResourceNotFoundException", f"Function not found: {ARN}:1"),
    ("f", "?Qualifier=prod", 404, "ResourceNotFoundException", f"{ARN}:prod"),
    ("f:1", "?Qualifier=2", 400, "InvalidParameterValueException", "does not match the specified qualifier"),
    ("f", "?Qualifier=%20", 400, "ValidationException", "at 'qualifier' failed to satisfy constraint"),
    ("f", "?Qualifier=", 400, "ValidationException", "greater than or equal to 1"),
    ("f" * 300, "", 400, "ValidationException", "length less than or equal to"),
    ("..%2f..%2fetc", "", 400, "ValidationException", "regular expression pattern"),
    ("f%00", "", 400, "ValidationException", "regular expression pattern"),
    ("f%0d%0aX:1", "", 400, "ValidationException", "regular expression pattern"),
    ("f", "?" + "&".join(f"a{n}=1" for n in range(200)), 400, "", ""),
    ("arn:aws:lambda:eu-west-1:000000000000:function:f", "", 404, "ResourceNotFoundException", "not reachable"),
]


@pytest.mark.parametrize("middleware", [False, True], ids=["direct", "routed"])
async def test_names_and_qualifiers_that_reach_nothing(start_host: Any, middleware: bool) -> None:
    host = await start_host({"f": show}, extend=add_middleware if middleware else None)
    for name, query, status, error_type, text in REFUSED:
        answer = await host.invoke(name, query=query)
        if len(query) > 1000 and answer.status == 200:
            continue  # parameters that nobody knows may also be ignored
        assert answer.status == status, (name, query, answer.body)
        assert error_type in (answer.error_type or ""), (name, query)
        assert text in answer.body.decode(), (name, query)


async def test_account_and_region_come_from_the_credential_scope(start_host: Any) -> None:
    host = await start_host({"f": show}, functions={"account": "111122223333", "region": "eu-central-1"})

    async def arn(**headers: str) -> Any:
        return (await host.request("POST", f"{PREFIX}/f/invocations", b"", headers)).json()["arn"]

    assert await arn() == "arn:aws:lambda:eu-central-1:111122223333:function:f"
    assert await arn(**signed("cn-north-1")) == "arn:aws-cn:lambda:cn-north-1:111122223333:function:f"
    assert await arn(**signed("us-west-2", "999988887777")) == "arn:aws:lambda:us-west-2:999988887777:function:f"
    assert await arn(Authorization="Bearer x") == "arn:aws:lambda:eu-central-1:111122223333:function:f"
    other = quote("arn:aws:lambda:us-west-2:111111111111:function:f", safe="")
    answer = await host.request("POST", f"{PREFIX}/{other}/invocations", b"", signed("us-west-2", "999988887777"))
    assert answer.status == 404


async def test_contexts_of_the_caller_reach_the_handler(start_host: Any) -> None:
    host = await start_host({"f": show})
    client = {"client": {"app_title": "shop"}, "custom": {"k": "v"}, "env": {}}
    answer = await host.invoke(
        "f",
        Client_Context=base64.b64encode(json.dumps(client).encode()).decode(),
        Cognito_Identity='{"cognitoIdentityId": "id-1", "cognitoIdentityPoolId": "pool"}',
        Tenant_Id="tenant-1",
    )
    seen = answer.json()
    assert (seen["client"], seen["custom"], seen["identity"], seen["tenant"]) == (
        "shop",
        {"k": "v"},
        "id-1",
        "tenant-1",
    )
    assert seen["id"] == answer.request_id


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


HEADERS_REFUSED = [
    ({"Client_Context": "%%%"}, "InvalidRequestContentException"),
    ({"Client_Context": b64(b"{")}, "InvalidRequestContentException"),
    ({"Client_Context": b64(b"[1]")}, "InvalidRequestContentException"),
    ({"Client_Context": b64(b"\xff\xfe")}, "InvalidRequestContentException"),
    ({"Client_Context": b64(b"[" * 3000)}, "InvalidRequestContentException"),
    ({"Client_Context": b64(b'{"custom":{"k":"' + b"x" * 3600 + b'"}}')}, "InvalidRequestContentException"),
    ({"Cognito_Identity": "no json"}, "InvalidRequestContentException"),
    ({"Tenant_Id": ""}, "ValidationException"),
    ({"Tenant_Id": "x" * 257}, "ValidationException"),
    ({"Tenant_Id": "no!"}, "ValidationException"),
    ({"Invocation_Type": "Later"}, "ValidationException"),
    ({"Invocation_Type": "event"}, "ValidationException"),
    ({"Log_Type": "All"}, "ValidationException"),
    ({"Durable_Execution_Name": "x"}, "InvalidParameterValueException"),
    ({"Durable_Execution_Name": "x" * 65, "Invocation_Type": "Event"}, "ValidationException"),
    ({"Durable_Execution_Name": "", "Invocation_Type": "Event"}, "ValidationException"),
    ({"Durable_Execution_Name": "a.b", "Invocation_Type": "Event"}, "ValidationException"),
]


async def test_of_the_events_with_one_name_a_function_gets_one(start_host: Any) -> None:
    ran: list[Any] = []
    host = await start_host({"f": ran.append, "g": ran.append})
    named = {"Invocation_Type": "Event", "Durable_Execution_Name": "order-7"}
    answers = [await host.invoke(*call, **named) for call in (("f", 1), ("f", 1), ("f", 2), ("g", 2))]
    assert [answer.status for answer in answers] == [202, 202, 409, 202]
    assert answers[2].error_type == "DurableExecutionAlreadyStartedException"
    assert set(answers[2].json()) == {"Type", "Message"}
    await host.until(lambda: len(ran) == 2)
    assert await host.host.drain(5) is None
    assert sorted(ran) == [1, 2]


async def test_headers_that_cannot_be_read_are_refused_before_anything_runs(start_host: Any) -> None:
    ran: list[int] = []
    host = await start_host({"f": lambda: ran.append(1)})
    for headers, error_type in HEADERS_REFUSED:
        answer = await host.invoke("f", **headers)
        assert (answer.status, answer.error_type) == (400, error_type), (headers, answer.body)
    assert not ran
    exact = b'{"custom":{"k":"' + b"x" * (3583 - 19) + b'"}}'
    assert len(exact) == 3583
    assert (await host.invoke("f", Client_Context=b64(exact))).status == 200


async def chunked(size: int) -> AsyncIterator[bytes]:
    yield b'"'
    left = size - 2
    while left:
        part = min(left, 65_536)
        yield b"x" * part
        left -= part
    yield b'"'


@pytest.mark.parametrize("kind", [{}, {"Invocation_Type": "Event"}, {"Invocation_Type": "DryRun"}], ids=str)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_payload_limits_are_exact(start_host: Any, kind: dict[str, str], framing: str) -> None:
    host = await start_host({"f": lambda event: len(event)})
    limit = ASYNC_LIMIT if kind.get("Invocation_Type") == "Event" else SYNC_LIMIT
    headers = {f"X-Amz-{name.replace('_', '-')}": value for name, value in kind.items()}
    for size, status in ((limit, {200, 202, 204}), (limit + 1, {413})):
        body: Any = b'"' + b"x" * (size - 2) + b'"' if framing == "length" else chunked(size)
        answer = await host.request("POST", f"{PREFIX}/f/invocations", body, headers)
        assert answer.status in status, answer.body
        if answer.status == 413:
            assert answer.error_type == "RequestTooLargeException"
        if answer.status == 200:
            assert answer.json() == size - 2
    assert (await host.invoke("f", "abc")).json() == 3


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_response_limit_is_exact(start_host: Any, kind: str) -> None:
    def sync(event: int) -> str:
        return "x" * event

    async def asynchronous(event: int) -> str:
        return sync(event)

    host = await start_host({"f": sync if kind == "sync" else asynchronous})
    whole = await host.invoke("f", RESPONSE_LIMIT - 2)
    assert (len(whole.body), whole.function_error) == (RESPONSE_LIMIT, None)
    over = await host.invoke("f", RESPONSE_LIMIT - 1)
    assert (over.status, over.function_error) == (200, "Unhandled")
    assert over.json()["errorType"] == "Function.ResponseSizeTooLarge"


BAD_JSON = [
    b"{",
    b"nope",
    b"NaN",
    b"[Infinity]",
    b"'x'",
    b"\xff",
    b'"\xc3"',
    b"\xef\xbb\xbf{}",
    b"{} {}",
    b"[" * 100_000,
    b"1" * 1_000_000,
    b"\x00",
    b" ",
    b'{"a":1,}',
]


@pytest.mark.parametrize("kind", ["sync", "async", "own"])
async def test_payloads_that_are_no_json_are_refused_and_nothing_runs(start_host: Any, kind: str) -> None:
    ran: list[Any] = []

    async def asynchronous(event: Any) -> None:
        ran.append(event)

    handler: Any = (lambda event: ran.append(event)) if kind == "sync" else asynchronous
    host = await start_host({"f": Function(handler, loop="own" if kind == "own" else "host")})
    for payload in BAD_JSON:
        for invocation_type in ("RequestResponse", "Event"):
            answer = await host.invoke("f", payload, Invocation_Type=invocation_type)
            assert (answer.status, answer.error_type) == (400, "InvalidRequestContentException"), payload[:20]
            assert answer.json()["message"].startswith("Could not parse request body into json: ")
    assert not ran
    assert host.host.admission.running == 0
    assert (await host.invoke("f", b"")).status == 200
    assert ran == [{}]


@pytest.mark.parametrize("how", ["reset", "end"])
async def test_a_client_that_goes_away_takes_nothing_with_it(start_host: Any, how: str) -> None:
    entered, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(event: Any) -> None:
        entered.set()
        await go.wait()
        ended.set()

    host = await start_host({"f": Function(handler, max_concurrency=1, timeout=30)})
    for _ in range(2):
        for one in (entered, go, ended):
            one.clear()
        _, writer = await host.connect()
        writer.write(f"POST {PREFIX}/f/invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode())
        async with asyncio.timeout(10):
            await entered.wait()
        closed = host.runner.hardened.closed_total
        if how == "reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        if how == "reset":
            await host.until(lambda closed=closed: host.runner.hardened.closed_total > closed)
        assert (await host.invoke("f")).status == 429
        go.set()
        async with asyncio.timeout(10):
            await ended.wait()
        await host.until(lambda: host.host.admission.running == 0)


async def test_a_slow_client_gets_the_whole_of_a_large_answer(start_host: Any) -> None:
    host = await start_host({"f": lambda: "x" * 6_000_000, "g": lambda: "next"})
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port, limit=2**16)
    for name in ("f", "g"):
        writer.write(
            f"POST {PREFIX}/{name}/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
        )
    bodies = []
    async with asyncio.timeout(20):
        for _ in range(2):
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            body = bytearray()
            while len(body) < length:
                body += await reader.read(min(50_000, length - len(body)))
                await asyncio.sleep(0.0005)
            bodies.append(bytes(body))
    writer.close()
    assert bodies == [b'"' + b"x" * 6_000_000 + b'"', b'"next"']


async def test_answers_carry_what_clients_need(start_host: Any) -> None:
    host = await start_host({"f": lambda: "x", "raw": lambda: b"\x00\xff", "bad": lambda: 1 / 0})
    good = await host.invoke("f")
    assert good.headers["content-type"] == "application/json"
    assert len(good.request_id) == 36
    assert "server" not in good.headers
    assert "x-amz-function-error" not in good.headers
    raw = await host.invoke("raw")
    assert (raw.headers["content-type"], raw.body) == ("application/unknown", b"\x00\xff")
    bad = await host.invoke("bad")
    assert bad.headers["x-amz-executed-version"] == "$LATEST"
    ids = {(await host.invoke("f")).request_id for _ in range(300)}
    assert len(ids) == 300


async def test_http_1_0_and_connection_close_are_answered(start_host: Any) -> None:
    host = await start_host({"f": lambda: "x"})
    for line in (b"HTTP/1.0\r\nHost: localhost", b"HTTP/1.1\r\nHost: localhost\r\nConnection: close"):
        answer = await host.send(f"POST {PREFIX}/f/invocations ".encode() + line + b"\r\nContent-Length: 0\r\n\r\n")
        assert answer.endswith(b'\r\n\r\n"x"')


def add_middleware(app: Any) -> None:
    from aiohttp import web

    @web.middleware
    async def pass_on(request: web.Request, handler: Any) -> web.StreamResponse:
        answer: web.StreamResponse = await handler(request)
        return answer

    app.middlewares.append(pass_on)

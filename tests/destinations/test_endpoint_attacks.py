"""An endpoint that points elsewhere leads the host nowhere: only what the settings name is called."""

from __future__ import annotations

import contextvars
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from serverfull.config import DestinationSettings
from serverfull.destinations.assembling import make_deliverer
from serverfull.domain.destinations import KEY, TIME
from serverfull.domain.events import Delivery
from serverfull.errors import DeliveryFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serverfull.domain.invocations import Invocation

RECORD = Delivery(
    id="1",
    target="arn:aws:sqs:us-east-1:123456789012:failed",
    function_arn="arn:aws:lambda:us-east-1:123456789012:function:orders:$LATEST",
    request_id="r",
    kind="destination",
    success=False,
    body=b"{}",
)


class Server:
    """Answers every request alike, and counts them."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        server = self
        self.requests: list[str] = []
        self.traces: list[str | None] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.requests.append(self.path)
                server.traces.append(self.headers["X-Amzn-Trace-Id"])
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        contextvars.Context().run(threading.Thread(target=self._server.serve_forever, args=(0.01,)).start)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    server = Server(200, {}, b"{}")
    yield server
    server.close()


async def accept(_: Invocation) -> None:
    raise AssertionError


async def deliver_at(server: Server, delivery: Delivery) -> None:
    deliverer = make_deliverer(DestinationSettings(endpoint_url=server.url, timeout=5.0), accept)
    try:
        await deliverer.deliver(delivery)
    finally:
        await deliverer.aclose()
        server.close()


BUS = "arn:aws:events:us-east-1:123456789012:event-bus/default"
OBJECT = replace(RECORD, target="arn:aws:s3:::failures", attributes={KEY: "key"})


@pytest.mark.parametrize(
    ("delivery", "status"),
    [
        (RECORD, 302),
        (replace(RECORD, target="arn:aws:sns:us-east-1:123456789012:failed"), 307),
        (replace(RECORD, target=BUS, attributes={TIME: 1}), 301),
        (OBJECT, 301),
        (OBJECT, 307),
    ],
    ids=["sqs", "sns", "events", "s3", "s3 for now"],
)
async def test_a_redirect_is_not_followed(elsewhere: Server, delivery: Delivery, status: int) -> None:
    server = Server(status, {"Location": f"{elsewhere.url}/there", "x-amz-bucket-region": "eu-west-1"}, b"")
    with pytest.raises(DeliveryFailed):
        await deliver_at(server, delivery)
    assert server.requests
    assert not elsewhere.requests


@pytest.mark.parametrize("delivery", [replace(RECORD, target="arn:aws:sns:us-east-1:123456789012:t"), OBJECT])
async def test_what_has_no_place_for_a_tracing_header_comes_with_one_unless_a_caller_made_it_up(
    delivery: Delivery,
) -> None:
    answer = b"<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>"
    trace = "Root=1-5dcd9a00-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0;Lineage=1:abcdef01:1"
    for sent, seen in ((trace, trace), ("Root=1\r\nX-Other: 1", None), (None, None)):
        server = Server(200, {}, answer)
        await deliver_at(server, replace(delivery, trace_id=sent))
        assert server.traces == [seen]


async def test_an_answer_that_cannot_be_read_is_a_failure_that_may_pass() -> None:
    with pytest.raises(DeliveryFailed, match="ResponseParserError") as failure:
        await deliver_at(Server(200, {}, b"<junk"), replace(RECORD, target="arn:aws:sns:us-east-1:123456789012:t"))
    assert not failure.value.final


async def test_the_url_that_a_queue_is_said_to_have_is_not_called(elsewhere: Server) -> None:
    answer = f'{{"QueueUrl": "{elsewhere.url}/123456789012/failed", "MessageId": "1"}}'.encode()
    server = Server(200, {"Content-Type": "application/x-amz-json-1.0"}, answer)
    await deliver_at(server, RECORD)
    assert len(server.requests) == 2
    assert not elsewhere.requests

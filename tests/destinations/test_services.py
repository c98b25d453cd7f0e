"""What becomes of calls that no service ends, without a service."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from serverfull.destinations import services
from serverfull.destinations.endpoints import Endpoint
from serverfull.destinations.messages import trace_header
from serverfull.destinations.services import Service
from serverfull.domain.events import Delivery
from serverfull.errors import DeliveryFailed


async def test_a_call_that_does_not_end_is_given_up_and_its_target_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "make_client", lambda _endpoint, _region: None)
    held = threading.Event()
    service = Service(Endpoint(service="sqs", url="http://h", timeout=0.2))
    calls = []

    def work(_: None) -> None:
        calls.append(1)
        held.wait(30)

    for _ in range(2):
        with pytest.raises(DeliveryFailed, match="does not come to an end"):
            await service.call("queue", "us-east-1", work)
    assert len(calls) == 1
    held.set()
    await service.call("another", "us-east-1", work)


@pytest.mark.parametrize(
    ("trace", "sent"),
    [
        ("Root=1-5dcd9a00-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0;Lineage=1:abcdef01:1", True),
        ("Root=1-5dcd9a00-0123456789abcdef01234567", True),
        ("Root=1-5dcd9a00-0123456789abcdef01234567;Lineage=" + "x" * 500, False),
        ("Root=1-5dcd9a00-0123456789abcdef01234567;Parent=\n", False),
        ("Root=1-5dcd9a00-0123456789abcdef01234567;Parent=\u00e9", False),
        ("what a caller has sent", False),
        (None, False),
    ],
)
def test_a_tracing_header_that_services_do_not_take_is_not_sent(trace: str | None, sent: bool) -> None:
    made = partial(Delivery, id="1", target="t", function_arn="f", request_id="r", kind="destination", success=True)
    assert trace_header(made(body=b"{}", trace_id=trace)) == (trace if sent else None)

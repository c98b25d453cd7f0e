"""What becomes of deliveries before any service is asked: chosen, accepted as events, counted and logged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.destinations.choosing import ChoosingDeliverer
from serverfull.destinations.functions import Functions
from serverfull.destinations.observing import ObservingDeliverer
from serverfull.destinations.services import refusal
from serverfull.domain.events import Delivery
from serverfull.errors import (
    DeliveryFailed,
    NotFoundError,
    RecursiveInvocation,
    ShuttingDown,
    TooManyRequests,
)
from serverfull.interfaces import Deliverer
from serverfull.observability import metrics as columns
from serverfull.observability.metrics import Metrics

if TYPE_CHECKING:
    from serverfull.domain.invocations import Invocation

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"
RECORD = Delivery(
    id="0b5c1a9e-7a43-5f0a-8d8c-2b1d6a4f0001",
    target=f"{ARN}audit:live",
    function_arn=f"{ARN}orders:$LATEST",
    request_id="e4b46cbf-b738-4f0f-8880-a18cdf61200e",
    kind="destination",
    success=True,
    body=b'{"version": "1.0"}',
    trace_id="Root=1;Lineage=1:abcdef01:1",
)
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:failed"


class Double(Deliverer):
    """Does what it is told to: nothing, or to raise."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.made: list[Delivery] = []
        self.closed = False

    async def deliver(self, delivery: Delivery) -> None:
        if self.failure is not None:
            raise self.failure
        self.made.append(delivery)

    async def aclose(self) -> None:
        self.closed = True


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.lines.append((level, event, fields))


async def test_a_function_of_the_host_gets_the_record_as_an_event() -> None:
    accepted: list[Invocation] = []

    async def accept(invocation: Invocation) -> None:
        accepted.append(invocation)

    await Functions(accept).deliver(RECORD)
    (invocation,) = accepted
    assert (invocation.name, invocation.qualifier) == ("audit", "live")
    assert (invocation.account, invocation.region) == ("123456789012", "eu-west-1")
    assert (invocation.payload, invocation.invocation_type) == (RECORD.body, "Event")
    assert (invocation.trace_id, invocation.request_id) == (RECORD.trace_id, RECORD.id)


@pytest.mark.parametrize(
    ("refusal", "final"),
    [
        (NotFoundError("audit"), False),
        (TooManyRequests("CallerRateLimitExceeded"), False),
        (ShuttingDown(), False),
        (RecursiveInvocation("audit", 16), True),
    ],
)
async def test_a_function_that_cannot_have_it_now_may_have_it_later(refusal: Exception, final: bool) -> None:
    async def accept(_: Invocation) -> None:
        raise refusal

    with pytest.raises(DeliveryFailed) as failure:
        await Functions(accept).deliver(RECORD)
    assert failure.value.final is final


async def test_a_record_that_is_too_large_for_an_event_is_given_up() -> None:
    async def accept(_: Invocation) -> None:
        raise AssertionError

    with pytest.raises(DeliveryFailed, match="1048577 bytes, and an event 1048576 at most") as failure:
        await Functions(accept).deliver(replace(RECORD, body=b"x" * 1_048_577))
    assert failure.value.final


async def test_who_delivers_is_chosen_by_the_arn() -> None:
    queues, functions = Double(), Double()
    chosen = ChoosingDeliverer({"sqs": queues, "lambda": functions})
    await chosen.deliver(RECORD)
    await chosen.deliver(replace(RECORD, target=QUEUE))
    assert (queues.made, functions.made) == ([replace(RECORD, target=QUEUE)], [RECORD])
    for target in ("arn:aws:s3:::bucket", f"{QUEUE}.fifo"):
        with pytest.raises(DeliveryFailed, match=r"the settings \[destinations\] say nowhere where") as failure:
            await chosen.deliver(replace(RECORD, target=target))
        assert not failure.value.final  # the next host may have other settings
    await chosen.aclose()
    assert queues.closed
    assert functions.closed


@pytest.mark.parametrize(
    ("kind", "counted", "other"),
    [
        ("destination", columns.DESTINATION_FAILURES, columns.DEAD_LETTER_ERRORS),
        ("dead-letter", columns.DEAD_LETTER_ERRORS, columns.DESTINATION_FAILURES),
    ],
)
async def test_each_failure_is_counted_and_a_target_is_said_to_fail_once(kind: Any, counted: int, other: int) -> None:
    double, log, metrics = Double(), Log(), Metrics()
    observing = ObservingDeliverer(double, metrics, log)
    delivery = replace(RECORD, kind=kind, target=QUEUE)
    block = metrics.function("orders")._block
    double.failure = DeliveryFailed("the queue is gone")
    for _ in range(2):
        with pytest.raises(DeliveryFailed):
            await observing.deliver(delivery)
    assert (block[counted], block[other]) == (2.0, 0.0)
    ((level, event, fields),) = log.lines
    assert (level, event) == ("warning", "record not delivered, tried again later")
    assert fields == {
        "function": "orders",
        "target": QUEUE,
        "kind": kind,
        "request_id": RECORD.request_id,
        "reason": "the queue is gone",
    }
    double.failure = None
    await observing.deliver(delivery)
    await observing.deliver(delivery)
    assert log.lines[1:] == [("info", "destination takes records again", {"target": QUEUE})]
    double.failure = DeliveryFailed("too large", final=True)
    with pytest.raises(DeliveryFailed):
        await observing.deliver(delivery)
    assert log.lines[-1][:2] == ("error", "record not delivered, and not tried again")


async def test_a_bug_in_making_a_delivery_is_a_failure_that_may_pass() -> None:
    double, log = Double(), Log()
    double.failure = ZeroDivisionError("division by zero")
    with pytest.raises(DeliveryFailed, match="ZeroDivisionError: division by zero") as failure:
        await ObservingDeliverer(double, Metrics(), log).deliver(RECORD)
    assert not failure.value.final
    assert log.lines[0][2]["exc_info"] is double.failure


@pytest.mark.parametrize(
    ("code", "status", "final"),
    [
        ("AWS.SimpleQueueService.NonExistentQueue", 400, False),
        ("NoSuchBucket", 404, False),
        ("AccessDenied", 403, False),
        ("ThrottlingException", 400, False),
        ("InternalError", 500, False),
        ("InvalidParameterValue", 400, True),
        ("InvalidMessageContents", 400, True),
        ("413", 413, True),
    ],
)
def test_only_what_the_same_message_would_meet_again_is_final(code: str, status: int, final: bool) -> None:
    failure = refusal({"Code": code, "Message": "because"}, status)
    assert (failure.reason, failure.final) == (f"{code}: because", final)

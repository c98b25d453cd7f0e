"""Each kind of target, called as the host calls it."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from itertools import count

import pytest

from integration.destinations.conftest import ACCOUNT, bus_arn, queue_arn, topic_arn
from serverfull.config import DestinationSettings
from serverfull.destinations.assembling import make_deliverer
from serverfull.domain.destinations import deliveries
from serverfull.domain.events import EventConfig, EventEnd, QueuedEvent, Response
from serverfull.errors import DeliveryFailed

EVENT = QueuedEvent(
    request_id="e4b46cbf-b738-4f0f-8880-a18cdf61200e",
    account=ACCOUNT,
    region="us-east-1",
    name="orders",
    payload=b'{"order": "\xc3\xa9"}',
    accepted_at=1573755180.0,
    trace_id="Root=1-5dcd9a00-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0",
)
DONE = Response(status_code=200, executed_version="1", payload=b'{"done": true}')
FAILED = replace(DONE, function_error="Unhandled", payload=b'{"errorMessage": "no such order"}')
SUCCESS = EventEnd(condition="Success", at=1573755365.5, invoke_count=1, response=DONE)
FAILURE = EventEnd(condition="RetriesExhausted", at=1573755365.5, invoke_count=3, response=FAILED)
NUMBERS = count()


@pytest.fixture
def name():
    return f"target-{next(NUMBERS)}"


@pytest.fixture
async def deliverer(services):
    made = make_deliverer(DestinationSettings(endpoint_url=services.url), None)
    yield made
    await made.aclose()


def delivery(end, event=EVENT, **config):
    (found,) = deliveries(event, end, EventConfig(**config))
    return found


def targets(name):
    return {
        "sqs": ("make_queue", delivery(FAILURE, on_failure=queue_arn(name))),
        "sns": ("make_topic", delivery(FAILURE, on_failure=topic_arn(name))),
        "events": ("make_bus", delivery(FAILURE, on_failure=bus_arn(name))),
        "s3": ("make_bucket", delivery(FAILURE, on_failure=f"arn:aws:s3:::{name}")),
    }


async def test_a_queue_gets_the_record_and_the_trace(services, deliverer, name):
    services.make_queue(name)
    sent = delivery(SUCCESS, on_success=queue_arn(name))
    await deliverer.deliver(sent)
    (message,) = services.received(name)
    assert message["Body"].encode() == sent.body
    assert "MessageAttributes" not in message
    assert message["Attributes"]["AWSTraceHeader"] == sent.trace_id
    strange = replace(sent, trace_id="whatever a caller has sent")
    await deliverer.deliver(strange)
    assert "AWSTraceHeader" not in services.received(name)[0]["Attributes"]


@pytest.mark.parametrize(("make", "arn"), [("make_queue", queue_arn), ("make_topic", topic_arn)])
async def test_a_dead_letter_is_the_event_with_attributes(services, deliverer, name, make, arn):
    getattr(services, make)(name)
    await deliverer.deliver(delivery(FAILURE, dead_letter=arn(name)))
    (message,) = services.received(name)
    assert message["Body"].encode() == EVENT.payload
    shown = {
        key: (value["DataType"], value["StringValue"]) for key, value in message.get("MessageAttributes", {}).items()
    }
    assert shown == {
        "RequestID": ("String", EVENT.request_id),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "no such order"),
    }


async def test_a_topic_gets_the_record(services, deliverer, name):
    services.make_topic(name)
    sent = delivery(SUCCESS, on_success=topic_arn(name))
    await deliverer.deliver(sent)
    assert services.received(name)[0]["Body"].encode() == sent.body


@pytest.mark.parametrize(("end", "word"), [(SUCCESS, "Success"), (FAILURE, "Failure")])
async def test_a_bus_gets_an_event_whose_detail_is_the_record(services, deliverer, name, end, word):
    services.make_bus(name)
    sent = delivery(end, on_success=bus_arn(name), on_failure=bus_arn(name))
    await deliverer.deliver(sent)
    (event,) = services.records(name)
    assert (event["source"], event["detail-type"]) == ("lambda", f"Lambda Function Invocation Result - {word}")
    assert event["resources"] == [bus_arn(name), sent.function_arn]
    assert event["detail"] == json.loads(sent.body)
    assert event["time"] == "2019-11-14T18:16:05Z"


async def test_a_bucket_gets_one_object_however_often_it_is_put(services, deliverer, name):
    services.make_bucket(name)
    sent = delivery(FAILURE, on_failure=f"arn:aws:s3:::{name}")
    await deliverer.deliver(sent)
    await deliverer.deliver(sent)
    assert services.objects(name) == {f"aws/lambda/async/orders/2019/11/14/2019-11-14T18.16.05-{sent.id}": sent.body}


@pytest.mark.parametrize("kind", ["sqs", "sns", "events", "s3"])
async def test_a_target_that_is_missing_may_be_there_later(services, deliverer, name, kind):
    make, sent = targets(name)[kind]
    with pytest.raises(DeliveryFailed, match=r"exist") as failure:
        await deliverer.deliver(sent)
    assert not failure.value.final
    getattr(services, make)(name)
    await deliverer.deliver(sent)


async def test_a_queue_that_is_made_again_is_found_again(services, deliverer, name):
    url = services.make_queue(name)
    sent = delivery(FAILURE, on_failure=queue_arn(name))
    await deliverer.deliver(sent)
    services.client("sqs").delete_queue(QueueUrl=url)
    with pytest.raises(DeliveryFailed, match="does not exist"):
        await deliverer.deliver(sent)
    services.make_queue(name)
    await deliverer.deliver(sent)
    services.received(name)


@pytest.mark.parametrize(
    ("make", "config"),
    [
        ("make_queue", {"on_failure": queue_arn("large")}),
        ("make_topic", {"dead_letter": topic_arn("large")}),
    ],
)
async def test_what_is_too_large_is_not_tried_again(services, deliverer, make, config):
    getattr(services, make)("large")
    event = replace(EVENT, payload=b'"%s"' % (b"x" * 1_048_570))
    with pytest.raises(DeliveryFailed, match=r"Message must be shorter|Message too long") as failure:
        await deliverer.deliver(delivery(FAILURE, event, **config))
    assert failure.value.final


async def test_nobody_at_the_endpoint_is_a_failure_that_may_pass(name):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    deliverer = make_deliverer(DestinationSettings(endpoint_url=f"http://127.0.0.1:{port}"), None)
    for _ in range(2):
        with pytest.raises(DeliveryFailed, match="Could not connect") as failure:
            await deliverer.deliver(delivery(SUCCESS, on_success=queue_arn(name)))
        assert not failure.value.final


async def test_a_target_that_hangs_does_not_hold_up_others(services, proxy, name):
    """The queues are behind a proxy that passes nothing on; the topics are not."""
    services.make_topic(name)
    services.make_queue(f"{name}-queue")
    settings = DestinationSettings(endpoint_url=services.url, endpoints=(f"SQS={proxy.url}",), timeout=1.0)
    deliverer = make_deliverer(settings, None)
    hanging = delivery(FAILURE, on_failure=queue_arn(f"{name}-queue"))
    await deliverer.deliver(hanging)
    proxy.hold()
    waiting = [asyncio.ensure_future(deliverer.deliver(hanging)) for _ in range(50)]
    await deliverer.deliver(delivery(SUCCESS, on_success=topic_arn(name)))
    assert not any(future.done() for future in waiting)
    for future in waiting:
        with pytest.raises(DeliveryFailed, match="Read timeout") as failure:
            await future
        assert not failure.value.final
    before = proxy.connections
    with pytest.raises(DeliveryFailed, match="Read timeout"):
        await deliverer.deliver(hanging)
    assert proxy.connections == before  # it was left alone
    proxy.release()
    async with asyncio.timeout(20):
        while True:
            try:
                await deliverer.deliver(hanging)
                break
            except DeliveryFailed:
                await asyncio.sleep(0.1)
    await deliverer.aclose()

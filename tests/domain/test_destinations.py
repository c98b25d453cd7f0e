"""What is sent where when an event has ended, against AWS's documented record and what was seen on AWS."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from serverfull.domain.destinations import MOST_MESSAGE_BYTES, deliveries, object_key, record, target_kind
from serverfull.domain.events import EventConfig, EventEnd, QueuedEvent, Response
from serverfull.domain.lineage import mark_of, times

QUEUE = "arn:aws:sqs:us-east-1:123456789012:failed"
TOPIC = "arn:aws:sns:us-east-1:123456789012:failed"
BUS = "arn:aws:events:us-east-1:123456789012:event-bus/default"
BUCKET = "arn:aws:s3:::failed-events"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:audit"
AT = 1573755365.568
EVENT = QueuedEvent(
    request_id="e4b46cbf-b738-4f0f-8880-a18cdf61200e",
    account="123456789012",
    region="us-east-1",
    name="my-function",
    payload=b'{"ORDER_IDS": ["9e07af03", "637de236"], "exact": 0.10, "large": 123456789012345678901}',
    accepted_at=1573755180.0,
    trace_id="Root=1-5dcd9a00-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0",
)
ERROR = json.dumps({"errorMessage": "no such order", "errorType": "KeyError"}).encode()
EXHAUSTED = EventEnd(
    condition="RetriesExhausted",
    at=AT,
    invoke_count=3,
    response=Response(status_code=200, executed_version="$LATEST", function_error="Unhandled", payload=ERROR),
)
HANDLED = EventEnd(
    condition="Success",
    at=AT,
    invoke_count=1,
    response=Response(status_code=200, executed_version="7", payload=b'{"done": 1}'),
)
UNHEARD = EventEnd(condition="EventAgeExceeded", at=AT, invoke_count=0)


def answered(payload, end=EXHAUSTED):
    return replace(end, response=replace(end.response, payload=payload))


def only(event, end, **config):
    (delivery,) = deliveries(event, end, EventConfig(**config))
    return delivery


def test_the_record_of_a_failure_is_that_of_aws():
    assert json.loads(record(EVENT, EXHAUSTED)) == {
        "version": "1.0",
        "timestamp": "2019-11-14T18:16:05.568Z",
        "requestContext": {
            "requestId": "e4b46cbf-b738-4f0f-8880-a18cdf61200e",
            "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:my-function:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": json.loads(EVENT.payload),
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": {"errorMessage": "no such order", "errorType": "KeyError"},
    }
    assert EVENT.payload in record(EVENT, EXHAUSTED)  # byte for byte: no number is written in another way


def test_the_record_of_a_success_has_no_error():
    written = json.loads(record(replace(EVENT, qualifier="live"), HANDLED))
    assert written["requestContext"]["functionArn"].endswith(":my-function:live")
    assert written["requestContext"]["condition"] == "Success"
    assert written["responseContext"] == {"statusCode": 200, "executedVersion": "7"}
    assert written["responsePayload"] == {"done": 1}


@pytest.mark.parametrize("result", [b"null", b'""', b"0", b"[]", b'"\\ud800"'])
def test_every_result_is_in_the_record(result):
    assert json.loads(record(EVENT, answered(result, HANDLED)))["responsePayload"] == json.loads(result)


@pytest.mark.parametrize("result", [b"<xml/>", b"\xff", b'{"a": NaN}', b"[" * 100_000])
def test_a_response_that_is_no_json_is_said_to_be_none(result):
    written = json.loads(record(EVENT, answered(result, HANDLED)))
    assert "responsePayload" not in written
    assert written["deliveryError"]["errorCode"] == "InvalidRequestContentException"


def test_no_payload_stands_for_an_empty_object():
    empty = replace(EVENT, payload=b"")
    assert json.loads(record(empty, HANDLED))["requestPayload"] == {}
    assert only(empty, EXHAUSTED, dead_letter=QUEUE).body == b"{}"


def test_an_event_that_was_never_run_has_no_response():
    assert {"responseContext", "responsePayload"}.isdisjoint(json.loads(record(EVENT, UNHEARD)))
    refusal = Response(status_code=429, message="Rate Exceeded.")
    held = json.loads(record(EVENT, replace(UNHEARD, response=refusal)))
    assert (held["responseContext"], held["responsePayload"]) == (
        {"statusCode": 429},
        {"errorMessage": "Rate Exceeded."},
    )
    zero = EventEnd(condition="ZeroReservedConcurrency", at=AT, invoke_count=0, response=refusal)
    assert {"responseContext", "responsePayload"}.isdisjoint(json.loads(record(EVENT, zero)))


def test_records_go_to_the_destination_of_how_the_event_ended():
    config = {"on_success": TOPIC, "on_failure": QUEUE}
    assert only(EVENT, HANDLED, **config).target == TOPIC
    delivery = only(EVENT, EXHAUSTED, **config)
    assert (delivery.target, delivery.kind, delivery.success) == (QUEUE, "destination", False)
    assert (delivery.request_id, delivery.body) == (EVENT.request_id, record(EVENT, EXHAUSTED))
    assert deliveries(EVENT, HANDLED, EventConfig(on_failure=QUEUE, dead_letter=QUEUE)) == ()


def test_a_failed_event_may_go_to_a_destination_and_to_a_dead_letter_queue():
    first, second = deliveries(EVENT, EXHAUSTED, EventConfig(on_failure=TOPIC, dead_letter=QUEUE))
    assert (first.target, first.kind, second.target, second.kind) == (TOPIC, "destination", QUEUE, "dead-letter")
    assert first.id != second.id
    assert (first, second) == deliveries(EVENT, EXHAUSTED, EventConfig(on_failure=TOPIC, dead_letter=QUEUE))


def test_a_dead_letter_is_the_event_with_three_attributes():
    letter = only(EVENT, EXHAUSTED, dead_letter=QUEUE)
    assert letter.body == EVENT.payload
    assert letter.attributes == {"RequestID": EVENT.request_id, "ErrorCode": 200, "ErrorMessage": "no such order"}


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (UNHEARD, {"ErrorMessage": "The event was not processed within its maximum age."}),
        (
            replace(UNHEARD, response=Response(status_code=429, message="Rate Exceeded.")),
            {"ErrorCode": 429, "ErrorMessage": "Rate Exceeded."},
        ),
        (
            EventEnd(condition="ZeroReservedConcurrency", at=AT, invoke_count=0, response=Response(status_code=429)),
            {"ErrorMessage": "Function not invoked. Function is configured with zero reserved concurrent executions."},
        ),
        (answered(b'{"errorMessage": ""}'), {"ErrorCode": 200}),
        (answered(b'{"errorMessage": 5}'), {"ErrorCode": 200}),
        (answered(b"not json"), {"ErrorCode": 200}),
        (answered(b'{"errorMessage": "a\\u0000b\\ud800"}'), {"ErrorCode": 200, "ErrorMessage": "a\ufffdb\ufffd"}),
    ],
)
def test_a_dead_letter_says_what_is_known(end, expected):
    assert only(EVENT, end, dead_letter=TOPIC).attributes == {"RequestID": EVENT.request_id, **expected}


def test_an_error_message_is_cut_to_a_kilobyte_between_characters():
    message = json.dumps({"errorMessage": "x" + "é" * 1000}).encode()
    cut = only(EVENT, answered(message), dead_letter=QUEUE).attributes["ErrorMessage"]
    assert cut == "x" + "é" * 511


def test_a_record_that_is_too_large_for_a_topic_goes_without_payloads_when_the_event_failed():
    large = replace(EVENT, payload=b'"%s"' % (b"x" * MOST_MESSAGE_BYTES))
    written = json.loads(only(large, EXHAUSTED, on_failure=TOPIC).body)
    assert written["requestContext"]["condition"] == "RetriesExhausted"
    assert written["responseContext"]["functionError"] == "Unhandled"
    assert {"requestPayload", "responsePayload"}.isdisjoint(written)
    for end, config in ((HANDLED, {"on_success": TOPIC}), (EXHAUSTED, {"on_failure": QUEUE})):
        assert "requestPayload" in json.loads(only(large, end, **config).body)


def test_objects_and_events_have_their_name_and_their_time():
    delivery = only(EVENT, EXHAUSTED, on_failure=BUCKET)
    assert delivery.attributes == {"Key": object_key("my-function", AT, delivery.id)}
    assert re.fullmatch(
        r"aws/lambda/async/my-function/2019/11/14/2019-11-14T18\.16\.05-[0-9a-f-]{36}", delivery.attributes["Key"]
    )
    assert only(EVENT, EXHAUSTED, on_failure=BUS).attributes == {"Time": 1573755365}


def test_the_tracing_header_has_the_function_in_its_lineage():
    mark = mark_of("123456789012/us-east-1/my-function")  # as the invoker counts deployed functions
    delivery = only(EVENT, HANDLED, on_success=FUNCTION)
    assert delivery.trace_id.startswith(EVENT.trace_id)
    assert times(delivery.trace_id, mark) == 1
    again = only(replace(EVENT, trace_id=delivery.trace_id), HANDLED, on_success=FUNCTION)
    assert times(again.trace_id, mark) == 2
    unmarked = replace(EVENT, trace_id=None)
    traces = {only(unmarked, HANDLED, on_success=FUNCTION).trace_id for _ in range(2)}
    assert len(traces) == 1
    assert re.match(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0;Lineage=1:", traces.pop())


@pytest.mark.parametrize(
    ("arn", "kind"),
    [
        (QUEUE, "sqs"),
        (TOPIC, "sns"),
        (BUS, "events"),
        (BUCKET, "s3"),
        (FUNCTION, "lambda"),
        (f"{FUNCTION}:live", "lambda"),
        ("kafka://failed", "kafka"),
        (f"{QUEUE}.fifo", None),
        (f"{TOPIC}.fifo", None),
        (QUEUE.replace("arn:aws:", "arn:aws-cn:"), None),
        (f"{QUEUE}\n", None),
        (f"{FUNCTION}\u0661", None),
    ],
)
def test_a_target_is_of_the_service_that_its_arn_names(arn, kind):
    assert target_kind(arn) == kind

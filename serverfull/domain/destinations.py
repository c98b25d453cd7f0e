"""What is sent where when an event has ended: AWS's record for destinations, and the event itself as a dead letter.

Pure functions. The queue asks `deliveries` when an event ends, and keeps what it gives until that is delivered, so
nothing here depends on when it is asked, or how often. Nothing knows whether a target exists.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import TYPE_CHECKING, Literal, TypeAlias

from serverfull.domain.events import Delivery
from serverfull.domain.json_functions import dumps, loads
from serverfull.domain.lineage import extended, mark_of
from serverfull.domain.names import LATEST, function_arn, is_partition_of
from serverfull.domain.timestamps import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serverfull.domain.events import EventConfig, EventEnd, QueuedEvent, Response

TargetKind: TypeAlias = Literal["sqs", "sns", "lambda", "events", "s3", "kafka"]
"""The service of a target, as ARNs call it."""

MOST_MESSAGE_BYTES = 262_144
"""Bytes of a message that SNS takes; the other services take four times as many, and S3 what comes."""

MOST_ERROR_BYTES = 1024
"""Bytes of an error message that a dead letter has."""

KEY = "Key"
"""The attribute of a delivery to a bucket that is the name of the object."""

TIME = "Time"
"""The attribute of a delivery to an event bus that says when the event has ended, in whole seconds."""

_IDS = uuid.UUID("4b0f6a55-3a0b-4d3c-9a36-0d5d8a7f2c11")

_ARN = r"arn:aws[a-zA-Z0-9-]*"
_PLACE = r"[a-z0-9-]+:\d{12}"

# Queues and topics that keep an order end with ".fifo" and are no destinations on AWS.
_TARGETS: Mapping[TargetKind, re.Pattern[str]] = {
    "sqs": re.compile(rf"{_ARN}:sqs:{_PLACE}:[a-zA-Z0-9_-]{{1,80}}", re.ASCII),
    "sns": re.compile(rf"{_ARN}:sns:{_PLACE}:[a-zA-Z0-9_-]{{1,256}}", re.ASCII),
    "lambda": re.compile(
        rf"{_ARN}:lambda:{_PLACE}:function:[a-zA-Z0-9-_]{{1,64}}(:(\$LATEST|[a-zA-Z0-9-_]{{1,128}}))?", re.ASCII
    ),
    "events": re.compile(rf"{_ARN}:events:{_PLACE}:event-bus/[/.a-zA-Z0-9_-]{{1,256}}", re.ASCII),
    "s3": re.compile(rf"{_ARN}:s3:::[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9]", re.ASCII),
    "kafka": re.compile(r"kafka://[^.][a-zA-Z0-9_.-]{0,248}", re.ASCII),
}

# What SQS and SNS take in a message: the characters of XML.
_UNSENDABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_REASONS = {
    "EventAgeExceeded": "The event was not processed within its maximum age.",
    "ZeroReservedConcurrency": "Function not invoked. Function is configured with zero reserved concurrent executions.",
}
"""What a dead letter says of events for which nothing else is known."""

_INVALID_RESPONSE = {
    "statusCode": 400,
    "errorCode": "InvalidRequestContentException",
    "errorMessage": "The function response payload could not be parsed as JSON.",
}


def target_kind(target: str) -> TargetKind | None:
    """Tell of what service a target is; None: AWS knows no target that is named like this."""
    for kind, pattern in _TARGETS.items():
        if pattern.fullmatch(target):
            return kind if _is_of_one_partition(target) else None
    return None


def _is_of_one_partition(target: str) -> bool:
    parts = target.split(":")
    return parts[0] != "arn" or not parts[3] or is_partition_of(parts[1], parts[3])


def deliveries(event: QueuedEvent, end: EventEnd, config: EventConfig) -> tuple[Delivery, ...]:
    """Give what is to be sent now that an event has ended: a record, a dead letter, both or nothing.

    The same event that ends in the same way gives the same deliveries, ids included.
    """
    found = []
    target = config.on_success if end.success else config.on_failure
    if target is not None:
        found.append(_record_delivery(event, end, target))
    if not end.success and config.dead_letter is not None:
        attributes = _dead_letter_attributes(event, end)
        found.append(_delivery(event, end, config.dead_letter, "dead-letter", event.payload or b"{}", attributes))
    return tuple(found)


def _record_delivery(event: QueuedEvent, end: EventEnd, target: str) -> Delivery:
    kind = target_kind(target)
    body = record(event, end)
    if kind == "sns" and len(body) > MOST_MESSAGE_BYTES and not end.success:
        body = record(event, end, payloads=False)  # as AWS does: otherwise nobody would hear of the failure
    attributes: dict[str, str | int] = {}
    if kind == "s3":
        attributes[KEY] = object_key(event.name, end.at, _id_of(event, end, "destination"))
    elif kind == "events":
        attributes[TIME] = int(end.at)
    return _delivery(event, end, target, "destination", body, attributes)


def _delivery(
    event: QueuedEvent,
    end: EventEnd,
    target: str,
    kind: Literal["destination", "dead-letter"],
    body: bytes,
    attributes: Mapping[str, str | int],
) -> Delivery:
    return Delivery(
        id=_id_of(event, end, kind),
        target=target,
        function_arn=_arn_of(event),
        request_id=event.request_id,
        kind=kind,
        success=end.success,
        body=body,
        attributes=attributes,
        trace_id=extended(event.trace_id or _trace_of(event), mark_of(event.line)),
    )


def record(event: QueuedEvent, end: EventEnd, *, payloads: bool = True) -> bytes:
    """Write AWS's invocation record. Payloads are in it byte for byte, so numbers stay what they were.

    :param payloads: whether event and response are in it; they are what makes a record too large for a target.
    """
    members: dict[str, bytes] = {
        "version": b'"1.0"',
        "timestamp": _json(timestamp(end.at)),
        "requestContext": _json(
            {
                "requestId": event.request_id,
                "functionArn": _arn_of(event),
                "condition": end.condition,
                "approximateInvokeCount": end.invoke_count,
            }
        ),
    }
    if payloads:
        members["requestPayload"] = event.payload or b"{}"
    if end.response is not None and end.condition != "ZeroReservedConcurrency":  # there nothing was tried
        members["responseContext"] = _json(_response_context(end.response))
        if payloads:
            members |= _response_members(end.response)
    return b"{" + b",".join(_json(name) + b":" + value for name, value in members.items()) + b"}"


def _response_context(response: Response) -> dict[str, str | int]:
    context: dict[str, str | int] = {"statusCode": response.status_code}
    if response.executed_version:
        context["executedVersion"] = response.executed_version
    if response.function_error:
        context["functionError"] = response.function_error
    return context


def _response_members(response: Response) -> dict[str, bytes]:
    """Give the response as it is, or say that it is no JSON, which a runtime of one's own may answer."""
    if not response.payload:
        return {"responsePayload": _json({"errorMessage": response.message})} if response.message else {}
    if _is_json(response.payload):
        return {"responsePayload": response.payload}
    return {"deliveryError": _json(_INVALID_RESPONSE)}


def object_key(function: str, at: float, unique: str) -> str:
    """Name the object that a record is in a bucket, as AWS does.

    :param at: when the event has ended, in seconds since the epoch.
    """
    second = timestamp(at)[:19].replace(":", ".")
    return f"aws/lambda/async/{function}/{second[:10].replace('-', '/')}/{second}-{unique}"


def _dead_letter_attributes(event: QueuedEvent, end: EventEnd) -> dict[str, str | int]:
    """Give the three attributes of a dead letter; what is not known, or empty, is left out, as messages demand."""
    attributes: dict[str, str | int] = {"RequestID": event.request_id}
    if end.response is not None and end.condition != "ZeroReservedConcurrency":
        attributes["ErrorCode"] = end.response.status_code
    message = _first_bytes(_UNSENDABLE.sub("\ufffd", error_message(end)), MOST_ERROR_BYTES)
    return attributes | {"ErrorMessage": message} if message else attributes


def error_message(end: EventEnd) -> str:
    """Say why an event was given up, as far as that is known: what the function has raised, or why it was refused."""
    response = end.response
    if end.condition == "ZeroReservedConcurrency" or response is None:
        return _REASONS.get(end.condition, end.condition)
    document = _loaded(response.payload) if response.payload else None
    message = document.get("errorMessage") if isinstance(document, dict) else None
    return message if isinstance(message, str) else response.message


def _first_bytes(text: str, most: int) -> str:
    """Cut a text to so many bytes of UTF-8, at the end of a character."""
    return text.encode()[:most].decode("utf-8", "ignore")


def _id_of(event: QueuedEvent, end: EventEnd, kind: str) -> str:
    return str(uuid.uuid5(_IDS, f"{event.line}/{event.request_id}/{kind}/{end.at!r}"))


def _arn_of(event: QueuedEvent) -> str:
    return function_arn(event.name, event.account, event.region, event.qualifier or LATEST)


def _trace_of(event: QueuedEvent) -> str:
    """Make a tracing header for an event that came without: the same each time."""
    digits = hashlib.sha256(event.request_id.encode()).hexdigest()
    return f"Root=1-{int(event.accepted_at):08x}-{digits[:24]};Parent={digits[24:40]};Sampled=0"


def _json(value: object) -> bytes:
    return dumps(value, separators=(",", ":")).encode()


def _is_json(payload: bytes) -> bool:
    return _loaded(payload) is not _NOTHING


def _loaded(payload: bytes) -> object:
    """Read JSON as strictly as those who get it; `_NOTHING` where it is none."""
    try:
        return loads(payload.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NOTHING


_NOTHING = object()


def _refuse(literal: str) -> None:
    raise ValueError(literal)

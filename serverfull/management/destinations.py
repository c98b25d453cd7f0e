"""Where records of events go: which ARNs AWS takes as destinations of what.

Pure functions. Nothing here knows whether a queue or a bucket exists; that a function does is asked by the callers.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from serverfull.domain.names import is_partition_of
from serverfull.errors import InvalidParameterValue

_ARN = r"arn:aws[a-zA-Z0-9-]*"
_PLACE = r"[a-z0-9-]+:\d{12}"

# Queues and topics that keep an order end with ".fifo" and are no destinations on AWS.
_DESTINATIONS = {
    "sqs": re.compile(rf"{_ARN}:sqs:{_PLACE}:[a-zA-Z0-9_-]{{1,80}}", re.ASCII),
    "sns": re.compile(rf"{_ARN}:sns:{_PLACE}:[a-zA-Z0-9_-]{{1,256}}", re.ASCII),
    "lambda": re.compile(
        rf"{_ARN}:lambda:{_PLACE}:function:[a-zA-Z0-9-_]{{1,64}}(:(\$LATEST|[a-zA-Z0-9-_]{{1,128}}))?"
    ),
    "events": re.compile(rf"{_ARN}:events:{_PLACE}:event-bus/[/.a-zA-Z0-9_-]{{1,256}}", re.ASCII),
    "s3": re.compile(rf"{_ARN}:s3:::[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9]", re.ASCII),
    "kafka": re.compile(r"kafka://[^.][a-zA-Z0-9_.-]{0,248}", re.ASCII),
}


def destination_kind(destination: str) -> str | None:
    """Tell what a destination is: ``sqs``, ``sns``, ``lambda``, ``events``, ``s3``, ``kafka``; None: unknown."""
    for kind, pattern in _DESTINATIONS.items():
        if pattern.fullmatch(destination):
            return kind if _is_of_one_partition(destination) else None
    return None


def check_destinations(config: Mapping[str, Any] | None, success: Collection[str], failure: Collection[str]) -> None:
    """Refuse a DestinationConfig whose destinations are of other kinds than these, or none at all.

    :raises InvalidParameterValue: in AWS's words.
    """
    on_success, on_failure = destination_of(config, "OnSuccess"), destination_of(config, "OnFailure")
    if _is_one_of(on_success, success) and _is_one_of(on_failure, failure):
        return
    success_text = f"OnSuccess(destination={on_success})" if on_success else "null"
    failure_text = f"OnFailure(destination={on_failure})" if on_failure else "null"
    raise InvalidParameterValue(
        f"The provided destination config DestinationConfig(onSuccess={success_text}, onFailure={failure_text}) "
        "is invalid."
    )


def destination_of(config: Mapping[str, Any] | None, event: str) -> str | None:
    """Give the destination of a DestinationConfig for ``OnSuccess`` or ``OnFailure``; an empty one is none."""
    return ((config or {}).get(event) or {}).get("Destination") or None


def _is_of_one_partition(destination: str) -> bool:
    parts = destination.split(":")
    return parts[0] != "arn" or not parts[3] or is_partition_of(parts[1], parts[3])


def _is_one_of(destination: str | None, kinds: Collection[str]) -> bool:
    return destination is None or destination_kind(destination) in kinds

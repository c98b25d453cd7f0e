"""Where records of events go: which ARNs AWS takes as destinations of what, and which of them this host can reach.

Pure functions. Nothing here knows whether a queue or a bucket exists; that a function does is asked by the callers.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from serverfull.domain.destinations import TargetKind, target_kind
from serverfull.domain.names import shown
from serverfull.errors import InvalidParameterValue

_DEAD_LETTER_KINDS = ("sqs", "sns")

_NAMES: Mapping[TargetKind | None, str] = {"sqs": "SQS", "sns": "SNS", "events": "EventBridge", "s3": "S3"}


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


def check_reachable(config: Mapping[str, Any] | None, reachable: Collection[str]) -> None:
    """Refuse a DestinationConfig with a destination at which nothing would ever arrive.

    :param reachable: the services that the host has endpoints of.
    :raises InvalidParameterValue: the message says which setting is missing.
    """
    for event in ("OnSuccess", "OnFailure"):
        destination = destination_of(config, event)
        if destination is not None:
            _check_reachable(destination, reachable)


def check_dead_letter(config: Mapping[str, str] | None, reachable: Collection[str]) -> None:
    """Refuse a DeadLetterConfig that names no standard queue or topic, or one at which nothing would ever arrive.

    :param reachable: the services that the host has endpoints of.
    :raises InvalidParameterValue: the message says what is wrong.
    """
    target = (config or {}).get("TargetArn")
    if not target:
        return
    if target_kind(target) not in _DEAD_LETTER_KINDS:
        raise InvalidParameterValue(
            f"The dead letter queue {shown(target)} is neither a standard SQS queue nor a standard SNS topic."
        )
    _check_reachable(target, reachable)


def _check_reachable(target: str, reachable: Collection[str]) -> None:
    kind = target_kind(target)
    if kind not in reachable:
        raise InvalidParameterValue(
            f"This host cannot send anything to {target}: its settings name no endpoint for {_NAMES.get(kind, kind)}. "
            "Set destinations.endpoint_url, or destinations.endpoints for this service alone; "
            "'aws' stands for AWS's own endpoint."
        )


def destination_of(config: Mapping[str, Any] | None, event: str) -> str | None:
    """Give the destination of a DestinationConfig for ``OnSuccess`` or ``OnFailure``; an empty one is none."""
    return ((config or {}).get(event) or {}).get("Destination") or None


def _is_one_of(destination: str | None, kinds: Collection[str]) -> bool:
    return destination is None or target_kind(destination) in kinds

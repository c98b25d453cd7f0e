"""Where records of events go: which ARNs AWS takes as destinations of what.

Pure functions. Nothing here knows whether a queue or a bucket exists; that a function does is asked by the callers.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from serverfull.domain.destinations import target_kind
from serverfull.errors import InvalidParameterValue


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


def _is_one_of(destination: str | None, kinds: Collection[str]) -> bool:
    return destination is None or target_kind(destination) in kinds

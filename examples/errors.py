"""What a handler raises reaches the caller as AWS sends it: HTTP 200, ``X-Amz-Function-Error: Unhandled`` and a body
with errorType, errorMessage, requestId and stackTrace.
"""

from __future__ import annotations

from typing import Any

from serverfull import Function


class OutOfStock(Exception):
    """Its name is the errorType that the caller sees."""


@Function(errors=[OutOfStock], timeout=2, description="Takes an item from the stock")
def reserve(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """``errors`` tells users of the function what may come; anything else that is raised works just the same."""
    if event.get("item") != "tea":
        raise OutOfStock(f"no {event.get('item')} left")
    return {"reserved": event["item"], "request": context.aws_request_id}


functions = {"reserve": reserve}

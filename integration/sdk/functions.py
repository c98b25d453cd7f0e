"""What the host serves while real clients call it."""

from __future__ import annotations

import threading
import time
from typing import Any

from serverfull import Function

received: list[Any] = []
arrived = threading.Condition()


def hello() -> str:
    return "Hello ƛ!"


def echo(event: Any) -> Any:
    return event


def about(event: Any, context: Any) -> dict[str, Any]:
    """Tell what the context says."""
    client = context.client_context
    return {
        "function_name": context.function_name,
        "function_version": context.function_version,
        "invoked_function_arn": context.invoked_function_arn,
        "memory_limit_in_mb": context.memory_limit_in_mb,
        "aws_request_id": context.aws_request_id,
        "remaining": context.get_remaining_time_in_millis(),
        "app_title": client.client.app_title if client else None,
        "custom": client.custom if client else None,
        "tenant_id": context.tenant_id,
    }


def talk(event: dict[str, Any], context: Any) -> str:
    """Write as many lines as the event says."""
    for number in range(event.get("lines", 1)):
        print(f"line {number} of the log")
    return "talked"


class NoSuchOrder(Exception):
    """What `fail` raises."""


def fail(event: Any, context: Any) -> None:
    raise NoSuchOrder("order 42 does not exist")


def remember(event: Any) -> None:
    """Keep the event, so that `recall` in the same process finds it."""
    with arrived:
        received.append(event)
        arrived.notify_all()


def recall(event: dict[str, Any]) -> bool:
    """Wait until `remember` got the event ``wanted``, at most ``wait`` seconds."""
    with arrived:
        return arrived.wait_for(lambda: event["wanted"] in received, timeout=event.get("wait", 5))


def big(event: dict[str, int]) -> str:
    return "x" * event["size"]


functions = {
    "hello": hello,
    "echo": echo,
    "about": Function(about, memory_size=256, timeout=20, description="Tells about its context", tags={"team": "a"}),
    "talk": talk,
    "fail": Function(fail, errors=[NoSuchOrder]),
    "slow": Function(lambda: time.sleep(1.5), timeout=0.3),
    "closed": Function(hello, max_concurrency=0),
    "remember": remember,
    "recall": Function(recall, timeout=10),
    "big": big,
    "my-function": echo,
}

"""Event buses of EventBridge.

AWS: https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.destinations.messages import trace_header
from serverfull.destinations.services import refusal
from serverfull.domain.destinations import TIME
from serverfull.interfaces import Deliverer

if TYPE_CHECKING:
    from serverfull.destinations.services import Service
    from serverfull.domain.events import Delivery

SOURCE = "lambda"
"""What AWS really sends. Its page says ``aws.lambda``, which nobody but AWS itself may send."""


class EventBuses(Deliverer):
    """Puts events."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def deliver(self, delivery: Delivery) -> None:
        """Put an event whose detail is the record.

        :raises DeliveryFailed: the bus is not there, or does not take it.
        """
        await self._service.call(delivery.target, delivery.target.split(":")[3], partial(_put, delivery))

    async def aclose(self) -> None:
        """Give back connections."""
        self._service.close()


def _put(delivery: Delivery, client: Any) -> None:
    entry = {
        "EventBusName": delivery.target,
        "Source": SOURCE,
        "DetailType": f"Lambda Function Invocation Result - {'Success' if delivery.success else 'Failure'}",
        "Resources": [delivery.target, delivery.function_arn],
        "Time": datetime.fromtimestamp(int(delivery.attributes[TIME]), UTC),
        "Detail": delivery.body.decode(),
    }
    trace = trace_header(delivery)
    if trace is not None:
        entry["TraceHeader"] = trace
    answer = client.put_events(Entries=[entry])
    if answer.get("FailedEntryCount"):
        failed = answer["Entries"][0]
        raise refusal({"Code": failed.get("ErrorCode", ""), "Message": failed.get("ErrorMessage", "")})

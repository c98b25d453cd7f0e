"""Counts and logs deliveries that fail, around whoever makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serverfull.domain.names import parse_function_reference
from serverfull.errors import DeliveryFailed
from serverfull.interfaces import Deliverer

if TYPE_CHECKING:
    from serverfull.domain.events import Delivery
    from serverfull.observability.metrics import Metrics

_MOST_FAILING = 1000
"""Targets of which it is remembered that the log has them; of others it says so again and again."""


class ObservingDeliverer(Deliverer):
    """Counts each attempt that fails, in Lambda's terms, and says in the host's log which target takes nothing.

    A target that fails is a line in the log once, until it takes something again; what is given up is a line each time.
    """

    def __init__(self, deliverer: Deliverer, metrics: Metrics, logger: Any) -> None:
        self._deliverer = deliverer
        self._metrics = metrics
        self._logger = logger
        self._failing: set[str] = set()

    async def deliver(self, delivery: Delivery) -> None:
        """Make a delivery.

        :raises DeliveryFailed: it was not made. Whatever else goes wrong in making it is one, too.
        """
        try:
            await self._deliverer.deliver(delivery)
        except DeliveryFailed as failure:
            self._failed(delivery, failure)
            raise
        except Exception as error:  # a delivery's boundary: what is kept must not be lost by a bug
            unknown = DeliveryFailed(f"{type(error).__name__}: {error}")
            self._failed(delivery, unknown, exc_info=error)
            raise unknown from error
        if delivery.target in self._failing:
            self._failing.discard(delivery.target)
            self._logger.info("destination takes records again", target=delivery.target)

    def _failed(self, delivery: Delivery, failure: DeliveryFailed, **more: Any) -> None:
        function = parse_function_reference(delivery.function_arn).name
        self._metrics.function(function).delivery_failed(dead_letter=delivery.kind == "dead-letter")
        said = {
            "function": function,
            "target": delivery.target,
            "kind": delivery.kind,
            "request_id": delivery.request_id,
            "reason": failure.reason,
            **more,
        }
        if failure.final:
            self._logger.error("record not delivered, and not tried again", **said)
        elif delivery.target not in self._failing:
            if len(self._failing) < _MOST_FAILING:
                self._failing.add(delivery.target)
            self._logger.warning("record not delivered, tried again later", **said)

    async def aclose(self) -> None:
        """Close what makes the deliveries."""
        await self._deliverer.aclose()

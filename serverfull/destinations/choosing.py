"""Chooses by the ARN of a target who delivers to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from serverfull.domain.destinations import target_kind
from serverfull.errors import DeliveryFailed
from serverfull.interfaces import Deliverer

if TYPE_CHECKING:
    from serverfull.domain.events import Delivery


class ChoosingDeliverer(Deliverer):
    """Passes each delivery on to the deliverer of its target's service.

    :param by_kind: the deliverers, by the services as ARNs call them.
    """

    def __init__(self, by_kind: Mapping[str, Deliverer]) -> None:
        self._by_kind = by_kind

    async def deliver(self, delivery: Delivery) -> None:
        """Make a delivery.

        :raises DeliveryFailed: it was not made; also where the settings name no endpoint any more, which the next host
            may have again.
        """
        kind = target_kind(delivery.target) or ""
        deliverer = self._by_kind.get(kind)
        if deliverer is None:
            raise DeliveryFailed(f"the settings [destinations] say nowhere where {kind or 'such a target'} is")
        await deliverer.deliver(delivery)

    async def aclose(self) -> None:
        """Close all of them."""
        for deliverer in self._by_kind.values():
            await deliverer.aclose()

"""A queue of events that is made for the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serverfull.errors import ShuttingDown
from serverfull.interfaces import EventQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from serverfull.domain.events import QueuedEvent


class QueueAtNeed(EventQueue):
    """Stands for a queue that keeps nothing beyond the process: most hosts with such a one never get an event.

    :param make: gives the queue, the same one each time, and has it asked in the place of this one from then on.
    """

    def __init__(self, make: Callable[[], EventQueue]) -> None:
        self._make = make
        self._draining = False

    async def put(self, event: QueuedEvent) -> bool:
        if self._draining:
            raise ShuttingDown
        return await self._make().put(event)

    def freed(self, function: str) -> None:
        """There is no event that this could be good for."""

    async def drain(self, timeout: float) -> int:
        self._draining = True
        return 0

"""A state for hosts that keep nothing: everything can be read, and is empty; writing is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from serverfull.domain.records import Kind, Partition, Record
from serverfull.errors import ResourceConflict
from serverfull.interfaces import Records, StateStore

Result = TypeVar("Result")


class RefusingState(StateStore):
    """Decorates an empty state.

    :param empty: is read.
    :param reason: why nothing can be deployed here, and what to do: one sentence that callers are shown.
    """

    def __init__(self, empty: StateStore, reason: str) -> None:
        self._empty = empty
        self._reason = reason

    async def read(self, partition: Partition, work: Callable[[Records], Result]) -> Result:
        """Read nothing."""
        return await self._empty.read(partition, work)

    async def write(self, partition: Partition, work: Callable[[Records], Result]) -> Result:
        """Refuse.

        :raises ResourceConflict: always, with the reason.
        """
        raise ResourceConflict(f"This host takes no deployments: {self._reason}")

    async def everywhere(self, kind: Kind[Record]) -> Sequence[tuple[Partition, Record]]:
        """Give nothing."""
        return await self._empty.everywhere(kind)

    async def aclose(self) -> None:
        """Give back what the empty state holds."""
        await self._empty.aclose()

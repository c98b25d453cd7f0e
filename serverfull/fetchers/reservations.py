"""How many executions the functions of each account and region have set aside; what is left is everybody else's.

A function sets aside what it has reserved, and where it has reserved nothing, what is provisioned for it.

Read from the state when a partition's first function is, and then for each function that changes. Used on the event
loop by `serverfull.fetchers.deployed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serverfull.domain.concurrency import PROVISIONED_CONCURRENCY
from serverfull.domain.deployed import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serverfull.domain.records import Partition
    from serverfull.interfaces import Records, StateStore


class Reservations:
    """What functions have set aside, as far as it has been read."""

    def __init__(self) -> None:
        self._reserved: dict[Partition, dict[str, int]] = {}
        self._totals: dict[Partition, int] = {}
        self._stale: dict[Partition, set[str]] = {}  # of every partition whose reading has begun

    def changed(self, partition: Partition, name: str) -> None:
        """Read this function again before its partition's sum is used."""
        if partition in self._stale:
            self._stale[partition].add(name)

    def known(self, partition: Partition) -> bool:
        """Say whether the sum of a partition is what was written; where not, `refresh`."""
        return partition in self._totals and not self._stale[partition]

    async def refresh(self, state: StateStore, partition: Partition) -> None:
        """Read what is not known.

        What fails or is cancelled leaves all of it unknown. A state answers in the order in which it works, and its
        writers tell of a change after its answer: what is read here is no older than the last change that was told.
        """
        stale = self._stale.setdefault(partition, set())  # changes from here on are noted
        if partition not in self._reserved:
            found = await state.read(partition, _all_reserved)
            self._reserved.setdefault(partition, dict(found))
        names = frozenset(stale)
        if names:
            news = await state.read(partition, lambda records: {name: _reserved(records, name) for name in names})
            self._take(self._reserved[partition], news)
            stale -= names
        self._totals[partition] = sum(self._reserved[partition].values())

    def total(self, partition: Partition) -> int:
        """Give the sum of a partition."""
        return self._totals.get(partition, 0)

    def of(self, partition: Partition, name: str) -> int:
        """Give what a function has set aside."""
        return self._reserved.get(partition, {}).get(name, 0)

    @staticmethod
    def _take(kept: dict[str, int], news: Mapping[str, int | None]) -> None:
        for name, reserved in news.items():
            if reserved is None:
                kept.pop(name, None)
            else:
                kept[name] = reserved


def _all_reserved(records: Records) -> Mapping[str, int]:
    taken: dict[str, int] = {}
    for config in records.list(PROVISIONED_CONCURRENCY):
        taken[config.function] = taken.get(config.function, 0) + config.requested
    reserved = {function.name: function.reserved_concurrency for function in records.list(FUNCTIONS)}
    return taken | {name: executions for name, executions in reserved.items() if executions is not None}


def _reserved(records: Records, name: str) -> int | None:
    function = records.get(FUNCTIONS, name)
    if function is None:
        return None
    if function.reserved_concurrency is not None:
        return function.reserved_concurrency
    return sum(config.requested for config in records.list(PROVISIONED_CONCURRENCY, name)) or None

"""Has environments made for provisioned concurrency, and knows how far that is.

It hears of every change of a function, reads what is provisioned for it then, and asks whoever runs functions for so
many environments of each version: what an alias has provisioned is its version's. A host that starts asks for all of
them again. One task for each function that has something provisioned; `aclose` ends them.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/provisioned-concurrency.html
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.concurrency import PROVISIONED_CONCURRENCY, ProvisionedConcurrency
from serverfull.domain.deployed import ALIASES
from serverfull.domain.readiness import Readiness
from serverfull.errors import FunctionNotReady, InvalidRuntime, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serverfull.domain.functions import Function
    from serverfull.domain.readiness import Fitness, Unfit
    from serverfull.domain.records import Partition
    from serverfull.fetchers.deployed import DeployedFetcher
    from serverfull.interfaces import Records, StateStore

_Key: TypeAlias = "tuple[Partition, str]"


class Running(Protocol):
    """What the control plane needs of whoever runs functions."""

    async def unfit(self, name: str, function: Function) -> Unfit | None:
        """Say why a function cannot run here as it is; None: it can."""

    async def snapshot(self, partition: Partition, name: str, function: Function) -> Fitness:
        """Load the code of a version with SnapStart, so that its environments can be made of that."""

    async def warm(self, partition: Partition, name: str, function: Function) -> None:
        """Begin with what the next call of a function would have to wait for; raises RequestError."""

    def provision(self, name: str, function: Function, count: int, changed: Callable[[Readiness], None]) -> None:
        """Keep so many environments of a function ready; ``changed`` is told how far that is."""


@dataclass(frozen=True, slots=True)
class _Share:
    """What a version or alias has of the environments of a version."""

    qualifier: str
    version: str
    count: int


@dataclass(slots=True)
class _Warm:
    """What is known of a function that has something provisioned.

    :ivar shares: what has been asked for, by qualifier in order.
    :ivar versions: how far each version is.
    """

    shares: Sequence[_Share] = ()
    versions: dict[str, Readiness] = field(default_factory=dict)


class Warming:
    """Follows what is provisioned.

    :param fetcher: gives the functions.
    :param running: makes the environments.
    """

    def __init__(self, state: StateStore, fetcher: DeployedFetcher, running: Running, logger: Any) -> None:
        self._state = state
        self._fetcher = fetcher
        self._running = running
        self._logger = logger
        self._warm: dict[_Key, _Warm] = {}
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._again: set[_Key] = set()
        self._closed = False

    async def start(self) -> None:
        """Begin with everything that is provisioned."""
        found = await self._state.everywhere(PROVISIONED_CONCURRENCY)
        for partition, name in {(partition, config.function) for partition, config in found}:
            self.changed(FunctionChanged(partition, name))

    def changed(self, change: FunctionChanged) -> None:
        """Look at a function again; what has failed for it is tried again."""
        key = change.partition, change.name
        warm = self._warm.get(key)
        if warm is not None:
            warm.versions = {version: replace(ready, failure=None) for version, ready in warm.versions.items()}
            warm.shares = ()  # until it has been looked at: an alias may mean another version, which is not ready yet
        if self._closed:
            return
        if key in self._tasks:
            self._again.add(key)
            return
        self._tasks[key] = asyncio.create_task(self._follow(key))

    def readiness(self, partition: Partition, config: ProvisionedConcurrency) -> Readiness:
        """Say how far the environments of a version or alias are."""
        warm = self._warm.get((partition, config.function), _Warm())
        before: dict[str, int] = {}
        for share in warm.shares:
            if share.qualifier == config.qualifier:
                version = warm.versions.get(share.version, Readiness())
                ready = max(0, min(version.ready - before.get(share.version, 0), config.requested))
                return Readiness(config.requested, ready, version.failure)
            before[share.version] = before.get(share.version, 0) + share.count
        return Readiness(config.requested)

    async def aclose(self) -> None:
        """Follow no more. Closing twice is fine."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, key: _Key) -> None:
        try:
            await self._look(key)
            while key in self._again:
                self._again.discard(key)
                await self._look(key)
        except Exception as error:  # a task's boundary: the state cannot be read
            self._logger.error("environments not made ready", function=key[1], exc_info=error)
        finally:  # at once: a change that came between the last look and a callback would be nobody's
            self._again.discard(key)
            self._tasks.pop(key, None)

    async def _look(self, key: _Key) -> None:
        partition, name = key
        shares = await self._state.read(partition, lambda records: _shares(records, name))
        warm = self._warm.get(key)
        if warm is None:
            if not shares:
                return
            warm = self._warm[key] = _Warm()
        warm.shares = shares
        counts = dict.fromkeys(warm.versions, 0)
        for share in shares:
            counts[share.version] = counts.get(share.version, 0) + share.count
        for version, count in counts.items():
            warm.versions.setdefault(version, Readiness(count))
            await self._ask(key, warm, version, count)
        if not shares:
            self._warm.pop(key, None)

    async def _ask(self, key: _Key, warm: _Warm, version: str, count: int) -> None:
        """Ask for so many environments of a version."""
        partition, name = key

        def changed(readiness: Readiness) -> None:
            warm.versions[version] = readiness

        try:
            function = await self._fetcher.function(partition, name, version)
        except NotFoundError:
            del warm.versions[version]  # its environments end with it
        except (FunctionNotReady, InvalidRuntime) as refusal:
            changed(Readiness(count, 0, refusal.message))
        else:
            self._running.provision(name, function, count, changed)
            if not count:
                warm.versions.pop(version, None)


def _shares(records: Records, name: str) -> list[_Share]:
    found = []
    for config in records.list(PROVISIONED_CONCURRENCY, name):
        alias = records.get(ALIASES, name, config.qualifier)
        version = config.qualifier if alias is None else alias.version
        found.append(_Share(config.qualifier, version, config.requested))
    return found

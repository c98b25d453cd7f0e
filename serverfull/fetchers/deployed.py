"""Functions that were deployed through the API, by name, version and alias.

`DeployedFetcher.at` gives the functions of an account in a region, which is how the invoker sees them. What has been
read of a function is kept until the control plane says that it has changed; a `Function` is the same object for as long
as it would be made of the same code and configuration, and its `DeployedHandler` even where only limits are new. While
an update is in progress, or when it has failed, the function is given as it was. A call that comes while a function is
still being made waits for that, by the change that tells of it; one of a function that could not be made has it tried
again, from time to time.

All on the event loop; the stores do their work elsewhere.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from serverfull.domain.deployed import ALIASES, FUNCTIONS, LATEST_NUMBER, VERSIONS, Alias
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.names import LATEST
from serverfull.errors import FunctionNotReady, NotFoundError, RequestError
from serverfull.fetchers.making import Making
from serverfull.fetchers.reservations import Reservations
from serverfull.interfaces import Fetcher, Found

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from serverfull.domain.changes import Changes, FunctionChanged
    from serverfull.domain.deployed import DeployedFunction, FunctionVersion
    from serverfull.domain.events import EventConfig
    from serverfull.domain.functions import Function
    from serverfull.domain.invoke_configs import EventInvokeConfig
    from serverfull.domain.records import Partition
    from serverfull.fetchers.hot import HotCode
    from serverfull.fetchers.making import FindRoot
    from serverfull.interfaces import CodeStore, Records, StateStore


Retry: TypeAlias = "Callable[[Partition, str, int], Awaitable[bool]]"
"""Makes a version once more; tells whether it has tried."""

PATIENCE = 10.0
"""Seconds that a call waits for a function which is still being made."""


@dataclass(slots=True)
class _Known:
    """What has been read of a function since it last changed."""

    function: DeployedFunction
    aliases: Mapping[str, Alias]
    versions: dict[int, Function] = field(default_factory=dict)
    event_configs: dict[str, EventConfig] = field(default_factory=dict)


class DeployedFetcher(Fetcher):
    """Gives deployed functions, apart for each account and region; by itself, without a partition, it has none.

    It has none at all until `read_from` says where they are kept.

    :param changes: says what is no longer as it was read.
    :param patience: seconds that a call waits for a function which is still being made.
    """

    source = "deployed"
    read_only = False

    def __init__(self, changes: Changes, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._store: StateStore | None = None
        self._retry: Retry | None = None
        self._making: Making | None = None
        self._known: dict[tuple[Partition, str], _Known] = {}
        self._before: dict[tuple[Partition, str], Function] = {}  # $LATEST, as it was given last
        self._changed: dict[tuple[Partition, str], asyncio.Event] = {}  # set, and forgotten, by the next change
        self._reservations = Reservations()
        changes.subscribe(self._forget)

    def read_from(
        self,
        state: StateStore,
        code: CodeStore,
        retry: Retry | None = None,
        find_root: FindRoot | None = None,
        hot: HotCode | None = None,
    ) -> None:
        """Say where functions, and where their packages are kept.

        :param retry: makes versions that could not be made, if it is time for that.
        :param find_root: says where versions run; None: in the folders of their packages.
        :param hot: has those that run in place; None: there are none.
        """
        self._store, self._retry = state, retry
        self._making = Making(state, code, find_root=find_root, hot=hot, patience=self._patience)

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Find nothing: whose function it is has to be said first.

        :raises NotFoundError: always.
        """
        raise NotFoundError(name)

    async def list(self) -> Mapping[str, Function]:
        """Give nothing: whose functions has to be said first."""
        return {}

    def at(self, partition: Partition) -> Fetcher:
        """Give the functions of an account in a region."""
        return _View(self, partition)

    async def names(self, partition: Partition) -> Sequence[str]:
        """Give the names of all functions of a partition."""

        def read(records: Records) -> Sequence[str]:
            return [function.name for function in records.list(FUNCTIONS)]

        return await self._state.read(partition, read) if self._store else ()

    @property
    def _state(self) -> StateStore:
        assert self._store is not None
        return self._store

    @property
    def _made(self) -> Making:
        assert self._making is not None
        return self._making

    def reserved(self, partition: Partition) -> int:
        """Give how many executions the functions of a partition have set aside, once one of them has been fetched."""
        return self._reservations.total(partition)

    def set_aside(self, partition: Partition, name: str) -> int:
        """Give how many of these are a function's own."""
        return self._reservations.of(partition, name)

    async def function(self, partition: Partition, name: str, qualifier: str | None) -> Function:
        """Give a version of a function, or one of those that an alias means, as soon as it is made.

        :raises NotFoundError: there is no such function, version or alias.
        :raises FunctionNotReady: it is still being made after all patience, or that has failed.
        """
        try:
            return await self.function_now(partition, name, qualifier)
        except FunctionNotReady as refusal:
            if refusal.state != "Pending" and not await self._tried_again(partition, name, qualifier):
                raise
        return await self._when_made(partition, name, qualifier)

    async def _tried_again(self, partition: Partition, name: str, qualifier: str | None) -> bool:
        """Have a version made that has failed, and wait for that; tells whether there may be news."""
        if self._retry is None:
            return False
        known = self._known.get((partition, name)) or await self._read(partition, name)
        try:
            async with asyncio.timeout(self._patience):
                return await self._retry(partition, name, _number(known, name, qualifier))
        except TimeoutError:
            return False

    async def _when_made(self, partition: Partition, name: str, qualifier: str | None) -> Function:
        until = asyncio.get_running_loop().time() + self._patience
        while True:
            changed = self._changed.setdefault((partition, name), asyncio.Event())  # before looking: none is missed
            try:
                return await self.function_now(partition, name, qualifier)
            except FunctionNotReady as refusal:
                if refusal.state != "Pending":
                    raise
                try:
                    async with asyncio.timeout_at(until):
                        await changed.wait()
                except TimeoutError:
                    raise refusal from None

    async def function_now(self, partition: Partition, name: str, qualifier: str | None) -> Function:
        """Give a version of a function as `function` does, without waiting for one that is still being made."""
        if self._store is None:
            raise NotFoundError(name)
        known = self._known.get((partition, name)) or await self._read(partition, name)
        if not self._reservations.known(partition):
            await self._reservations.refresh(self._state, partition)
        number = _number(known, name, qualifier)
        found = known.versions.get(number)
        if found is None:
            made = await self._make(partition, known.function, number)
            found = known.versions.setdefault(number, made)  # another call may have been faster
            if number == LATEST_NUMBER:
                self._before[partition, name] = found
        return found

    async def event_config(self, partition: Partition, name: str, qualifier: str | None) -> EventConfig:
        """Say what is to be done with events that were sent to a version or an alias; AWS's defaults for what is gone.

        The dead-letter queue is that of ``$LATEST`` for all versions, as on AWS:
        https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html#invocation-dlq
        """
        from serverfull.domain.events import EventConfig
        from serverfull.domain.invoke_configs import EVENT_INVOKE_CONFIGS

        if self._store is None:
            return EventConfig()
        try:
            known = self._known.get((partition, name)) or await self._read(partition, name)
        except NotFoundError:
            return EventConfig()
        qualifier = qualifier or LATEST
        config = known.event_configs.get(qualifier)
        if config is None:

            def read(records: Records) -> EventConfig:
                latest = records.get(VERSIONS, name, LATEST_NUMBER)
                return _event_config(records.get(EVENT_INVOKE_CONFIGS, name, qualifier), latest)

            config = known.event_configs[qualifier] = await self._state.read(partition, read)
        return config

    def _forget(self, change: FunctionChanged) -> None:
        self._known.pop((change.partition, change.name), None)
        if waited_for := self._changed.pop((change.partition, change.name), None):
            waited_for.set()
        self._reservations.changed(change.partition, change.name)
        if self._making is not None and (change.deleted or change.version is not None):
            self._making.forget(change.partition, change.name, None if change.deleted else change.version)
        if change.deleted:
            self._before.pop((change.partition, change.name), None)

    async def _read(self, partition: Partition, name: str) -> _Known:
        numbers = self._made.numbers(partition, name)

        def read(records: Records) -> tuple[_Known | None, Sequence[int]]:
            function = records.get(FUNCTIONS, name)
            if function is None:
                return None, numbers
            known = _Known(function, {alias.name: alias for alias in records.list(ALIASES, name)})
            return known, [number for number in numbers if records.get(VERSIONS, name, number) is None]

        known, gone = await self._state.read(partition, read)
        for number in gone:
            self._made.forget(partition, name, number)
        if known is None:
            raise NotFoundError(name)
        return self._known.setdefault((partition, name), known)  # another call may have been faster

    async def _make(self, partition: Partition, function: DeployedFunction, number: int) -> Function:
        version = await self._state.read(partition, lambda records: records.get(VERSIONS, function.name, number))
        if version is None:
            raise NotFoundError(f"{function.name}:{number}")
        _check_runnable(version)
        before = self._before.get((partition, function.name))
        if before is not None and number == LATEST_NUMBER and version.last_update_status != "Successful":
            limit = function.reserved_concurrency
            return replace(before, max_concurrency=limit, recursive_loop=function.recursive_loop)
        return await self._made.function(partition, function, version)

    async def candidate(self, partition: Partition, version: FunctionVersion) -> Function:
        """Make a function of a version that nobody can invoke yet, to see whether it could be run.

        :raises NotFoundError: the function is gone.
        :raises InvalidParameterValue: its package or that of a layer cannot be unpacked.
        :raises DependenciesNotInstalled: what it asks for could not be installed.
        """
        function = await self._state.read(partition, lambda records: records.get(FUNCTIONS, version.function))
        if function is None:
            raise NotFoundError(version.function)
        return await self._made.function(partition, function, version, preparing=True)

    async def load(self, partition: Partition, name: str) -> None:
        """Read ``$LATEST`` before it changes, unless it is known: calls get it while the next one is being made."""
        if (partition, name) not in self._before:
            with suppress(RequestError, KeyError, OSError):  # whoever calls it is told
                await self.function_now(partition, name, None)

    def packages_in_use(self) -> set[str]:
        """Give the packages of what calls get, also where their versions have others by now."""
        handlers = [function.handler for function in self._before.values()]
        roots = [root for handler in handlers if isinstance(handler, DeployedHandler) for root in _roots(handler)]
        return {root.name.partition(".")[0] for root in roots}  # trees are named after their packages


class _View(Fetcher):
    """The functions of one account in one region."""

    source = DeployedFetcher.source
    read_only = False

    def __init__(self, deployed: DeployedFetcher, partition: Partition) -> None:
        self._deployed = deployed
        self._partition = partition

    def fetch(self, name: str, qualifier: str | None = None) -> Coroutine[Any, Any, Function]:
        """Give the function."""
        return self._deployed.function(self._partition, name, qualifier)

    async def list(self) -> Mapping[str, Function]:
        """Give every function that can be run now."""
        found = {}
        for name in await self._deployed.names(self._partition):
            try:
                found[name] = await self._deployed.function_now(self._partition, name, None)
            except (NotFoundError, FunctionNotReady):
                continue
        return found

    async def survey(self) -> Sequence[Found]:
        """Say what is deployed, without making functions of it."""
        return [Found(name=name, source=self.source) for name in await self._deployed.names(self._partition)]


def _event_config(found: EventInvokeConfig | None, latest: FunctionVersion | None) -> EventConfig:
    """Give what is configured, with AWS's defaults for what is not."""
    from serverfull.domain.events import EventConfig

    letters = None if latest is None else latest.settings.get("DeadLetterConfig", {}).get("TargetArn")
    config = EventConfig(dead_letter=letters or None)
    if found is None:
        return config
    retries, age = found.maximum_retry_attempts, found.maximum_event_age
    return replace(
        config,
        retries=config.retries if retries is None else retries,
        maximum_age=config.maximum_age if age is None else age,
        on_success=found.on_success,
        on_failure=found.on_failure,
    )


def _roots(handler: DeployedHandler) -> Sequence[Path]:
    return handler.root, *handler.layers


def _number(known: _Known, name: str, qualifier: str | None) -> int:
    """Give the number of the version that a qualifier means; an alias with weights means one by chance."""
    if qualifier is None or qualifier == LATEST:
        return LATEST_NUMBER
    version = qualifier
    if not qualifier.isdecimal():
        alias = known.aliases.get(qualifier)
        if alias is None:
            raise NotFoundError(f"{name}:{qualifier}")
        version = _routed(alias)
    if version == LATEST:
        return LATEST_NUMBER
    number = int(version)
    if number == LATEST_NUMBER:
        raise NotFoundError(f"{name}:{qualifier}")
    return number


def _routed(alias: Alias) -> str:
    """Choose a version by the alias's weights; what they leave goes to its own.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/configuring-alias-routing.html
    """
    if alias.weights:
        chance = random.random()  # noqa: S311 - this spreads load and guards nothing
        for version, weight in alias.weights.items():
            chance -= weight
            if chance < 0:
                return version
    return alias.version


def _check_runnable(version: FunctionVersion) -> None:
    if version.state in ("Pending", "Failed"):
        raise FunctionNotReady(version.function, version.state, version.state_reason or "")

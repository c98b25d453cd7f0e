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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from weakref import finalize

from serverfull.domain.deployed import ALIASES, FUNCTIONS, LATEST_NUMBER, VERSIONS, Alias
from serverfull.domain.deployed_handler import DeployedHandler, ImageConfig
from serverfull.domain.functions import Function
from serverfull.domain.hot_paths import OFF, FolderIdentity, refused
from serverfull.domain.layers import LAYER_VERSIONS, layer_key
from serverfull.domain.names import LATEST
from serverfull.errors import FunctionNotReady, NotFoundError, RequestError
from serverfull.fetchers.reservations import Reservations
from serverfull.interfaces import Fetcher, Found

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from serverfull.domain.changes import Changes, FunctionChanged
    from serverfull.domain.deployed import DeployedFunction, FunctionVersion
    from serverfull.domain.events import EventConfig
    from serverfull.domain.invoke_configs import EventInvokeConfig
    from serverfull.domain.layers import LayerVersion
    from serverfull.domain.records import Partition
    from serverfull.fetchers.hot import HotCode
    from serverfull.interfaces import CodeStore, Records, StateStore


Retry: TypeAlias = "Callable[[Partition, str, int], Awaitable[bool]]"
"""Makes a version once more; tells whether it has tried."""

FindRoot: TypeAlias = "Callable[[Path, FunctionVersion, Mapping[str, str], bool], Awaitable[Path]]"
"""Gives the folder that a version runs from, for that of its package and the function's tags; also whether it is being
prepared now. Raises DependenciesNotInstalled."""

PATIENCE = 10.0
"""Seconds that a call waits for a function which is still being made."""


class _HotFolders(NamedTuple):
    """What a version runs from in place.

    :param root: the folder that is its package; None: it has one.
    :param generation: of what is in its folders.
    :param admit: looks whether it may run from them; None: there are none.
    """

    root: Path | None = None
    generation: int = 0
    admit: Callable[[], Sequence[FolderIdentity]] | None = None


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
        self._stores: tuple[StateStore, CodeStore] | None = None
        self._retry: Retry | None = None
        self._find_root: FindRoot | None = None
        self._hot: HotCode | None = None
        self._known: dict[tuple[Partition, str], _Known] = {}
        self._handlers: dict[tuple[Partition, str], dict[int, tuple[object, DeployedHandler]]] = {}
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
        self._stores, self._retry, self._find_root, self._hot = (state, code), retry, find_root, hot

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

        return await self._state.read(partition, read) if self._stores else ()

    @property
    def _state(self) -> StateStore:
        assert self._stores is not None
        return self._stores[0]

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
        if self._stores is None:
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

        if self._stores is None:
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
        if change.version is not None:
            self._handlers.get((change.partition, change.name), {}).pop(change.version, None)
        if change.deleted:
            self._handlers.pop((change.partition, change.name), None)
            self._before.pop((change.partition, change.name), None)

    async def _read(self, partition: Partition, name: str) -> _Known:
        handlers = self._handlers.get((partition, name), {})
        numbers = list(handlers)

        def read(records: Records) -> tuple[_Known | None, Sequence[int]]:
            function = records.get(FUNCTIONS, name)
            if function is None:
                return None, numbers
            known = _Known(function, {alias.name: alias for alias in records.list(ALIASES, name)})
            return known, [number for number in numbers if records.get(VERSIONS, name, number) is None]

        known, gone = await self._state.read(partition, read)
        for number in gone:
            handlers.pop(number, None)
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
        return await self._as_function(partition, function, version)

    async def candidate(self, partition: Partition, version: FunctionVersion) -> Function:
        """Make a function of a version that nobody can invoke yet, to see whether it could be run.

        :raises NotFoundError: the function is gone.
        :raises InvalidParameterValue: its package or that of a layer cannot be unpacked.
        :raises DependenciesNotInstalled: what it asks for could not be installed.
        """
        function = await self._state.read(partition, lambda records: records.get(FUNCTIONS, version.function))
        if function is None:
            raise NotFoundError(version.function)
        return await self._as_function(partition, function, version, preparing=True)

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

    async def _as_function(
        self, partition: Partition, function: DeployedFunction, version: FunctionVersion, *, preparing: bool = False
    ) -> Function:
        layers = await self._layers(partition, version)
        hot = await self._use_hot(partition, version, layers)
        root = hot.root or await self._root(function, version, preparing=preparing)
        logging = version.settings.get("LoggingConfig", {})
        return Function(
            await self._handler(partition, version, root, layers, hot, function.generation),
            timeout=version.timeout,
            memory_size=version.memory_size,
            environment=version.environment,
            description=version.description,
            max_concurrency=function.reserved_concurrency,
            recursive_loop=function.recursive_loop,
            log_format=version.log_format,
            log_group=logging.get("LogGroup"),
            application_log_level=logging.get("ApplicationLogLevel"),
            system_log_level=logging.get("SystemLogLevel"),
            tags=function.tags,
            version=version.version,
            generation=1 + hot.generation,
        )

    async def _root(self, function: DeployedFunction, version: FunctionVersion, *, preparing: bool) -> Path:
        """Give the folder that a version runs from. A call waits only so long for one that is not there any more."""
        assert self._stores is not None
        if version.package_type != "Zip":
            return Path()
        code = await self._stores[1].tree(version.code_sha256)
        if self._find_root is None:
            return code
        try:
            async with asyncio.timeout(None if preparing else self._patience):
                return await self._find_root(code, version, function.tags, preparing)
        except TimeoutError:
            raise FunctionNotReady(function.name, "Pending", "Its dependencies are being installed.") from None

    async def _use_hot(
        self, partition: Partition, version: FunctionVersion, layers: Sequence[LayerVersion]
    ) -> _HotFolders:
        """Give what a version runs from in place, which is watched from now on; nothing, as a rule.

        :raises FunctionNotReady: a folder may not be used any more, or is gone.
        """
        paths = [version.hot_path] if version.is_hot else []
        paths += [layer.hot_path for layer in layers if layer.hot_path]
        if self._hot is None:
            if paths:
                raise FunctionNotReady(version.function, "Failed", refused(paths[0], OFF).message)
            return _HotFolders()
        name = partition, version.function
        found = await self._hot.use(name, version.number, paths)
        if not paths:
            return _HotFolders()
        root = found[0] if version.is_hot else None
        return _HotFolders(root, self._hot.generation(name), partial(self._hot.check, version.function, paths))

    async def _handler(
        self,
        partition: Partition,
        version: FunctionVersion,
        root: Path,
        layers: Sequence[LayerVersion],
        hot: _HotFolders,
        generation: str,
    ) -> DeployedHandler:
        made_of = (
            root,
            version.handler,
            version.runtime,
            tuple(layer["Arn"] for layer in version.settings.get("Layers", ())),
            version.settings.get("EphemeralStorage", {}).get("Size", 512),
            version.wants_snapshot and version.number != LATEST_NUMBER,
            tuple(sorted(version.environment.items())),
            version.resolved_image or version.image_uri,
            str(version.settings.get("ImageConfig")),
            version.architecture,
            generation,
            version.hot_path,
            hot.generation,
        )
        handlers = self._handlers.setdefault((partition, version.function), {})
        kept = handlers.get(version.number)
        if kept is None or kept[0] != made_of:
            assert self._stores is not None
            trees = [await self._layer(partition, version, layer) for layer in layers]
            copies = [tree for tree, layer in zip(trees, layers, strict=True) if layer.hot_path]
            kept = handlers.get(version.number)  # again: calls that came together must not load the code twice
            if kept is None or kept[0] != made_of:
                handler = DeployedHandler(
                    version.handler or "",
                    root,
                    runtime=version.runtime or "",
                    layers=trees,
                    region=partition.region,
                    ephemeral_mb=made_of[4],
                    architecture=version.architecture,
                    image_uri=version.resolved_image or version.image_uri or "",
                    image_config=_image_config(version.settings.get("ImageConfig", {})),
                    snap_start=made_of[5],
                    generation=generation,
                    live=version.is_hot,
                    virtualenv=bool(version.hot_path),
                    admit=hot.admit,
                )
                kept = handlers[version.number] = made_of, handler
                if copies and self._hot is not None:
                    finalize(handler, self._hot.remove, copies).atexit = False
            elif copies and self._hot is not None:
                self._hot.remove(copies)
        return kept[1]

    async def _layer(self, partition: Partition, version: FunctionVersion, layer: LayerVersion) -> Path:
        """Give the folder of a layer: of one that is hot, as it is now, for other generations have others."""
        assert self._stores is not None
        if layer.hot_path:
            assert self._hot is not None
            return await self._hot.copy((partition, version.function), layer.hot_path)
        return await self._stores[1].tree(layer.code_sha256)

    async def _layers(self, partition: Partition, version: FunctionVersion) -> Sequence[LayerVersion]:
        """Give a version's layers, the first one at the bottom."""
        arns = [layer["Arn"] for layer in version.settings.get("Layers", ())]

        def read(records: Records) -> Sequence[LayerVersion]:
            found = [records.get(LAYER_VERSIONS, *layer_key(arn)) for arn in arns]
            return [layer for layer in found if layer is not None]

        return await self._state.read(partition, read) if arns else ()


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


def _image_config(config: Mapping[str, Any]) -> ImageConfig:
    """Read AWS's ImageConfig; what is empty there is left to the image, as what is not there."""
    return ImageConfig(
        command=tuple(config.get("Command", ())) or None,
        entry_point=tuple(config.get("EntryPoint", ())) or None,
        working_directory=config.get("WorkingDirectory") or None,
    )


def _check_runnable(version: FunctionVersion) -> None:
    if version.state in ("Pending", "Failed"):
        raise FunctionNotReady(version.function, version.state, version.state_reason or "")

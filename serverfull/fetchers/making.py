"""Makes functions of the versions that were deployed: where their code lies, and the handler that stands for it.

A version has the same `DeployedHandler` for as long as code and configuration are the same, whatever else is new; what
is loaded ends with it. All on the event loop; the stores do their work elsewhere.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from weakref import finalize

from serverfull.domain.deployed import LATEST_NUMBER
from serverfull.domain.deployed_handler import DeployedHandler, ImageConfig
from serverfull.domain.functions import Function
from serverfull.domain.hot_paths import OFF, FolderIdentity, refused
from serverfull.domain.layers import LAYER_VERSIONS, layer_key
from serverfull.errors import FunctionNotReady

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from serverfull.domain.deployed import DeployedFunction, FunctionVersion
    from serverfull.domain.layers import LayerVersion
    from serverfull.domain.records import Partition
    from serverfull.fetchers.hot import HotCode
    from serverfull.interfaces import CodeStore, Records, StateStore


FindRoot: TypeAlias = "Callable[[Path, FunctionVersion, Mapping[str, str], bool], Awaitable[Path]]"
"""Gives the folder that a version runs from, for that of its package and the function's tags; also whether it is being
prepared now. Raises DependenciesNotInstalled."""


class _HotFolders(NamedTuple):
    """What a version runs from in place.

    :param root: the folder that is its package; None: it has one.
    :param generation: of what is in its folders.
    :param admit: looks whether it may run from them; None: there are none.
    """

    root: Path | None = None
    generation: int = 0
    admit: Callable[[], Sequence[FolderIdentity]] | None = None


class Making:
    """Makes functions, and keeps their handlers.

    :param find_root: says where versions run; None: in the folders of their packages.
    :param hot: has those that run in place; None: there are none.
    :param patience: seconds that a call waits for what is not there any more.
    """

    def __init__(
        self,
        state: StateStore,
        code: CodeStore,
        *,
        find_root: FindRoot | None = None,
        hot: HotCode | None = None,
        patience: float,
    ) -> None:
        self._state = state
        self._code = code
        self._find_root = find_root
        self._hot = hot
        self._patience = patience
        self._handlers: dict[tuple[Partition, str], dict[int, tuple[object, DeployedHandler]]] = {}

    def numbers(self, partition: Partition, name: str) -> Sequence[int]:
        """Give the versions of a function that there are handlers of."""
        return list(self._handlers.get((partition, name), ()))

    def forget(self, partition: Partition, name: str, number: int | None = None) -> None:
        """Let go of the handler of a version that is gone; without one, of those of a function."""
        if number is None:
            self._handlers.pop((partition, name), None)
        else:
            self._handlers.get((partition, name), {}).pop(number, None)

    async def function(
        self, partition: Partition, function: DeployedFunction, version: FunctionVersion, *, preparing: bool = False
    ) -> Function:
        """Give a version as a function.

        :param preparing: whether it is prepared now, so that whatever takes its time may be done.
        :raises InvalidParameterValue: its package or that of a layer cannot be unpacked.
        :raises DependenciesNotInstalled: what it asks for could not be installed.
        :raises FunctionNotReady: that is being done, or a folder that it runs from in place is gone.
        """
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
        if version.package_type != "Zip":
            return Path()
        code = await self._code.tree(version.code_sha256)
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
        if layer.hot_path:
            assert self._hot is not None
            return await self._hot.copy((partition, version.function), layer.hot_path)
        return await self._code.tree(layer.code_sha256)

    async def _layers(self, partition: Partition, version: FunctionVersion) -> Sequence[LayerVersion]:
        """Give a version's layers, the first one at the bottom."""
        arns = [layer["Arn"] for layer in version.settings.get("Layers", ())]

        def read(records: Records) -> Sequence[LayerVersion]:
            found = [records.get(LAYER_VERSIONS, *layer_key(arn)) for arn in arns]
            return [layer for layer in found if layer is not None]

        return await self._state.read(partition, read) if arns else ()


def _image_config(config: Mapping[str, Any]) -> ImageConfig:
    """Read AWS's ImageConfig; what is empty there is left to the image, as what is not there."""
    return ImageConfig(
        command=tuple(config.get("Command", ())) or None,
        entry_point=tuple(config.get("EntryPoint", ())) or None,
        working_directory=config.get("WorkingDirectory") or None,
    )

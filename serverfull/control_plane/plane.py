"""The control plane of a host: opened late, closed with it.

`Host` makes one and opens it at its start where a state is kept in a directory, and with the first management request
otherwise, because opening a state imports SQLAlchemy. Until then the data plane sees no deployed functions.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.errors import (
    DependenciesNotInstalled,
    FunctionNotReady,
    InternalFailure,
    NotFoundError,
    RequestError,
    ShuttingDown,
    StateUnusable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from serverfull.config import Settings
    from serverfull.control_plane.warming import Running
    from serverfull.control_plane.wiring import Resources
    from serverfull.dependencies.roots import Dependencies
    from serverfull.domain.changes import Changes
    from serverfull.domain.deployed import FunctionVersion
    from serverfull.domain.names import RequestScope
    from serverfull.domain.readiness import Fitness
    from serverfull.domain.records import Partition
    from serverfull.fetchers.deployed import DeployedFetcher
    from serverfull.fetchers.hot import HotCode
    from serverfull.interfaces import Building, CodeStore, Fetcher, FunctionIdentity, StateStore, Watching
    from serverfull.reload.folders import HotFolders
    from serverfull.reload.objects import LinkedObjects
    from serverfull.storage.code import FileCodeStore
    from serverfull.storage.objects import S3Objects
    from serverfull.storage.temporary import TemporaryFolder

    Operation = Callable[[dict[str, Any], RequestScope], Awaitable[Mapping[str, Any]]]

MEMORY = "memory"
"""The path of a state that ends with the host."""


_UPDATES = ("UpdateFunctionCode", "UpdateFunctionConfiguration")


class ControlPlane:
    """The management API's operations over one state.

    :param registered: the operator's own functions.
    :param failure_of: says why one of these is Failed; None where it is Active.
    :param running: runs functions.
    :param calls: says how many calls there have been of functions with a name.
    :param watching: gives what says that files have changed.
    :param building: gives what runs build commands; None: none is run.
    :param refusal: why nothing can be deployed on this host; None: it can.
    :raises ExtraMissing: functions may run from folders in place, which could not be watched.
    :param on_open: called when the state is open and there may be deployed functions, with what gives these and what
        tells of changes.
    """

    def __init__(
        self,
        registered: Fetcher,
        settings: Settings,
        logger: Any,
        *,
        failure_of: Callable[[str], str | None],
        on_open: Callable[[DeployedFetcher, Changes], None],
        running: Running,
        calls: Callable[[str], float],
        watching: Callable[[], Watching],
        building: Callable[[], Building] | None = None,
        refusal: str | None = None,
    ) -> None:
        self._registered = registered
        self._settings = settings
        self._logger = logger
        self._failure_of = failure_of
        self._on_open = on_open
        self._running = running
        self._calls = calls
        self._watching = watching
        self._building = building
        self._refusal = refusal
        self._opening = asyncio.Lock()
        self._closed = False
        self._operations: Mapping[str, Operation] | None = None
        self._files: FileCodeStore | None = None
        self._bucket: tuple[str, str] | None = None
        self._resources: Resources | None = None
        self._linked: LinkedObjects | None = None
        self._temporary: TemporaryFolder | None = None
        if settings.hot_reload.allowed_paths:
            from serverfull.reload.extra import check_installed

            check_installed("running functions from folders in place (hot_reload.allowed_paths)")
        self._stack = AsyncExitStack()

    @property
    def durable(self) -> bool:
        """Whether a directory keeps what is deployed."""
        return self._refusal is None and self._settings.state.path not in ("", MEMORY)

    async def operations(self) -> Mapping[str, Operation]:
        """Give what runs each operation, by its name in the AWS model; opens the state when it is first asked.

        :raises StateUnusable: what is in the directory cannot be used.
        :raises ShuttingDown: the control plane is closed.
        """
        async with self._opening:
            if self._closed:
                raise ShuttingDown
            if self._operations is None:
                try:
                    self._operations = await self._open()
                except BaseException:
                    await self._stack.aclose()  # or each further attempt would leave a state behind
                    raise
            return self._operations

    async def aclose(self) -> None:
        """Give back what the state holds, once it is open where it is being opened now. Closing twice is fine."""
        async with self._opening:
            self._closed = True
            await self._stack.aclose()

    def optimized(self, identity: FunctionIdentity, restores: bool) -> None:
        """Hear whether the environments of a version with SnapStart are copies of a snapshot."""
        if self._resources is not None and identity.partition is not None:
            self._resources.optimized(identity.partition, identity.name, identity.version, restores=restores)

    def notice(self, bucket: str, key: str) -> bool:
        """Look at an object in S3 now; tells whether a function follows it."""
        return self._linked is not None and self._linked.notice(bucket, key)

    async def verify(self, sha256: str, expires: int, signature: str) -> bool:
        """Say whether the host signed a link to a package that is good until then."""
        return self._files is not None and await self._files.verify(sha256, expires, signature)

    def file(self, sha256: str) -> Path:
        """Give the file of a package.

        :raises KeyError: it is not there.
        """
        if self._files is None:
            raise KeyError(sha256)
        return self._files.file(sha256)

    async def _open(self) -> Mapping[str, Operation]:
        from serverfull.control_plane.warming import Warming
        from serverfull.control_plane.wiring import Resources
        from serverfull.domain.changes import Changes
        from serverfull.fetchers.deployed import DeployedFetcher
        from serverfull.storage.objects import S3Objects

        changes = Changes()
        deployed = DeployedFetcher(changes)
        state, code = await self._stores()
        folders = self._hot_folders()
        dependencies = self._dependencies()
        self._stack.push_async_callback(dependencies.aclose)
        objects = S3Objects()
        self._stack.push_async_callback(objects.aclose)
        warming = Warming(state, deployed, self._running, self._logger)
        resources = self._resources = Resources(
            state,
            code,
            changes,
            self._registered,
            self._settings,
            self._logger,
            failure_of=self._failure_of,
            fetch_object=objects.fetch_object,
            examine=partial(self._examine, deployed),
            readiness=warming.readiness,
            dependencies=dependencies,
            packages_in_use=deployed.packages_in_use,
            folders=folders,
        )
        self._stack.push_async_callback(resources.aclose)
        if self._refusal is None:
            hot = None if folders is None else self._hot_code(folders, deployed, changes)
            deployed.read_from(state, code, resources.retry, dependencies.root, hot)
            try:
                await self._begin(resources, state, changes)
            except InternalFailure as failure:
                raise StateUnusable(
                    f"{self._settings.state.path} has records that cannot be read; "
                    '"serverfull state check" names them, and what "serverfull state backup" wrote can be restored'
                ) from failure
            self._on_open(deployed, changes)
            self._stack.push_async_callback(warming.aclose)
            self._stack.callback(changes.subscribe(warming.changed))
            await warming.start()
        updates = {name: _loading(deployed, resources.operations[name]) for name in _UPDATES}
        if self._refusal is None and self._settings.s3.sync:
            self._follow(objects, state, changes, updates["UpdateFunctionCode"])
        return {**resources.operations, **updates}

    def _follow(self, objects: S3Objects, state: StateStore, changes: Changes, update: Operation) -> None:
        """Deploy functions again whose objects in S3 change."""
        from serverfull.reload.objects import LinkedObjects

        settings = self._settings.s3
        self._linked = LinkedObjects(
            state,
            look=objects.look,
            update=update,
            calls=self._calls,
            logger=self._logger,
            interval=settings.sync_interval,
            idle_interval=settings.sync_idle_interval,
        )
        self._stack.push_async_callback(self._linked.aclose)
        self._stack.callback(changes.subscribe(self._linked.changed))
        self._linked.start()

    async def _begin(self, resources: Resources, state: StateStore, changes: Changes) -> None:
        """Begin with what is done in the background."""
        await resources.resume()
        resources.sweep_later(packages=self._files is not None)  # a bucket may have packages of other hosts
        if self._bucket is not None:
            await self._publish(state, changes, *self._bucket)

    async def _examine(self, deployed: DeployedFetcher, partition: Partition, version: FunctionVersion) -> Fitness:
        """See whether something here runs a version, and take its snapshot if it is to have one.

        A function that is gone meanwhile needs nothing.
        """
        from serverfull.domain.deployed import LATEST_NUMBER
        from serverfull.domain.deployed_handler import DeployedHandler
        from serverfull.domain.readiness import Fitness, Unfit

        try:
            function = await deployed.candidate(partition, version)
        except NotFoundError:
            return Fitness()
        except DependenciesNotInstalled as failure:
            return Fitness(Unfit(failure.why, failure.code))
        except FunctionNotReady:  # a folder that it runs from in place is gone: calls are told until it is back
            return Fitness()
        unfit = await self._running.unfit(version.function, function)
        if unfit is None and version.wants_snapshot and version.number != LATEST_NUMBER:
            return await self._running.snapshot(partition, version.function, function)
        assert isinstance(function.handler, DeployedHandler)
        return Fitness(unfit, function.handler.image_found)

    async def _publish(self, state: StateStore, changes: Changes, bucket: str, prefix: str) -> None:
        """Let other hosts see in the bucket what is deployed here."""
        from serverfull.storage.publication import Publication

        publication = Publication(state, bucket, prefix, self._logger)
        self._stack.push_async_callback(publication.aclose)
        self._stack.callback(changes.subscribe(publication.changed))
        await publication.start()

    async def _stores(self) -> tuple[StateStore, CodeStore]:
        """Open the state and the code store; what is opened is closed when the control plane is."""
        from serverfull.storage.state import open_state
        from serverfull.storage.temporary import remove_abandoned

        directory = self._directory()
        if directory is None and (left := await asyncio.to_thread(remove_abandoned)):
            self._logger.warning("removed what a killed host had left", paths=[str(path) for path in left])
        state = await open_state(directory)
        self._stack.push_async_callback(state.aclose)
        if self._refusal is not None:
            from serverfull.storage.refusing import RefusingState

            state = RefusingState(state, self._refusal)
        try:
            return state, self._code_store(directory)
        except OSError as wrong:
            raise StateUnusable(f"{wrong.filename} cannot keep code: {wrong.strerror}") from wrong

    def _dependencies(self) -> Dependencies:
        """Make what installs what packages ask for; its folders appear with the first of them."""
        from serverfull.config.installers import installer_variables
        from serverfull.dependencies.roots import Dependencies
        from serverfull.dependencies.targets import Targets
        from serverfull.storage.temporary import TemporaryFolder

        directory = self._directory()
        if directory is None:
            folder = TemporaryFolder()
            self._stack.callback(folder.close)
            directory = folder.path
        return Dependencies(
            directory / "dependencies",
            self._settings.dependencies,
            Targets(self._settings).find,
            installer_variables(),
            self._logger,
        )

    def _hot_folders(self) -> HotFolders | None:
        """Make what looks at folders that functions run from in place; None where none may be."""
        settings = self._settings.hot_reload
        if not settings.allowed_paths:
            return None
        from serverfull.config.variables import host_variables
        from serverfull.reload.folders import HotFolders

        kept = (self._settings.state.path, self._settings.events.path, self._settings.logging.files)
        hidden = [Path(folder).absolute() for folder in kept if folder not in ("", MEMORY)]
        return HotFolders(settings.allowed_paths, settings.marker, host_variables(), self._scratch, hidden)

    def _hot_code(self, folders: HotFolders, deployed: DeployedFetcher, changes: Changes) -> HotCode:
        """Make what follows the folders that functions run from."""
        from serverfull.control_plane.hot_warming import HotWarming
        from serverfull.fetchers.hot import HotCode

        building = self._building if self._settings.reload.builds else None
        hot = HotCode(folders, self._watching, changes, self._logger, building)
        warming = HotWarming(deployed, self._running, self._calls, self._logger)
        hot.on_change = warming.changed
        self._stack.push_async_callback(warming.aclose)
        self._stack.push_async_callback(hot.aclose)
        return hot

    def _scratch(self) -> Path:
        """Give a folder that is deleted with the host, made now."""
        if self._temporary is None:
            from serverfull.storage.temporary import TemporaryFolder

            self._temporary = TemporaryFolder()
            self._stack.callback(self._temporary.close)
        return self._temporary.path

    def _directory(self) -> Path | None:
        """Say where things are kept: absolutely, for a handler may change the working directory."""
        return Path(self._settings.state.path).absolute() if self.durable else None

    def _code_store(self, directory: Path | None) -> CodeStore:
        from serverfull.storage.code import FileCodeStore, MemoryCodeStore
        from serverfull.storage.temporary import TemporaryFolder

        bucket = self._settings.state.code_store
        if bucket and self._refusal is None:
            from serverfull.storage.s3 import S3CodeStore, bucket_and_prefix

            if directory is None:
                folder = TemporaryFolder()
                self._stack.callback(folder.close)
                directory = folder.path
            self._bucket = bucket_and_prefix(bucket)
            code: CodeStore = S3CodeStore(*self._bucket, directory)
        else:
            code = self._files = MemoryCodeStore() if directory is None else FileCodeStore(directory)
        self._stack.push_async_callback(code.aclose)
        return code


def _loading(deployed: DeployedFetcher, update: Operation) -> Operation:
    """Decorate an update: calls get the function as it is until the update is ready, called before or not."""

    async def operation(request: dict[str, Any], scope: RequestScope) -> Mapping[str, Any]:
        from serverfull.domain.names import parse_function_reference

        with suppress(RequestError):  # the update says what is wrong with the name
            await deployed.load(scope.partition, parse_function_reference(request["FunctionName"]).name)
        return await update(request, scope)

    return operation

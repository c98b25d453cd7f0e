"""Wires every resource's module to one state: the only place that names them all. Imported when a state is opened.

Whoever adds a resource adds it here, and its operations are served.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.destinations.endpoints import endpoints_of
from serverfull.domain.concurrency import AccountLimits
from serverfull.domain.deployed import VERSIONS
from serverfull.domain.layers import LAYER_VERSIONS
from serverfull.management.account import Account
from serverfull.management.aliases import Aliases
from serverfull.management.capacity_providers import CapacityProviders
from serverfull.management.code_signing import CodeSigning
from serverfull.management.concurrency import Concurrency
from serverfull.management.configuration import Configurations
from serverfull.management.deployments import Deployments
from serverfull.management.durable import DurableExecutions
from serverfull.management.functions import Functions
from serverfull.management.invoke_configs import EventInvokeConfigs
from serverfull.management.layer_permissions import LayerPermissions
from serverfull.management.layers import Layers, find_layers, forget_deleted
from serverfull.management.mappings import EventSourceMappings
from serverfull.management.packages import PackageIntake
from serverfull.management.permissions import Permissions
from serverfull.management.preparation import Preparations, make_ready
from serverfull.management.recursion import RecursionConfigs
from serverfull.management.resolution import FunctionResolver
from serverfull.management.runtime_management import RuntimeManagementConfigs
from serverfull.management.scaling import ScalingConfigs
from serverfull.management.tags import Tags
from serverfull.management.urls import FunctionUrls
from serverfull.management.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serverfull.config import Settings
    from serverfull.control_plane.plane import Operation
    from serverfull.dependencies.roots import Dependencies
    from serverfull.domain.changes import Changes
    from serverfull.domain.records import Partition
    from serverfull.interfaces import CodeStore, Fetcher, StateStore
    from serverfull.management.concurrency import FindReadiness
    from serverfull.management.packages import FetchObject, FindFolders, Unpackable
    from serverfull.management.preparation import Examine

_SWEEP_AFTER = 5.0
"""Seconds after the state was opened: the start is over by then."""

_SWEEP_EVERY = 3600.0
"""Seconds between one sweep and the next."""


class Resources:
    """Every resource of the management API, over one state and one code store.

    :param registered: the operator's own functions.
    :param failure_of: says why one of these is Failed; None where it is Active.
    :param fetch_object: reads packages from callers' buckets.
    :param examine: sees whether the host can run a version.
    :param readiness: says how far provisioned concurrency is.
    :param dependencies: what was installed for packages, which is swept with them.
    :param folders: knows which folders of the machine may be run in place; None: none.
    :param packages_in_use: gives those that are run though their versions have others, as after an update that failed.
    """

    def __init__(
        self,
        state: StateStore,
        code: CodeStore,
        changes: Changes,
        registered: Fetcher,
        settings: Settings,
        logger: Any,
        *,
        failure_of: Callable[[str], str | None],
        fetch_object: FetchObject,
        examine: Examine,
        readiness: FindReadiness,
        dependencies: Dependencies,
        packages_in_use: Callable[[], set[str]],
        folders: FindFolders | None,
    ) -> None:
        self._state = state
        self._dependencies = dependencies
        self._packages_in_use = packages_in_use
        self._code = code
        self._logger = logger
        self._preparations = preparations = Preparations(state, changes, partial(make_ready, code, examine), logger)
        self._sweeping: asyncio.Task[None] | None = None
        resolver = FunctionResolver(registered)
        limits = AccountLimits(
            concurrent_executions=settings.limits.account_concurrency,
            minimum_unreserved=settings.limits.minimum_unreserved,
            total_code_size=settings.limits.account_code_bytes,
        )
        reachable = {"lambda", *endpoints_of(settings.destinations)}
        configurations = Configurations(settings.functions, failure_of)
        intake = PackageIntake(code, check_package=_check_package, fetch_object=fetch_object, folders=folders)
        functions = Functions(state, resolver, registered=registered, code=code, configurations=configurations)
        deployments = Deployments(
            state,
            resolver,
            changes,
            configurations=configurations,
            packages=intake,
            preparations=preparations,
            find_layers=find_layers,
            limits=limits,
            reachable=reachable,
            logger=logger,
        )
        versions = Versions(
            state,
            resolver,
            changes,
            configurations=configurations,
            functions=functions,
            packages=intake,
            preparations=preparations,
            limits=limits,
        )
        resources = (
            functions,
            deployments,
            versions,
            Aliases(state, resolver, changes),
            Permissions(state, resolver, changes),
            Concurrency(state, resolver, changes, limits=limits, readiness=readiness),
            CodeSigning(state, resolver, changes),
            Layers(state, code, intake=intake, limits=limits),
            LayerPermissions(state),
            Tags(state, resolver, changes),
            Account(state, registered, limits),
            FunctionUrls(state, resolver, changes),
            EventInvokeConfigs(state, resolver, changes, reachable),
            EventSourceMappings(state, resolver),
            RecursionConfigs(state, resolver, changes),
            ScalingConfigs(state, resolver, changes),
            RuntimeManagementConfigs(state, resolver, changes),
            CapacityProviders(state),
            DurableExecutions(),
        )
        self.operations: Mapping[str, Operation] = {
            name: operation for resource in resources for name, operation in resource.operations().items()
        }

    async def resume(self) -> None:
        """Go on with functions that were being made when a host ended, or could not be made by it."""
        await self._preparations.resume()

    async def retry(self, partition: Partition, function: str, number: int) -> bool:
        """Make a version again that could not be made, unless that was tried a moment ago; tells whether it was."""
        return await self._preparations.retry(partition, function, number)

    def optimized(self, partition: Partition, function: str, version: str, *, restores: bool) -> None:
        """Let it be seen whether the environments of a version with SnapStart are copies of a snapshot."""
        if version.isdecimal():
            self._preparations.note(partition, function, int(version), restores=restores)

    def sweep_later(self, *, packages: bool) -> None:
        """Delete what nothing refers to, some seconds from now and then every hour.

        :param packages: also packages, and not only what was installed for them.
        """
        self._sweeping = asyncio.create_task(self._sweep(packages))

    async def aclose(self) -> None:
        """Stop what is done in the background. Closing twice is fine."""
        await self._preparations.aclose()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    async def _sweep(self, packages: bool) -> None:
        """Delete what nothing refers to, again and again: what deletions and crashes have left."""
        await asyncio.sleep(_SWEEP_AFTER)
        while True:
            try:
                used = {version.code_sha256 for _, version in await self._state.everywhere(VERSIONS)}
                await self._dependencies.sweep(used | self._packages_in_use())
            except Exception as error:  # a task's boundary: the disk fails
                self._logger.warning("dependencies not swept", exc_info=error)
            if packages:
                await self._sweep_packages()
            await asyncio.sleep(_SWEEP_EVERY)

    async def _sweep_packages(self) -> None:
        try:
            used = {version.code_sha256 for _, version in await self._state.everywhere(VERSIONS)}
            for partition in {where for where, layer in await self._state.everywhere(LAYER_VERSIONS) if layer.deleted}:
                await self._state.write(partition, forget_deleted)
            used |= {layer.code_sha256 for _, layer in await self._state.everywhere(LAYER_VERSIONS)}
            swept = await self._code.sweep(used | self._packages_in_use())
        except Exception as error:  # a task's boundary: the disk fails
            self._logger.warning("packages not swept", exc_info=error)
            return
        if swept:
            self._logger.info("packages swept", count=swept)


async def _check_package(package: bytes) -> Unpackable:
    from serverfull.storage.packages import check

    return await asyncio.to_thread(check, package)

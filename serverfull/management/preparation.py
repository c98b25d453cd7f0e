"""Makes versions ready to run after the operation that wrote them has been answered: ``Pending`` becomes ``Active``.

An operation writes a `Preparation` in the transaction that writes the version, and calls `Preparations.start` when that
is kept. A task then prepares the code and writes how that went. What a host did not get to, the next one finds at its
start (`resume`). Tasks belong to `Preparations`; the host closes it.

Where a preparation fails because of the machine, such as for an interpreter that is not installed, it stays written
down: the next start tries it again, and so does a call of the function (`retry`), from time to time.

A preparation that belongs to a version which has changed or gone since has no effect: its token is another one.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.deployed import PREPARATIONS, VERSIONS, Preparation
from serverfull.errors import InvalidParameterValue
from serverfull.management.contents import with_image
from serverfull.management.stamps import new_revision

if TYPE_CHECKING:
    from serverfull.domain.changes import Changes
    from serverfull.domain.deployed import FunctionVersion
    from serverfull.domain.readiness import Fitness
    from serverfull.domain.records import Partition
    from serverfull.interfaces import CodeStore, Records, StateStore

CREATING = "The function is being created."

AGAIN_AFTER = 30.0
"""Seconds after a preparation that has failed before a call of the function has it tried again."""

Examine: TypeAlias = "Callable[[Partition, FunctionVersion], Awaitable[Fitness]]"
"""Sees whether the host can run a version, which is unpacked where it is a package."""

_Key: TypeAlias = "tuple[Partition, str, int]"

Prepare: TypeAlias = "Callable[[Partition, FunctionVersion], Awaitable[Fitness]]"
"""Makes the code of a version ready to run, and says how it is; raises `PreparationFailed` where it never will be."""


class PreparationFailed(Exception):
    """The code of a version cannot be made ready.

    :param reason: what is wrong, for the function's owner.
    :param code: a value of the model's ``StateReasonCode``.
    """

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    code: str

    @property
    def may_pass(self) -> bool:
        """Whether the same code may do on another day; a package that cannot be unpacked never will."""
        return self.code != "InvalidZipFileException"


async def make_ready(code: CodeStore, examine: Examine, partition: Partition, version: FunctionVersion) -> Fitness:
    """Unpack the code of a version on this machine or find its image, and see whether something here runs it.

    :param examine: sees that, and takes the snapshot of a version that is to have one.
    :returns: what was found; it can be run.
    :raises PreparationFailed: it cannot be unpacked or found, or nothing here runs it.
    """
    try:
        if version.code_sha256:
            await code.tree(version.code_sha256)
        fitness = await examine(partition, version)
    except InvalidParameterValue as broken:
        raise PreparationFailed(broken.message, "InvalidZipFileException") from None
    if fitness.unfit is not None:
        raise PreparationFailed(fitness.unfit.reason, fitness.unfit.code)
    return fitness


class Preparations:
    """Prepares versions in the background.

    :param prepare: does it; called for one version at a time each, for several at once.
    :param logger: takes what is no fault of the code.
    """

    def __init__(self, state: StateStore, changes: Changes, prepare: Prepare, logger: Any) -> None:
        self._state = state
        self._changes = changes
        self._prepare = prepare
        self._logger = logger
        self._tasks: set[asyncio.Task[None]] = set()
        self._retries: dict[_Key, asyncio.Task[None]] = {}
        self._not_before: dict[_Key, float] = {}
        self._unsubscribe = changes.subscribe(self._changed)
        self._closed = False

    def start(self, partition: Partition, function: str, *numbers: int) -> None:
        """Begin to prepare versions whose transaction is kept. Does nothing once closed: the next start will."""
        for number in () if self._closed else numbers:
            _ = self._begin((partition, function, number))

    async def retry(self, partition: Partition, function: str, number: int) -> bool:
        """Prepare a version again that has failed, unless that was a moment ago; who comes meanwhile waits too.

        :returns: whether it was tried, with whatever success.
        """
        key = (partition, function, number)
        task = self._retries.get(key)
        if task is None:
            if self._closed or time.monotonic() < self._not_before.get(key, 0.0):
                return False
            task = self._retries[key] = self._begin(key)
            task.add_done_callback(lambda _task: self._retries.pop(key, None))
        await asyncio.wait([task])  # not the task itself: others wait for it too
        return True

    def note(self, partition: Partition, function: str, number: int, *, restores: bool) -> None:
        """Write down whether the environments of a version are copies of a snapshot, where that has changed.

        A host may be started with other settings, and the same code may find another machine.
        """
        if not self._closed:
            _ = self._own(self._note((partition, function, number), restores=restores))

    async def resume(self) -> None:
        """Begin to prepare what another host has left."""
        for partition, preparation in await self._state.everywhere(PREPARATIONS):
            self.start(partition, preparation.function, preparation.number)

    async def aclose(self) -> None:
        """Stop; what is not done stays to be done. Closing twice is fine."""
        self._closed = True
        self._unsubscribe()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _changed(self, change: FunctionChanged) -> None:
        """Let a function be tried again at once whose tags, say, are others now."""
        for key in [key for key in self._not_before if key[:2] == (change.partition, change.name)]:
            del self._not_before[key]

    def _begin(self, key: _Key) -> asyncio.Task[None]:
        return self._own(self._run(*key))

    def _own(self, doing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _note(self, key: _Key, *, restores: bool) -> None:
        partition, function, number = key
        try:
            if await self._state.write(
                partition, lambda records: _optimize(records, function, number, restores=restores)
            ):
                self._changes.publish(FunctionChanged(partition, function))
        except Exception as error:  # a task's boundary: the state cannot be read or written
            self._logger.error("OptimizationStatus not written", function=function, version=number, exc_info=error)

    async def _run(self, partition: Partition, function: str, number: int) -> None:
        try:
            await self._prepare_version(partition, function, number)
        except Exception as error:  # a task's boundary: the state cannot be read or written
            self._logger.error("version not prepared", function=function, version=number, exc_info=error)
        now = time.monotonic()
        self._not_before = {key: until for key, until in self._not_before.items() if until > now}
        self._not_before[partition, function, number] = now + AGAIN_AFTER

    async def _prepare_version(self, partition: Partition, function: str, number: int) -> None:
        def find(records: Records) -> tuple[FunctionVersion | None, Preparation | None]:
            return records.get(VERSIONS, function, number), records.get(PREPARATIONS, function, number)

        version, preparation = await self._state.read(partition, find)
        if version is None or preparation is None:
            return
        result = await self._attempt(partition, version)
        if await self._state.write(partition, lambda records: _finish(records, preparation, result)):
            self._changes.publish(FunctionChanged(partition, function))

    async def _attempt(self, partition: Partition, version: FunctionVersion) -> _Failure | Fitness:
        """Give what was found, or why the version is not ready."""
        try:
            return await self._prepare(partition, version)
        except PreparationFailed as failed:
            return _Failure(failed.reason, failed.code)
        except Exception as error:
            self._logger.error(
                "preparing code failed", function=version.function, version=version.version, exc_info=error
            )
            return _Failure("The host failed to prepare the code; see its log.", "InternalError")


def pending(version: FunctionVersion) -> FunctionVersion:
    """Give a version as it is until it has been prepared for the first time."""
    return replace(version, state="Pending", state_reason=CREATING, state_reason_code="Creating")


def in_progress(version: FunctionVersion) -> FunctionVersion:
    """Give a version as it is until its change has been prepared. Reason and code are those that AWS gives."""
    return replace(
        version,
        last_update_status="InProgress",
        last_update_status_reason=CREATING,
        last_update_status_reason_code="Creating",
    )


def is_settled(version: FunctionVersion) -> bool:
    """Tell whether the code of a version has been prepared with success."""
    return version.state == "Active" and version.last_update_status == "Successful"


def request_preparation(records: Records, version: FunctionVersion) -> None:
    """Write, in the transaction that writes a version, that it has to be prepared."""
    records.delete(PREPARATIONS, version.function, version.number)
    records.insert(PREPARATIONS, Preparation(function=version.function, number=version.number, token=str(uuid.uuid4())))


def _finish(records: Records, preparation: Preparation, result: _Failure | Fitness) -> bool:
    """Write how a preparation went, unless it was for a version that is no longer there; tells whether that is news."""
    key = preparation.function, preparation.number
    version = records.get(VERSIONS, *key)
    if version is None or records.get(PREPARATIONS, *key) != preparation:
        return False
    failure = result if isinstance(result, _Failure) else None
    if failure is None or not failure.may_pass:
        records.delete(PREPARATIONS, *key)
    settled = _settled(version, failure)
    if not isinstance(result, _Failure):
        settled = replace(settled, optimization="On" if result.restores else "Off")
        if result.image is not None:
            settled = with_image(settled, result.image)
    if settled == version:
        return False
    records.replace(VERSIONS, replace(settled, revision_id=new_revision()))
    return True


def _optimize(records: Records, function: str, number: int, *, restores: bool) -> bool:
    """Write what has been found of a version that is ready; tells whether that is news."""
    optimization: Literal["On", "Off"] = "On" if restores else "Off"
    version = records.get(VERSIONS, function, number)
    if version is None or version.state != "Active" or version.optimization == optimization:
        return False
    records.replace(VERSIONS, replace(version, optimization=optimization, revision_id=new_revision()))
    return True


def _settled(version: FunctionVersion, failure: _Failure | None) -> FunctionVersion:
    reason, code = (failure.reason, failure.code) if failure else (None, None)
    settled = replace(
        version,
        optimization="Off",
        last_update_status="Failed" if failure else "Successful",
        last_update_status_reason=reason,
        last_update_status_reason_code=code,
    )
    if failure and version.state == "Active":
        return settled
    return replace(settled, state="Failed" if failure else "Active", state_reason=reason, state_reason_code=code)

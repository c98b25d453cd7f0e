"""How often objects in S3 are looked at, and who wins where two deploy; integration/s3 has real servers and hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.deployed import VERSIONS, FunctionVersion
from serverfull.domain.names import RequestScope
from serverfull.domain.records import Partition
from serverfull.errors import InternalFailure, InvalidParameterValue, PreconditionFailed
from serverfull.interfaces import StateStore
from serverfull.reload import objects as module
from serverfull.reload.objects import LinkedObjects
from serverfull.storage.state import open_state

HERE = Partition("123456789012", "eu-west-1")
DEADLINE = 20.0


class World:
    """A state, an S3 that says what a test says, and updates that do what UpdateFunctionCode does to a record.

    :ivar etag: of the one object that there is.
    :ivar looks: how often it was asked for.
    :ivar meanwhile: done by somebody else between the look and the update, once.
    """

    def __init__(self, state: StateStore) -> None:
        self.state = state
        self.etag: str | Exception | None = "one"
        self.looks = 0
        self.calls = 0.0
        self.updates: list[Mapping[str, Any]] = []
        self.refusal: Exception | None = None
        self.says: Callable[[str], str] = str
        self.meanwhile: Callable[[], Any] | None = None
        self.lines: list[str] = []
        self.linked: LinkedObjects

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **_: self.lines.append(event)

    async def look(self, bucket: str, key: str) -> str | None:
        self.looks += 1
        if isinstance(self.etag, Exception):
            raise self.etag
        return self.etag

    async def update(self, request: dict[str, Any], scope: RequestScope) -> Mapping[str, Any]:
        assert scope.partition == HERE
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        if self.refusal is not None:
            raise self.refusal
        found = await self.version()
        if found.revision_id != request["RevisionId"]:
            raise PreconditionFailed("The Revision Id provided does not match the latest Revision Id.")
        self.updates.append(request)
        await self.put(s3_etag=self.says(str(self.etag)))
        return {}

    async def version(self) -> FunctionVersion:
        found = await self.state.read(HERE, lambda records: records.get(VERSIONS, "f", 0))
        assert found is not None
        return found

    async def put(self, **members: Any) -> None:
        """Write the function, and tell of it."""
        first = FunctionVersion(function="f", role="r", last_modified="", revision_id="", s3_bucket="b", s3_key="k")
        before = await self.state.read(HERE, lambda records: records.get(VERSIONS, "f", 0))
        version = replace(before or first, **members, revision_id=str(uuid4()))
        write = (lambda records: records.insert(VERSIONS, version)) if before is None else (
            lambda records: records.replace(VERSIONS, version)
        )  # fmt: skip
        await self.state.write(HERE, write)
        if before is not None:
            self.linked.changed(FunctionChanged(HERE, "f"))

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while True:
                if true():
                    return
                await asyncio.sleep(0.005)

    async def looked(self, times: int = 2) -> None:
        """Wait until so many looks have begun from now on, so that all but the last are over."""
        seen = self.looks
        await self.until(lambda: self.looks >= seen + times)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    state = await open_state(None)
    world = World(state)
    await world.put(s3_etag="one")
    world.linked = LinkedObjects(
        state,
        look=world.look,
        update=world.update,
        calls=lambda _: world.calls,
        logger=world,
        interval=0.01,
        idle_interval=3600.0,
    )
    world.linked.start()
    yield world
    await world.linked.aclose()
    await world.linked.aclose()
    await state.aclose()


async def test_an_unchanged_object_is_deployed_no_more_and_a_changed_one_once(world: World) -> None:
    await world.looked()
    assert world.updates == []
    world.etag = "two"
    await world.until(lambda: len(world.updates) == 1)
    await world.looked()
    assert [(one["S3Bucket"], one["S3Key"]) for one in world.updates] == [("b", "k")]


async def test_what_somebody_deploys_meanwhile_wins(world: World) -> None:
    world.meanwhile = lambda: world.put(s3_bucket="", s3_key="", s3_etag="")  # with a ZipFile
    world.etag = "two"
    await world.until(lambda: not world.linked.notice("b", "k"))  # nobody follows it any more
    assert world.updates == []
    world.meanwhile = None
    await world.put(s3_bucket="b", s3_key="k", s3_etag="one")
    await world.until(lambda: len(world.updates) == 1)


async def test_a_server_whose_two_answers_never_agree_is_believed_once(world: World) -> None:
    world.says = lambda etag: f"{etag}, as it is said with the content"
    world.etag = "two"
    await world.until(lambda: len(world.updates) == 1)
    await world.looked(3)
    assert len(world.updates) == 1


async def test_what_is_refused_is_tried_again_when_it_is_another_one_and_what_fails_with_each_look(
    world: World,
) -> None:
    world.refusal = InvalidParameterValue("no archive")
    world.etag = "two"
    await world.until(lambda: "code in S3 refused: the function keeps what it has" in world.lines)
    await world.looked(3)
    assert world.lines.count("code in S3 refused: the function keeps what it has") == 1
    world.refusal = InternalFailure("S3 is down")
    world.etag = "three"
    await world.until(lambda: "object of functions cannot be seen: their code stays as it is" in world.lines)
    world.refusal = None
    await world.until(lambda: len(world.updates) == 1)
    await world.until(lambda: "object of functions is seen again" in world.lines)


async def test_an_object_is_looked_at_seldom_while_nobody_calls_and_at_once_when_somebody_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_USE", 0.05)
    await asyncio.sleep(0.1)
    await world.until(lambda: _idle(world))
    looks = world.looks
    await asyncio.sleep(0.05)
    assert world.looks == looks
    world.etag = "two"
    world.calls += 1
    await world.until(lambda: len(world.updates) == 1)
    await world.until(lambda: _idle(world))
    assert world.linked.notice("b", "k")
    looks = world.looks
    await world.until(lambda: world.looks > looks)


def _idle(world: World) -> bool:
    (found,) = world.linked._objects.values()
    return found.due > asyncio.get_running_loop().time() + 1000

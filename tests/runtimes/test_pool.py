"""Which sandbox a call gets that comes while one is being started for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serverfull.domain.invocations import Invocation, Outcome
from serverfull.interfaces import Sandbox
from serverfull.runtimes.pool import Pool, PoolPolicy

CALL = Invocation("id", "f", None, "000000000000", "us-east-1", b"{}")
FAILED = Outcome(b"{}", "Unhandled")
SOON = 5.0


class Slow(Sandbox):
    """Starts when it is told to, and says which one it is."""

    uses = 0
    frozen = False
    init_failure = None
    usable = True
    memory_mb = 1

    def __init__(self, number: int) -> None:
        self.number = number
        self.go = asyncio.Event()
        self.failure: Outcome | None = None
        self.closed = False

    async def start(self) -> Outcome | None:
        await self.go.wait()
        return self.failure

    async def run(self, invocation: Invocation, log: Any) -> Outcome:
        return Outcome(str(self.number).encode())

    def when_ended(self, call: Callable[[], None]) -> None:
        """Nobody asks."""

    def freeze(self) -> None:
        self.frozen = True

    async def aclose(self) -> None:
        self.closed = True


class Warmed:
    """A pool that has begun to start its first sandbox."""

    def __init__(self) -> None:
        self.made: list[Slow] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.pool = Pool(self._make, PoolPolicy(), self.spawn)
        self.warming = self.spawn(self.pool.warm())

    def _make(self) -> Sandbox:
        self.made.append(Slow(len(self.made)))
        return self.made[-1]

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        return task

    def call(self) -> asyncio.Task[Outcome]:
        log: Any = None
        return self.spawn(self.pool.run(CALL, log))


@pytest.fixture
async def warmed() -> Warmed:
    warmed = Warmed()
    await asyncio.sleep(0)
    assert len(warmed.made) == 1
    return warmed


async def test_a_call_waits_for_the_sandbox_that_is_being_started(warmed: Warmed) -> None:
    call = warmed.call()
    await asyncio.sleep(0)
    assert len(warmed.made) == 1
    warmed.made[0].go.set()
    assert (await asyncio.wait_for(call, SOON)).payload == b"0"
    assert len(warmed.made) == 1


async def test_a_second_call_has_a_sandbox_of_its_own_at_once(warmed: Warmed) -> None:
    first = warmed.call()
    await asyncio.sleep(0)
    assert (await asyncio.wait_for(warmed.call(), SOON)).payload == b"1"
    assert not first.done()
    warmed.made[0].go.set()
    await asyncio.wait_for(first, SOON)


async def test_where_it_cannot_be_started_the_call_has_another_one(warmed: Warmed) -> None:
    call = warmed.call()
    await asyncio.sleep(0)
    warmed.made[0].failure = FAILED
    warmed.made[0].go.set()
    assert (await asyncio.wait_for(call, SOON)).payload == b"1"
    await asyncio.sleep(0)
    assert warmed.made[0].closed


async def test_a_caller_who_gives_up_leaves_it_to_the_next(warmed: Warmed) -> None:
    call = warmed.call()
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    warmed.made[0].go.set()
    await asyncio.wait_for(warmed.warming, SOON)
    assert (await asyncio.wait_for(warmed.call(), SOON)).payload == b"0"


async def test_one_whose_start_is_given_up_keeps_no_call_waiting(warmed: Warmed) -> None:
    call = warmed.call()
    await asyncio.sleep(0)
    warmed.warming.cancel()
    assert (await asyncio.wait_for(call, SOON)).payload == b"1"
    await asyncio.sleep(0)
    assert warmed.made[0].closed

"""Events in memory: fair turns, limits that make them wait, and the drain."""

from __future__ import annotations

import asyncio

import pytest

from serverfull.domain.invocations import Invocation
from serverfull.errors import ShuttingDown, TooManyRequests
from serverfull.invocation.queue import MemoryQueue


def event(name: str, number: int = 0) -> Invocation:
    return Invocation(f"{name}-{number}", name, None, "000000000000", "us-east-1", b"")


class Runner:
    """Runs events within limits; ``free`` ends one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running: list[Invocation] = []
        self.begun: list[str] = []
        self.most = 0
        self.queue: MemoryQueue
        self._ends: dict[str, asyncio.Event] = {}

    async def run(self, invocation: Invocation) -> None:
        if len(self.running) >= self.limit:
            raise TooManyRequests("x")
        self.running.append(invocation)
        self.begun.append(invocation.request_id)
        self.most = max(self.most, len(self.running))
        end = self._ends[invocation.request_id] = asyncio.Event()
        try:
            await end.wait()
        finally:
            self.running.remove(invocation)
            self.queue.capacity_freed()

    def end_first(self) -> None:
        self._ends[self.running[0].request_id].set()


def make(limit: int, backlog: int = 1000) -> Runner:
    runner = Runner(limit)
    runner.queue = MemoryQueue(runner.run, backlog)
    return runner


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_events_over_the_limit_wait_and_run_later() -> None:
    runner = make(limit=2)
    for number in range(7):
        await runner.queue.put(event("f", number))
    await settle()
    assert (len(runner.running), runner.queue.waiting) == (2, 5)
    while runner.running:
        runner.end_first()
        await settle()
    assert len(runner.begun) == len(set(runner.begun)) == 7
    assert runner.most == 2
    assert await runner.queue.drain(1) == 0


async def test_a_flood_of_one_function_does_not_delay_another_ones_event() -> None:
    runner = make(limit=1)
    for number in range(200):
        await runner.queue.put(event("flood", number))
    await runner.queue.put(event("other"))
    await settle()
    turns = 0
    while "other-0" not in runner.begun:
        runner.end_first()
        await settle()
        turns += 1
        assert turns < 5
    await runner.queue.drain(0)
    await settle()


async def test_beyond_the_backlog_events_are_refused_and_the_rest_is_kept() -> None:
    runner = make(limit=0, backlog=3)
    for number in range(3):
        await runner.queue.put(event("f", number))
        await settle()
    with pytest.raises(TooManyRequests):
        await runner.queue.put(event("f", 3))
    assert runner.queue.waiting == 3
    assert await runner.queue.drain(0.01) == 3


async def test_a_drain_refuses_new_events_and_waits_for_the_others() -> None:
    runner = make(limit=1)
    for number in range(3):
        await runner.queue.put(event("f", number))
    await settle()
    drain = asyncio.create_task(runner.queue.drain(10))
    await settle()
    with pytest.raises(ShuttingDown):
        await runner.queue.put(event("f", 9))
    while runner.running:
        assert not drain.done()
        runner.end_first()
        await settle()
    assert await drain == 0


async def test_a_drain_gives_up_and_tells_how_many_are_lost() -> None:
    runner = make(limit=1)
    for number in range(3):
        await runner.queue.put(event("f", number))
    await settle()
    assert await runner.queue.drain(0.01) == 3
    await settle()
    assert runner.begun == ["f-0"]
    assert not runner.running


async def test_a_drain_of_nothing_is_done_at_once() -> None:
    assert await make(limit=1).queue.drain(0) == 0


async def test_an_event_is_tried_again_after_a_while_where_nobody_tells_of_freed_capacity() -> None:
    open_now = asyncio.Event()
    ran = asyncio.Event()

    async def run(invocation: Invocation) -> None:
        if not open_now.is_set():
            raise TooManyRequests("x")
        ran.set()

    queue = MemoryQueue(run, 10, retry=0.001)
    await queue.put(event("f"))
    await settle()
    assert queue.waiting == 1
    open_now.set()
    async with asyncio.timeout(5):
        await ran.wait()

"""When events of one line are tried that wait for different reasons: none of them makes another one late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from serverfull.domain.events import Attempt, EventConfig, Failed, QueuedEvent
from tests.events.virtual import RESULT, DirectStore, LoopClock, Runner, event, virtually

ONCE = EventConfig(retries=1)


def fail_once(failing: QueuedEvent) -> Attempt | None:
    return None if failing.failures else Failed(RESULT)


def refused_before(folder: Path, *throttles: int) -> None:
    """Leave events 0, 1 … that limits have refused so often; they are tried first when a host starts."""

    async def leave() -> None:
        store = DirectStore(folder / "events-0.db")
        for number, count in enumerate(throttles):
            [key] = await store.append([event("f", number)])
            lease = await store.claim(key)
            assert lease is not None
            await store.reschedule(lease, replace(lease.event, throttles=count), LoopClock().now())
        await store.aclose()

    virtually(leave())


def on_a_host(folder: Path, work: Callable[[Runner], Coroutine[Any, Any, None]], **runs: Any) -> None:
    async def main() -> None:
        runner = Runner(DirectStore(folder / "events-0.db"), **runs)
        await runner.queue.start()
        await work(runner)

    virtually(main())


def test_an_event_that_will_be_too_old_for_its_retry_is_given_up_at_once(tmp_path: Path) -> None:
    async def work(runner: Runner) -> None:
        await runner.queue.put(event())
        await runner.ended(1)
        assert asyncio.get_running_loop().time() == 5
        assert (runner.ends["f-0"].condition, runner.times("f-0")) == ("EventAgeExceeded", [0])

    on_a_host(tmp_path, work, attempt=fail_once, lasts=5, config=EventConfig(maximum_age=60))


def test_an_event_that_became_too_old_while_there_was_no_host_does_not_run(tmp_path: Path) -> None:
    refused_before(tmp_path, 0)

    async def work(runner: Runner) -> None:
        await runner.ended(1)
        assert (runner.ends["f-0"].condition, runner.begun) == ("EventAgeExceeded", [])

    async def later() -> None:
        await asyncio.sleep(61)
        runner = Runner(DirectStore(tmp_path / "events-0.db"), config=EventConfig(maximum_age=60))
        await runner.queue.start()
        await work(runner)

    virtually(later())


def test_a_failure_ends_the_row_of_refusals(tmp_path: Path) -> None:
    refused_before(tmp_path, 8)

    async def work(runner: Runner) -> None:
        await asyncio.sleep(1)  # it has failed, and waits for its retry
        runner.limit = 0
        await asyncio.sleep(59.5)  # which is refused
        runner.limit = 1
        await runner.ended(1)
        assert runner.times("f-0") == [0, 61]

    on_a_host(tmp_path, work, attempt=fail_once, config=ONCE)


def test_the_first_of_several_refusals_that_are_over_lets_a_line_be_tried_again(tmp_path: Path) -> None:
    refused_before(tmp_path, 8, 0)

    async def work(runner: Runner) -> None:
        for line in runner.queue._lines:
            line.window = 2  # both are begun before one is refused
        await asyncio.sleep(0.5)
        runner.limit = 2
        await runner.ended(2)
        assert runner.begun == [("f-1", 1), ("f-0", 1)]

    on_a_host(tmp_path, work, limit=0)


def test_a_retry_that_is_due_before_another_one_is_not_late(tmp_path: Path) -> None:
    async def work(runner: Runner) -> None:
        await runner.queue.put(event("f", 0))
        await asyncio.sleep(65)  # it has failed twice, and is due at 180
        await runner.queue.put(event("f", 1))
        await runner.ended(2)
        assert (runner.times("f-0"), runner.times("f-1")) == ([0, 60, 180], [65, 125, 245])

    on_a_host(tmp_path, work, attempt=lambda _: Failed(RESULT))


def first_fails_once(failing: QueuedEvent) -> Attempt | None:
    return fail_once(failing) if failing.request_id == "f-0" else None


def test_a_line_that_is_looked_at_for_a_retry_is_looked_at_when_its_refusal_is_over(tmp_path: Path) -> None:
    async def work(runner: Runner) -> None:
        await runner.queue.put(event("f", 0))
        await asyncio.sleep(1)  # it has failed, and is due at 60.5
        runner.limit = 0
        await runner.queue.put(event("f", 1))  # refused at 1, 2, 4, 8, 16 and 32
        await asyncio.sleep(61)
        runner.limit = 2
        await runner.ended(2)
        assert (runner.times("f-0"), runner.times("f-1")) == ([0, 64], [64])

    on_a_host(tmp_path, work, attempt=first_fails_once, config=ONCE, lasts=0.5)


def test_a_line_that_is_looked_at_for_a_refusal_is_looked_at_when_a_retry_is_due(tmp_path: Path) -> None:
    async def work(runner: Runner) -> None:
        await runner.queue.put(event("f", 0))
        await asyncio.sleep(1)
        await runner.queue.put(event("f", 1))  # refused at 1 and 2, until 4; there is room at 2.5
        await runner.ended(2)
        assert (runner.times("f-0"), runner.times("f-1")) == ([0, 62.5], [2.5])

    on_a_host(tmp_path, work, attempt=first_fails_once, config=ONCE, lasts=2.5, limit=1)

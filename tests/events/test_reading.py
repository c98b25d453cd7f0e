"""What comes while a line is read from where events are kept is not missed, whoever brings it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from serverfull.domain.events import EventConfig, Failed, QueuedEvent, Upcoming
from tests.events.virtual import RESULT, DirectStore, Runner, event, virtually


class Gate(DirectStore):
    """Has read a line long before it says what it has found, the next time that it is closed."""

    def __init__(self, path: Path, **arguments: Any) -> None:
        super().__init__(path, **arguments)
        self.closed = False
        self.read = asyncio.Event()
        self._open = asyncio.Event()

    async def upcoming(self, line: str, limit: int) -> Sequence[Upcoming]:
        found = await super().upcoming(line, limit)
        if self.closed:
            self.read.set()
            await self._open.wait()
        return found

    def open(self) -> None:
        self.closed = False
        self._open.set()


async def by_a_caller(runner: Runner) -> None:
    await runner.queue.put(event("f", 1))


async def by_a_caller_who_has_gone(runner: Runner) -> None:
    put = asyncio.create_task(runner.queue.put(event("f", 1)))
    await asyncio.sleep(1.5)  # it is written, and nobody was told
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put


async def by_the_operator(runner: Runner) -> None:
    assert isinstance(runner.store, DirectStore)
    await runner.store.append([event("f", 1)])
    await runner.queue.reload()


@pytest.mark.parametrize("brought", [by_a_caller, by_a_caller_who_has_gone, by_the_operator])
def test_an_event_runs_that_came_while_its_line_was_read(
    tmp_path: Path, brought: Callable[[Runner], Coroutine[Any, Any, None]]
) -> None:
    async def left() -> None:
        store = DirectStore(tmp_path / "events-0.db")
        await store.append([event("f", 0)])
        await store.aclose()

    async def found() -> None:
        store = Gate(tmp_path / "events-0.db", slow=lambda: 1.0)
        store.closed = True
        runner = Runner(store)
        await runner.queue.start()
        await store.read.wait()
        await brought(runner)
        store.open()
        await runner.ended(2, within=60)
        assert runner.queue.waiting == 0

    virtually(left())
    virtually(found())


def test_a_retry_runs_that_became_due_while_its_line_was_read(tmp_path: Path) -> None:
    def fail_once(failing: QueuedEvent) -> Failed | None:
        return None if failing.failures else Failed(RESULT)

    async def main() -> None:
        store = Gate(tmp_path / "events-0.db")
        runner = Runner(store, fail_once, lasts=5, base_delay=1, config=EventConfig(retries=1))
        await runner.queue.put(event("f", 0))
        await asyncio.sleep(1)
        store.closed = True
        await runner.queue.reload()  # reads what waits, and the event runs
        await store.read.wait()
        await asyncio.sleep(10)
        store.open()
        await runner.ended(1, within=60)
        assert runner.times("f-0") == [0, 11]

    virtually(main())


def test_a_retry_is_not_early_whose_event_ran_while_its_line_was_read(tmp_path: Path) -> None:
    def fail_once(failing: QueuedEvent) -> Failed | None:
        return None if failing.failures else Failed(RESULT)

    async def main() -> None:
        store = Gate(tmp_path / "events-0.db")
        runner = Runner(store, fail_once, lasts=5, limit=0, base_delay=60)
        await runner.queue.put(event("f", 0))
        await asyncio.sleep(0.5)
        store.closed = True
        await runner.queue.reload()
        await store.read.wait()
        runner.limit = 1
        runner.queue.freed("f")
        await asyncio.sleep(10)  # it has run, and waits for its retry
        store.open()
        await runner.ended(1, within=100)
        assert runner.times("f-0") == [0.5, 65.5]

    virtually(main())

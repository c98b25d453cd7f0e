from __future__ import annotations

import sys

import pytest

from serverfull.errors import ShuttingDown
from serverfull.interfaces import EventQueue
from serverfull.invocation.queue_at_need import QueueAtNeed
from tests.events.virtual import DirectStore, Runner, event, virtually


def test_the_queue_is_made_for_the_first_event_and_asked_for_all() -> None:
    async def work() -> None:
        made: list[Runner] = []

        def make() -> EventQueue:
            made.append(made[0] if made else Runner(DirectStore(), limit=1, lasts=1))
            return made[0].queue

        queue = QueueAtNeed(make)
        queue.freed("f")
        assert made == []
        assert await queue.put(event("f", 1))
        assert await queue.put(event("f", 2))
        await made[0].ended(2, within=10)

    virtually(work())


def test_no_queue_is_made_for_an_event_that_comes_while_the_host_drains() -> None:
    async def work() -> None:
        queue = QueueAtNeed(lambda: sys.exit("made"))
        assert await queue.drain(1) == 0
        with pytest.raises(ShuttingDown):
            await queue.put(event("f", 1))

    virtually(work())

"""Deadlines: one timer for many invocations."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from serverfull.runtimes.deadlines import Deadlines

PATIENCE = 10.0


class Calls:
    """Hears what was overdue, and when."""

    def __init__(self, awaited: int) -> None:
        self.heard: list[tuple[str, float]] = []
        self._awaited = awaited
        self._all = asyncio.Event()

    def hear(self, name: str) -> None:
        self.heard.append((name, time.monotonic()))
        if len(self.heard) == self._awaited:
            self._all.set()

    async def all(self) -> list[str]:
        async with asyncio.timeout(PATIENCE):
            await self._all.wait()
        return [name for name, _ in self.heard]


async def test_each_is_called_when_its_time_has_come_whatever_the_order_in_which_they_were_noted() -> None:
    deadlines, calls, began = Deadlines(), Calls(3), time.monotonic()
    due = {"late": began + 0.15, "early": began + 0.03, "between": began + 0.09}
    for name, at in due.items():
        deadlines.note(name, at, calls.hear, name)
    assert await calls.all() == ["early", "between", "late"]
    assert all(due[name] <= at for name, at in calls.heard)


async def test_nothing_is_called_before_its_time_although_timers_count_whole_milliseconds() -> None:
    for part in range(40):
        deadlines, calls = Deadlines(), Calls(1)
        due = time.monotonic() + 0.003 + part / 40_000
        deadlines.note("due", due, calls.hear, "due")
        await calls.all()
        assert calls.heard[0][1] >= due, part


async def test_what_is_crossed_off_is_not_called_and_the_others_are() -> None:
    deadlines, calls, began = Deadlines(), Calls(1), time.monotonic()
    deadlines.note("answered", began + 0.02, calls.hear, "answered")
    deadlines.note("overdue", began + 0.05, calls.hear, "overdue")
    deadlines.cross_off("answered")
    deadlines.cross_off("never noted")
    assert await calls.all() == ["overdue"]


async def test_a_deadline_that_has_passed_already_is_called_at_once_but_not_by_whom_notes_it() -> None:
    deadlines, calls = Deadlines(), Calls(1)
    deadlines.note("passed", time.monotonic() - 1.0, calls.hear, "passed")
    assert calls.heard == []
    assert await calls.all() == ["passed"]


async def test_the_timer_is_one_for_all_and_is_not_set_again_for_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, deadlines, set_for = asyncio.get_running_loop(), Deadlines(), []
    real = loop.call_later

    def call_later(delay: float, *args: Any) -> asyncio.TimerHandle:
        set_for.append(delay)
        return real(delay, *args)

    monkeypatch.setattr(loop, "call_later", call_later)
    began = time.monotonic()
    for number in range(100):
        deadlines.note(number, began + 60.0 + number, lambda: None)
        deadlines.cross_off(number)
    assert len(set_for) == 1
    deadlines.close()


async def test_one_that_fails_does_not_take_the_others_their_call() -> None:
    loop, deadlines, calls, failures = asyncio.get_running_loop(), Deadlines(), Calls(1), []

    def fail() -> None:
        raise LookupError("broken")

    loop.set_exception_handler(lambda _loop, context: failures.append(context["exception"]))
    at = time.monotonic() + 0.02
    deadlines.note("broken", at, fail)
    deadlines.note("sound", at, calls.hear, "sound")
    assert await calls.all() == ["sound"]
    assert [type(failure) for failure in failures] == [LookupError]


async def test_nothing_is_called_once_they_are_closed() -> None:
    deadlines, calls = Deadlines(), Calls(1)
    deadlines.note("forgotten", time.monotonic() + 0.02, calls.hear, "forgotten")
    deadlines.close()
    deadlines.close()
    deadlines.note("noted afterwards", time.monotonic() + 0.05, calls.hear, "noted afterwards")
    assert await calls.all() == ["noted afterwards"]

"""Events between the 202 and the function, on a clock that jumps: turns, limits, retries, hosts that die, the drain."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serverfull.domain.events import EventConfig, EventEnd, Failed, Held, QueuedEvent, Refused, Response
from serverfull.errors import InternalFailure, ShuttingDown, TooManyRequests
from serverfull.invocation.clock import SteadyClock
from tests.events.virtual import THROTTLED, DirectStore, LoopClock, Runner, event, virtually

TORTURE = "SERVERFULL_TORTURE" in os.environ
"""Whether to try as much as ``make torture`` does."""

pytestmark = pytest.mark.timeout(1800 if TORTURE else 60)

ERROR = Failed(Response(status_code=200, executed_version="$LATEST", function_error="Unhandled", payload=b"{}"))
END = EventEnd(condition="Success", at=0.0, invoke_count=1)
BROKEN = Held(Response(status_code=500, message="broken"))


def test_events_over_the_limit_wait_and_run_later() -> None:
    async def work() -> None:
        runner = Runner(DirectStore(), limit=2, lasts=5)
        for number in range(7):
            await runner.queue.put(event("f", number))
        await asyncio.sleep(1)
        assert (len(runner.running), runner.queue.waiting) == (2, 5)
        await runner.ended(7, within=40)
        assert len(runner.begun) == 7
        assert runner.most == 2
        assert {end.condition for end in runner.ends.values()} == {"Success"}
        assert (runner.queue.waiting, runner.queue.running) == (0, 0)
        assert runner.store.rows("SELECT * FROM events") == []

    virtually(work())


def test_what_is_free_again_is_used_at_once() -> None:
    async def work() -> None:
        runner = Runner(DirectStore(), limit=1, lasts=0.25)
        for number in range(40):
            await runner.queue.put(event("f", number))
        await runner.ended(40)
        assert asyncio.get_running_loop().time() < 11  # 40 times 0.25 s one after the other

    virtually(work())


def test_a_flood_of_one_function_does_not_delay_another_ones_event() -> None:
    async def work() -> None:
        runner = Runner(DirectStore(), limit=1, lasts=1)
        for number in range(500):
            await runner.queue.put(event("flood", number))
        await asyncio.sleep(10)
        began = asyncio.get_running_loop().time()
        await runner.queue.put(event("other"))
        while "other-0" not in runner.ends:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert asyncio.get_running_loop().time() - began < 5

    virtually(work())


def test_beyond_the_backlogs_of_host_and_function_events_are_refused() -> None:
    async def work() -> None:
        runner = Runner(DirectStore(), limit=0, backlog=5, function_backlog=3)
        for number in range(3):
            await runner.queue.put(event("f", number))
        await asyncio.sleep(0.1)
        with pytest.raises(TooManyRequests, match="of this function"):
            await runner.queue.put(event("f", 3))
        await runner.queue.put(event("g", 0))
        await runner.queue.put(event("g", 1))
        await asyncio.sleep(0.5)
        with pytest.raises(TooManyRequests, match="on this host"):
            await runner.queue.put(event("g", 2))
        await asyncio.sleep(1000)
        assert runner.queue.waiting == 5
        runner.limit = 10
        await runner.ended(5)
        await runner.queue.put(event("f", 4))

    virtually(work())


@pytest.mark.parametrize(("retries", "times"), [(0, [0]), (1, [0, 60]), (2, [0, 60, 180])])
def test_ten_thousand_events_of_a_function_that_fails_are_tried_again_to_the_second(retries: int, times: Any) -> None:
    count = 10_000 if TORTURE else 500

    async def work() -> None:
        runner = Runner(DirectStore(), lambda _: ERROR, limit=10**6, config=EventConfig(retries=retries))
        for number in range(count):
            await runner.queue.put(event(f"f{number % 100}", number))
        await runner.ended(count)
        tried: dict[str, list[float]] = {}
        for request_id, at in runner.begun:
            tried.setdefault(request_id, []).append(round(at))
        assert len(tried) == count
        assert all(seen == times for seen in tried.values())
        assert {(end.condition, end.invoke_count) for end in runner.ends.values()} == {
            ("RetriesExhausted", retries + 1)
        }
        assert runner.kept == set(runner.ends)
        assert runner.store.rows("SELECT state, count(*) FROM events GROUP BY state") == [(3, count)]

    virtually(work())


@pytest.mark.parametrize("held", [BROKEN, Held(BROKEN.response, "host")])
def test_refused_events_are_tried_further_and_further_apart_until_they_are_too_old(held: Held) -> None:
    tried: dict[str, list[float]] = {}

    def attempt(event: QueuedEvent) -> Held:
        tried.setdefault(event.request_id, []).append(round(asyncio.get_running_loop().time()))
        return held

    async def work() -> None:
        runner = Runner(DirectStore(), attempt, limit=10**6, config=EventConfig(maximum_age=3600, retries=0))
        runner.queue.freed = lambda _function: None  # type: ignore[method-assign]  # nothing ever becomes free
        count = 5_000 if TORTURE else 50
        for number in range(count):
            await runner.queue.put(event(f"f{number}", 0))
        await runner.ended(count)
        assert {(end.condition, end.invoke_count) for end in runner.ends.values()} == {("EventAgeExceeded", 0)}

    virtually(work())
    course = [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]
    course += range(811, 3600, 300)
    assert set(map(tuple, tried.values())) == {tuple(course)}


def test_an_event_that_can_never_run_ends_at_once_and_is_kept() -> None:
    async def work() -> None:
        off = Refused("ZeroReservedConcurrency", Response(status_code=429, message="Rate Exceeded."))
        runner = Runner(DirectStore(), lambda _: off)
        await runner.queue.put(event())
        await runner.ended(1, within=1)
        assert runner.ends["f-0"].condition == "ZeroReservedConcurrency"
        kept = await runner.store.shown(["ended"])
        assert [(found.event.request_id, found.size, found.end.condition) for found in kept if found.end] == [
            ("f-0", 2, "ZeroReservedConcurrency")
        ]
        assert await runner.store.redrive([kept[0].key]) == 1
        runner.attempt = lambda _: None
        runner.ends.clear()
        await runner.queue.reload()
        await runner.ended(1, within=1)
        assert runner.ends["f-0"].success

    virtually(work())


def test_what_is_kept_long_enough_is_forgotten() -> None:
    async def work() -> None:
        runner = Runner(DirectStore(), lambda _: ERROR, config=EventConfig(retries=0), keep=3600)
        await runner.queue.put(event())
        await runner.ended(1)
        await asyncio.sleep(3000)
        assert len(await runner.store.shown(["ended"])) == 1
        await asyncio.sleep(1300)
        assert await runner.store.shown(["ended"]) == []

    virtually(work())


def test_while_the_store_cannot_be_written_nothing_is_accepted_run_twice_or_forgotten() -> None:
    async def work() -> None:
        store = DirectStore()
        runner = Runner(store, lasts=5)
        await runner.queue.put(event("f", 1))
        await asyncio.sleep(1)
        store.broken = True
        with pytest.raises(InternalFailure):
            await runner.queue.put(event("f", 2))
        await asyncio.sleep(60)  # the function has ended, and that cannot be written
        assert (runner.running, runner.ends, runner.queue.waiting) == ([], {}, 0)
        store.broken = False
        await runner.ended(1, within=1)
        await runner.queue.put(event("f", 3))
        await runner.ended(2, within=6)
        assert [request_id for request_id, _ in runner.begun] == ["f-1", "f-3"]
        assert [line for line, _ in runner.log.lines] == ["events cannot be written", "events are written again"]

    virtually(work())


def test_a_host_finds_what_a_killed_one_has_left_and_counts_no_retry_for_it(tmp_path: Path) -> None:
    async def first() -> None:
        store = DirectStore(tmp_path / "events-0.db")
        runner = Runner(store, lambda event: ERROR if event.name == "bad" else None, lasts=10, limit=3)
        await runner.queue.start()
        for number in range(200):
            await runner.queue.put(event("f", number))
        await runner.queue.put(event("bad"))
        await asyncio.sleep(25)
        store.die()
        left.extend({f"f-{number}" for number in range(200)} | {"bad-0"} - set(runner.ends))
        done.extend(runner.ends)

    async def second() -> None:
        runner = Runner(DirectStore(tmp_path / "events-0.db"), lambda _: None, limit=50)
        await runner.queue.start()
        await runner.ended(201 - len(done), within=100)
        assert set(runner.ends) == set(left) - set(done)
        assert {end.condition for end in runner.ends.values()} == {"Success"}

    left: list[str] = []
    done: list[str] = []
    virtually(first())
    virtually(second())
    assert 3 <= len(done) <= 12


def test_an_event_that_kills_the_host_three_times_is_kept_for_the_operator_and_others_run(tmp_path: Path) -> None:
    hosts = 0

    async def host() -> set[str]:
        store = DirectStore(tmp_path / "events-0.db")
        runner = Runner(store, lasts=1)
        died = asyncio.Event()

        def attempt(event: QueuedEvent) -> None:
            if event.name == "poison":
                store.die()
                died.set()

        runner.attempt = attempt
        await runner.queue.start()
        if hosts == 1:
            await runner.queue.put(event("poison"))
            for number in range(20):
                await runner.queue.put(event("innocent", number))
        waiter = asyncio.create_task(died.wait())
        with_all = asyncio.create_task(runner.ended(21 - len(over)))
        await asyncio.wait({waiter, with_all}, return_when=asyncio.FIRST_COMPLETED)
        for task in (waiter, with_all):
            task.cancel()
        return {name for name, end in runner.ends.items() if end.success} | runner.kept

    over: set[str] = set()
    while "poison-0" not in over:
        hosts += 1
        assert hosts < 6
        over |= virtually(host())
    assert hosts == 4
    assert len(over) == 21


def test_last_chances_are_given_one_at_a_time(tmp_path: Path) -> None:
    async def dying() -> None:
        store = DirectStore(tmp_path / "events-0.db")
        runner = Runner(store, lasts=100)
        await runner.queue.start()
        if not waiting:
            waiting.append(1)
            for number in range(5):
                await runner.queue.put(event("f", number))
        await asyncio.sleep(1)
        assert len(runner.running) == 5
        store.die()

    async def living() -> None:
        runner = Runner(DirectStore(tmp_path / "events-0.db"), lasts=3)
        await runner.queue.start()
        await runner.queue.put(event("g"))
        await runner.ended(6, within=30)
        assert runner.most == 2  # one of these, and what has killed nobody
        assert {end.condition for end in runner.ends.values()} == {"Success"}

    waiting: list[int] = []
    virtually(dying())
    virtually(dying())
    virtually(living())


def test_a_late_result_of_a_lease_that_is_over_changes_nothing(tmp_path: Path) -> None:
    async def first() -> Any:
        store = DirectStore(tmp_path / "events-0.db")
        [key] = await store.append([event()])
        lease = await store.claim(key)
        assert await store.claim(key) is None
        store.die()
        return lease

    async def second(late: Any) -> None:
        store = DirectStore(tmp_path / "events-0.db")
        lease = await store.claim(late.key)
        assert lease is not None
        assert (lease.event.deaths, lease.token != late.token) == (1, True)
        assert not await store.reschedule(late, late.event, 0)
        assert not await store.end(late, END, (), keep=True)
        assert not await store.end(late, END, (), keep=False)
        assert await store.reschedule(lease, lease.event, 0)
        again = await store.claim(late.key)  # by the same process
        assert again is not None
        assert not await store.reschedule(lease, lease.event, 0)
        assert not await store.end(lease, END, (), keep=False)
        assert await store.end(again, END, (), keep=False)
        assert not await store.end(again, END, (), keep=False)

    virtually(second(virtually(first())))


def test_a_drain_lets_end_what_runs_and_leaves_the_rest_to_the_next_host(tmp_path: Path) -> None:
    async def first() -> None:
        runner = Runner(DirectStore(tmp_path / "events-0.db"), lasts=20, limit=2)
        await runner.queue.start()
        for number in range(5):
            await runner.queue.put(event("f", number))
        await asyncio.sleep(1)
        drain = asyncio.create_task(runner.queue.drain(30))
        await asyncio.sleep(1)
        with pytest.raises(ShuttingDown):
            await runner.queue.put(event("f", 9))
        assert await drain == 0
        assert len(runner.ends) == 2
        await runner.queue.aclose()

    async def second() -> None:
        runner = Runner(DirectStore(tmp_path / "events-0.db"), lasts=100, limit=10)
        await runner.queue.start()
        await asyncio.sleep(1)
        assert len(runner.running) == 3
        assert await runner.queue.drain(5) == 0  # these do not end in time: they run again
        await runner.queue.aclose()
        await runner.queue.aclose()

    async def third() -> None:
        runner = Runner(DirectStore(tmp_path / "events-0.db"))
        await runner.queue.start()
        assert {kept.event.deaths for kept in await runner.store.shown(["waiting"])} <= {0}
        await runner.ended(3)

    virtually(first())
    virtually(second())
    virtually(third())


def test_in_memory_a_drain_runs_what_waits_and_tells_what_is_lost() -> None:
    async def work() -> None:
        runner = Runner(DirectStore(), limit=1, lasts=2, durable=False)
        for number in range(3):
            await runner.queue.put(event("f", number))
        assert await runner.queue.drain(10) == 0
        assert len(runner.ends) == 3

        runner = Runner(DirectStore(), lambda _: ERROR, durable=False)
        await runner.queue.put(event())
        began = asyncio.get_running_loop().time()
        assert await runner.queue.drain(30) == 1  # its retry would come too late
        assert asyncio.get_running_loop().time() - began < 1
        assert await Runner(DirectStore(), durable=False).queue.drain(0) == 0

        runner = Runner(DirectStore(), lasts=100, limit=1, durable=False)
        for number in range(3):
            await runner.queue.put(event("f", number))
        assert await runner.queue.drain(5) == 3
        await asyncio.sleep(1)
        assert [request_id for request_id, _ in runner.begun] == ["f-0"]
        assert not runner.running

    virtually(work())


def test_an_event_is_tried_again_after_a_while_where_nobody_tells_of_freed_capacity() -> None:
    async def work() -> None:
        runner = Runner(DirectStore(), limit=0, retry=0.1)
        await runner.queue.put(event())
        await asyncio.sleep(1.05)
        runner.limit = 1
        await asyncio.sleep(0.11)
        assert len(runner.ends) == 1

    virtually(work())


def test_a_deep_backlog_is_not_held_in_memory() -> None:
    async def work() -> None:
        runner = Runner(DirectStore(), limit=2, lasts=0.001)
        for number in range(1000):
            await runner.queue.put(event("f", number))
        line = runner.queue._lines.line("000000000000/us-east-1/f")
        assert len(line.known) < 300
        await runner.ended(1000)
        assert len(runner.begun) == 1000
        assert not list(runner.queue._lines)

    virtually(work())


def test_a_machines_clock_that_is_set_moves_neither_retries_nor_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SteadyClock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: before + 86_400)
    assert 0 <= clock.now() - before < 10


def test_what_a_clock_wrote_that_was_ahead_does_not_wait_for_its_time(tmp_path: Path) -> None:
    async def ahead() -> None:
        await asyncio.sleep(86_400)
        store = DirectStore(tmp_path / "events-0.db")
        [key] = await store.append([event()])
        lease = await store.claim(key)
        assert lease is not None
        await store.reschedule(lease, replace(lease.event, failures=1), LoopClock().now() + 60)
        await store.append([event("refused")])
        await store.aclose()

    def refused(found: QueuedEvent) -> Held | None:
        return THROTTLED if found.name == "refused" else None

    async def set_right() -> None:
        config = EventConfig(maximum_age=60)
        runner = Runner(DirectStore(tmp_path / "events-0.db"), refused, config=config)
        await runner.queue.start()
        await runner.ended(2, within=400)
        assert {name: end.condition for name, end in runner.ends.items()} == {
            "f-0": "Success",
            "refused-0": "EventAgeExceeded",
        }

    virtually(ahead())
    virtually(set_right())


def test_a_retry_keeps_its_time_when_hosts_come_and_go_and_what_was_refused_is_tried_at_once(tmp_path: Path) -> None:
    async def first() -> None:
        store = DirectStore(tmp_path / "events-0.db")
        for number, fields in enumerate(({"failures": 1}, {"throttles": 3}, {"failures": 1, "throttles": 1})):
            [key] = await store.append([event("f", number)])
            lease = await store.claim(key)
            assert lease is not None
            await store.reschedule(lease, replace(lease.event, **fields), LoopClock().now() + 60)
        store.die()

    async def second() -> None:
        runner = Runner(DirectStore(tmp_path / "events-0.db"))
        await runner.queue.start()
        await runner.ended(3, within=400)
        assert sorted(runner.begun) == [("f-0", 60), ("f-1", 0), ("f-2", 0)]

    virtually(first())
    virtually(second())

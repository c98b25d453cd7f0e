"""The store of events: groups in one commit, a full disk, files of others, damage, and what other processes leave."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serverfull.domain.events import Delivery, EventEnd, QueuedEvent, Response
from serverfull.domain.invocations import Simulation
from serverfull.errors import EventsDamaged, InternalFailure, StateInUse, StateTooNew, StateUnusable
from serverfull.invocation.clock import SteadyClock
from serverfull.storage.events import EventFolder, SqliteEventStore

CLOCK = SteadyClock()
FAILED = EventEnd(
    condition="RetriesExhausted",
    at=5.0,
    invoke_count=3,
    response=Response(status_code=200, executed_version="7", function_error="Unhandled", payload=b"\xff{}"),
)


@asynccontextmanager
async def opened(folder: Path | None, **where: Any) -> AsyncIterator[SqliteEventStore]:
    store = await SqliteEventStore.open(EventFolder(folder, **where), CLOCK)
    try:
        yield store
    finally:
        await store.aclose()


def event(number: int = 0, name: str = "f", **fields: Any) -> QueuedEvent:
    fields = {"account": "000000000000", "region": "us-east-1", "accepted_at": CLOCK.now(), **fields}
    return QueuedEvent(request_id=f"{name}-{number}", name=name, **fields)


async def test_an_event_comes_back_as_it_was(tmp_path: Path) -> None:
    whole = event(
        qualifier="live",
        generation="g",
        payload=b"\x00\xff{}",
        trace_id="Root=1;\udcff\ud800",
        client_context={"custom": {"a\ud800": ["ü", None, 1.5]}},
        cognito_identity={"cognitoIdentityId": "x"},
        tenant_id="t",
        simulation=Simulation(error_type="E", latency=0.5),
        failures=1,
        throttles=2,
    )
    async with opened(tmp_path) as store:
        [key] = await store.append([whole])
    async with opened(tmp_path) as store:
        lease = await store.claim(key)
        assert lease is not None
        assert lease.event == whole
        assert await store.claim(key) is None
        assert await store.end(lease, FAILED, (), keep=True)
        kept = await store.show(key)
        assert kept is not None
        assert (kept.event, kept.end, kept.state, kept.size) == (whole, FAILED, "ended", 4)
        [listed] = await store.shown(["ended"], function="f")
        assert (listed.event.payload, listed.size) == (b"", 4)
        assert await store.shown(["ended"], function="g") == []
        assert await store.show(key + 1) is None
    assert (tmp_path / "events-0.db").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "events-0.db-wal").exists()


async def test_a_list_has_what_is_short_of_responses_so_that_many_long_ones_are_not_in_memory_at_once() -> None:
    async with opened(None) as store:
        for size in (100, 100_000):
            [key] = await store.append([event()])
            lease = await store.claim(key)
            assert lease is not None
            response = Response(status_code=200, function_error="Unhandled", payload=b"x" * size)
            assert await store.end(lease, replace(FAILED, response=response), (), keep=True)
        listed = [one.end.response for one in await store.shown(["ended"]) if one.end is not None]
        assert [len(response.payload) for response in listed if response is not None] == [100, 0]
        kept = await store.show(key)
        assert kept is not None
        assert kept.end == replace(FAILED, response=response)


async def test_callers_who_come_together_share_commits(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        levels: list[bool] = []
        file = await store._do(lambda file: file)
        plain = file.transaction

        def counted(*, accepting: bool) -> Any:
            levels.append(accepting)
            return plain(accepting=accepting)

        file.transaction = counted
        appends = [store.append([event(number, name="g")]) for number in range(2)]
        _, first, _, second = await asyncio.gather(appends[0], store.lines(), appends[1], store.lines())
        assert [*first.values(), *second.values()] == [1, 2]  # one after the other
        keys = await asyncio.gather(*(store.append([event(number)]) for number in range(400)))
        assert len({key for (key,) in keys}) == 400
        assert levels.count(True) == len(levels) < 100
        before = len(levels)
        leases = await asyncio.gather(*(store.claim(key) for (key,) in keys))
        assert all(leases)
        assert not any(levels[before:])  # only what was promised waits for the disk


async def test_no_key_is_given_twice_whatever_became_of_the_event_that_had_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        keys = list(await store.append([event(number, payload=b"%d" % number) for number in range(110)]))
        assert keys == sorted(set(keys))
        waiting = await store.shown(["waiting"], limit=200)
        assert [(kept.key, kept.event.request_id) for kept in waiting] == [(k, f"f-{n}") for n, k in enumerate(keys)]
        [last] = [await store.show(keys[-1])]
        assert last is not None
        assert last.event.payload == b"109"
        assert await store.purge(keys) == 110
        with pytest.raises(UnicodeEncodeError):  # nothing of it is kept, the good one neither
            await store.append([event(0), event(1, payload="no bytes \ud800")])
        keys += await store.append([event(0)])
        assert await store.purge(keys) == 1
    async with opened(tmp_path, number=1, processes=2) as store:
        await store.append([event(number) for number in range(70)])
    async with opened(tmp_path) as store:  # takes over the other file's
        found = [kept.key for kept in await store.shown(["waiting"])]
        keys += [*found, *await store.append([event(0)])]
    assert (len(found), keys) == (70, sorted(set(keys)))


async def test_of_the_events_of_a_function_that_share_a_name_one_is_taken(tmp_path: Path) -> None:
    def named(number: int, **fields: Any) -> QueuedEvent:
        return replace(event(number, **fields), execution_name="order-7", payload=b"1")

    async with opened(tmp_path, number=1, processes=2) as store:
        await store._do(lambda file: file._connection.execute("DROP TABLE names"))
        await store._do(lambda file: file._connection.execute("PRAGMA user_version = 1"))
    async with opened(tmp_path, number=1, processes=2) as store:  # the layout before there were names
        assert await store.append([named(0), event(1), named(2), replace(named(3), payload=b"2")]) == [1, 2, 0, -1]
    async with opened(tmp_path) as store:  # another worker's names are taken over with its events
        assert await store.append([named(4), named(5, name="g"), named(6, generation="new")]) == [0, 3, 4]
        assert await store.forget(CLOCK.now() - 60) == 0
        assert await store.append([named(7)]) == [0]
        await store.forget(CLOCK.now() + 1)
        assert await store.append([named(8)]) == [5]


async def test_work_that_cannot_be_done_fails_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        wrong = event(1, payload="no bytes \ud800")
        done = await asyncio.gather(
            store.append([event(0)]), store.append([wrong]), store.append([event(2)]), return_exceptions=True
        )
        assert [isinstance(result, Exception) for result in done] == [False, True, False]
        assert await store.lines() == {"000000000000/us-east-1/f": 2}


async def test_deliveries_are_kept_with_the_end_and_the_event_goes_with_the_last(tmp_path: Path) -> None:
    def delivery(kind: Any) -> Delivery:
        return Delivery(
            id=f"1-{kind}",
            target="arn",
            function_arn="arn:f",
            request_id="f-0",
            kind=kind,
            success=False,
            body=b"\xffbody",
            attributes={"ErrorCode": 200, "RequestID": "f-0"},
            trace_id="Root=1",
        )

    both = (delivery("destination"), delivery("dead-letter"))
    async with opened(tmp_path) as store:
        [key] = await store.append([event()])
        lease = await store.claim(key)
        assert lease is not None
        assert await store.end(lease, FAILED, both, keep=False)
    async with opened(tmp_path) as store:
        pending, later = await store.pending(10)
        assert {found.delivery.id: found.delivery for found in pending} == {one.id: one for one in both}
        assert (later, pending[0].attempts) == (None, 0)
        again = CLOCK.now() + 50
        await store.undelivered(both[0].id, "not there", again)
        pending, later = await store.pending(10)
        assert ([found.delivery.id for found in pending], later) == ([both[1].id], pytest.approx(again))
        await store.delivered(both[1].id)
        await store.undelivered(both[0].id, "gone \ud800", None)
        kept = await store.show(key)
        assert kept is not None
        assert (kept.state, kept.undelivered) == ("ended", "gone \\ud800")
        assert await store.redrive([key, key + 1]) == 1
        pending, _ = await store.pending(10)
        assert [(found.delivery.id, found.attempts) for found in pending] == [(both[0].id, 0)]
        await store.undelivered(both[0].id, "not there", CLOCK.now() + 86_400)  # a clock that is set right later
    async with opened(tmp_path) as store:
        assert [found.delivery.id for found in (await store.pending(10))[0]] == [both[0].id]
        await store.delivered(both[0].id)
        await store.delivered(both[0].id)
        assert await store.show(key) is None


async def test_what_runs_is_not_purged_and_what_waits_or_has_ended_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        keys = [key for number in range(3) for key in await store.append([event(number)])]
        lease = await store.claim(keys[0])
        ended = await store.claim(keys[1])
        assert lease is not None
        assert ended is not None
        await store.end(ended, FAILED, (), keep=True)
        assert await store.purge(keys) == 2
        assert [kept.event.request_id for kept in await store.shown(["running", "waiting", "ended"])] == ["f-0"]


async def test_one_process_at_a_time_has_the_file(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(StateInUse, match="another host"):
            await SqliteEventStore.open(EventFolder(tmp_path), CLOCK)
        code = f"""
import asyncio
from pathlib import Path
from serverfull.storage.events import EventFolder, SqliteEventStore
from serverfull.invocation.clock import SteadyClock
asyncio.run(SqliteEventStore.open(EventFolder(Path({str(tmp_path)!r})), SteadyClock()))
"""
        other = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert "StateInUse" in other.stderr
    async with opened(tmp_path):
        pass


async def test_a_host_with_fewer_workers_takes_over_what_the_others_have_left(tmp_path: Path) -> None:
    async with opened(tmp_path, number=1, processes=3) as store:
        await store.append([event(1)])
    async with opened(tmp_path, number=2, processes=3) as store:
        await store.append([event(number) for number in range(2, 1200)])
        lease = await store.claim(1)
        assert lease is not None
        delivery = Delivery(
            id="d", target="a", function_arn="b", request_id="c", kind="destination", success=True, body=b""
        )
        await store.end(lease, FAILED, [delivery], keep=False)
    async with opened(tmp_path, number=0, processes=2) as store:
        await store.append([event(0)])
        assert await store.lines() == {"000000000000/us-east-1/f": 1198}
        assert len((await store.pending(5))[0]) == 1
    assert sorted(os.listdir(tmp_path)) == ["events-0.db", "events-1.db"]
    async with opened(tmp_path) as store:
        assert await store.lines() == {"000000000000/us-east-1/f": 1199}
        await store.delivered("d")
        assert await store.shown(["delivering"]) == []


async def test_a_crash_before_the_file_of_another_worker_is_gone_doubles_what_waits_and_no_delivery(
    tmp_path: Path,
) -> None:
    told = {"target": "a", "function_arn": "b", "request_id": "c", "kind": "destination", "success": True, "body": b""}
    async with opened(tmp_path, number=1, processes=2) as store:
        [key, _] = await store.append([event(1), event(2)])
        lease = await store.claim(key)
        assert lease is not None
        await store.end(lease, FAILED, [Delivery(id="d", **told)], keep=False)
    left = (tmp_path / "events-1.db").read_bytes()
    async with opened(tmp_path):
        pass
    (tmp_path / "events-1.db").write_bytes(left)
    async with opened(tmp_path) as store:
        kept = await store.shown(["waiting", "delivering"])
        assert sorted((found.event.request_id, found.state) for found in kept) == [
            ("f-1", "delivering"),
            ("f-2", "waiting"),
            ("f-2", "waiting"),
        ]
        await store.delivered("d")
        assert not await store.shown(["delivering"])


async def test_a_file_that_is_gone_takes_no_event_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        [key] = await store.append([event()])
        (tmp_path / "events-0.db").rename(tmp_path / "elsewhere")
        with pytest.raises(InternalFailure, match="gone or another file"):
            await store.append([event(1)])
        (tmp_path / "events-0.db").write_bytes(b"")
        with pytest.raises(InternalFailure, match="gone or another file"):
            await store.append([event(1)])
        assert await store.claim(key)  # what was accepted runs


def _layout(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def _damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4096 * 2 : 4096 * 4] = b"\xa5" * 8192
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (_layout, StateTooNew),
        (_damage, EventsDamaged),
        (lambda file: file.write_bytes(b"no database" * 100), EventsDamaged),
        (lambda file: (file.unlink(), file.mkdir()), StateUnusable),
    ],
)
async def test_what_cannot_be_used_is_refused_by_name_and_left_as_it_is(
    tmp_path: Path, harm: Callable[[Path], object], kind: type[Exception]
) -> None:
    async with opened(tmp_path) as store:
        await store.append([event(number, payload=b"x" * 500) for number in range(100)])
    file = tmp_path / "events-0.db"
    harm(file)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(kind, match=r"events-0\.db"):
        await SqliteEventStore.open(EventFolder(tmp_path), CLOCK)
    assert before == (file.read_bytes() if file.is_file() else None)


async def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnusable, match="cannot keep events"):
        await SqliteEventStore.open(EventFolder(tmp_path / "file" / "folder"), CLOCK)

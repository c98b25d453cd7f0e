"""Copies of files of events that a host is writing: whole, and with all that was accepted before."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from serverfull.domain.events import EventEnd, QueuedEvent
from serverfull.errors import StateUnusable
from serverfull.invocation.clock import SteadyClock
from serverfull.storage import event_copies, event_file
from serverfull.storage.event_copies import Copiers, copy_events
from serverfull.storage.events import EventFolder, SqliteEventStore

CLOCK = SteadyClock()
MOMENTS = itertools.count()
DONE = EventEnd(condition="Success", at=5.0, invoke_count=1)


def event(number: int) -> QueuedEvent:
    payload = b"%d" % number * (1 + number % 7 * 100)
    place = {"account": "000000000000", "region": "us-east-1", "accepted_at": CLOCK.now()}
    return QueuedEvent(request_id=f"{number}", name="f", payload=payload, **place)


class Busy:
    """Callers who put events into a store, some of which run and are gone, all the time."""

    def __init__(self, store: SqliteEventStore) -> None:
        self._store = store
        self._numbers = itertools.count()
        self.kept: set[str] = set()
        self.news = asyncio.Event()

    async def call(self) -> None:
        while True:
            number = next(self._numbers)
            [key] = await self._store.append([event(number)])
            if number % 4:
                lease = await self._store.claim(key)
                assert lease is not None
                assert await self._store.end(lease, DONE, (), keep=False)
            else:
                self.kept.add(f"{number}")
                self.news.set()


def copied_at_a_bad_moment(source: Path, target: Path) -> None:
    """Copy a file; each second time the log of the database begins anew before it is copied."""
    shutil.copyfile(source, target)
    if source.suffix == ".db" and next(MOMENTS) % 2 == 0:
        log = source.with_name(f"{source.name}-wal")
        before, deadline = log.read_bytes()[:32], time.monotonic() + 20
        while log.read_bytes()[:32] == before:
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.mark.parametrize("waits", [True, False])
async def test_a_copy_of_a_busy_file_has_all_that_was_accepted_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    monkeypatch.setattr(event_file, "_LOG_PAGES", 40)  # its log begins anew all the time
    if not waits:
        monkeypatch.setattr(event_copies, "_TRIES", 500)
        monkeypatch.setattr(event_copies, "copyfile", copied_at_a_bad_moment)
        monkeypatch.setattr(Copiers, "any", lambda _: False)
    store = await SqliteEventStore.open(EventFolder(tmp_path / "events"), CLOCK)
    busy = Busy(store)
    callers = [asyncio.create_task(busy.call()) for _ in range(8)]
    try:
        for number in range(12):
            before = set(busy.kept)
            (target := tmp_path / f"copy-{number}").mkdir()
            [copy] = await asyncio.to_thread(copy_events, tmp_path / "events", target)
            with closing(sqlite3.connect(copy)) as connection:
                found = {str(name) for (name,) in connection.execute("SELECT details ->> 'id' FROM events")}
                running = connection.execute("SELECT count(*) FROM events WHERE state = 1").fetchone()
            assert before <= found
            assert running == (0,)
            assert [path.name for path in target.iterdir()] == ["events-0.db"]
            while len(busy.kept) < len(before) + 10:
                busy.news.clear()
                await busy.news.wait()
    finally:
        for caller in callers:
            caller.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*callers)
        await store.aclose()


async def test_a_host_moves_nothing_while_somebody_copies_and_goes_on_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "_LOG_PAGES", 10)
    store = await SqliteEventStore.open(EventFolder(tmp_path), CLOCK)
    log = tmp_path / "events-0.db-wal"

    async def begins_anew() -> bool:
        before = log.read_bytes()[:32]
        for number in range(40):
            await store.append([event(number)])
        return log.read_bytes()[:32] != before

    try:
        assert await begins_anew()
        with event_copies._copying(tmp_path):
            await begins_anew()  # what was moved before
            assert not await begins_anew()
        assert await begins_anew()
    finally:
        await store.aclose()


async def test_a_file_that_never_stands_still_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteEventStore.open(EventFolder(tmp_path), CLOCK)
    numbers = itertools.count()
    monkeypatch.setattr(event_copies, "_mark", lambda _: (next(numbers),))
    try:
        with pytest.raises(StateUnusable, match=r"events-0\.db changes faster than it can be copied"):
            copy_events(tmp_path, tmp_path.parent)
    finally:
        await store.aclose()

"""``serverfull state`` and the events of a host: backups have them, and checks read them."""

from __future__ import annotations

import asyncio
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from serverfull.domain.events import Delivery, EventEnd, QueuedEvent
from serverfull.invocation.clock import SteadyClock
from serverfull.storage.events import EventFolder, SqliteEventStore
from serverfull.storage.state import open_state

Run = Callable[..., Any]
CLOCK = SteadyClock()
END = EventEnd(condition="RetriesExhausted", at=5.0, invoke_count=3)


def event(number: int) -> QueuedEvent:
    place = {"account": "000000000000", "region": "us-east-1", "accepted_at": CLOCK.now()}
    return QueuedEvent(request_id=f"{number}", name="f", payload=b"%d" % number, **place)


def use(folder: Path, work: Callable[[SqliteEventStore], Any], **where: Any) -> Any:
    """Do something with events as a host would, and close them."""

    async def main() -> Any:
        store = await SqliteEventStore.open(EventFolder(folder, **where), CLOCK)
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(main())


async def waiting(store: SqliteEventStore) -> dict[str, int]:
    kept = await store.shown(["waiting", "running", "delivering", "ended"], limit=1000)
    return {found.event.request_id: found.event.deaths for found in kept}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state whose host had three workers: events of the first and the last wait there, and one is to be delivered."""
    folder = tmp_path / "state"

    async def main() -> None:
        await (await open_state(folder)).aclose()

    async def end(store: SqliteEventStore) -> None:
        [key, _] = await store.append([event(7), event(8)])
        lease = await store.claim(key)
        assert lease is not None
        told = Delivery(
            id="d", target="a", function_arn="b", request_id="7", kind="destination", success=True, body=b""
        )
        await store.end(lease, END, [told], keep=False)

    asyncio.run(main())
    use(folder / "events", end, number=2, processes=3)
    use(folder / "events", lambda store: store.append([event(number) for number in range(5)]), processes=3)
    return folder


def restore(file: Path, folder: Path) -> None:
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")


def change(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(statement)


def test_a_backup_has_the_events_of_all_workers_while_they_run(run: Run, state: Path, tmp_path: Path) -> None:
    (state / "events" / "events-1.db").touch()  # a worker only begins

    async def work(store: SqliteEventStore) -> None:
        await store.append([event(5)])  # is in the log, and not yet in the database's file
        assert await store.claim(1)  # runs meanwhile
        done = await asyncio.to_thread(run, "state", "backup", str(state), "live.tar")
        assert (done.returncode, done.stderr) == (0, "")
        done = await asyncio.to_thread(run, "state", "check", str(state))
        assert (done.returncode, done.stderr) == (0, "")
        assert {"events waiting: 7", "events delivering: 1"} <= set(done.stdout.splitlines())
        await store.append([event(6)])

    use(state / "events", work, processes=3)
    with tarfile.open(tmp_path / "live.tar") as archive:
        modes = {member.name: member.mode for member in archive if member.name.startswith("events")}
    files = [f"events/events-{number}.db{log}" for number in (0, 2) for log in ("", "-wal")]
    assert modes == {"events": 0o700, **dict.fromkeys(files, 0o600)}
    restore(tmp_path / "live.tar", tmp_path / "restored")
    # Fewer workers, and no host has died.
    assert use(tmp_path / "restored" / "events", waiting) == dict.fromkeys("01234578", 0)
    assert set(use(state / "events", waiting)) == set("012345678")


def test_events_that_are_kept_elsewhere_or_alone_are_backed_up_too(run: Run, state: Path, tmp_path: Path) -> None:
    events = (state / "events").rename(tmp_path / "elsewhere")
    assert "events" not in run("state", "check", str(state)).stdout
    done = run("state", "check", str(state), "--events", "elsewhere")
    assert (done.returncode, done.stdout.count("events ")) == (0, 2)
    assert run("state", "backup", str(state), "both.tar", "--events", str(events)).returncode == 0
    restore(tmp_path / "both.tar", tmp_path / "restored")
    assert len(use(tmp_path / "restored" / "events", waiting)) == 7
    done = run("state", "check", str(events))
    assert (done.returncode, done.stdout) == (0, "events delivering: 1\nevents waiting: 6\neverything can be read\n")
    assert run("state", "backup", str(events), "alone.tar").returncode == 0
    restore(tmp_path / "alone.tar", tmp_path / "again")
    assert len(use(tmp_path / "again", waiting)) == 7


def test_a_check_names_the_events_and_deliveries_that_cannot_be_read(run: Run, state: Path) -> None:
    change(state / "events" / "events-0.db", "UPDATE events SET details = '{\"moon\":1}' WHERE key = 3")
    change(state / "events" / "events-0.db", "UPDATE events SET state = 9 WHERE key = 4")
    change(state / "events" / "events-2.db", "UPDATE deliveries SET details = '[]'")
    done = run("state", "check", str(state))
    assert (done.returncode, done.stderr.count("3 of the records, packages or events are damaged")) == (1, 1)
    for says in ("events-0.db event 3: it", "events-0.db event 4: it", "events-2.db event 1: its delivery d"):
        assert f"{says} cannot be read (" in done.stdout


def test_events_that_are_damaged_or_newer_are_told_and_not_backed_up(run: Run, state: Path, tmp_path: Path) -> None:
    file = state / "events" / "events-2.db"
    change(file, "PRAGMA user_version = 99")
    for command in (["check"], ["backup"]):
        done = run("state", *command, str(state), *(["b.tar"] if command == ["backup"] else []))
        assert done.returncode == 1
        assert f"{file} was written by a newer serverfull" in done.stderr
    content = bytearray(file.read_bytes())
    content[4096 * 2 : 4096 * 4] = b"\xa5" * 8192
    file.write_bytes(content)
    done = run("state", "backup", str(state), "b.tar")
    assert (done.returncode, f"{file} is damaged" in done.stderr) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]
    done = run("state", "check", str(state))
    assert (done.returncode, f"{file} is damaged" in done.stdout) == (1, True)
    assert "functions: 0" in done.stdout  # it goes on

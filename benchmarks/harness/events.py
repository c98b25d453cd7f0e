"""Measures events: how many a second are accepted on the disk, and how soon a host runs what waits since before it."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.load import Load, NotMeasured, load
from benchmarks.harness.machine import cores
from benchmarks.harness.servers import Contestant, Server, ours, running

if TYPE_CHECKING:
    from serverfull.domain.events import QueuedEvent
    from serverfull.interfaces import EventStore

CONNECTIONS = 64
WAITING = 100_000
"""Events that wait when a host starts."""

BODY = b'{"order": 17, "items": ["a", "b", "c"]}'
_RUN = re.compile(rb"^serverfull_invocations_total\{[^}]*\} ([1-9]\S*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What events cost.

    :param durable: for each round, durable 202s a second to answers of DryRun a second, at 64 connections.
    :param grouped: for each round, events a second that 64 callers put into the host's store without HTTP before it, to
        rows a second that SQLite commits one by one on that disk.
    :param over_http: for each round, durable 202s a second to such rows a second.
    :param rates: for each round, durable 202s a second.
    :param first_run: for each round, the seconds from a start with 100,000 waiting events to the first that has run.
    """

    durable: tuple[float, ...]
    grouped: tuple[float, ...]
    over_http: tuple[float, ...]
    rates: tuple[float, ...]
    first_run: tuple[float, ...]


def host(folder: Path) -> Contestant:
    """Give our server, with events in a folder."""
    variables = {
        "SERVERFULL_EVENTS__PATH": str(folder),
        "SERVERFULL_LIMITS__EVENT_BACKLOG": "100000000",
        "SERVERFULL_LIMITS__FUNCTION_EVENT_BACKLOG": "100000000",
        "SERVERFULL_SERVER__SHUTDOWN_TIMEOUT": "0",
    }
    return replace(ours("ours with events", ""), variables=variables)


def rate(server: Server, kind: str, body: Path, seconds: int) -> float:
    """Give the answers a second to invocations of a type; its function never lets a second one run.

    :raises NotMeasured: some were refused.
    """
    found: Load = load(server.url("held"), body, CONNECTIONS, seconds, cores()[1], f"X-Amz-Invocation-Type: {kind}")
    if found.bad_status or found.socket_errors:
        raise NotMeasured(f"{found.bad_status + found.socket_errors} answers to {kind} were errors")
    return found.rate


def single_commits(folder: Path, seconds: float) -> float:
    """Give the rows a second that SQLite commits one by one, each on the disk before the next."""
    with closing(sqlite3.connect(folder / "single.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS events (key INTEGER PRIMARY KEY, details TEXT, payload BLOB)")
        rows, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            connection.execute("INSERT INTO events (details, payload) VALUES (?, ?)", ("x" * 150, BODY))
            rows += 1
        return rows / (time.perf_counter() - began)


@asynccontextmanager
async def stored(folder: Path) -> AsyncIterator[tuple[EventStore, Callable[[int], QueuedEvent]]]:
    """Open a store as a host does; give it with what makes its events."""
    from serverfull.domain.events import QueuedEvent
    from serverfull.invocation.clock import SteadyClock
    from serverfull.storage.events import EventFolder, SqliteEventStore

    clock = SteadyClock()
    store = await SqliteEventStore.open(EventFolder(folder), clock)

    def make(number: int) -> QueuedEvent:
        return QueuedEvent(
            request_id=f"00000000-0000-4000-8000-{number:012}",
            account="000000000000",
            region="us-east-1",
            name="hello_async",
            payload=BODY,
            accepted_at=clock.now(),
        )

    try:
        yield store, make
    finally:
        await store.aclose()


def fill(folder: Path, count: int) -> None:
    """Leave events that wait, as many calls would have."""

    async def fill_it() -> None:
        async with stored(folder) as (store, make):
            for start in range(0, count, 1000):
                await store.append([make(number) for number in range(start, start + 1000)])

    asyncio.run(fill_it())


def appended(folder: Path, seconds: float) -> float:
    """Give the events a second that 64 callers put into a store, each one after the other, as connections do."""

    async def measure() -> float:
        numbers = itertools.count()
        async with stored(folder) as (store, make):
            began = time.perf_counter()

            async def call() -> None:
                while time.perf_counter() - began < seconds:
                    await store.append((make(next(numbers)),))

            await asyncio.gather(*(call() for _ in range(CONNECTIONS)))
            return next(numbers) / (time.perf_counter() - began)

    return asyncio.run(measure())


def first_run(folder: Path) -> float:
    """Give the seconds from the start of a host to when it says that it has run an event."""
    with running(host(folder), "", cores()[0]) as server:
        server.wait_listening()
        while time.perf_counter() - server.started < 60:
            with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
                connection.request("GET", "/metrics")
                if _RUN.search(connection.getresponse().read()):
                    return time.perf_counter() - server.started
            time.sleep(0.005)
        raise NotMeasured(f"no event has run: {server.last_words()}")


def events(folder: Path, rounds: int, seconds: int, say: Callable[[str], None], *, waiting: int = WAITING) -> Events:
    """Measure all of it.

    :param waiting: events that wait when a host starts.
    :raises NotMeasured: a host refuses, or does not start.
    """
    body = folder / "event"
    body.write_bytes(BODY)
    durable, grouped, over_http, rates, starts = [], [], [], [], []
    for round_ in range(rounds):
        say(f"events: round {round_ + 1}")
        place = folder / f"events-{round_}"
        with running(host(place), "", cores()[0]) as server:
            server.wait_listening()
            dry = rate(server, "DryRun", body, seconds)
            accepted = rate(server, "Event", body, seconds)
        single = single_commits(folder, seconds)
        durable.append(accepted / dry)
        grouped.append(appended(folder / f"stored-{round_}", seconds) / single)
        over_http.append(accepted / single)
        rates.append(accepted)
        full = folder / f"full-{round_}"
        fill(full, waiting)
        starts.append(first_run(full))
    return Events(
        durable=tuple(durable),
        grouped=tuple(grouped),
        over_http=tuple(over_http),
        rates=tuple(rates),
        first_run=tuple(starts),
    )

"""Hosts that are killed while they take and run events, power that is cut, and disks that are full."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.events.disks import Disk, fill, needs_mounts, small_disk
from tests.events.killing import CONCURRENCY, POINTS, Clients, die_at_points, kill_loop, ran, start_host

TORTURE = "SERVERFULL_TORTURE" in os.environ
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if TORTURE else 120)]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_acknowledged_event_is_lost_when_hosts_are_killed(tmp_path: Path, workers: int) -> None:
    kills, events = (100, 50_000) if TORTURE else (2, 100)
    tally = kill_loop(tmp_path, kills=kills, events=events, workers=workers)
    print(f"\n{workers} workers: {tally}")
    assert (len(tally.acknowledged) >= events, tally.kills) == (True, kills)
    assert not tally.lost
    assert tally.duplicates <= kills * CONCURRENCY


def test_no_acknowledged_event_is_lost_at_any_point_at_which_a_host_dies(tmp_path: Path) -> None:
    times = 12 if TORTURE else 1
    tally = die_at_points(tmp_path, times=times)
    print(f"\n{len(POINTS)} points: {tally}")
    assert not tally.lost
    assert tally.kills == len(POINTS) * times
    assert len(tally.acknowledged) > tally.kills
    assert tally.duplicates <= tally.kills * CONCURRENCY


def cut(tmp_path: Path, cuts: int, synchronous: str) -> tuple[int, list[int]]:
    """Cut the power so often while events come in; gives how many were acknowledged, and how many each cut lost."""
    disk = Disk(tmp_path)
    lost = []
    with disk.on() as folder:
        host = start_host(tmp_path, folder / "events", SERVERFULL_EVENTS__SYNCHRONOUS=synchronous)
        try:
            with Clients("keep") as clients:
                clients.port = host.port
                for _ in range(cuts):
                    before = len(clients.acknowledged)
                    while len(clients.acknowledged) < before + 20:
                        time.sleep(0.01)
                    host.send_signal(signal.SIGSTOP)
                    time.sleep(0.05)  # what it has answered has come
                    acknowledged = set(clients.acknowledged)
                    with disk.after_a_cut() as remains:
                        lost.append(len(acknowledged - found(remains / "events" / "events-0.db")))
                    host.send_signal(signal.SIGCONT)
        finally:
            host.kill()
    return len(clients.acknowledged), lost


def found(file: Path) -> set[int]:
    """Give the events in a file that is whole, whether they wait or have ended."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'events'").fetchall()
        return {int(payload) for (payload,) in connection.execute("SELECT payload FROM events")} if tables else set()


def test_no_acknowledged_event_is_lost_when_the_power_is_cut(tmp_path: Path) -> None:
    needs_mounts("cut a disk from its power")
    acknowledged, lost = cut(tmp_path, 50 if TORTURE else 3, "full")
    print(f"\n{len(lost)} cuts, {acknowledged} events acknowledged, {sum(lost)} lost")
    assert not any(lost)


def test_the_test_of_power_sees_losses_where_there_are_some(tmp_path: Path) -> None:
    needs_mounts("cut a disk from its power")
    acknowledged, lost = cut(tmp_path, 50 if TORTURE else 3, "normal")
    print(f"\nevents.synchronous normal: {len(lost)} cuts, {acknowledged} events acknowledged, {max(lost)} lost by one")
    assert any(lost)


def test_a_full_disk_takes_no_event_and_stops_nothing_else(tmp_path: Path) -> None:
    needs_mounts("fill a disk")
    with small_disk(tmp_path, 8) as disk:
        host = start_host(tmp_path, disk / "events")
        try:
            with Clients("take") as clients:
                clients.port = host.port
                for _ in range(3 if TORTURE else 1):
                    filler = fill(disk)
                    refused = len(clients.refused)
                    while len(clients.refused) < refused + 20:
                        assert host.invoke("take", b"-1").status == 200
                    assert set(clients.refused) == {500}
                    filler.unlink()
                    began, taken = time.monotonic(), len(clients.acknowledged)
                    while len(clients.acknowledged) < taken + 20:
                        assert time.monotonic() - began < 60
                        time.sleep(0.01)
                    if TORTURE:
                        assert time.monotonic() - began < 5
            deadline = time.monotonic() + 60
            while lost := set(clients.acknowledged) - set(ran(tmp_path)):
                assert time.monotonic() < deadline, f"{len(lost)} lost"
                time.sleep(0.05)
            assert host.stop() == 0
        finally:
            host.kill()

"""Kills hosts that take and run events, and counts what becomes of the events that were acknowledged."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from serverfull.testing.process import HostProcess

APP = """
import os
import serverfull
out = os.open({out!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

async def take(event):
    os.write(out, b"%d\\n" % event)

async def falter(event):
    if event % 3 == 0 and not os.path.exists(mark := {out!r} + f"-{{event}}"):
        open(mark, "x").close()
        raise ValueError(event)
    await take(event)

functions = {{"take": take, "falter": falter, "keep": serverfull.Function(take, max_concurrency=0)}}
"""

# Put before it: a host that kills itself when it has come by a point so often.
DYING = """
import os, signal
from contextlib import contextmanager
from serverfull.storage.event_file import EventFile

wanted, left = os.environ["DIE_AT"], int(os.environ["DIE_THE"])
ready = False  # it takes events, and is not killed before that is known

def reached(point):
    global left
    if point == wanted and ready:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

def watched(plain, name):
    def call(*arguments, **named):
        global ready
        ready = ready or name == "append"
        reached("before " + name)
        result = plain(*arguments, **named)
        reached(name + ", not committed")
        return result
    return call

plain_transaction = EventFile.transaction

@contextmanager
def transaction(self, *, accepting):
    with plain_transaction(self, accepting=accepting):
        yield
    reached("accepted, not answered" if accepting else "noted, not known")

EventFile.transaction = transaction
for name in ("append", "claim", "reschedule", "end"):
    setattr(EventFile, name, watched(getattr(EventFile, name), name))
"""

POINTS = (
    *(f"before {name}" for name in ("append", "claim", "reschedule", "end")),
    *(f"{name}, not committed" for name in ("append", "claim", "reschedule", "end")),
    "accepted, not answered",
    "noted, not known",
)
"""Where a host can die between two steps of an event's life."""

CLIENTS = 8
CONCURRENCY = 50


@dataclass
class Tally:
    """What became of events.

    :ivar acknowledged: their numbers.
    :ivar ran: the numbers of those that ran, each as often as it did.
    """

    kills: int = 0
    acknowledged: list[int] = field(default_factory=list)
    ran: list[int] = field(default_factory=list)

    def wait(self, folder: Path) -> None:
        """Wait until all that was acknowledged has run, for a minute."""
        deadline = time.monotonic() + 60
        self.ran = ran(folder)
        while self.lost and time.monotonic() < deadline:
            time.sleep(0.05)
            self.ran = ran(folder)

    @property
    def lost(self) -> set[int]:
        return set(self.acknowledged) - set(self.ran)

    @property
    def duplicates(self) -> int:
        return len(self.ran) - len(set(self.ran))

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {len(self.acknowledged)} events acknowledged, {len(self.lost)} lost, "
            f"{self.duplicates} run more than once"
        )


class Clients:
    """Send events to a host all the time and note what was acknowledged, until they are told to stop.

    :param numbers: what the events are called; None: they begin with 0.
    :ivar port: of the host; hosts come and go.
    """

    def __init__(self, function: str, numbers: Iterator[int] | None = None) -> None:
        self.port = 0
        self.acknowledged: list[int] = []
        self.refused: list[int] = []
        self._function = function
        self._over = False
        self._numbers = itertools.count() if numbers is None else numbers
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send) for _ in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._over:
            link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            with contextlib.closing(link), contextlib.suppress(OSError, http.client.HTTPException):
                while not self._over:
                    self._send_one(link)
            time.sleep(0.005)

    def _send_one(self, link: http.client.HTTPConnection) -> None:
        with self._lock:
            number = next(self._numbers)
        path = f"/2015-03-31/functions/{self._function}/invocations"
        link.request("POST", path, str(number), {"X-Amz-Invocation-Type": "Event"})
        answer = link.getresponse()
        answer.read()
        if answer.status == 202:
            self.acknowledged.append(number)
        else:
            self.refused.append(answer.status)
            time.sleep(0.01)


def start_host(folder: Path, events: Path, *args: str, before: str = "", **env: str) -> HostProcess:
    """Start a host that keeps events in a folder; its function ``take`` notes each event in the file ``ran``.

    :param before: code that is run first.
    """
    (folder / "app.py").write_text(before + APP.format(out=str(folder / "ran")))
    env = {
        "SERVERFULL_EVENTS__PATH": str(events),
        "SERVERFULL_LIMITS__MAX_CONCURRENCY": str(CONCURRENCY),
        "SERVERFULL_LOGGING__FUNCTIONS": "NULL",
        **env,
    }
    return HostProcess.start("app.py:functions", *args, env=env, cwd=folder, timeout=60)


def ran(folder: Path) -> list[int]:
    """Give the events that have run, each as often as it did."""
    return [int(line) for line in (folder / "ran").read_text().split()]


def kill_loop(folder: Path, *, kills: int, events: int, workers: int = 1, seed: int = 0) -> Tally:
    """Kill so many hosts at random times, take so many events at least, and let the last host run what is left.

    :param workers: processes of each host.
    """
    dice, tally = random.Random(seed), Tally()
    args = ("--workers", str(workers)) if workers > 1 else ()
    host = start_host(folder, folder / "events", *args)
    try:
        with Clients("take") as clients:
            for kill in range(kills):
                clients.port = host.port
                before = len(clients.acknowledged)
                time.sleep(dice.uniform(0.05, 0.5))
                while len(clients.acknowledged) - before < events // kills and host.process.poll() is None:
                    time.sleep(0.01)
                host.kill()
                tally.kills = kill + 1
                host = start_host(folder, folder / "events", *args)
        tally.acknowledged = clients.acknowledged
        tally.wait(folder)
    finally:
        host.kill()
    return tally


def die_at_points(folder: Path, *, times: int, seed: int = 0) -> Tally:
    """Let hosts kill themselves so often at each point while they take events and run them.

    After each second of them another one runs what is left: an event that has seen three deaths would be put aside.
    Each third event fails the first time, so that it is tried again.
    """
    dice, tally, numbers = random.Random(seed), Tally(), itertools.count()
    place, limits = folder / "events", {"SERVERFULL_EVENTS__BASE_DELAY": "0.2"}
    for number, point in enumerate(POINTS * times):
        dying = {"DIE_AT": point, "DIE_THE": str(dice.randint(1, 40)), **limits}
        host = start_host(folder, place, before=DYING, **dying)
        try:
            with Clients("falter", numbers) as clients:
                clients.port = host.port
                assert host.process.wait(60) == -signal.SIGKILL, point
        finally:
            host.kill()
        tally.kills += 1
        tally.acknowledged += clients.acknowledged
        if number % 2 == 0 and number + 1 < len(POINTS) * times:
            continue
        host = start_host(folder, place, **limits)
        try:
            tally.wait(folder)
        finally:
            host.kill()
        if tally.lost:
            break
    return tally

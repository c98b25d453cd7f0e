"""Kills hosts that take and run events, and counts what becomes of the events that were acknowledged."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from serverfull.testing.process import HostProcess

APP = """
import os
out = os.open({out!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

async def take(event):
    os.write(out, b"%d\\n" % event)

functions = {{"take": take}}
"""

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


class KillLoop:
    """Runs hosts on one folder of events, with clients that send events all the time.

    :param workers: processes of each host.
    """

    def __init__(self, folder: Path, *, workers: int = 1, seed: int = 0) -> None:
        self.tally = Tally()
        self._folder = folder
        self._out = folder / "ran"
        (folder / "app.py").write_text(APP.format(out=str(self._out)))
        self._args = ("--workers", str(workers)) if workers > 1 else ()
        self._random = random.Random(seed)
        self._port = 0
        self._over = False
        self._numbers = iter(range(10**9))
        self._lock = threading.Lock()

    def run(self, kills: int, events: int) -> Tally:
        """Kill so many hosts at random times, take so many events at least, and let the last host run what is left."""
        clients = [threading.Thread(target=self._send) for _ in range(CLIENTS)]
        host = self._start()
        for client in clients:
            client.start()
        try:
            for _ in range(kills):
                time.sleep(self._random.uniform(0.05, 0.5))
                host.kill()
                self.tally.kills += 1
                host = self._start()
            while len(self.tally.acknowledged) < events:
                time.sleep(0.05)
        finally:
            self._over = True
            for client in clients:
                client.join()
        with host:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                self.tally.ran = [int(line) for line in self._out.read_text().split()]
                if not self.tally.lost:
                    break
                time.sleep(0.1)
        return self.tally

    def _start(self) -> HostProcess:
        env = {
            "SERVERFULL_EVENTS__PATH": str(self._folder / "events"),
            "SERVERFULL_LIMITS__MAX_CONCURRENCY": str(CONCURRENCY),
            "SERVERFULL_LOGGING__FUNCTIONS": "NULL",
        }
        host = HostProcess.start("app.py:functions", *self._args, env=env, cwd=self._folder, timeout=60)
        self._port = host.port
        return host

    def _send(self) -> None:
        while not self._over:
            link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            with contextlib.closing(link), contextlib.suppress(OSError, http.client.HTTPException):
                while not self._over:
                    with self._lock:
                        number = next(self._numbers)
                    headers = {"X-Amz-Invocation-Type": "Event"}
                    link.request("POST", "/2015-03-31/functions/take/invocations", str(number), headers)
                    answer = link.getresponse()
                    answer.read()
                    if answer.status == 202:
                        self.tally.acknowledged.append(number)
                    else:
                        time.sleep(0.01)
            time.sleep(0.005)

"""Puts load on a server with wrk and reads its figures."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.harness.machine import pinned

SCRIPT = Path(__file__).with_name("post.lua")
FIGURE = re.compile(r"(\w+)=(\d+)")


class NotMeasured(Exception):
    """Something could not be measured; the message says what and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What wrk saw during one run.

    :param seconds: how long it ran.
    :param bad_status: answers of 400 and above.
    :param socket_errors: connects, reads and writes that failed, and answers that took longer than ten seconds.
    :param p50_us: median latency in microseconds; ``p99_us`` likewise.
    """

    requests: int
    seconds: float
    bad_status: int
    socket_errors: int
    p50_us: int
    p99_us: int

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def require_wrk() -> None:
    """Leave with a message where wrk is not installed."""
    if shutil.which("wrk") is None:
        sys.exit("benchmarks need wrk, which is not installed. On Debian and Ubuntu: sudo apt-get install wrk")


@dataclass(frozen=True, slots=True)
class Generator:
    """A wrk that has read its script and waits for :meth:`go`."""

    url: str
    process: subprocess.Popen[str]

    @property
    def output(self) -> IO[str]:
        """Stays silent from when the generator is ready until it has ended its run."""
        assert self.process.stdout is not None
        return self.process.stdout

    def go(self) -> None:
        """Let it connect and send."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def result(self) -> Load:
        """Wait for the end of the run.

        :raises NotMeasured: wrk says no figures, or there was no answer at all.
        """
        said = self.output.read()
        self.process.wait()
        figures = {name: int(value) for name, value in FIGURE.findall(said.partition("FIGURES")[2])}
        if not figures:
            raise self.failed(said)
        if not figures["requests"]:
            raise NotMeasured(f"{self.url} answered no request: {said.strip()}")
        return Load(
            requests=figures["requests"],
            seconds=figures["microseconds"] / 1e6,
            bad_status=figures["status"],
            socket_errors=sum(figures[kind] for kind in ("connect", "read", "write", "timeout")),
            p50_us=figures["p50"],
            p99_us=figures["p99"],
        )

    def failed(self, said: str) -> NotMeasured:
        """Make the error that says what wrk complained about."""
        assert self.process.stderr is not None
        return NotMeasured(f"wrk failed on {self.url}: {(self.process.stderr.read() or said).strip()}")


@contextmanager
def ready(
    url: str, body: Path, connections: int, seconds: int, core: int | None, header: str = ""
) -> Iterator[Generator]:
    """Start a wrk of one thread on a core (None: all) that waits for its ``go``; it has ended when the block ends.

    :param header: one more, such as ``X-Amz-Invocation-Type: Event``.

    :raises NotMeasured: wrk ended at once, as it does where nothing listens.
    """
    options = ["-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s", "-s", str(SCRIPT)]
    if header:
        options += ["-H", header]
    with pinned(core):
        process = subprocess.Popen(
            ["wrk", *options, url, "--", str(body)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    with process:
        generator = Generator(url, process)
        try:
            if (said := generator.output.readline()) != "READY\n":
                raise generator.failed(said)
            yield generator
        finally:
            process.kill()


def load(url: str, body: Path, connections: int, seconds: int, core: int | None, header: str = "") -> Load:
    """Send the body for some whole seconds over that many connections, with one more header where one is given."""
    with ready(url, body, connections, seconds, core, header) as generator:
        generator.go()
        return generator.result()

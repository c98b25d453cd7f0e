"""Puts load on a server with wrk and reads its figures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

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
    :param wrk_cpu: CPU seconds that wrk itself used.
    """

    requests: int
    seconds: float
    bad_status: int
    socket_errors: int
    p50_us: int
    p99_us: int
    wrk_cpu: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def require_wrk() -> None:
    """Leave with a message where wrk is not installed."""
    if shutil.which("wrk") is None:
        sys.exit("benchmarks need wrk, which is not installed. On Debian and Ubuntu: sudo apt-get install wrk")


def load(url: str, body: Path, connections: int, seconds: int, core: int | None) -> Load:
    """Send the body for some whole seconds over that many connections, from one thread of wrk on the given core."""
    options = ["-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s", "-s", str(SCRIPT)]
    before = os.times()
    with pinned(core):
        run = subprocess.run(["wrk", *options, url, "--", str(body)], capture_output=True, text=True)
    after = os.times()
    figures = {name: int(value) for name, value in FIGURE.findall(run.stdout.partition("FIGURES")[2])}
    if not figures:
        raise NotMeasured(f"wrk failed on {url}: {(run.stderr or run.stdout).strip()}")
    return Load(
        requests=figures["requests"],
        seconds=figures["microseconds"] / 1e6,
        bad_status=figures["status"],
        socket_errors=sum(figures[kind] for kind in ("connect", "read", "write", "timeout")),
        p50_us=figures["p50"],
        p99_us=figures["p99"],
        wrk_cpu=after.children_user - before.children_user + after.children_system - before.children_system,
    )

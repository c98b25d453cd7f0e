"""Measures the load workloads: rounds in which every server takes its turn, the order rotated from round to round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException
from itertools import product
from pathlib import Path

from benchmarks.busy import busy
from benchmarks.harness.load import Load, NotMeasured, load
from benchmarks.harness.machine import Ticks, ended_children_seconds, noise, pinned
from benchmarks.harness.servers import Contestant, Server, check, running
from benchmarks.harness.workloads import Workload

SETTLE_DEADLINE = 5.0
QUIET = 0.005
"""CPU seconds of 0.05 below which a server is idle. One that works has a good part of them on a busy machine too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how wide to measure.

    :param seconds: whole seconds of one measurement.
    :param warm_up: whole seconds of load, at the highest level, before a started server is measured.
    :param levels: numbers of connections.
    :param folder: where the bodies are written for wrk to read.
    :param pins: the server's core and the load generator's; None for any.
    """

    rounds: int
    seconds: int
    warm_up: int
    levels: tuple[int, ...]
    folder: Path
    pins: tuple[int | None, int | None]

    def body(self, workload: Workload) -> Path:
        """Give the file that holds the body of a workload; it is written when it is first asked for."""
        file = self.folder / workload.name
        if not file.exists():
            file.write_bytes(workload.body)
        return file


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement: one server, one workload, one level, in one round.

    :param cpu_us: user and system microseconds of the server's processes for each request.
    :param noise: share of the machine that was busy with something else, or stolen by the hypervisor, 0 to 1.
    :param work_ms: what the fixed work took just before, on the server's core.
    """

    round: int
    workload: str
    level: int
    server: str
    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float
    noise: float
    work_ms: float
    bad_status: int
    socket_errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a sample belongs, and the state of the machine that it was taken in; see :class:`Sample`."""

    round: int
    workload: str
    level: int
    noise: float
    work_ms: float

    def sample(self, server: Server, seen: Load, cpu_each: float, rate: float) -> Sample:
        """Make the sample of a server that took so many CPU seconds for each request."""
        return Sample(
            **asdict(self),
            server=server.contestant.name,
            rate=rate,
            p50_us=seen.p50_us,
            p99_us=seen.p99_us,
            cpu_us=cpu_each * 1e6,
            bad_status=seen.bad_status,
            socket_errors=seen.socket_errors,
        )


Say = Callable[[str], None]


class Notes:
    """Remembers which server failed on which workload, so that it is told once and not tried again."""

    def __init__(self, failures: list[str], section: str = "") -> None:
        self._failures = failures
        self._section = section
        self._broken: set[tuple[str, str]] = set()

    def wants(self, contestant: Contestant, workload: Workload) -> bool:
        """Say whether the server has this workload and has not failed on it."""
        return workload.handler in contestant.handlers and (contestant.name, workload.name) not in self._broken

    @contextmanager
    def failure(self, contestant: Contestant, workload: Workload) -> Iterator[None]:
        """Note what the block could not measure."""
        try:
            yield
        except (NotMeasured, OSError, HTTPException) as failure:
            self._broken.add((contestant.name, workload.name))
            self._failures.append(f"{self._section}{contestant.name}, {workload.name}: {failure}")


def work_ms(core: int | None) -> float:
    """Time the fixed work of the ``cpu`` workload on a core, in milliseconds: how fast the machine is right now."""
    turns = 3
    with pinned(core):
        before = time.perf_counter()
        for _ in range(turns):
            busy()
        return (time.perf_counter() - before) / turns * 1000


def rotated(servers: Sequence[Contestant], round_: int) -> list[Contestant]:
    """Give the servers in the order of that round, each first once before any is first again."""
    start = round_ % len(servers)
    return [*servers[start:], *servers[:start]]


def settle(server: Server) -> None:
    """Wait until the server has worked off what wrk left behind; at 64 connections that can be half a second."""
    deadline = time.monotonic() + SETTLE_DEADLINE
    before = server.cpu_seconds()
    while time.monotonic() < deadline:
        time.sleep(0.05)
        after = server.cpu_seconds()
        if after - before < QUIET:
            return
        before = after
    raise NotMeasured(f"still busy {SETTLE_DEADLINE:g} s after the load had ended")


def sample(server: Server, workload: Workload, level: int, round_: int, plan: Plan) -> Sample:
    """Verify one answer, then measure.

    :raises NotMeasured: the answer is wrong, or wrk does not run.
    """
    if wrong := check(server, workload):
        raise NotMeasured(f"wrong answer: {wrong}")
    speed = work_ms(plan.pins[0])
    ticks, cpu, children = Ticks.now(), server.cpu_seconds(), ended_children_seconds()
    seen = load(server.url(workload.handler), plan.body(workload), level, plan.seconds, plan.pins[1])
    used = server.cpu_seconds() - cpu
    others = noise(ticks, Ticks.now(), used + ended_children_seconds() - children)
    settle(server)
    place = Place(round=round_, workload=workload.name, level=level, noise=others, work_ms=speed)
    return place.sample(server, seen, used / seen.requests, seen.rate)


def warm(server: Server, workload: Workload, plan: Plan) -> None:
    if plan.warm_up:
        level = min(max(plan.levels), server.contestant.most)
        load(server.url(workload.handler), plan.body(workload), level, plan.warm_up, plan.pins[1])
        settle(server)


@contextmanager
def started(servers: Sequence[Contestant], workload: Workload, plan: Plan, notes: Notes) -> Iterator[list[Server]]:
    """Start the servers one after the other, warm each up, and stop all in the end; gives those that work."""
    alive = []
    with ExitStack() as stack:
        for contestant in servers:
            if not notes.wants(contestant, workload):
                continue
            server = stack.enter_context(running(contestant, workload.handler, plan.pins[0]))
            with notes.failure(contestant, workload):
                server.wait_ready(workload)
                warm(server, workload, plan)
                alive.append(server)
        yield alive


def measure(
    servers: Sequence[Contestant], chosen: Sequence[Workload], plan: Plan, say: Say, failures: list[str]
) -> list[Sample]:
    """Measure every server on every workload it has; what fails is noted in ``failures`` and tried no more.

    Within a round all servers of a workload are up, idle but for the one whose turn it is: so the runs that are
    compared are seconds apart, and a machine whose speed drifts does not favour one of them.
    """
    samples: list[Sample] = []
    notes = Notes(failures)
    for round_, workload in product(range(plan.rounds), chosen):
        say(f"round {round_ + 1}/{plan.rounds} {workload.name}")
        with started(rotated(servers, round_), workload, plan, notes) as alive:
            for level, server in product(plan.levels, alive):
                if level <= server.contestant.most and notes.wants(server.contestant, workload):
                    with notes.failure(server.contestant, workload):
                        samples.append(sample(server, workload, level, round_, plan))
    return samples

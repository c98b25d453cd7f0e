"""Measures the load workloads: rounds in which every server takes its turn, the order rotated from round to round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.load import Load, NotMeasured, load
from benchmarks.harness.machine import Ticks, cores, noise
from benchmarks.harness.servers import Contestant, Server, check, running
from benchmarks.harness.workloads import Workload

WARM_UP = 1
"""Seconds of load, at the highest level, before a started server is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how wide to measure.

    :param seconds: whole seconds of one measurement.
    :param levels: numbers of connections.
    :param folder: where the bodies are written for wrk to read.
    """

    rounds: int
    seconds: int
    levels: tuple[int, ...]
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement: one server, one workload, one level, in one round.

    :param cpu_us: user and system microseconds of the server's processes for each request.
    :param noise: share of the machine that was busy with something else, 0 to 1.
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
    bad_status: int
    socket_errors: int


Say = Callable[[str], None]


def rotated(servers: Sequence[Contestant], round_: int) -> list[Contestant]:
    """Give the servers in the order of that round, each first once before any is first again."""
    start = round_ % len(servers)
    return [*servers[start:], *servers[:start]]


def sample(server: Server, workload: Workload, level: int, round_: int, plan: Plan, core: int | None) -> Sample:
    """Verify one answer, then measure.

    :raises NotMeasured: the answer is wrong, or wrk does not run.
    """
    try:
        wrong = check(server, workload)
    except OSError as error:
        wrong = str(error)
    if wrong:
        raise NotMeasured(f"{server.contestant.name} answers {workload.name} wrongly: {wrong}")
    ticks, cpu = Ticks.now(), server.cpu_seconds()
    seen = load(server.url(workload.handler), plan.folder / workload.name, level, plan.seconds, core)
    used = server.cpu_seconds() - cpu
    return _sample(server, workload, level, round_, seen, used, noise(ticks, Ticks.now(), used + seen.wrk_cpu))


def _sample(
    server: Server, workload: Workload, level: int, round_: int, seen: Load, used: float, others: float
) -> Sample:
    if not seen.requests:
        raise NotMeasured(f"{server.contestant.name} answered no {workload.name} request at {level} connections")
    return Sample(
        round=round_,
        workload=workload.name,
        level=level,
        server=server.contestant.name,
        rate=seen.rate,
        p50_us=seen.p50_us,
        p99_us=seen.p99_us,
        cpu_us=used / seen.requests * 1e6,
        noise=others,
        bad_status=seen.bad_status,
        socket_errors=seen.socket_errors,
    )


def turn(
    contestant: Contestant, workload: Workload, round_: int, plan: Plan, pins: tuple[int | None, int | None]
) -> Iterator[Sample]:
    """Start one server, warm it up, measure it at every level and stop it.

    :param pins: the server's core and the load generator's; None for any.
    """
    with running(contestant, workload.handler, pins[0]) as server:
        server.wait_ready(workload)
        load(server.url(workload.handler), plan.folder / workload.name, max(plan.levels), WARM_UP, pins[1])
        for level in plan.levels:
            yield sample(server, workload, level, round_, plan, pins[1])


def measure(
    servers: Sequence[Contestant],
    chosen: Sequence[Workload],
    plan: Plan,
    say: Say,
    failures: list[str],
    pins: tuple[int | None, int | None] | None = None,
) -> list[Sample]:
    """Measure every server on every workload it has; what fails is noted in ``failures`` and tried no more."""
    samples: list[Sample] = []
    broken: set[tuple[str, str]] = set()
    for workload in chosen:
        (plan.folder / workload.name).write_bytes(workload.body)
    for round_ in range(plan.rounds):
        for workload in chosen:
            for contestant in rotated(servers, round_):
                key = (contestant.name, workload.name)
                if workload.handler not in contestant.handlers or key in broken:
                    continue
                say(f"round {round_ + 1}/{plan.rounds} {workload.name} {contestant.name}")
                try:
                    samples.extend(turn(contestant, workload, round_, plan, pins or cores()))
                except NotMeasured as failure:
                    broken.add(key)
                    failures.append(str(failure))
    return samples

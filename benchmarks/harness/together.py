"""Measures side by side: two servers under load at the same time on the same core.

The kernel gives each half of the core, and whatever slows the machine down slows both. So their ratio holds where the
machine's speed drifts, which ratios of measurements that are seconds apart do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from selectors import EVENT_READ, DefaultSelector

from benchmarks.harness.load import Generator, Load, NotMeasured, ready
from benchmarks.harness.machine import Ticks, ended_children_seconds, noise
from benchmarks.harness.rounds import Notes, Place, Plan, Sample, Say, rotated, settle, started, work_ms
from benchmarks.harness.servers import (
    ASYNC,
    BARE,
    MOCK,
    OFFICIAL,
    STRICT,
    SYNC,
    WORKER,
    Contestant,
    Server,
    bare,
    check,
)
from benchmarks.harness.workloads import Workload

WORKLOADS = ("hello", "log", "cpu")
BUSY_LEVELS = (16, 64)
"""Connections to each of the two. With one, a server waits for wrk more than for its half of the core."""

AGAIN = "bare-again"
"""A second bare server: what it makes of the first is how far side by side can be trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What two servers did in the same window."""

    mine: Sample
    theirs: Sample


def pairings(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Say who is measured against whom.

    The control comes first, then ours against bare, mock answers against real calls, and walls against limits.
    """
    if BARE in names:
        yield AGAIN, BARE
        yield from ((name, BARE) for name in (ASYNC, SYNC, WORKER, OFFICIAL) if name in names)
    if MOCK in names and ASYNC in names:
        yield MOCK, ASYNC
    if STRICT in names and WORKER in names:
        yield STRICT, WORKER


def cpu_each(whole: float, seen: Load, level: int) -> float:
    """Give the CPU seconds of one request.

    When wrk ends, one request of each connection is still under way, and the server finishes it unseen. At 64
    connections of 2 ms that is a seventh of what it does in a second, so both the time and the request count.

    :param whole: CPU seconds of the server from when wrk began until the server was quiet again.
    """
    return whole / (seen.requests + level)


def cpu(servers: Sequence[Server]) -> list[float]:
    return [server.cpu_seconds() for server in servers]


def since(before: Sequence[float], after: Sequence[float]) -> list[float]:
    return [late - early for early, late in zip(before, after, strict=True)]


def _race(generators: Sequence[Generator], *, turned: bool) -> None:
    """Let both begin, and wait until the first has ended: only until then do the servers share the core."""
    for generator in reversed(generators) if turned else generators:
        generator.go()
    with DefaultSelector() as ends:
        for generator in generators:
            ends.register(generator.output, EVENT_READ)
        ends.select()


def pair(mine: Server, theirs: Server, workload: Workload, level: int, round_: int, plan: Plan) -> Pair:
    """Verify one answer of each, then measure both at once; who begins first, by microseconds, alternates.

    :raises NotMeasured: an answer is wrong, or wrk does not run.
    """
    servers = (mine, theirs)
    for server in servers:
        if wrong := check(server, workload):
            raise NotMeasured(f"wrong answer of {server.contestant.name}: {wrong}")
    speed, body = work_ms(plan.pins[0]), plan.body(workload)
    with ExitStack() as stack:
        generators = [
            stack.enter_context(ready(server.url(workload.handler), body, level, plan.seconds, plan.pins[1]))
            for server in servers
        ]
        ticks, children, before = Ticks.now(), ended_children_seconds(), cpu(servers)
        _race(generators, turned=round_ % 2 == 1)
        shared = since(before, cpu(servers))
        loads = [generator.result() for generator in generators]
        own = sum(since(before, cpu(servers))) + ended_children_seconds() - children
        others = noise(ticks, Ticks.now(), own)
    for server in servers:
        settle(server)
    each = [cpu_each(whole, seen, level) for whole, seen in zip(since(before, cpu(servers)), loads, strict=True)]
    seconds = min(seen.seconds for seen in loads)
    place = Place(round=round_, workload=workload.name, level=level, noise=others, work_ms=speed)
    one, other = (
        place.sample(server, seen, cost, work / cost / seconds)
        for server, seen, cost, work in zip(servers, loads, each, shared, strict=True)
    )
    return Pair(mine=one, theirs=other)


def measure_together(
    servers: Sequence[Contestant], chosen: Sequence[Workload], plan: Plan, say: Say, failures: list[str]
) -> list[Pair]:
    """Measure the pairs of every workload; its servers idle while another pair is measured.

    Every round starts them anew: one process of the same program is up to 5 % faster than another for as long as it
    lives, by where its memory happens to lie, and a median over several processes is not.
    """
    pairs: list[Pair] = []
    notes = Notes(failures, "side by side: ")
    against = list(pairings([contestant.name for contestant in servers]))
    paired = {name for names in against for name in names}
    contestants = [one for one in (*servers, bare(AGAIN)) if one.name in paired]
    for round_, workload in product(range(plan.rounds), chosen):
        say(f"side by side, round {round_ + 1}/{plan.rounds} {workload.name}")
        with started(rotated(contestants, round_), workload, plan, notes) as alive:
            by_name = {server.contestant.name: server for server in alive}
            for level, (one, other) in product(plan.levels, against):
                if one not in by_name or other not in by_name:
                    continue
                mine, theirs = by_name[one], by_name[other]
                if level <= mine.contestant.most and notes.wants(mine.contestant, workload):
                    with notes.failure(mine.contestant, workload):
                        pairs.append(pair(mine, theirs, workload, level, round_, plan))
    return pairs

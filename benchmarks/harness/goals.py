"""The goals, and whether the figures meet them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.harness.containers import CONTAINER, LEVEL
from benchmarks.harness.figures import (
    Results,
    cells,
    compare,
    comparisons,
    cpu_ratio,
    middle,
    p50_gap,
    rate_ratio,
    side_by_side,
    sound,
    sound_pairs,
    start_values,
)
from benchmarks.harness.reloading import percentile
from benchmarks.harness.servers import ASYNC, BARE, FRAMEWORK, MOCK, OFFICIAL, STRICT, SYNC, WORKER
from benchmarks.harness.together import BUSY_LEVELS

IDEAL_SLEEPS = 64 / 0.005
"""Requests a second of 64 connections that each wait for 5 ms and nothing else."""

REFERENCE_CPU_US = 42
REFERENCE_OF_IDEAL = 0.714
"""What bare reached on the machine that the goals were set on: of `hello` at 16 connections, and of the ideal. Goals in
absolute figures mean that machine; here they are judged by what bare reaches in the same run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal.

    :param values: what was measured, one value a round.
    :param limit: the goal itself; a floor, or a ceiling where ``ceiling`` is set.
    :param note: more figures that help to judge.
    """

    what: str
    values: Sequence[float]
    limit: float
    unit: str = ""
    ceiling: bool = False
    note: str = ""

    @property
    def figure(self) -> float | None:
        """The median, None where nothing was measured."""
        return middle(self.values)

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "NOT MEASURED"
        met = self.figure <= self.limit if self.ceiling else self.figure >= self.limit
        return "PASS" if met else "MISS"


def goals(results: Results) -> Iterator[Goal]:
    """Give every goal with its figure; samples with errors do not count."""
    results = replace(
        results,
        samples=sound(results.samples),
        together=sound_pairs(results.together),
        workers=sound(results.workers),
    )
    yield from _throughput(results)
    yield from _against_framework(results)
    yield from _mocking(results)
    yield from _latency(results)
    yield from _waiting(results)
    yield from _computing(results)
    yield from _workers(results)
    yield from _starting(results)
    yield from _memory(results)
    yield from _managing(results)
    yield from _of_events(results)
    yield from _in_processes(results)
    yield from _behind_walls(results)
    yield from _environments(results)
    yield from _containers(results)
    yield from _reloading(results)


def _against_bare(results: Results, workload: str, level: int, server: str, limit: float, what: str) -> Goal:
    values, note = _rates(results, workload, level, server, BARE)
    return Goal(what=f"{what}, c{level}", values=values, limit=limit, unit="x bare", note=note)


def _rates(results: Results, workload: str, level: int, server: str, other: str) -> tuple[list[float], str]:
    """Give the ratios of the rates and a note: side by side where it was measured so, otherwise by turns."""
    turns = comparisons(results.samples, workload, level, server, other, rate_ratio)
    pairs = side_by_side(results.together, workload, level, server, other)
    if not pairs:
        cpu = compare(results.samples, workload, level, server, other, cpu_ratio)
        return turns, "" if cpu is None else f"by CPU {cpu:.2f}"
    cpu = middle(cpu_ratio(one.mine, one.theirs) for one in pairs)
    by_turns = f", by turns {middle(turns):.2f}" if turns else ""
    return [rate_ratio(one.mine, one.theirs) for one in pairs], f"side by side, by CPU {cpu:.2f}{by_turns}"


def _throughput(results: Results) -> Iterator[Goal]:
    for level in BUSY_LEVELS:
        yield _against_bare(results, "hello", level, ASYNC, 0.80, "hello, async handler")
        yield _against_bare(results, "hello", level, SYNC, 0.70, "hello, sync handler (stretch 0.85)")
        yield _against_bare(results, "log", level, ASYNC, 0.55, "one log line a call, async handler")
        yield _against_bare(results, "log", level, SYNC, 0.55, "one log line a call, sync handler")


def _against_framework(results: Results) -> Iterator[Goal]:
    for level in BUSY_LEVELS:
        for server in (ASYNC, SYNC):
            values = comparisons(results.samples, "hello", level, server, FRAMEWORK, rate_ratio)
            what = f"hello, {server}, c{level}"
            yield Goal(what=what, values=values, limit=4.0, unit="x functions-framework")


def _mocking(results: Results) -> Iterator[Goal]:
    for level in BUSY_LEVELS:
        values, note = _rates(results, "hello", level, MOCK, ASYNC)
        yield Goal(what=f"mock answers, c{level}", values=values, limit=0.9, unit="x real calls", note=note)


def _latency(results: Results) -> Iterator[Goal]:
    for server in (ASYNC, SYNC):
        values = comparisons(results.samples, "hello", 1, server, BARE, p50_gap)
        yield Goal(what=f"hello p50 over bare, {server}, c1", values=values, limit=60, unit="us", ceiling=True)


def _waiting(results: Results) -> Iterator[Goal]:
    def of_ideal(server: str) -> list[float]:
        return [one.rate / IDEAL_SLEEPS for one in cells(results.samples, "sleep", 64, server).values()]

    reached = middle(of_ideal(BARE))
    for server in (ASYNC, SYNC):
        ratios = comparisons(results.samples, "sleep", 64, server, BARE, rate_ratio)
        values = [REFERENCE_OF_IDEAL * ratio for ratio in ratios]
        here = middle(of_ideal(server))
        note = (
            f"here {here:.2f}, bare {reached:.2f}: {middle(ratios):.2f} x bare" if here and reached and ratios else ""
        )
        unit = f"x ideal, where bare reaches {REFERENCE_OF_IDEAL}"
        yield Goal(what=f"sleep 5 ms, {server}, c64", values=values, limit=0.78, unit=unit, note=note)


def _computing(results: Results) -> Iterator[Goal]:
    for level in BUSY_LEVELS:
        yield _against_bare(results, "cpu", level, ASYNC, 0.97, "CPU 2 ms, async handler")
        yield _against_bare(results, "cpu", level, SYNC, 0.97, "CPU 2 ms, sync handler")


def _workers(results: Results) -> Iterator[Goal]:
    values = comparisons(results.workers, "hello", 64, "ours x2", "ours x1", rate_ratio)
    bare = compare(results.workers, "hello", 64, "bare x2", "bare x1", rate_ratio)
    note = "" if bare is None else f"bare does {bare:.2f}"
    yield Goal(what="two processes, hello, c64, not pinned", values=values, limit=1.6, unit="x one process", note=note)


def _starting(results: Results) -> Iterator[Goal]:
    ours, bare = start_values(results, lambda start: start.first_answer)
    ours_middle, bare_middle = middle(ours), middle(bare)
    note = f"{ours_middle * 1000:.0f} ms, bare {bare_middle * 1000:.0f} ms" if ours_middle and bare_middle else ""
    values = [one / other for one, other in zip(ours, bare, strict=True)]
    yield Goal(what="start to first answer", values=values, limit=1.25, unit="x bare", ceiling=True, note=note)


def _memory(results: Results) -> Iterator[Goal]:
    ours, bare = start_values(results, lambda start: start.pss_kb / 1024)
    ours_middle, bare_middle = middle(ours), middle(bare)
    note = f"{ours_middle:.1f} MB, bare {bare_middle:.1f} MB" if ours_middle and bare_middle else ""
    values = [one - other for one, other in zip(ours, bare, strict=True)]
    yield Goal(what="idle memory (PSS) over bare", values=values, limit=12, unit="MB", ceiling=True, note=note)
    memory = results.memory
    loaded, invoked = (memory.loaded_kb, memory.invoked_kb) if memory else ((), ())
    yield Goal(what="one more function, loaded", values=loaded, limit=20, unit="KB", ceiling=True)
    yield Goal(what="one more function, invoked once", values=invoked, limit=20, unit="KB", ceiling=True)


def _managing(results: Results) -> Iterator[Goal]:
    measured = results.management
    costs = measured.call_us if measured else {}
    slowest = max(costs, key=lambda name: costs[name], default="")
    note = f"most: {slowest} {costs[slowest]:.0f} us" if slowest else ""
    what = "management call (Get, List), CPU, median"
    yield Goal(what=what, values=list(costs.values()), limit=1000, unit="us", ceiling=True, note=note)
    listing, begun = (measured.listing, measured.starts) if measured else ((), ())
    yield Goal(what="ListFunctions, 10,000 functions", values=listing, limit=1.5, unit="x 100 functions", ceiling=True)
    yield Goal(what="start with 1,000 functions", values=begun, limit=1.5, unit="x empty state", ceiling=True)


def _of_events(results: Results) -> Iterator[Goal]:
    measured = results.events
    durable, grouped, starts = (measured.durable, measured.grouped, measured.first_run) if measured else ((), (), ())
    each = middle(measured.rates) if measured else None
    note = "" if each is None else f"{each:.0f} a second"
    what = "events on the disk, c64"
    yield Goal(what=what, values=durable, limit=0.5, unit="x DryRun", note=note)
    if measured:
        note = f"by HTTP, which takes longer than the disk, {middle(measured.over_http):.2f}"
    yield Goal(what="events into the store, 64 callers", values=grouped, limit=8, unit="x single commits", note=note)
    yield Goal(what="first of 100,000 events that wait", values=starts, limit=2, unit="s from the start", ceiling=True)


def _in_processes(results: Results) -> Iterator[Goal]:
    """Judge deployed functions by CPU where they were measured side by side: one process does not share evenly with
    many, since the kernel divides a core among processes and not among servers."""
    for server, limit in ((WORKER, 0.32), (OFFICIAL, 0.13)):
        values, note = _rates(results, "hello", 16, server, BARE)
        if pairs := side_by_side(results.together, "hello", 16, server, BARE):
            values = [cpu_ratio(one.mine, one.theirs) for one in pairs]
            turns = compare(results.samples, "hello", 16, server, BARE, rate_ratio)
            note = "side by side, by CPU" + ("" if turns is None else f"; rate by turns {turns:.2f}")
        yield Goal(what=f"hello, {server}, c16", values=values, limit=limit, unit="x bare", note=note)
    pairs = side_by_side(results.together, "hello", 16, WORKER, BARE)
    ratios = [cpu_ratio(one.mine, one.theirs) for one in pairs]
    ratios = ratios or comparisons(results.samples, "hello", 16, WORKER, BARE, cpu_ratio)
    taken = [one.mine for one in pairs] or cells(results.samples, "hello", 16, WORKER).values()
    here = middle(one.cpu_us for one in taken)
    values = [REFERENCE_CPU_US / ratio for ratio in ratios]
    note = f"here {here:.0f} us, {1 / middle(ratios):.2f} x bare" if here and ratios else ""
    unit = f"us, where bare takes {REFERENCE_CPU_US}"
    yield Goal(what="CPU of a call, ours-worker, c16", values=values, limit=100, unit=unit, ceiling=True, note=note)


def _behind_walls(results: Results) -> Iterator[Goal]:
    """Judge strict processes by those that limits alone hold, by CPU as these are."""
    pairs = side_by_side(results.together, "hello", 16, STRICT, WORKER)
    values = [cpu_ratio(one.mine, one.theirs) for one in pairs]
    note = "side by side, by CPU"
    if not pairs:
        values, note = comparisons(results.samples, "hello", 16, STRICT, WORKER, cpu_ratio), "by turns, by CPU"
    yield Goal(what=f"hello, {STRICT}, c16", values=values, limit=0.9, unit=f"x {WORKER}", note=note)


def _environments(results: Results) -> Iterator[Goal]:
    measured = results.environments
    note = f"noise {measured.noise * 100:.0f} %" if measured else ""
    forked, spawned = (measured.forked_ms, measured.spawned_ms) if measured else ((), ())
    what = "cold start over a warm call"
    yield Goal(what=f"{what}, forked", values=forked, limit=10, unit="ms", ceiling=True, note=note)
    strict = measured.strict_ms if measured else ()
    yield Goal(what=f"{what}, strict", values=strict, limit=80, unit="ms", ceiling=True, note=note)
    yield Goal(what=f"{what}, spawned", values=spawned, limit=40, unit="ms", ceiling=True, note=note)
    memory, computing = (measured.worker_mb, measured.computing) if measured else ((), ())
    yield Goal(what="idle worker process (PSS)", values=memory, limit=5, unit="MB", ceiling=True)
    what = "two functions that compute"
    yield Goal(what=what, values=computing, limit=0.9, unit="x two plain processes", note=note)
    idle = [share * 100 for share in measured.idle_cores] if measured else ()
    yield Goal(what="200 idle environments", values=idle, limit=1, unit="% of a core", ceiling=True, note=note)
    restored = measured.restored if measured else ()
    yield Goal(what="cold start that imports boto3", values=restored, limit=5, unit="x its restore", note=note)


def _containers(results: Results) -> Iterator[Goal]:
    """Judge warm calls by CPU, as those of processes: their share of a core is not the server's to choose."""
    measured = results.containers
    samples = sound(measured.samples) if measured else []
    values = comparisons(samples, "hello", LEVEL, CONTAINER, BARE, cpu_ratio)
    rate = compare(samples, "hello", LEVEL, CONTAINER, BARE, rate_ratio)
    note = "by CPU" + ("" if rate is None else f"; rate {rate:.2f}")
    yield Goal(what=f"hello, {CONTAINER}, c{LEVEL}", values=values, limit=0.28, unit="x bare", note=note)
    cold = measured.cold_ms if measured else ()
    yield Goal(what="cold start over a warm call, container", values=cold, limit=400, unit="ms", ceiling=True)


def _reloading(results: Results) -> Iterator[Goal]:
    measured = results.reloading
    saves = {
        "in process": measured.in_process_ms if measured else (),
        "in processes": measured.in_processes_ms if measured else (),
    }
    for where, taken in saves.items():
        late = (percentile(taken, 0.99),) if taken else ()
        note = f"p50 {middle(taken):.0f} ms" if taken else ""
        yield Goal(what=f"save to served, {where}, p99", values=late, limit=700, unit="ms", ceiling=True, note=note)
    watching, fetched = (measured.watching_cores, measured.fetched) if measured else ((), ())
    yield Goal(what="watching 10,000 files", values=watching, limit=0.01, unit="cores", ceiling=True)
    yield Goal(what="warm call, fetched from a folder", values=fetched, limit=1.05, unit="x of a TARGET", ceiling=True)

"""Prints the tables and the goals, and writes the JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from benchmarks.harness.containers import Containers
from benchmarks.harness.figures import (
    Results,
    cells,
    compare,
    cpu_ratio,
    every_sample,
    faults,
    middle,
    rate_ratio,
    side_by_side,
    sound_pairs,
    spread,
)
from benchmarks.harness.goals import Goal, goals
from benchmarks.harness.rounds import Sample
from benchmarks.harness.servers import BARE
from benchmarks.harness.together import AGAIN, Pair

HEADER = f"{'workload':9} {'c':>3} {'server':20} {'req/s':>8} {'ratio':>6} {'by CPU':>6} {'CPU us':>7} {'p50 ms':>7}"
NOISY = 0.10
"""Share of the machine busy elsewhere from which a cell is marked."""

FEW = 6
"""Goals without a figure that are named; more are counted, since the run was asked for a part only."""

UNSTEADY = 1.2
"""Slowest to fastest time of the fixed work from which the machine is called unsteady."""


def machine_facts() -> dict[str, str]:
    """Say what was measured on; ratios carry over to other machines, absolute figures do not."""
    facts = {"python": platform.python_version(), "kernel": platform.release(), "cores": str(os.cpu_count())}
    for package in ("serverfull", "aiohttp", "uvloop", "awslambdaric", "functions-framework"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _row(samples: Sequence[Sample], workload: str, level: int, server: str, other: str) -> str:
    taken = cells(samples, workload, level, server).values()

    def show(values: list[float], digits: int) -> str:
        return f"{middle(values):.{digits}f}"

    noise = max(one.noise for one in taken)
    marks = " noisy" if noise > NOISY else ""
    marks += " ERRORS" if faults(list(taken)) else ""
    return (
        f"{workload:9} {level:3} {server:20} {show([one.rate for one in taken], 0):>8}"
        f" {_ratio(compare(samples, workload, level, server, other, rate_ratio)):>6}"
        f" {_ratio(compare(samples, workload, level, server, other, cpu_ratio)):>6}"
        f" {show([one.cpu_us for one in taken], 1):>7} {show([one.p50_us / 1000 for one in taken], 3):>7}"
        f" {show([one.p99_us / 1000 for one in taken], 3):>8} {noise * 100:4.0f} %{marks}"
    )


def table(samples: Sequence[Sample], other: str) -> list[str]:
    """Give one line for each workload, level and server; ratios are to the server named ``other``."""
    keys = dict.fromkeys((one.workload, one.level, one.server) for one in samples)
    workloads = list(dict.fromkeys(workload for workload, _, _ in keys))
    ordered = sorted(keys, key=lambda key: (workloads.index(key[0]), key[1], key[2]))
    return [f"{HEADER} {'p99 ms':>8} {'noise':>6}", *(_row(samples, *key, other) for key in ordered)]


def _together_row(pairs: Sequence[Pair]) -> str:
    mine, theirs = [one.mine for one in pairs], [one.theirs for one in pairs]
    rates = [rate_ratio(one.mine, one.theirs) for one in pairs]
    cpus = [cpu_ratio(one.mine, one.theirs) for one in pairs]
    noise = max(one.noise for one in mine)
    marks = " ERRORS" if faults([*mine, *theirs]) else ""
    marks += " (control)" if mine[0].server == AGAIN else ""
    return (
        f"{mine[0].workload:9} {mine[0].level:3} {mine[0].server:16} {theirs[0].server:11}"
        f" {middle(rates):5.2f} {spread(rates):12} {middle(cpus):6.2f} {spread(cpus):12}"
        f" {middle(one.cpu_us for one in mine):7.1f} {middle(one.cpu_us for one in theirs):7.1f}"
        f" {noise * 100:4.0f} %{marks}"
    )


def together_table(pairs: Sequence[Pair]) -> list[str]:
    """Give one line for each workload, level and pair of servers."""
    keys = dict.fromkeys((one.mine.workload, one.mine.level, one.mine.server, one.theirs.server) for one in pairs)
    workloads = list(dict.fromkeys(workload for workload, *_ in keys))
    ordered = sorted(keys, key=lambda key: (workloads.index(key[0]), key[1]))
    header = (
        f"{'workload':9} {'c':>3} {'server':16} {'against':11} {'ratio':>5} {'range':12} {'by CPU':>6} {'range':12}"
        f" {'CPU us':>7} {'against':>7} {'noise':>6}"
    )
    return [header, *(_together_row(side_by_side(pairs, *key)) for key in ordered)]


def trust(pairs: Sequence[Pair]) -> str:
    """Say what the control came to, in a single round and in the median of a row."""
    control = [one for one in sound_pairs(pairs) if one.mine.server == AGAIN]
    if not control:
        return "The control was not measured: nothing says how far these ratios can be trusted."
    rows: dict[tuple[str, int], list[float]] = {}
    for one in control:
        rows.setdefault((one.mine.workload, one.mine.level), []).append(rate_ratio(one.mine, one.theirs))
    medians = [median(values) for values in rows.values()]
    rounds = [value for values in rows.values() for value in values]
    return (
        f"The control, a second bare server, should be 1: its medians are {min(medians):.2f} to {max(medians):.2f}, "
        f"single rounds {min(rounds):.2f} to {max(rounds):.2f}. What differs by less than that does not differ."
    )


def _goal_line(goal: Goal) -> str:
    limit = f"{'<=' if goal.ceiling else '>='} {goal.limit:g} {goal.unit}"
    figures = f"{goal.figure:8.2f} {spread(goal.values):16}"
    return f"{goal.verdict} {goal.what:42} {figures} goal {limit:28} {goal.note}".rstrip()


def goal_lines(results: Results) -> list[str]:
    """Give one line for each goal that has a figure, and one for the others."""
    every = list(goals(results))
    unknown = [goal.what for goal in every if goal.figure is None]
    lines = [_goal_line(goal) for goal in every if goal.figure is not None]
    if unknown:
        named = "; ".join(unknown) if len(unknown) <= FEW else f"{len(unknown)} goals"
        lines.append(f"NOT MEASURED in this run: {named}")
    return lines


def container_line(measured: Containers) -> str:
    """Say what warm containers hold."""
    stats = measured.stats_mb
    if not stats:
        return "What warm containers hold was not measured."
    return (
        f"{len(stats)} warm containers of one function: {median(stats):.1f} MB each by docker stats, "
        f"{sum(stats):.0f} in all; the machine has {measured.host_mb:.1f} MB less available for each"
    )


def steadiness(samples: Sequence[Sample]) -> str:
    """Say how much the speed of the machine varied while we measured."""
    times = sorted(one.work_ms for one in samples)
    low, high = times[len(times) // 10], times[-1 - len(times) // 10]
    warning = " NOT STEADY: trust ranges, not medians" if high > UNSTEADY * low else ""
    return f"The fixed work took {low:.2f} to {high:.2f} ms on the server's core (all but the outer tenths).{warning}"


def print_report(results: Results) -> None:
    """Print everything that was measured, the goals, and last what went wrong."""
    if results.samples:
        print("\n" + "\n".join(table(results.samples, BARE)))
        print(steadiness(results.samples))
    if results.together:
        print("\nSide by side: two servers share the core at the same time, each with a wrk of its own")
        print("\n".join(together_table(results.together)))
        print(trust(results.together))
    if results.workers:
        print("\nOne and two processes, server and wrk sharing all cores; ratios are to bare x1")
        print("\n".join(table(results.workers, "bare x1")))
    if results.containers:
        print("\nContainers; ratios are to bare in the same run")
        print("\n".join([*table(results.containers.samples, BARE), container_line(results.containers)]))
    print("\nGoals: the median and the range over the rounds")
    print("\n".join(goal_lines(results)))
    for fault in faults(every_sample(results)):
        print(f"\n!!! ERRORS in {fault}: these figures mean nothing")
    for failure in results.failures:
        print(f"\n!!! NOT MEASURED: {failure}")


def write_json(results: Results, file: Path) -> None:
    """Write every sample, unrounded, with the machine and the verdicts."""
    content = {
        "machine": machine_facts(),
        **asdict(results),
        "goals": [{**asdict(goal), "figure": goal.figure, "verdict": goal.verdict} for goal in goals(results)],
        "faults": faults(every_sample(results)),
    }
    file.write_text(json.dumps(content, indent=1) + "\n")

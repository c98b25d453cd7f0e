"""From samples to figures: ratios within a round first, then medians over the rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.harness.containers import Containers
from benchmarks.harness.environments import Environments
from benchmarks.harness.events import Events
from benchmarks.harness.management import Management
from benchmarks.harness.reloading import Reloading
from benchmarks.harness.rounds import Sample
from benchmarks.harness.starts import FunctionMemory, Start
from benchmarks.harness.together import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that one run of the benchmarks has measured.

    :param together: what was measured side by side.
    :param workers: samples of one and two processes, not pinned; the servers' names end in ``x1`` and ``x2``.
    :param failures: what could not be measured, and why.
    """

    samples: Sequence[Sample]
    together: Sequence[Pair]
    workers: Sequence[Sample]
    starts: Sequence[Start]
    memory: FunctionMemory | None
    management: Management | None = None
    environments: Environments | None = None
    containers: Containers | None = None
    events: Events | None = None
    reloading: Reloading | None = None
    failures: Sequence[str]


def middle(values: Iterable[float]) -> float | None:
    """Give the median, or None where there is nothing."""
    known = list(values)
    return median(known) if known else None


def cells(samples: Sequence[Sample], workload: str, level: int, server: str) -> dict[int, Sample]:
    """Give the samples of one cell by round."""
    chosen = (one for one in samples if (one.workload, one.level, one.server) == (workload, level, server))
    return {one.round: one for one in chosen}


def comparisons(
    samples: Sequence[Sample],
    workload: str,
    level: int,
    server: str,
    other: str,
    by: Callable[[Sample, Sample], float],
) -> list[float]:
    """Compare one server with another on the same workload and level, round by round."""
    mine = cells(samples, workload, level, server)
    theirs = cells(samples, workload, level, other)
    return [by(mine[round_], theirs[round_]) for round_ in mine if round_ in theirs]


def compare(
    samples: Sequence[Sample],
    workload: str,
    level: int,
    server: str,
    other: str,
    by: Callable[[Sample, Sample], float],
) -> float | None:
    """Give the median of the comparisons of all rounds."""
    return middle(comparisons(samples, workload, level, server, other, by))


def rate_ratio(one: Sample, other: Sample) -> float:
    return one.rate / other.rate


def cpu_ratio(one: Sample, other: Sample) -> float:
    """Compare by CPU for each request, turned so that more is better, as with rates."""
    return other.cpu_us / one.cpu_us if one.cpu_us else float("nan")


def p50_gap(one: Sample, other: Sample) -> float:
    """Give the microseconds by which the median latency is longer."""
    return one.p50_us - other.p50_us


def sound(samples: Sequence[Sample]) -> list[Sample]:
    """Give the samples in which nothing went wrong: an error may be answered faster than the real thing."""
    return [one for one in samples if not one.bad_status and not one.socket_errors]


def spread(values: Sequence[float]) -> str:
    """Show the least and the greatest of several values, and nothing for fewer."""
    return f"{min(values):.2f} to {max(values):.2f}" if len(values) > 1 else ""


def sound_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Give the pairs in which both went well."""
    return [one for one in pairs if len(sound([one.mine, one.theirs])) == 2]


def side_by_side(pairs: Sequence[Pair], workload: str, level: int, server: str, other: str) -> list[Pair]:
    """Give the pairs of two servers on a workload and level."""
    wanted = (workload, level, server, other)
    return [one for one in pairs if (one.mine.workload, one.mine.level, one.mine.server, one.theirs.server) == wanted]


def every_sample(results: Results) -> list[Sample]:
    """Give what every section has put load on."""
    paired = [sample for pair in results.together for sample in (pair.mine, pair.theirs)]
    contained = results.containers.samples if results.containers else ()
    return [*results.samples, *paired, *results.workers, *contained]


def faults(samples: Sequence[Sample]) -> list[str]:
    """Name every cell with answers that were errors, or with socket errors."""
    return [
        f"{one.server} {one.workload} c{one.level} round {one.round + 1}: "
        f"{one.bad_status} bad status, {one.socket_errors} socket errors"
        for one in samples
        if one.bad_status or one.socket_errors
    ]


def start_values(results: Results, value: Callable[[Start], float]) -> tuple[list[float], list[float]]:
    """Give a figure of the starts of ours and of the bare server, paired by round."""
    ours = {one.round: value(one) for one in results.starts if one.server != "bare"}
    bare = {one.round: value(one) for one in results.starts if one.server == "bare"}
    rounds = sorted(ours.keys() & bare.keys())
    return [ours[round_] for round_ in rounds], [bare[round_] for round_ in rounds]
